"""What is played: for each provider an account with one client, and the objects that a user would apply for it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from string import Template
from typing import Any, Final

import yaml

from keyturn.api.rotation import Phase
from keyturn.api.semantics import Capabilities
from keyturn.providers.janrain import CAPABILITIES as JANRAIN
from keyturn.providers.snaptrade import CAPABILITIES as SNAPTRADE
from keyturn.providers.stytch import CAPABILITIES as STYTCH
from sandbox.simulators.base import Simulator
from sandbox.stage import Account, Stage
from sandbox.traffic.probe import JanrainProbe, SnapTradeProbe, StytchProbe, TrafficProbe

_HERE: Final = Path(__file__).parent


@dataclass(frozen=True)
class Client:
    """A client at a simulated provider account, and how it is called.

    values: what the act's manifests leave open. secrets: the Secrets that exist before the rotation, as plain text.
    newest_value: what the provider has issued last.
    """

    client_id: str
    first_value: str
    values: dict[str, str]
    secrets: dict[str, dict[str, str]]
    simulator: Simulator
    probe: Callable[[], AbstractAsyncContextManager[TrafficProbe]]
    newest_value: Callable[[], str]

    def switched(self) -> float | None:
        """When the provider issued the new value, in epoch seconds."""
        started = self.simulator.counters.get(self.client_id, {}).get("start", {}).get("applied")
        return started.times[0] if started else None


@dataclass(frozen=True)
class Act:
    """One rotation. `open` makes a provider account; it has the name of the act's namespace, which is the provider's.

    promise: what this provider does with the old value. overlap: the time for which it lives on by itself, if it does.
    """

    provider: str
    capabilities: Capabilities
    promise: str
    open: Callable[[Stage, str], Client]
    overlap: timedelta | None = None

    @property
    def namespace(self) -> str:
        return self.provider

    @property
    def semantics(self) -> str:
        return self.capabilities.semantics

    @property
    def phases(self) -> tuple[Phase, ...]:
        """The phases of a rotation that goes well, in their order."""
        proven_first, finalize = self.capabilities.verify_before_distributing, self.capabilities.finalize
        return (
            Phase.STARTING,
            *([Phase.VERIFYING] if proven_first else []),
            Phase.DISTRIBUTING,
            Phase.ROLLING_OUT,
            Phase.SOAKING if proven_first else Phase.VERIFYING,
            *([Phase.FINALIZING] if finalize else []),
            Phase.COMPLETED,
        )

    def documents(self, client: Client) -> tuple[dict[str, Any], str, list[dict[str, Any]]]:
        """The rotation; its YAML as a user writes it; and everything else in the manifests."""
        whole = "---\n".join((_HERE / name).read_text() for name in (f"{self.provider}.yaml", "web.yaml"))
        texts = (
            Template(whole).substitute(client.values, client=client.client_id, account=self.namespace).split("---\n")
        )
        parsed = [(yaml.safe_load(text), text.strip()) for text in texts]
        for document, _ in parsed:
            document["metadata"]["namespace"] = self.namespace
        ((rotation, text),) = [one for one in parsed if one[0]["kind"] == "ClientSecretRotation"]
        return rotation, text, [document for document, _ in parsed if document is not rotation]


def _client(
    account: Account[Any],
    client_id: str,
    owner: tuple[str, str],
    secret: str,
    credential: dict[str, dict[str, str]],
    probe: Callable[[], AbstractAsyncContextManager[TrafficProbe]],
    newest_value: Callable[[], str],
    surge: str = "25%",
) -> Client:
    """A new client of an account. owner: which account, and of which application. credential: the Secret for it.

    surge: how many pods more than usual may run while they are replaced.
    """
    value = account.simulator.create({"client_id": client_id})["client_secret"]
    return Client(
        client_id,
        value,
        {"owner": owner[0], "app": owner[1], "url": account.url, "secret": secret, "surge": surge},
        {**credential, secret: {"CLIENT_SECRET": value}},
        account.simulator,
        probe,
        newest_value,
    )


def _stytch(stage: Stage, name: str) -> Client:
    project = stage.stytch(name)
    simulator, client_id = project.simulator, "m2m-client-test-billing"
    return _client(
        project,
        client_id,
        (simulator.project_id, ""),
        "billing-m2m",
        {"stytch-project": {"PROJECT_SECRET": simulator.project_secret}},
        lambda: StytchProbe(project.url, simulator.project_id),
        lambda: simulator.clients[client_id].current.value,
    )


def _janrain(stage: Stage, name: str) -> Client:
    application = stage.janrain(name)
    simulator, client_id = application.simulator, "login-page"
    return _client(
        application,
        client_id,
        (simulator.owner_id, simulator.app_id),
        "login-client",
        {"janrain-owner": {"OWNER_SECRET": simulator.owner_secret}},
        lambda: JanrainProbe(application.url),
        lambda: simulator.clients[client_id].current.value,
    )


def _snaptrade(stage: Stage, name: str) -> Client:
    key = stage.snaptrade(name)
    simulator, user_id = key.simulator, "user-4711"
    return _client(
        key,
        user_id,
        (simulator.client_id, ""),
        "trading-user",
        {"snaptrade-key": {"CONSUMER_KEY": simulator.consumer_key}},
        lambda: SnapTradeProbe(key.url, simulator.client_id, simulator.consumer_key),
        lambda: simulator.users[user_id].secret,
        surge="100%",
    )


ACTS: Final = (
    Act("stytch", STYTCH, "the old secret dies only when Keyturn says so", _stytch),
    Act("janrain", JANRAIN, "the old secret dies 24 hours later, whatever happens", _janrain, timedelta(hours=24)),
    Act("snaptrade", SNAPTRADE, "the old secret dies at once: downtime accepted", _snaptrade),
)
