"""What all plans of a run share: three accounts, one operator behind a recording proxy, and what was found so far."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx

from sandbox.stage import Account, Operator, Stage
from tests.chaos.inputs.cast import Facts, Names
from tests.chaos.inputs.semantic import CANARY
from tests.chaos.inputs.watched import Watched
from tests.chaos.sites import CHANGES
from tests.e2e.apilog import ApiLog, recorded
from tests.e2e.scene import CREDENTIALS, Scene

# Accounts are looked at every other second and everything every five: within a quiet window that a plan can afford.
RESYNC: Final = ("--provider-interval", "2", "--sweep-interval", "5")
_TRACEBACK: Final = re.compile(
    r"^Traceback \(most recent call last\)|unexpected error|was never retrieved", re.MULTILINE
)


@dataclass
class Found:
    """What came of the run so far; plans are played side by side."""

    sent: int = 0
    refused: int = 0
    crashes: list[str] = field(default_factory=list)
    violations: list[tuple[str, str, str]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def count(self, *, refused: bool) -> None:
        with self.lock:
            self.sent += 1
            self.refused += refused

    def violation(self, plan: str, invariant: str, detail: str) -> None:
        with self.lock:
            self.violations.append((plan, invariant, detail))


@dataclass
class Setting:
    """See `setting`."""

    stage: Stage
    accounts: dict[str, Account[Any]]
    watched: Watched
    requests: ApiLog
    log: Path
    found: Found
    _operator: Operator | None = None

    @property
    def http(self) -> httpx.Client:
        return self.stage.api.http

    def start_operator(self) -> None:
        options = ("--log-format", "text", "--debug", *RESYNC)
        self._operator = self.stage.operator(*options, log=self.log, kubeconfig=self.requests.kubeconfig)

    def check_operator(self, what: str) -> None:
        """Note it when the operator is gone, and start the next one."""
        with self.found.lock:
            if self._operator is not None and not self._operator.alive():
                self.found.crashes.append(f"{what}: the operator process ended:\n{self._operator.tail(20)}")
                self._operator.stop()
                self.start_operator()

    def stop_operator(self) -> None:
        if self._operator is not None:
            code = self._operator.stop()
            if code != 0:
                self.found.crashes.append(f"the operator ended with {code}")

    def facts(self, names: Names, namespace: str) -> Facts:
        """A new client at the provider of a plan."""
        account = self.accounts[names.provider]
        made = account.simulator.create({})
        (account_field, account_id), credential = CREDENTIALS[names.provider]
        return Facts(
            namespace=namespace,
            url=account.url,
            account_field=account_field,
            account_id=getattr(account.simulator, account_id),
            credential=getattr(account.simulator, credential),
            client_id=made["client_id"],
            value=made["client_secret"],
        )

    def changes(self, names: Names, facts: Facts) -> int:
        """How many calls that would change something came to the provider about a plan's client."""
        simulator = self.accounts[names.provider].simulator
        return sum(simulator.counted(facts.client_id, operation, "received") for operation in CHANGES)

    def read_log(self) -> None:
        """Tracebacks are crashes of one pass; and no secret value may be in the log (I8)."""
        text = self.log.read_text(errors="replace")
        for match in _TRACEBACK.finditer(text):
            start = text.rfind("\n", 0, match.start()) + 1
            before = text.rfind("\n", 0, max(start - 1, 0)) + 1
            self.found.crashes.append(text[before : match.start() + 3000])
        if CANARY in text:
            at = text.index(CANARY)
            self.found.violation("log", "I8", f"a secret value is in the log: {text[max(0, at - 300) : at + 20]}")


@contextmanager
def setting(stage: Stage, log: Path) -> Iterator[Setting]:
    """No other operator may run meanwhile. The log is read when everything has been played."""
    with ExitStack() as stack:
        anchor = stack.enter_context(Scene.in_new_namespace(stage, "inputs"))
        accounts = {"stytch": anchor.account, "janrain": stage.janrain(f"{anchor.namespace}-j")}
        accounts["snaptrade"] = stage.snaptrade(f"{anchor.namespace}-s")
        watched = stack.enter_context(Watched(stage.control_plane.endpoint))
        requests = stack.enter_context(recorded(anchor))
        found = Setting(stage, accounts, watched, requests, log, Found())
        found.start_operator()
        try:
            yield found
        finally:
            found.stop_operator()
            found.read_log()
