"""What the contract suite needs to know of each provider: how to set it up, and what its own errors look like."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from pydantic import SecretStr

from keyturn.api.provider import ProviderSpec
from keyturn.api.semantics import Effect, Failure, Inspection, Issued, Outcome, Verdict, Verification
from keyturn.providers import registry
from keyturn.providers.base import Provider
from sandbox.simulators.base import Simulator, running
from sandbox.simulators.stytch import StytchSimulator

CLIENT_ID = "m2m client/ä+1"
PENDING_LIFETIME = timedelta(hours=1)


@dataclass(frozen=True)
class Refusal:
    """An error that the provider documents: how the simulator shows it, and what it means."""

    name: str
    fault: Mapping[str, Any]
    failure: Failure


@dataclass(frozen=True)
class Subject:
    """One provider under test.

    calls: the simulator's name of each operation of the protocol.
    refusals: the errors of the management calls; none of them takes effect.
    slow_start: the switch that makes new values valid a minute late.
    """

    kind: str
    simulator: Callable[[], Simulator]
    block: Callable[[Simulator], dict[str, Any]]
    credentials: Callable[[Simulator], dict[str, str]]
    calls: Mapping[str, str]
    refusals: tuple[Refusal, ...]
    slow_start: Mapping[str, Any]


def stytch_block(simulator: Simulator) -> dict[str, Any]:
    """The `stytch` block of a provider object."""
    assert isinstance(simulator, StytchSimulator)
    return {"projectId": simulator.project_id, "secretRef": {"name": "st", "key": "SECRET"}}


def stytch_credentials(simulator: Simulator) -> dict[str, str]:
    """The credentials that `registry.credential_refs` asks for."""
    assert isinstance(simulator, StytchSimulator)
    return {"secret": simulator.project_secret}


STYTCH = Subject(
    kind="stytch",
    simulator=StytchSimulator,
    block=stytch_block,
    credentials=stytch_credentials,
    calls={
        "start": "start",
        "finalize": "rotate",
        "cancel": "cancel",
        "inspect": "get",
        "check": "get",
        "verify": "token",
    },
    refusals=(
        Refusal("bad request", {"status": 400}, Failure.REJECTED),
        Refusal("wrong project credentials", {"status": 401}, Failure.UNAUTHORIZED),
        Refusal("forbidden", {"status": 403}, Failure.UNAUTHORIZED),
        Refusal("no such client", {"status": 404}, Failure.CLIENT_NOT_FOUND),
        Refusal("conflict", {"status": 409}, Failure.REJECTED),
        Refusal("too many requests", {"status": 429}, Failure.RATE_LIMITED),
    ),
    slow_start={"propagation_delay": 60},
)

SUBJECTS = (STYTCH,)


@dataclass
class World:
    """A simulator that is being served, with one client, and the provider that talks to it."""

    subject: Subject
    simulator: Simulator
    url: str
    provider: Provider
    secret: SecretStr
    pending: SecretStr | None = None

    async def start(self) -> Issued:
        """Start a rotation and remember the new value."""
        issued = await self.provider.start(CLIENT_ID, current=self.secret, overlap=PENDING_LIFETIME)
        self.pending = issued.secret or self.pending
        return issued

    async def inspect(self) -> Inspection:
        """Inspect with the values that are known."""
        return await self.provider.inspect(CLIENT_ID, previous=self.secret, pending=self.pending)

    async def verify(self, secret: SecretStr | None) -> Verification:
        """Verify a value, which must be known."""
        assert secret
        return await self.provider.verify(CLIENT_ID, secret)

    async def perform(self, operation: str) -> Outcome:
        """Do one operation of the protocol and give its outcome."""
        match operation:
            case "start":
                return (await self.start()).outcome
            case "inspect":
                return (await self.inspect()).outcome
            case "verify":
                verification = await self.verify(self.secret)
                assert (verification.verdict is Verdict.ACCEPTED) == verification.outcome.ok
                return verification.outcome
            case "finalize":
                return await self.provider.finalize(CLIENT_ID)
            case "cancel":
                return await self.provider.cancel(CLIENT_ID)
            case _:
                return await self.provider.check()

    async def prepare(self, operation: str) -> None:
        """Bring the provider to where the operation makes sense."""
        if operation in ("finalize", "cancel"):
            assert (await self.start()).outcome.effect is Effect.APPLIED

    def fault(self, operation: str, **settings: Any) -> None:
        """Let the next call of an operation of the protocol go wrong."""
        self.simulator.add_fault(self.subject.calls[operation], **settings)

    def made(self, operation: str) -> int:
        """How many calls of an operation reached the simulator."""
        return len(self.simulator.calls[self.subject.calls[operation]])

    def applied(self, operation: str) -> int:
        """How many calls of a changing operation took effect."""
        return self.simulator.counted(CLIENT_ID, self.subject.calls[operation], "applied")

    def canaries(self) -> set[str]:
        """Every value that must not be seen anywhere."""
        values = set(self.subject.credentials(self.simulator).values())
        values |= {secret.get_secret_value() for secret in (self.secret, self.pending) if secret}
        return values


def spec_of(subject: Subject, simulator: Simulator, url: str, **settings: Any) -> ProviderSpec:
    """The spec of a provider object for a simulator; `settings` are further fields as in YAML."""
    # Patient, because the machine may be busy; what is about time sets its own limits.
    usual = {"timeouts": {"connect": "10s", "read": "20s"}, "rateLimit": {"requestsPerSecond": 1000, "burst": 1000}}
    block = {**subject.block(simulator), "baseUrl": url}
    return ProviderSpec.model_validate({subject.kind: block, **usual, **settings})


def provider_of(subject: Subject, simulator: Simulator, url: str, **settings: Any) -> Provider:
    """A provider for a simulator; the caller closes it."""
    credentials = {name: SecretStr(value) for name, value in subject.credentials(simulator).items()}
    return registry.build(spec_of(subject, simulator, url, **settings), credentials)


@asynccontextmanager
async def world_of(subject: Subject) -> AsyncIterator[World]:
    """A running world for one test."""
    simulator = subject.simulator()
    created = simulator.create({"client_id": CLIENT_ID})
    async with running(simulator) as url:
        provider = provider_of(subject, simulator, url)
        try:
            yield World(subject, simulator, url, provider, SecretStr(created["client_secret"]))
        finally:
            await provider.aclose()
