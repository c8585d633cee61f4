"""One plan: a rotation that is struck once, and what it has come to."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from sandbox.controlplane.endpoint import Endpoint
from sandbox.stage import NAMESPACE, SERVICE_ACCOUNT, Operator, Stage
from tests.chaos.checks import Expected, Violation, ended, expected, judged
from tests.chaos.scenarios import Scenario, mend, provider_block, rotate, staged
from tests.chaos.sites import Site
from tests.chaos.strike import KILLS, Guards, When
from tests.e2e.proxy import proxy
from tests.e2e.scene import Scene

PATIENCE: Final = 90.0
QUIET: Final = 1.0
"""Seconds without a write after the end."""
_BLOW_LAG: Final = 0.5
"""Seconds after the end, at most, until the blow at a last write is known of."""
_POLL: Final = 0.25
_QUICK_LEASE: Final = ["--lease-duration", "6", "--renew-deadline", "4", "--retry-period", "0.5"]
_STRUCK_DOWN: Final = KILLS | {When.FROZEN}


@dataclass(frozen=True, order=True)
class Plan:
    """Where a rotation is struck, and how; a plan without a blow is a reference run."""

    scenario: Scenario
    site: Site | None = None
    when: When | None = None

    def __str__(self) -> str:
        return f"{self.scenario}, {self.site} {self.when}" if self.site else f"{self.scenario}, undisturbed"

    @property
    def options(self) -> tuple[str, ...]:
        """Further ones of the operator."""
        return ()

    @property
    def lasting(self) -> float:
        """Seconds for which the rotation may be held up."""
        return 0.0

    @property
    def expected(self) -> Expected:
        """What it leads to, other than an undisturbed run."""
        return expected(self.scenario.provider, self.site, self.when)

    def guards(self, scene: Scene) -> Guards:
        """What stands in the operator's way."""
        return Guards(scene)

    def code(self, scene: Scene, code: Path | None) -> Path | None:
        """The folder with the `keyturn` package to run, when that of this checkout or `code` is not the one."""
        return code


@dataclass
class Played:
    """What became of a plan. reached: whether the blow was struck. sites: what the operators asked for, in order.

    facts: what the end looks like, without names, times and values; for comparison.
    """

    plan: Plan
    reached: bool
    sites: list[Site]
    facts: dict[str, Any] = field(default_factory=dict)
    violations: list[Violation] = field(default_factory=list)
    log: str = ""


def play(
    stage: Stage,
    plan: Plan,
    reference: dict[str, Any] | None,
    *,
    code: Path | None = None,
    patience: float = PATIENCE,
) -> Played:
    """Play a plan in a namespace of its own.

    reference: the facts of the undisturbed run. code: a folder with another `keyturn` package to run. patience: seconds
    until the rotation must have ended.
    """
    with staged(stage, plan.scenario) as scene, guarded(scene, plan.guards(scene)) as (guards, kubeconfig):
        actors = _Actors(scene, kubeconfig, plan.code(scene, code), quick=plan.when is When.FROZEN)
        played = Played(plan, False, guards.counted.seen)
        try:
            _begin(scene, plan, guards, actors)
            _follow(scene, plan, guards, actors, patience + plan.lasting)
            played.violations += _no_more_writes(guards)
            found, played.facts = judged(scene, plan, reference)
            played.violations += found
        except AssertionError as error:
            played.violations.append(Violation("I9", str(error)[:3000]))
        played.violations += [Violation("I1", what) for what in guards.unannounced]
        played.violations += [Violation("I9", what) for what in guards.complaints]
        played.reached = guards.struck.is_set()
        played.log = scene.log.read_text()
        actors.end()
        return played


def _begin(scene: Scene, plan: Plan, guards: Guards, actors: _Actors) -> None:
    """Start an operator, and ask for the rotation when it is at work."""
    actors.start(*plan.options)
    ready = f"/apis/keyturn.dev/v1alpha1/namespaces/{scene.namespace}/rotationproviders/{scene.provider}"
    scene.wait(lambda: (scene.get(ready) or {}).get("status"), "the provider object is looked at")
    guards.begin(actors.suffer, plan.site, plan.when)
    rotate(scene, plan.scenario)
    guards.remember()


class _Actors:
    """The operators of a plan, one after the other; or two, when one is frozen."""

    def __init__(self, scene: Scene, kubeconfig: Path, code: Path | None, *, quick: bool) -> None:
        """quick: whether a Lease is taken over within a second."""
        self._scene, self._kubeconfig, self._code, self._quick = scene, kubeconfig, code, quick
        self._operator: Operator | None = None
        self._frozen: Operator | None = None

    def start(self, *more: str) -> None:
        options = ["--log-format", "text", "--debug", "--lease-namespace", self._scene.namespace]
        options += _QUICK_LEASE if self._quick else []
        nursery, code = self._scene.stage.nursery, self._code
        operator = Operator(self._kubeconfig, self._scene.log, *options, *more, code=code, nursery=nursery)
        self._operator = operator.start()

    def suffer(self, when: When) -> None:
        """kill -9 or SIGSTOP as the blow has it; from any thread, without waiting."""
        if self._operator is not None and when is not When.LOST:
            os.kill(self._operator.pid, signal.SIGSTOP if when is When.FROZEN else signal.SIGKILL)

    def replace(self) -> None:
        """Another operator for the one that was killed or stands still."""
        if self._quick:
            self._frozen = self._operator
            self.start("--identity", "other")
        else:
            self.end()
            self.start()

    def thaw(self) -> None:
        """Let the one that stands still go on, for as long as it takes to do what it was about to do."""
        if self._frozen is not None:
            os.kill(self._frozen.pid, signal.SIGCONT)

    def dead(self) -> bool:
        return self._operator is None or not self._operator.alive()

    def end(self) -> None:
        for operator in (self._operator, self._frozen):
            if operator is not None:
                operator.kill()


def _follow(scene: Scene, plan: Plan, guards: Guards, actors: _Actors, patience: float) -> None:
    """Start the operator again when it was struck down, do a person's part, and wait for the end."""
    deadline, mended, replaced = time.monotonic() + patience, False, False
    ended_at = float("inf")
    while True:
        if guards.struck.is_set() and plan.when in _STRUCK_DOWN and not replaced:
            actors.replace()
            replaced = True
        status = scene.status()
        if plan.scenario.mended and not mended and _has_failed(status):
            mend(scene)
            mended = True
        if ended(scene, plan, status):
            ended_at = min(ended_at, time.monotonic())
            if _is_over(plan, guards, replaced=replaced, seconds=time.monotonic() - ended_at):
                actors.thaw()
                return
        if status.get("phase") == "Blocked":
            # Where only the one that stands still has the provider's answer, it all depends on its being brought.
            actors.thaw()
        if actors.dead() and (replaced or plan.when not in _STRUCK_DOWN):
            raise AssertionError(f"the operator has ended by itself:\n{scene.log.read_text()[-2000:]}")
        if time.monotonic() > deadline:
            raise AssertionError(f"not ended within {patience:g} s: {status}")
        time.sleep(_POLL)


def _is_over(plan: Plan, guards: Guards, *, replaced: bool, seconds: float) -> bool:
    """Whether nothing more is to be waited for, so many seconds after the rotation has ended.

    The blow may come at the last write, and be seen after it. What has ended already when it is struck must still be so
    when the next operator has looked at it.
    """
    if replaced:
        return guards.looked_after.is_set()
    if guards.struck.is_set():
        return plan.when not in _STRUCK_DOWN
    return plan.site is None or seconds > _BLOW_LAG


def _has_failed(status: dict[str, Any]) -> bool:
    return any(
        condition["type"] == "Stalled" and condition["reason"] == "RolloutFailed"
        for condition in status.get("conditions", [])
    )


def _no_more_writes(guards: Guards) -> list[Violation]:
    """Writes that come in a while after the end (I12)."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        before = len(guards.counted.seen)
        time.sleep(QUIET)
        if len(guards.counted.seen) == before:
            return []
    return [Violation("I12", f"it goes on asking: {[str(site) for site in guards.counted.seen[-6:]]}")]


@contextmanager
def guarded(scene: Scene, guards: Guards) -> Iterator[tuple[Guards, Path]]:
    """Proxies before the API server and the provider; the kubeconfig leads through the one, the provider object through

    the other.
    """
    stage, plane = scene.stage, scene.stage.control_plane
    upstream = plane.service_account_endpoint(NAMESPACE, SERVICE_ACCOUNT)
    kubeconfig = plane.directory / f"kubeconfig-chaos-{scene.namespace}"
    stack = AsyncExitStack()

    async def serve() -> tuple[str, str]:
        api = await stack.enter_async_context(proxy(upstream.server, guards.api, upstream.ssl_context()))
        return api, await stack.enter_async_context(proxy(scene.account.url, guards.provider))

    api, provider = stage.do(serve())
    try:
        Endpoint(api, upstream.ca_file, upstream.token).write_kubeconfig(kubeconfig, "chaos")
        guards.kubeconfig = kubeconfig
        scene.put_provider(**provider_block(scene, provider))
        yield guards, kubeconfig
    finally:
        stage.do(stack.aclose())
