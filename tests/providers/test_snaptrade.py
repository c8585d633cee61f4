"""What is particular to SnapTrade: the signature, one value at a time, and a loss that cannot be made good."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from typing import Any
from urllib.parse import quote as percent_encode

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from keyturn.api.provider import ProviderSpec
from keyturn.api.semantics import Effect, Failure, Overlap, Recovery, Standing, Verdict
from keyturn.providers import registry
from keyturn.providers.base import ProviderConfigError
from keyturn.providers.http import MAX_BODY, HttpClient
from keyturn.providers.snaptrade import CAPABILITIES, SnapTradeProvider, signature
from sandbox.simulators.snaptrade import SnapTradeSimulator
from tests.providers.mocked import answer
from tests.providers.subjects import CLIENT_ID, SNAPTRADE, World, provider_of, world_of

SPEC: dict[str, Any] = {"clientId": "PASSIVTEST", "secretRef": {"name": "key", "key": "CONSUMER_KEY"}}
KEY = "YOUR_CONSUMER_KEY"
OLD = SecretStr("old/secret+1")


@pytest.fixture
async def world() -> AsyncIterator[World]:
    """SnapTrade alone."""
    async with world_of(SNAPTRADE) as snaptrade:
        yield snaptrade


def simulator(world: World) -> SnapTradeSimulator:
    """The simulator with its own type."""
    assert isinstance(world.simulator, SnapTradeSimulator)
    return world.simulator


def mocked(handler: Callable[[httpx.Request], httpx.Response], **block: Any) -> SnapTradeProvider:
    """A provider whose network is a function."""
    fast = {"rateLimit": {"requestsPerSecond": 1000, "burst": 1000}}
    spec = ProviderSpec.model_validate({"snaptrade": {**SPEC, **block}, **fast})
    provider = registry.build(spec, {"consumer_key": SecretStr(f"{KEY}\n")}, None)
    assert isinstance(provider, SnapTradeProvider)
    provider._http = HttpClient(spec, transport=httpx.MockTransport(handler))
    return provider


def test_the_promise() -> None:
    assert (CAPABILITIES.semantics, CAPABILITIES.overlap) == ("Immediate", Overlap.NONE)
    assert (CAPABILITIES.cancel, CAPABILITIES.finalize, CAPABILITIES.needs_current) == (False, False, True)
    assert CAPABILITIES.recovery is Recovery.PROBE_PREVIOUS


@pytest.mark.parametrize(
    ("user", "secret", "signed"),
    [
        ("snaptrade-user-123", "adf2aa34-8219-40f7-a6b3-60156985cc61", "BVQea+sXMrA+D6qof7WAgi5VoZpERHsmSpYRGm+GhpM="),
        ("usér-1", "old", "5isfeGpmxzGbjhXGz8OEJiqNeOALc0K0l2cFm41BKmk="),
    ],
)
def test_the_documented_signatures(user: str, secret: str, signed: str) -> None:
    """The vectors of PROVIDERS.md A2."""
    path, query = "/snapTrade/resetUserSecret", "clientId=PASSIVTEST&timestamp=1635790389"
    assert signature(KEY, path, query, {"userSecret": secret, "userId": user}) == signed


def test_an_empty_body_is_signed_as_none() -> None:
    assert signature(KEY, "/p", "q", {}) == signature(KEY, "/p", "q", None)


@pytest.mark.parametrize(
    ("base", "path"),
    [
        (None, "/snapTrade/resetUserSecret"),
        ("https://api.snaptrade.com/api/v1", "/api/v1/snapTrade/resetUserSecret"),
        ("https://api.snaptrade.com/api/v1/", "/api/v1/snapTrade/resetUserSecret"),
        ("https://proxy.example.com/ä b", "/%C3%A4%20b/snapTrade/resetUserSecret"),
    ],
)
async def test_what_is_signed_is_what_goes_out(base: str | None, path: str) -> None:
    seen: list[httpx.Request] = []

    def reset(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return answer(200, {"userId": "usér-1", "userSecret": "new"})

    block = {"baseUrl": base.replace(" ", "%20")} if base else {}
    issued = await mocked(reset, **block).start("usér-1", current=OLD, overlap=timedelta())
    assert issued.secret == SecretStr("new")
    (request,) = seen
    sent_path, _, query = request.url.raw_path.decode().partition("?")
    assert sent_path == path
    assert query.startswith("clientId=PASSIVTEST&timestamp=")
    assert request.content == '{"userId":"usér-1","userSecret":"old/secret+1"}'.encode()
    body = {"userId": "usér-1", "userSecret": "old/secret+1"}
    assert request.headers["Signature"] == signature(KEY, path, query, body)


async def test_the_legacy_prefix(world: World) -> None:
    block = {**world.subject.block(world.simulator, world.url), "baseUrl": f"{world.url}/api/v1"}
    world.provider = provider_of(world.subject, world.simulator, world.url, snaptrade=block)
    assert (await world.start()).outcome.ok
    assert (await world.verify(world.pending)).verdict is Verdict.ACCEPTED
    simulator(world).switches.legacy_prefix = False
    outcome = await world.provider.check()
    assert outcome.failure is Failure.REJECTED
    assert "baseUrl" in outcome.message
    await world.provider.aclose()


@pytest.mark.parametrize("fields", ["", "default_"])
@pytest.mark.parametrize("as_number", [True, False])
async def test_errors_of_either_wording(world: World, fields: str, as_number: bool) -> None:
    codes: dict[str, int | str] = {"signature_code": "1076", "user_code": "1083"}
    update = {name: int(code) if as_number else code for name, code in codes.items()}
    simulator(world).switches = simulator(world).switches.model_copy(update={"error_fields": fields, **update})
    refused = (await world.provider.start(CLIENT_ID, current=OLD, overlap=timedelta())).outcome
    assert (refused.effect, refused.failure) == (Effect.NOT_APPLIED, Failure.REJECTED)
    assert "code 1083: Invalid userID or userSecret provided" in refused.message
    assert refused.request_id
    simulator(world).consumer_key = "changed"
    for outcome in (await world.provider.check(), (await world.start()).outcome, (await world.inspect()).outcome):
        assert (outcome.effect, outcome.failure) == (Effect.NOT_APPLIED, Failure.UNAUTHORIZED)
        assert 'key "SECRET" of Secret "st"' in outcome.message


@pytest.mark.parametrize("status", [400, 401])
async def test_a_wrong_current_secret_is_refused_and_nothing_changes(world: World, status: int) -> None:
    simulator(world).switches = simulator(world).switches.model_copy(update={"refused_user_status": status})
    outcome = (await world.provider.start(CLIENT_ID, current=OLD, overlap=timedelta())).outcome
    assert (outcome.effect, outcome.failure) == (Effect.NOT_APPLIED, Failure.REJECTED)
    assert (await world.inspect()).standing is Standing.UNROTATED


async def test_without_the_current_secret_nothing_is_sent(world: World) -> None:
    outcome = (await world.provider.start(CLIENT_ID, current=None, overlap=timedelta())).outcome
    assert (outcome.effect, outcome.failure) == (Effect.NOT_APPLIED, Failure.REJECTED)
    assert not any(world.simulator.calls.values())


@pytest.mark.parametrize(
    ("body", "issued"),
    [
        ({"userId": "u", "userSecret": "new"}, True),
        ({"userSecret": "new"}, True),
        ({"userId": None, "userSecret": "new"}, True),
        ({"userId": "somebody else", "userSecret": "new"}, False),
        ({"userId": "u", "userSecret": OLD.get_secret_value()}, False),
        ({"userId": "u", "userSecret": ""}, False),
        ({"userId": "u"}, False),
        ({"userId": "u", "userSecret": ["new"]}, False),
    ],
)
async def test_what_counts_as_a_new_secret(body: dict[str, Any], issued: bool) -> None:
    """The only copy of a secret is not thrown away for want of a name; one that is not ours is not taken."""
    made = await mocked(lambda _: answer(200, body)).start("u", current=OLD, overlap=timedelta())
    assert (made.secret == SecretStr("new")) is issued
    assert made.outcome.effect is (Effect.APPLIED if issued else Effect.UNKNOWN)


async def test_a_user_id_is_optional_in_the_answer(world: World) -> None:
    simulator(world).switches.answers_user_id = False
    assert (await world.start()).outcome.ok
    assert (await world.verify(world.pending)).verdict is Verdict.ACCEPTED


async def test_a_lost_answer_is_a_lost_secret(world: World) -> None:
    world.fault("start", status=500, apply=True)
    await world.start()
    assert (await world.inspect()).standing is Standing.LOST


async def test_a_401_of_the_api_key_never_looks_like_a_lost_secret(world: World) -> None:
    """A clock that is wrong, say: the code is not known, so the API key is tried by itself."""
    simulator(world).switches.timestamp_tolerance = 60
    world.simulator.advance(3600)
    verification = await world.verify(world.secret)
    assert (verification.verdict, verification.outcome.failure) == (Verdict.INCONCLUSIVE, Failure.UNAUTHORIZED)
    assert "clock" in verification.outcome.message
    assert (await world.inspect()).standing is None


@pytest.mark.parametrize("code", ["1083", "4711", 0])
async def test_a_401_of_the_user_is_one_whatever_its_code(world: World, code: int | str) -> None:
    simulator(world).switches.user_code = code
    assert (await world.verify(OLD)).verdict is Verdict.REJECTED
    assert len(simulator(world).calls["list"]) == (0 if code == "1083" else 1)
    world.fault("check", status=503)
    expected = Verdict.REJECTED if code == "1083" else Verdict.INCONCLUSIVE
    assert (await world.verify(OLD)).verdict is expected


async def test_somebody_elses_reset_after_ours_is_not_called_a_loss(world: World) -> None:
    """Ours may just not be known everywhere yet, and what a loss leads to cannot be undone."""
    await world.start()
    simulator(world).users[CLIENT_ID].secret = "theirs"
    inspection = await world.inspect()
    assert (inspection.standing, inspection.outcome.failure) == (None, Failure.UNREACHABLE)
    assert "somebody else" in inspection.outcome.message


async def test_without_values_nothing_is_claimed(world: World) -> None:
    inspection = await world.provider.inspect(CLIENT_ID, previous=None, pending=None)
    assert inspection.standing is Standing.UNTOLD
    simulator(world).consumer_key = "changed"
    inspection = await world.provider.inspect(CLIENT_ID, previous=None, pending=None)
    assert (inspection.standing, inspection.outcome.failure) == (None, Failure.UNAUTHORIZED)


async def test_a_personal_key_is_named(world: World) -> None:
    simulator(world).switches.commercial = False
    for outcome in (await world.provider.check(), (await world.start()).outcome):
        assert (outcome.effect, outcome.failure) == (Effect.NOT_APPLIED, Failure.UNAUTHORIZED)
        assert "commercial" in outcome.message


async def test_any_number_of_users_can_be_checked(world: World) -> None:
    for number in range(MAX_BODY // 30):
        simulator(world).create({"client_id": f"user-{number:030}", "client_secret": "s"})
    assert (await world.provider.check()).ok


async def test_the_rate_limit_is_told_by_its_headers(world: World) -> None:
    simulator(world).switches.requests_per_minute = 1
    assert (await world.verify(world.secret)).verdict is Verdict.ACCEPTED
    outcome = (await world.start()).outcome
    assert (outcome.effect, outcome.failure) == (Effect.NOT_APPLIED, Failure.RATE_LIMITED)
    assert outcome.retry_after
    assert timedelta() < outcome.retry_after <= timedelta(minutes=1)
    world.simulator.advance(60)
    assert (await world.start()).outcome.ok


async def test_there_is_no_way_back_and_nothing_to_finish(world: World) -> None:
    for outcome in (await world.provider.cancel(CLIENT_ID), await world.provider.finalize(CLIENT_ID)):
        assert (outcome.effect, outcome.failure) == (Effect.NOT_APPLIED, Failure.REJECTED)
        assert CLIENT_ID in outcome.message
    assert not any(world.simulator.calls.values())


@pytest.mark.parametrize("status", [400, 401, 403, 500])
async def test_a_repeated_request_is_redacted(status: int) -> None:
    """The user's secret is in the URL, and the provider may quote that."""
    sent: list[str] = []

    def echo(request: httpx.Request) -> httpx.Response:
        sent.append(request.headers["Signature"])
        text = f"{request.headers['Signature']} does not sign {request.url}"
        return answer(status, {"detail": text, "code": text})

    provider = mocked(echo)
    messages = [
        (await provider.check()).message,
        (await provider.start("u", current=OLD, overlap=timedelta())).outcome.message,
        (await provider.verify("u", OLD)).outcome.message,
        (await provider.inspect("u", previous=OLD, pending=SecretStr("new"))).outcome.message,
    ]
    value = OLD.get_secret_value()
    hidden = [*sent, value, percent_encode(value), percent_encode(value, safe=""), KEY]
    assert not [value for value in hidden if any(value in message for message in messages)]
    assert all("[redacted]" in message for message in messages)


@pytest.mark.parametrize(
    ("block", "key", "field"),
    [
        ({**SPEC, "baseUrl": "http://snaptrade.example.com"}, "k", "spec.snaptrade.baseUrl"),
        (SPEC, "\n", "spec.snaptrade.secretRef"),
    ],
)
def test_what_cannot_be_built_names_its_field(block: dict[str, Any], key: str, field: str) -> None:
    with pytest.raises(ProviderConfigError) as raised:
        registry.build(ProviderSpec.model_validate({"snaptrade": block}), {"consumer_key": SecretStr(key)}, None)
    assert raised.value.field == field


NAMES = st.sampled_from(["detail", "default_detail", "code", "default_code", "userId", "userSecret", "status_code"])
JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(NAMES, children, max_size=5),
    max_leaves=8,
)


@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from([200, 201, 302, 400, 401, 404, 429, 500]), JSON)
async def test_no_answer_whatever_it_holds_is_an_exception(status: int, body: Any) -> None:
    provider = mocked(lambda _: answer(status, body))
    issued = await provider.start("u", current=OLD, overlap=timedelta())
    assert (issued.secret is not None) == issued.outcome.ok == (issued.outcome.effect is Effect.APPLIED)
    inspection = await provider.inspect("u", previous=OLD, pending=SecretStr("abcd"))
    assert (inspection.standing is not None) == inspection.outcome.ok
    verification = await provider.verify("u", OLD)
    assert (verification.verdict is Verdict.ACCEPTED) == verification.outcome.ok
