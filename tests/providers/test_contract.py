"""What every provider must do, whatever its API: each call made once, and each end of it told apart (I5)."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from pydantic import SecretStr

from keyturn.api.semantics import Effect, Failure, Overlap, Standing, Verdict
from keyturn.providers import registry
from keyturn.providers.base import CredentialError
from sandbox.simulators.faults import How
from tests.providers.subjects import (
    CHANGING,
    CLIENT_ID,
    EMPTY,
    LIST,
    OVERLAP,
    READING,
    SUBJECTS,
    WRONG,
    Refusal,
    Subject,
    World,
    cases,
    provider_of,
    spec_of,
)

# Everything that can become of an answer once the request is out: none of it says whether the call took effect.
LOST: dict[str, dict[str, Any]] = {
    "reset": {"how": How.DROP},
    "truncated": {"how": How.TRUNCATE, "status": 200},
    "malformed": {"how": How.MALFORMED, "status": 200},
    "huge": {"how": How.HUGE},
    "500": {"status": 500},
    "502 without JSON": {"how": How.MALFORMED, "status": 502},
    "503": {"status": 503},
    "408": {"status": 408},
    "202": {"status": 202, "body": {}},
    EMPTY: {"status": 200, "body": {}},
    LIST: {"status": 200, "body": []},
    WRONG: {"status": 200, "body": {"m2m_client": 7, "stat": "ok", "new_secret": 7, "_secret": 7, "userSecret": 7}},
}


def refusals(*operations: str) -> list[Any]:
    """Each documented error of each provider, with each of these operations that may meet it."""
    return [
        pytest.param(subject, refusal, operation, id=f"{subject.name}-{operation}-{refusal.name}")
        for subject in SUBJECTS
        for refusal in subject.refusals
        for operation in operations
        if operation in refusal.operations and operation in subject.calls
    ]


def lost_readings() -> list[Any]:
    """Each reading operation with each answer that is none to it."""
    return [
        pytest.param(subject, operation, end, id=f"{subject.name}-{operation}-{end}")
        for subject in SUBJECTS
        for operation in READING
        for end in LOST
        if end not in subject.proper.get(operation, ())
    ]


async def test_a_rotation_from_start_to_finalize(world: World) -> None:
    assert (await world.provider.check()).ok
    assert (await world.inspect()).standing is world.subject.untouched
    issued = await world.start()
    assert issued.outcome.effect is Effect.APPLIED
    assert world.pending
    assert world.pending != world.secret
    assert (await world.verify(world.pending)).verdict is Verdict.ACCEPTED
    overlap = world.provider.capabilities.overlap
    expected = Verdict.REJECTED if overlap is Overlap.NONE else Verdict.ACCEPTED
    assert (await world.verify(world.secret)).verdict is expected
    if world.provider.capabilities.finalize:
        assert (await world.inspect()).standing is Standing.PENDING_OURS
        assert (await world.provider.finalize(CLIENT_ID)).effect is Effect.APPLIED
    assert (await world.inspect()).standing is Standing.FINISHED
    if overlap is Overlap.UNTIL_TIME:
        world.simulator.advance(OVERLAP.total_seconds() + 1)
        assert (await world.inspect()).standing is Standing.FINISHED
    assert (await world.verify(world.secret)).verdict is Verdict.REJECTED
    assert (await world.verify(world.pending)).verdict is Verdict.ACCEPTED


async def test_a_cancelled_rotation_leaves_no_trace(world: World) -> None:
    if not world.provider.capabilities.cancel:
        return
    await world.start()
    assert (await world.provider.cancel(CLIENT_ID)).effect is Effect.APPLIED
    assert (await world.inspect()).standing is Standing.UNROTATED
    assert (await world.verify(world.pending)).verdict is Verdict.REJECTED
    assert (await world.verify(world.secret)).verdict is Verdict.ACCEPTED


async def test_a_pending_value_that_is_not_ours_is_told_apart(world: World) -> None:
    if not world.provider.capabilities.finalize:
        return
    await world.start()
    world.pending = None
    assert (await world.inspect()).standing is Standing.PENDING_UNKNOWN


@pytest.mark.parametrize(("subject", "refusal", "operation"), refusals(*CHANGING), indirect=["subject"])
async def test_a_documented_error_is_not_applied(world: World, refusal: Refusal, operation: str) -> None:
    await world.prepare(operation)
    before = world.applied(operation)
    world.fault(operation, **refusal.fault)
    outcome = await world.perform(operation)
    assert (outcome.effect, outcome.failure) == (Effect.NOT_APPLIED, refusal.failure)
    assert CLIENT_ID in outcome.message
    assert world.applied(operation) == before


@pytest.mark.parametrize(("subject", "refusal", "operation"), refusals("inspect", "check"), indirect=["subject"])
async def test_a_documented_error_of_a_reading_call(world: World, refusal: Refusal, operation: str) -> None:
    world.fault(operation, **refusal.fault)
    outcome = await world.perform(operation)
    assert (outcome.effect, outcome.failure) == (Effect.NOT_APPLIED, refusal.failure)


@pytest.mark.parametrize("applied", [True, False], ids=["applied", "not applied"])
@pytest.mark.parametrize("end", LOST)
@pytest.mark.parametrize(("subject", "operation"), cases(CHANGING), indirect=["subject"])
async def test_a_lost_answer_is_unknown_and_inspecting_settles_it(
    world: World, operation: str, end: str, applied: bool
) -> None:
    await world.prepare(operation)
    calls = world.made(operation)
    world.fault(operation, apply=applied, **LOST[end])
    outcome = await world.perform(operation)
    assert (outcome.effect, outcome.failure) == (Effect.UNKNOWN, Failure.UNREACHABLE)
    assert CLIENT_ID in outcome.message
    assert world.made(operation) == calls + 1, "a changing call must never be repeated (I5)"
    settled = {
        ("start", True): world.subject.lost,
        ("finalize", True): Standing.FINISHED,
        ("cancel", True): Standing.UNROTATED,
        ("start", False): world.subject.untouched,
        ("finalize", False): Standing.PENDING_OURS,
        ("cancel", False): Standing.PENDING_OURS,
    }
    assert (await world.inspect()).standing is settled[operation, applied]


@pytest.mark.parametrize(("subject", "operation"), cases(), indirect=["subject"])
async def test_an_answer_that_comes_too_late_is_lost(world: World, operation: str) -> None:
    await world.prepare(operation)
    patient = world.provider
    world.fault(operation, how=How.PROPER, delay=0.5)
    world.provider = provider_of(world.subject, world.simulator, world.url, timeouts={"connect": "9s", "read": "100ms"})
    outcome = await world.perform(operation)
    await world.provider.aclose()
    world.provider = patient
    if operation in world.subject.patient:
        assert outcome.effect is Effect.APPLIED
        assert (await world.inspect()).standing is Standing.FINISHED
        return
    assert outcome.failure is Failure.UNREACHABLE
    assert outcome.effect is (Effect.UNKNOWN if operation in CHANGING else Effect.NOT_APPLIED)
    assert "too long" in outcome.message
    standing = {"start": world.subject.lost, "finalize": Standing.FINISHED, "cancel": Standing.UNROTATED}
    assert (await world.inspect()).standing is standing.get(operation, world.subject.untouched)


@pytest.mark.parametrize(("subject", "operation", "end"), lost_readings(), indirect=["subject"])
async def test_a_lost_answer_of_a_reading_call_has_no_effect_and_no_verdict(
    world: World, operation: str, end: str
) -> None:
    world.fault(operation, **LOST[end])
    outcome = await world.perform(operation)
    assert (outcome.effect, outcome.failure) == (Effect.NOT_APPLIED, Failure.UNREACHABLE)
    if operation == "verify":
        world.fault(operation, **LOST[end])
        assert (await world.verify(world.secret)).verdict is Verdict.INCONCLUSIVE


@pytest.mark.parametrize("status", [403, 404, 409, 429, 500])
async def test_verify_rejects_only_what_the_provider_rejects(world: World, status: int) -> None:
    world.fault("verify", status=status)
    assert (await world.verify(world.secret)).verdict is Verdict.INCONCLUSIVE


@pytest.mark.parametrize(("subject", "operation"), cases(), indirect=["subject"])
@pytest.mark.parametrize(
    ("headers", "seconds"),
    [({}, None), ({"Retry-After": "7"}, 7), ({"Retry-After": "date"}, 90), ({"X-RateLimit-Reset": "11"}, 11)],
    ids=["no header", "seconds", "date", "reset"],
)
async def test_a_rate_limit_says_how_long_to_wait(
    world: World, operation: str, headers: dict[str, str], seconds: int | None
) -> None:
    await world.prepare(operation)
    if headers.get("Retry-After") == "date":
        headers = {"Retry-After": format_datetime(datetime.now(UTC) + timedelta(seconds=90), usegmt=True)}
    world.fault(operation, status=429, headers=headers)
    outcome = await world.perform(operation)
    assert (outcome.effect, outcome.failure) == (Effect.NOT_APPLIED, Failure.RATE_LIMITED)
    waited = outcome.retry_after.total_seconds() if outcome.retry_after is not None else None
    assert waited == (None if seconds is None else pytest.approx(seconds, abs=2))


@pytest.mark.parametrize(("subject", "operation"), cases(), indirect=["subject"])
async def test_a_redirect_is_refused_and_not_followed(world: World, operation: str) -> None:
    await world.prepare(operation)
    world.fault(operation, how=How.REDIRECT)
    outcome = await world.perform(operation)
    assert outcome.failure is Failure.REJECTED
    assert outcome.effect is (Effect.UNKNOWN if operation in CHANGING else Effect.NOT_APPLIED)
    assert "baseUrl" in outcome.message
    assert not world.simulator.calls["redirected"]


async def test_a_value_that_takes_its_time_is_refused_first_and_accepted_later(world: World) -> None:
    switches = world.simulator.switches
    world.simulator.switches = switches.model_copy(update=dict(world.subject.slow_start))
    await world.start()
    assert (await world.verify(world.pending)).verdict is Verdict.REJECTED
    early = await world.inspect()
    ours = (None, Standing.PENDING_OURS, Standing.PENDING_UNPROVEN, Standing.FINISHED)
    assert early.standing in ours, "ours must never look like somebody else's, or like none"
    world.simulator.advance(61)
    assert (await world.verify(world.pending)).verdict is Verdict.ACCEPTED
    assert (await world.inspect()).standing in (Standing.PENDING_OURS, Standing.FINISHED)


async def test_calls_may_be_made_at_the_same_time(world: World) -> None:
    await world.start()
    verified = await asyncio.gather(*(world.verify(world.pending) for _ in range(40)))
    assert {verification.verdict for verification in verified} == {Verdict.ACCEPTED}


async def test_each_operation_is_exactly_one_call(world: World, subject: Subject) -> None:
    for operation in ("start", "finalize"):
        if operation not in subject.calls:
            continue
        await world.perform(operation)
        assert world.made(operation) == 1
    await world.verify(world.secret)
    assert world.made("verify") == 1


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("\r\n", "is empty"),
        ("x" * 4097, "holds 4097 bytes, more than 4096"),
        ("ä" * 2049, "holds 4098 bytes, more than 4096"),
        ("one\r\nX-Injected: 1", "control character"),
        ("one\x00", "control character"),
    ],
    ids=["empty", "long", "long in UTF-8", "lines", "NUL"],
)
def test_what_cannot_be_a_credential_is_refused_before_any_call(subject: Subject, value: str, said: str) -> None:
    """I8, I10: field, Secret and key are named, and the value is not."""
    simulator = subject.simulator()
    credentials = dict.fromkeys(subject.credentials(simulator), SecretStr(value))
    with pytest.raises(CredentialError) as raised:
        registry.build(spec_of(subject, simulator, "http://127.0.0.1:1"), credentials, None)
    assert raised.value.field == f"spec.{subject.kind}.secretRef"
    assert 'key "SECRET" of Secret "st" ' in str(raised.value)
    assert said in str(raised.value)
    assert not value.strip() or value not in str(raised.value)


async def test_the_longest_credential_in_any_script_gets_to_the_provider(world: World) -> None:
    credentials = dict.fromkeys(world.subject.credentials(world.simulator), SecretStr("🔑ä\u202e" + "x" * 4087))
    provider = registry.build(spec_of(world.subject, world.simulator, world.url), credentials, None)
    outcome = await provider.check()
    await provider.aclose()
    assert (outcome.effect, outcome.failure) == (Effect.NOT_APPLIED, Failure.UNAUTHORIZED)
    (call,) = world.simulator.calls[world.subject.calls["check"]]
    assert max(len(value) for _, value in call.headers) < 6144
