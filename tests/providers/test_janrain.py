"""What is particular to Janrain: both kinds of login, errors within 200, the overlap, the read-back."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from keyturn.api.provider import ProviderSpec
from keyturn.api.semantics import Effect, Failure, Overlap, Recovery, Standing, Verdict
from keyturn.providers import registry
from keyturn.providers.base import ProviderConfigError
from keyturn.providers.http import HttpClient
from keyturn.providers.janrain import CAPABILITIES, JanrainProvider, Login
from sandbox.simulators.janrain import JanrainSimulator
from tests.providers.mocked import answer
from tests.providers.subjects import CLIENT_ID, JANRAIN, OVERLAP, SIGNED, World, janrain_error, provider_of, world_of

SPEC: dict[str, Any] = {
    "baseUrl": "https://my-app.janraincapture.com",
    "clientId": "abcdefg",
    "secretRef": {"name": "owner", "key": "SECRET"},
}
READ_BACK = {"baseUrl": "https://v1.api.us.janrain.com", "appId": "app-1"}


@pytest.fixture
async def world() -> AsyncIterator[World]:
    """Basic-auth, with a read-back."""
    async with world_of(JANRAIN) as janrain:
        yield janrain


@pytest.fixture
async def signed() -> AsyncIterator[World]:
    """Signed, without a read-back."""
    async with world_of(SIGNED) as janrain:
        yield janrain


def simulator(world: World) -> JanrainSimulator:
    """The simulator with its own type."""
    assert isinstance(world.simulator, JanrainSimulator)
    return world.simulator


def mocked(handler: Any, **block: Any) -> JanrainProvider:
    """A provider whose network is a function."""
    spec = ProviderSpec.model_validate({"janrain": {**SPEC, **block}})
    provider = registry.build(spec, {"secret": SecretStr("hijklmnop\n")}, None)
    assert isinstance(provider, JanrainProvider)
    provider._http = HttpClient(spec, transport=httpx.MockTransport(handler))
    return provider


def test_the_promise() -> None:
    assert (CAPABILITIES.semantics, CAPABILITIES.overlap) == ("Timed", Overlap.UNTIL_TIME)
    assert (CAPABILITIES.cancel, CAPABILITIES.finalize, CAPABILITIES.needs_current) == (False, False, False)
    assert CAPABILITIES.recovery is Recovery.READ_BACK


def test_the_documented_signature() -> None:
    """The vector of PROVIDERS.md A1."""
    form = {"hours_to_live": "24", "for_client_id": "67890fghij67890fghij"}
    header = Login("abcdefg", "hijklmnop").signed("/clients/reset_secret", form, "2016-02-26 19:08:44")
    assert header == "Signature abcdefg:T+Ly9SLtsUu5De5G1/sNwVx9++8="


async def test_the_documented_request() -> None:
    """As the curl of the vendor's page sends it."""
    seen: list[httpx.Request] = []

    def reset(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return answer(200, {"new_secret": "abcde12345abcde12345abcde12345", "stat": "ok"})

    provider = mocked(reset)
    issued = await provider.start("67890fghij67890fghij", current=None, overlap=timedelta(hours=24))
    assert issued.secret == SecretStr("abcde12345abcde12345abcde12345")
    (request,) = seen
    assert (request.method, str(request.url)) == ("POST", "https://my-app.janraincapture.com/clients/reset_secret")
    assert request.headers["Content-Type"] == "application/x-www-form-urlencoded"
    assert request.content == b"for_client_id=67890fghij67890fghij&hours_to_live=24"
    assert request.headers["Authorization"] == "Basic " + base64.b64encode(b"abcdefg:hijklmnop").decode()


@pytest.mark.parametrize(
    ("overlap", "hours"),
    [
        (timedelta(0), "0"),
        (timedelta(microseconds=1), "1"),
        (timedelta(hours=1), "1"),
        (timedelta(hours=23, seconds=1), "24"),
        (timedelta(hours=168), "168"),
    ],
)
async def test_the_overlap_is_counted_up_to_full_hours(world: World, overlap: timedelta, hours: str) -> None:
    issued = await world.provider.start(CLIENT_ID, current=None, overlap=overlap)
    assert issued.outcome.ok
    assert simulator(world).calls["start"][0].body.endswith(f"&hours_to_live={hours}".encode())


@pytest.mark.parametrize("overlap", [timedelta(seconds=-1), timedelta(days=-1), timedelta(hours=168, microseconds=1)])
async def test_an_overlap_outside_the_range_is_refused_before_any_call(world: World, overlap: timedelta) -> None:
    outcome = (await world.provider.start(CLIENT_ID, current=None, overlap=overlap)).outcome
    assert (outcome.effect, outcome.failure) == (Effect.NOT_APPLIED, Failure.REJECTED)
    assert "spec.overlap" in outcome.message
    assert not simulator(world).calls["start"]


async def test_the_old_value_dies_when_its_time_is_up_and_not_before(world: World) -> None:
    await world.start()
    world.simulator.advance(OVERLAP.total_seconds() - 1)
    assert (await world.verify(world.secret)).verdict is Verdict.ACCEPTED
    world.simulator.advance(1)
    assert (await world.verify(world.secret)).verdict is Verdict.REJECTED
    assert (await world.verify(world.pending)).verdict is Verdict.ACCEPTED


@pytest.mark.parametrize(("setting", "oldest"), [("kills", Verdict.REJECTED), ("keeps", Verdict.ACCEPTED)])
async def test_a_second_reset_within_the_overlap(world: World, setting: str, oldest: Verdict) -> None:
    simulator(world).switches = simulator(world).switches.model_copy(update={"second_reset": setting})
    first = (await world.start()).secret
    await world.start()
    assert (await world.verify(first)).verdict is Verdict.ACCEPTED
    assert (await world.verify(world.secret)).verdict is oldest
    assert (await world.inspect()).standing is Standing.FINISHED


async def test_a_lost_answer_is_read_back(world: World) -> None:
    world.fault("start", status=500, apply=True)
    assert (await world.start()).outcome.effect is Effect.UNKNOWN
    inspection = await world.inspect()
    assert inspection.standing is Standing.PENDING_UNKNOWN
    assert (await world.verify(inspection.recovered)).verdict is Verdict.ACCEPTED
    world.pending = inspection.recovered
    assert (await world.inspect()).standing is Standing.FINISHED


async def test_somebody_elses_reset_after_ours_is_told(world: World) -> None:
    await world.start()
    theirs = (await world.provider.start(CLIENT_ID, current=None, overlap=OVERLAP)).secret
    inspection = await world.inspect()
    assert (inspection.standing, inspection.recovered) == (Standing.PENDING_UNKNOWN, theirs)


async def test_without_a_value_to_compare_with_nothing_is_claimed(world: World) -> None:
    for lost in (False, True):
        if lost:
            await world.provider.start(CLIENT_ID, current=None, overlap=OVERLAP)
        inspection = await world.provider.inspect(CLIENT_ID, previous=None, pending=None)
        assert (inspection.standing, inspection.recovered) == (Standing.UNTOLD, None)


async def test_without_a_read_back_a_working_old_value_proves_nothing(signed: World) -> None:
    assert (await signed.inspect()).standing is Standing.UNTOLD
    signed.fault("start", status=500, apply=True)
    await signed.start()
    assert (await signed.inspect()).standing is Standing.UNTOLD
    assert not simulator(signed).calls["read"]


@pytest.mark.parametrize("shape", ["client_secret", "nested", "absent"])
async def test_a_read_back_of_another_shape_is_told_before_anything_has_begun(world: World, shape: str) -> None:
    simulator(world).switches = simulator(world).switches.model_copy(update={"read_back": shape})
    inspection = await world.provider.inspect(CLIENT_ID, previous=None, pending=None)
    assert (inspection.standing, inspection.outcome.failure) == (None, Failure.UNREACHABLE)
    assert "_secret" in inspection.outcome.message


@pytest.mark.parametrize(
    ("body", "failure"), [({"error": "no such client"}, Failure.CLIENT_NOT_FOUND), ("not found", Failure.REJECTED)]
)
async def test_a_404_speaks_of_a_client_only_in_json(body: Any, failure: Failure) -> None:
    provider = mocked(lambda _: answer(404, body), readBack=READ_BACK)
    inspection = await provider.inspect("c", previous=None, pending=None)
    assert (inspection.standing, inspection.outcome.failure) == (None, failure)
    assert ("spec.janrain.readBack.baseUrl" in inspection.outcome.message) == (failure is Failure.REJECTED)


async def test_the_configuration_api_gets_basic_auth_whatever_the_others_get(world: World) -> None:
    world.provider = provider_of(
        world.subject,
        world.simulator,
        world.url,
        janrain={**world.subject.block(world.simulator, world.url), "auth": "Signed"},
    )
    assert (await world.inspect()).standing is Standing.UNROTATED
    assert (await world.start()).outcome.ok
    await world.provider.aclose()
    assert (simulator(world).calls["read"][0].header("Authorization") or "").startswith("Basic ")
    assert (simulator(world).calls["start"][0].header("Authorization") or "").startswith("Signature ")


async def test_signed_calls_hold_no_secret_and_the_date_as_janrain_wants_it(signed: World) -> None:
    await signed.start()
    await signed.verify(signed.secret)
    for call in (*simulator(signed).calls["start"], *simulator(signed).calls["count"]):
        date = call.header("Date") or ""
        assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", date)
        assert abs(datetime.fromisoformat(date).replace(tzinfo=UTC) - datetime.now(UTC)) < timedelta(seconds=30)
        sent = json.dumps(call.to_json())
        assert not [value for value in signed.canaries() if value in sent]


async def test_a_wrong_clock_is_named_where_signatures_hold_the_time(signed: World) -> None:
    simulator(signed).switches.clock_skew = 300
    signed.simulator.advance(600)
    outcome = await signed.provider.check()
    assert outcome.failure is Failure.UNAUTHORIZED
    assert "clock" in outcome.message
    assert (await signed.start()).outcome.effect is Effect.NOT_APPLIED


async def test_a_proxys_path_is_not_signed() -> None:
    """The server sees its own path only, and the vendor's client signs no more."""

    def count(request: httpx.Request) -> httpx.Response:
        login = Login("abcdefg", "hijklmnop")
        wanted = login.signed("/entity.count", {"type_name": "user"}, request.headers["Date"])
        return answer(200, {"stat": "ok"} if request.headers["Authorization"] == wanted else {})

    assert (await mocked(count, baseUrl="https://proxy.example.com/janrain/", auth="Signed").check()).ok


@pytest.mark.parametrize("code", [500, "402", True, 402.0, None, [402]])
async def test_an_error_without_a_code_that_settles_it_leaves_the_effect_open(world: World, code: Any) -> None:
    world.fault("start", status=200, body={"stat": "error", "code": code, "error": "unexpected_error"})
    outcome = (await world.start()).outcome
    assert (outcome.effect, outcome.failure) == (Effect.UNKNOWN, Failure.UNREACHABLE)
    world.fault("verify", status=200, body={"stat": "error", "code": code})
    assert (await world.verify(world.secret)).verdict is Verdict.INCONCLUSIVE


@pytest.mark.parametrize("code", [100, 200, 299, 310, 403])
async def test_an_unknown_client_is_not_applied_whatever_its_code(world: World, code: int) -> None:
    simulator(world).switches.unknown_client_code = code
    outcome = (await world.provider.start("nobody", current=None, overlap=OVERLAP)).outcome
    assert outcome.effect is Effect.NOT_APPLIED
    assert outcome.failure is {310: Failure.CLIENT_NOT_FOUND, 403: Failure.UNAUTHORIZED}.get(code, Failure.REJECTED)


async def test_a_client_that_may_not_count_is_a_client_all_the_same(world: World) -> None:
    simulator(world).clients[CLIENT_ID].may_count = False
    assert (await world.verify(world.secret)).verdict is Verdict.ACCEPTED
    assert (await world.verify(SecretStr("wrong"))).verdict is Verdict.REJECTED


@pytest.mark.parametrize("code", [100, 310, 480, 510])
async def test_only_402_disproves_a_value(world: World, code: int) -> None:
    world.fault("verify", **janrain_error(code))
    assert (await world.verify(world.secret)).verdict is Verdict.INCONCLUSIVE


async def test_wrong_owner_credentials_name_the_secret_to_correct(world: World) -> None:
    simulator(world).clients[simulator(world).owner_id].current.value = "changed"
    for outcome in (await world.provider.check(), (await world.start()).outcome, (await world.inspect()).outcome):
        assert outcome.failure is Failure.UNAUTHORIZED
        assert 'key "SECRET" of Secret "st"' in outcome.message


async def test_a_client_that_is_no_owner_is_named(world: World) -> None:
    simulator(world).clients[simulator(world).owner_id].owner = False
    assert (await world.provider.check()).ok
    outcome = (await world.start()).outcome
    assert (outcome.effect, outcome.failure) == (Effect.NOT_APPLIED, Failure.UNAUTHORIZED)
    assert f'Client "{simulator(world).owner_id}" lacks the permission' in outcome.message


@pytest.mark.parametrize("member", ["request_id", "request_token"])
@pytest.mark.parametrize("description", ["error_description", "message"])
async def test_members_of_older_answers_are_read_as_well(world: World, member: str, description: str) -> None:
    update = {"request_id_member": member, "description_member": description}
    simulator(world).switches = simulator(world).switches.model_copy(update=update)
    outcome = (await world.provider.start("nobody", current=None, overlap=OVERLAP)).outcome
    assert outcome.request_id
    assert "no such client" in outcome.message


async def test_there_is_no_way_back_and_nothing_to_finish(world: World) -> None:
    for outcome in (await world.provider.cancel(CLIENT_ID), await world.provider.finalize(CLIENT_ID)):
        assert (outcome.effect, outcome.failure) == (Effect.NOT_APPLIED, Failure.REJECTED)
        assert CLIENT_ID in outcome.message
    assert not any(world.simulator.calls.values())


@pytest.mark.parametrize("client_id", [".", "..", "a/b", "a?b#c"])
async def test_a_client_id_stays_one_segment_of_the_path(world: World, client_id: str) -> None:
    secret = SecretStr(simulator(world).create({"client_id": client_id})["client_secret"])
    inspection = await world.provider.inspect(client_id, previous=secret, pending=None)
    assert inspection.standing is Standing.UNROTATED


@pytest.mark.parametrize("auth", ["Basic", "Signed"])
@pytest.mark.parametrize("status", [200, 400, 503])
async def test_an_authorization_that_is_repeated_is_redacted(auth: str, status: int) -> None:
    sent: list[str] = []

    def echo(request: httpx.Request) -> httpx.Response:
        sent.append(request.headers["Authorization"].partition(" ")[2].removeprefix("abcdefg:"))
        text = f"bad header {request.headers['Authorization']}"
        return answer(status, {"stat": "error", "code": 200, "error": "x", "error_description": text})

    provider = mocked(echo, auth=auth, readBack=READ_BACK)
    value = SecretStr("some-value")
    messages = [
        (await provider.check()).message,
        (await provider.start("c", current=value, overlap=OVERLAP)).outcome.message,
        (await provider.verify("abcdefg", value)).outcome.message,
        (await provider.inspect("c", previous=value, pending=None)).outcome.message,
    ]
    assert all("[redacted]" in message for message in messages)
    assert not [value for value in sent if any(value in message for message in messages)]


@pytest.mark.parametrize(
    ("block", "secret", "field"),
    [
        ({**SPEC, "baseUrl": "http://janrain.example.com"}, "s", "spec.janrain.baseUrl"),
        ({**SPEC, "readBack": {**READ_BACK, "baseUrl": "http://v1"}}, "s", "spec.janrain.readBack.baseUrl"),
        (SPEC, "\n", "spec.janrain.secretRef"),
    ],
)
def test_what_cannot_be_built_names_its_field(block: dict[str, Any], secret: str, field: str) -> None:
    with pytest.raises(ProviderConfigError) as raised:
        registry.build(ProviderSpec.model_validate({"janrain": block}), {"secret": SecretStr(secret)}, None)
    assert raised.value.field == field


NAMES = st.sampled_from(
    ["stat", "code", "error", "error_description", "message", "new_secret", "_secret", "request_id"]
)
VALUES = st.sampled_from(["ok", "error", "text"]) | st.integers(0, 600) | st.none() | st.booleans() | st.floats()
JSON = st.recursive(
    VALUES | st.text(max_size=5),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(NAMES, children, max_size=5),
    max_leaves=8,
)


@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from([200, 201, 302, 400, 401, 404, 429, 500]), JSON)
async def test_no_answer_whatever_it_holds_is_an_exception(status: int, body: Any) -> None:
    fast = {"rateLimit": {"requestsPerSecond": 1000, "burst": 1000}}
    spec = ProviderSpec.model_validate({"janrain": {**SPEC, "readBack": READ_BACK}, **fast})
    provider = registry.build(spec, {"secret": SecretStr("s")}, None)
    assert isinstance(provider, JanrainProvider)
    provider._http = HttpClient(spec, transport=httpx.MockTransport(lambda _: answer(status, body)))
    issued = await provider.start("c", current=None, overlap=timedelta())
    assert (issued.secret is not None) == issued.outcome.ok == (issued.outcome.effect is Effect.APPLIED)
    inspection = await provider.inspect("c", previous=None, pending=SecretStr("abcd"))
    assert (inspection.standing is not None) == inspection.outcome.ok
    verification = await provider.verify("c", SecretStr("abcd"))
    assert (verification.verdict is Verdict.ACCEPTED) == verification.outcome.ok
