"""What is played: acts of scenes. A scene is a provider account with one client, and what a user would apply for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
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
from sandbox.traffic.report import fingerprint

_HERE: Final = Path(__file__).parent


@dataclass(frozen=True)
class Client:
    """A client at a simulated provider account, and how it is called.

    values: what the scene's manifests leave open. secret: the name of the Secret that the pods read. secrets: all that
    exist before the rotation, as plain text.
    """

    client_id: str
    first_value: str
    secret: str
    values: dict[str, str]
    secrets: dict[str, dict[str, str]]
    simulator: Simulator
    probe: Callable[[], AbstractAsyncContextManager[TrafficProbe]]

    def switched(self) -> float | None:
        """When the provider issued the new value, in epoch seconds."""
        started = self.simulator.counters.get(self.client_id, {}).get("start", {}).get("applied")
        return started.times[0] if started else None


@dataclass(frozen=True)
class Scene:
    """One rotation. `open` makes a provider account; it has the name of the scene's namespace.

    promise: what this provider does with the old value. manifests: files beside this one. overlap: the time for which
    the old value lives on by itself, if it does. end: how the rotation is to end, Completed or Cancelled. story: what
    happens in a phase, in a sentence, where that needs telling.
    """

    namespace: str
    provider: str
    capabilities: Capabilities
    promise: str
    open: Callable[[Stage, str], Client]
    manifests: tuple[str, ...]
    overlap: timedelta | None = None
    end: Phase = Phase.COMPLETED
    story: Mapping[Phase, str] = field(default_factory=dict)

    @property
    def semantics(self) -> str:
        return self.capabilities.semantics

    @property
    def phases(self) -> tuple[Phase, ...]:
        """The phases of a rotation that goes as it is meant to go here, in their order."""
        proven_first, finalize = self.capabilities.verify_before_distributing, self.capabilities.finalize
        begin = (Phase.STARTING, *([Phase.VERIFYING] if proven_first else []), Phase.DISTRIBUTING, Phase.ROLLING_OUT)
        if self.end is Phase.CANCELLED:
            return (*begin, Phase.CANCELLING, Phase.CANCELLED)
        return (
            *begin,
            Phase.SOAKING if proven_first else Phase.VERIFYING,
            *([Phase.FINALIZING] if finalize else []),
            Phase.COMPLETED,
        )

    def documents(self, client: Client) -> tuple[dict[str, Any], str, list[dict[str, Any]]]:
        """The rotation; its YAML as a user writes it; and everything else in the manifests."""
        whole = "---\n".join((_HERE / name).read_text() for name in self.manifests)
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
    surge: str = "25%",
) -> Client:
    """A new client of an account. owner: which account, and of which application. credential: the Secret for it.

    surge: how many pods more than usual may run while they are replaced.
    """
    value = account.simulator.create({"client_id": client_id})["client_secret"]
    return Client(
        client_id,
        value,
        secret,
        {
            "owner": owner[0],
            "app": owner[1],
            "url": account.url,
            "secret": secret,
            "surge": surge,
            "good": fingerprint(value),
        },
        {**credential, secret: {"CLIENT_SECRET": value}},
        account.simulator,
        probe,
    )


def _stytch(stage: Stage, name: str, client: str) -> Client:
    project = stage.stytch(name)
    simulator, client_id = project.simulator, f"m2m-client-test-{client}"
    return _client(
        project,
        client_id,
        (simulator.project_id, ""),
        f"{client}-m2m",
        {"stytch-project": {"PROJECT_SECRET": simulator.project_secret}},
        lambda: StytchProbe(project.url, simulator.project_id),
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
        surge="100%",
    )


@dataclass(frozen=True)
class Act:
    """Scenes that are played at the same time, and what to say before."""

    title: str
    scenes: tuple[Scene, ...]


_STYTCH_PROMISE: Final = "the old secret dies only when Keyturn says so"
_ROTATED: Final = Act(
    "First act: three providers that promise different things, at the same time",
    (
        Scene(
            "stytch",
            "stytch",
            STYTCH,
            _STYTCH_PROMISE,
            lambda stage, name: _stytch(stage, name, "billing"),
            ("stytch.yaml", "web.yaml"),
        ),
        Scene(
            "janrain",
            "janrain",
            JANRAIN,
            "the old secret dies 24 hours later, whatever happens",
            _janrain,
            ("janrain.yaml", "web.yaml"),
            overlap=timedelta(hours=24),
        ),
        Scene(
            "snaptrade",
            "snaptrade",
            SNAPTRADE,
            "the old secret dies at once: downtime accepted",
            _snaptrade,
            ("snaptrade.yaml", "web.yaml"),
        ),
    ),
)
_SECOND: Final = "Stytch issues a second secret, and accepts both from now on. The pods go on with the old one."
_PUT_BACK: Final = Act(
    "Second act: a rollout that fails, and is put back",
    (
        Scene(
            "stytch-broken",
            "stytch",
            STYTCH,
            _STYTCH_PROMISE,
            lambda stage, name: _stytch(stage, name, "orders"),
            ("broken.yaml",),
            end=Phase.CANCELLED,
            story={
                Phase.IDLE: "api and worker use one secret. What nobody knows yet: worker cannot start with another.",
                Phase.STARTING: _SECOND,
                Phase.VERIFYING: _SECOND,
                Phase.DISTRIBUTING: _SECOND,
                Phase.ROLLING_OUT: "api takes the new secret, worker cannot start with it. Its old pods go on "
                "meanwhile, as Stytch accepts both secrets.",
                Phase.CANCELLING: "Keyturn gives up: the Secret holds the old value again, and both restart on it. "
                "Stytch accepts both until the last pod is back.",
                Phase.CANCELLED: "All pods run on the old secret again. Only then did Keyturn let Stytch drop the new "
                "one, so there was no moment at which a pod held a dead secret.",
            },
        ),
    ),
)
ACTS: Final = (_ROTATED, _PUT_BACK)
