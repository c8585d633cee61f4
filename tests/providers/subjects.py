"""What the contract suite needs to know of each provider: how to set it up, and what its own errors look like."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import pytest
from pydantic import SecretStr

from keyturn.api.provider import ProviderSpec
from keyturn.api.semantics import Effect, Failure, Inspection, Issued, Outcome, Standing, Verdict, Verification
from keyturn.providers import registry
from keyturn.providers.addresses import AddressRule
from keyturn.providers.base import Provider
from sandbox.simulators.base import Simulator, running
from sandbox.simulators.janrain import JanrainSimulator
from sandbox.simulators.snaptrade import SnapTradeSimulator
from sandbox.simulators.stytch import StytchSimulator

CLIENT_ID = "m2m client/ä+1"
OVERLAP = timedelta(hours=1)

OPERATIONS = ("start", "finalize", "cancel", "inspect", "verify", "check")
CHANGING = ("start", "finalize", "cancel")
READING = ("inspect", "verify", "check")


@dataclass(frozen=True)
class Refusal:
    """An error that the provider documents: how the simulator shows it, and what it means to these operations."""

    name: str
    fault: Mapping[str, Any]
    failure: Failure | None
    operations: tuple[str, ...] = ("start", "finalize", "cancel", "inspect", "check")


@dataclass(frozen=True)
class Subject:
    """One provider under test.

    calls: the simulator's name of each operation of the protocol that the provider has.
    refusals: errors of its calls; none of them takes effect. The failure None: the operation takes it for an answer.
    slow_start: the switch that makes new values valid a minute late.
    untouched: the standing before anything has happened; lost: after a start whose answer did not come.
    proper: by operation, which of the contract's lost answers are an answer to it.
    patient: operations that wait for a minute, whatever the spec says.
    """

    name: str
    kind: str
    simulator: Callable[[], Simulator]
    block: Callable[[Simulator, str | None], dict[str, Any]]
    credentials: Callable[[Simulator], dict[str, str]]
    calls: Mapping[str, str]
    refusals: tuple[Refusal, ...]
    slow_start: Mapping[str, Any]
    untouched: Standing
    lost: Standing
    proper: Mapping[str, tuple[str, ...]]
    patient: tuple[str, ...] = ()


REFERENCE = {"name": "st", "key": "SECRET"}


def stytch_block(simulator: Simulator, url: str | None) -> dict[str, Any]:
    """The `stytch` block of a provider object."""
    assert isinstance(simulator, StytchSimulator)
    return {"projectId": simulator.project_id, "secretRef": REFERENCE, "baseUrl": url}


def stytch_credentials(simulator: Simulator) -> dict[str, str]:
    """The credentials that `registry.credential_refs` asks for."""
    assert isinstance(simulator, StytchSimulator)
    return {"secret": simulator.project_secret}


def janrain_block(simulator: Simulator, url: str | None) -> dict[str, Any]:
    """The `janrain` block: basic-auth, and the configuration API to read back from."""
    assert isinstance(simulator, JanrainSimulator)
    read_back = {"baseUrl": url, "appId": simulator.app_id}
    return {"clientId": simulator.owner_id, "secretRef": REFERENCE, "baseUrl": url, "readBack": read_back}


def signed_block(simulator: Simulator, url: str | None) -> dict[str, Any]:
    """The `janrain` block: signed, with nowhere to read back from."""
    assert isinstance(simulator, JanrainSimulator)
    return {"clientId": simulator.owner_id, "secretRef": REFERENCE, "baseUrl": url, "auth": "Signed"}


def janrain_credentials(simulator: Simulator) -> dict[str, str]:
    """The owner's secret."""
    assert isinstance(simulator, JanrainSimulator)
    return {"secret": simulator.owner_secret}


def janrain_error(code: int) -> dict[str, Any]:
    """A fault: an error inside HTTP 200."""
    body = {"stat": "error", "code": code, "error": "some_error", "error_description": "words", "request_id": "r-1"}
    return {"status": 200, "body": body}


def snaptrade_block(simulator: Simulator, url: str | None) -> dict[str, Any]:
    """The `snaptrade` block of a provider object."""
    assert isinstance(simulator, SnapTradeSimulator)
    return {"clientId": simulator.client_id, "secretRef": REFERENCE, "baseUrl": url}


def snaptrade_credentials(simulator: Simulator) -> dict[str, str]:
    """The consumer key."""
    assert isinstance(simulator, SnapTradeSimulator)
    return {"consumer_key": simulator.consumer_key}


EMPTY, LIST, WRONG = "200 and nothing in it", "200 and a list", "200 of the wrong types"
MANAGING = ("start", "finalize", "cancel", "inspect")

STYTCH = Subject(
    name="stytch",
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
        Refusal("no such client", {"status": 404}, Failure.CLIENT_NOT_FOUND, MANAGING),
        Refusal("nobody has this id", {"status": 404}, None, ("check",)),
        Refusal("conflict", {"status": 409}, Failure.REJECTED),
        Refusal("too many requests", {"status": 429}, Failure.RATE_LIMITED),
    ),
    slow_start={"propagation_delay": 60},
    untouched=Standing.UNROTATED,
    lost=Standing.PENDING_UNKNOWN,
    proper={"check": (EMPTY, LIST, WRONG)},
)

OWNER = ("start", "check")

JANRAIN = Subject(
    name="janrain",
    kind="janrain",
    simulator=JanrainSimulator,
    block=janrain_block,
    credentials=janrain_credentials,
    calls={"start": "start", "inspect": "read", "check": "count", "verify": "count"},
    refusals=(
        Refusal("missing argument", janrain_error(100), Failure.REJECTED, OWNER),
        Refusal("invalid argument", janrain_error(200), Failure.REJECTED, OWNER),
        Refusal("no such client", janrain_error(310), Failure.CLIENT_NOT_FOUND, ("start",)),
        Refusal("wrong owner credentials", janrain_error(402), Failure.UNAUTHORIZED),
        Refusal("not an owner", janrain_error(403), Failure.UNAUTHORIZED, ("start", "inspect")),
        Refusal("authenticated, not allowed", janrain_error(403), None, ("check",)),
        Refusal("maintenance", janrain_error(480), Failure.UNREACHABLE),
        Refusal("too many calls at a time", janrain_error(510), Failure.RATE_LIMITED),
        Refusal("a code that is not known", janrain_error(299), Failure.REJECTED),
        Refusal("bad request", {"status": 400}, Failure.REJECTED),
        Refusal("unauthorized", {"status": 401}, Failure.UNAUTHORIZED),
        Refusal("forbidden", {"status": 403}, Failure.UNAUTHORIZED),
        Refusal("nothing at this address", {"status": 404}, Failure.REJECTED, OWNER),
        Refusal("no such client in the configuration", {"status": 404}, Failure.CLIENT_NOT_FOUND, ("inspect",)),
        Refusal("too many requests", {"status": 429}, Failure.RATE_LIMITED),
    ),
    slow_start={"propagation_delay": 60},
    untouched=Standing.UNROTATED,
    lost=Standing.PENDING_UNKNOWN,
    proper={"check": (WRONG,), "verify": (WRONG,)},
)

SIGNED = replace(
    JANRAIN,
    name="janrain-signed",
    block=signed_block,
    calls={**JANRAIN.calls, "inspect": "count"},
    refusals=tuple(
        replace(refusal, operations=tuple(one for one in refusal.operations if one != "inspect"))
        for refusal in JANRAIN.refusals
    ),
    untouched=Standing.UNTOLD,
    lost=Standing.UNTOLD,
    proper={"check": (WRONG,), "verify": (WRONG,), "inspect": (WRONG,)},
)

SNAPTRADE = Subject(
    name="snaptrade",
    kind="snaptrade",
    simulator=SnapTradeSimulator,
    block=snaptrade_block,
    credentials=snaptrade_credentials,
    calls={"start": "start", "inspect": "authorizations", "check": "list", "verify": "authorizations"},
    refusals=(
        Refusal("bad request", {"status": 400}, Failure.REJECTED),
        Refusal("bad signature", {"status": 401}, Failure.UNAUTHORIZED),
        Refusal(
            "bad signature, as the page has it",
            {"status": 401, "body": {"default_detail": "Unable to verify signature sent", "default_code": 1076}},
            Failure.UNAUTHORIZED,
        ),
        Refusal("bad user", {"status": 401, "body": {"detail": "x", "code": "1083"}}, Failure.REJECTED, ("start",)),
        Refusal("forbidden", {"status": 403}, Failure.UNAUTHORIZED),
        Refusal("no such user", {"status": 404}, Failure.CLIENT_NOT_FOUND, ("start", "inspect")),
        Refusal("nothing at this address", {"status": 404}, Failure.REJECTED, ("check",)),
        Refusal("too many requests", {"status": 429}, Failure.RATE_LIMITED),
    ),
    slow_start={"propagation_delay": 60},
    untouched=Standing.UNROTATED,
    lost=Standing.LOST,
    proper={
        "check": (EMPTY, LIST, WRONG, "truncated", "malformed", "huge"),
        "verify": (LIST,),
        "inspect": (LIST,),
    },
    patient=("start",),
)

SUBJECTS = (STYTCH, JANRAIN, SIGNED, SNAPTRADE)


def cases(operations: tuple[str, ...] = OPERATIONS) -> list[Any]:
    """Each provider with each of these operations that it has: values of `subject`, `operation`."""
    return [
        pytest.param(subject, operation, id=f"{subject.name}-{operation}")
        for subject in SUBJECTS
        for operation in operations
        if operation in subject.calls
    ]


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
        issued = await self.provider.start(CLIENT_ID, current=self.secret, overlap=OVERLAP)
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
        """Do one operation of the protocol and give its outcome; see that it makes no more requests than it may."""
        before = self.requests()
        outcome = await self._perform(operation)
        made, allowed = self.requests() - before, registry.PROVIDERS[self.subject.kind].requests
        assert made <= getattr(allowed, operation), f"{operation} made {made} requests"
        return outcome

    def requests(self) -> int:
        """How many requests have reached the simulator, of those that it remembers."""
        return sum(map(len, self.simulator.calls.values()))

    async def _perform(self, operation: str) -> Outcome:
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


def spec_of(subject: Subject, simulator: Simulator, url: str | None, **settings: Any) -> ProviderSpec:
    """The spec of a provider object for a simulator; `settings` are further fields as in YAML.

    url: None for the vendor's own address.
    """
    # Patient, because the machine may be busy; what is about time sets its own limits.
    usual = {"timeouts": {"connect": "10s", "read": "20s"}, "rateLimit": {"requestsPerSecond": 1000, "burst": 1000}}
    return ProviderSpec.model_validate({subject.kind: subject.block(simulator, url), **usual, **settings})


def provider_of(
    subject: Subject, simulator: Simulator, url: str | None, addresses: AddressRule | None = None, **settings: Any
) -> Provider:
    """A provider for a simulator; the caller closes it."""
    credentials = {name: SecretStr(value) for name, value in subject.credentials(simulator).items()}
    return registry.build(spec_of(subject, simulator, url, **settings), credentials, addresses)


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
