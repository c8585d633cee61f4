"""What is particular to Stytch: the standing, its unsettled answers, the addresses."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from keyturn.api.provider import ProviderSpec
from keyturn.api.semantics import Effect, Failure, Standing, Verdict
from keyturn.providers import registry
from keyturn.providers.base import ProviderConfigError
from keyturn.providers.http import HttpClient
from keyturn.providers.stytch import StytchProvider
from sandbox.simulators.stytch import IssuedSecret, StytchSimulator
from tests.providers.mocked import answer
from tests.providers.subjects import CLIENT_ID, STYTCH, World, world_of

SPEC = {"projectId": "project-test-1", "secretRef": {"name": "st", "key": "SECRET"}}


@pytest.fixture
async def world() -> AsyncIterator[World]:
    """Stytch alone."""
    async with world_of(STYTCH) as stytch:
        yield stytch


def simulator(world: World) -> StytchSimulator:
    """The simulator with its own type."""
    assert isinstance(world.simulator, StytchSimulator)
    return world.simulator


async def test_the_end_of_a_value_alone_proves_nothing(world: World) -> None:
    client = simulator(world).clients[CLIENT_ID]
    world.pending = SecretStr("ours-and-it-ends-in-same")
    client.pending = IssuedSecret("theirs-and-it-ends-in-same", 0)
    staged = await world.inspect()
    assert staged.standing is Standing.PENDING_UNPROVEN
    client.current, client.pending = client.pending, None
    assert (await world.inspect()).standing is Standing.UNROTATED


async def test_an_inactive_client_can_be_cancelled_but_not_be_taken_for_finished(world: World) -> None:
    await world.start()
    simulator(world).clients[CLIENT_ID].active = False
    assert (await world.inspect()).standing is Standing.PENDING_UNPROVEN
    verification = await world.verify(world.pending)
    assert verification.verdict is Verdict.REJECTED
    assert "inactive" in verification.outcome.message
    await world.provider.finalize(CLIENT_ID)
    inspection = await world.inspect()
    assert (inspection.standing, inspection.outcome.failure) == (None, Failure.REJECTED)
    assert "inactive" in inspection.outcome.message


async def test_an_inconclusive_confirmation_is_no_standing(world: World) -> None:
    await world.start()
    world.fault("verify", status=503)
    inspection = await world.inspect()
    assert (inspection.standing, inspection.outcome.failure) == (None, Failure.UNREACHABLE)
    await world.provider.finalize(CLIENT_ID)
    world.fault("verify", status=503)
    assert (await world.inspect()).standing is None, "a finished rotation must not look like one that never began"


@pytest.mark.parametrize("switch", ["reject", "replace"])
async def test_a_second_start_either_way(world: World, switch: str) -> None:
    simulator(world).switches = simulator(world).switches.model_copy(update={"start_while_started": switch})
    first, second = await world.start(), await world.start()
    assert first.secret
    if switch == "reject":
        assert (second.outcome.effect, second.outcome.failure) == (Effect.NOT_APPLIED, Failure.REJECTED)
        assert (await world.verify(first.secret)).verdict is Verdict.ACCEPTED
    else:
        assert second.outcome.effect is Effect.APPLIED
        assert (await world.verify(first.secret)).verdict is Verdict.REJECTED
    assert (await world.inspect()).standing is Standing.PENDING_OURS


@pytest.mark.parametrize("operation", ["finalize", "cancel"])
@pytest.mark.parametrize("status", [200, 400, 404])
async def test_finalize_and_cancel_with_nothing_pending_change_nothing(
    world: World, operation: str, status: int
) -> None:
    update = {"rotate_without_start": status, "cancel_without_start": status}
    simulator(world).switches = simulator(world).switches.model_copy(update=update)
    outcome = await world.perform(operation)
    assert outcome.effect is (Effect.APPLIED if status == 200 else Effect.NOT_APPLIED)
    assert (await world.inspect()).standing is Standing.UNROTATED
    assert (await world.verify(world.secret)).verdict is Verdict.ACCEPTED


@pytest.mark.parametrize("status", [400, 401])
async def test_oauth_errors_of_either_status_are_a_rejection(world: World, status: int) -> None:
    simulator(world).switches = simulator(world).switches.model_copy(update={"token_error_status": status})
    assert (await world.verify(SecretStr("wrong"))).verdict is Verdict.REJECTED


async def test_a_bad_request_that_is_no_oauth_error_is_no_rejection(world: World) -> None:
    world.fault("verify", status=400)
    assert (await world.verify(world.secret)).verdict is Verdict.INCONCLUSIVE


async def test_wrong_project_credentials_name_the_secret_to_correct(world: World) -> None:
    simulator(world).project_secret = "changed"
    outcome = await world.provider.check()
    assert outcome.failure is Failure.UNAUTHORIZED
    assert 'key "SECRET" of Secret "st"' in outcome.message


async def test_a_404_of_something_else_is_a_wrong_address(world: World) -> None:
    world.fault("check", status=404, body={"message": "no route"})
    outcome = await world.provider.check()
    assert outcome.failure is Failure.REJECTED
    assert "baseUrl" in outcome.message


async def test_plain_http_is_refused_by_the_service(world: World) -> None:
    simulator(world).switches = simulator(world).switches.model_copy(update={"require_https": True})
    outcome = await world.provider.check()
    assert outcome.failure is Failure.UNAUTHORIZED
    assert "use_https" in outcome.message


@pytest.mark.parametrize("client_id", [".", ".."])
async def test_a_client_id_of_dots_stays_a_client_id(world: World, client_id: str) -> None:
    outcome = (await world.provider.start(client_id, current=None, overlap=timedelta())).outcome
    assert outcome.failure is Failure.CLIENT_NOT_FOUND
    assert simulator(world).calls["start"][-1].params["client_id"] == client_id


@pytest.mark.parametrize(
    ("project", "base", "host"),
    [
        ("project-live-1", None, "api.stytch.com"),
        ("project-test-1", None, "test.stytch.com"),
        ("anything", None, "test.stytch.com"),
        ("project-live-1", "https://proxy.example.com/stytch/", "proxy.example.com"),
    ],
)
async def test_where_calls_go(project: str, base: str | None, host: str) -> None:
    asked: list[httpx.URL] = []

    def fail(request: httpx.Request) -> httpx.Response:
        asked.append(request.url)
        return httpx.Response(500)

    spec = ProviderSpec.model_validate({"stytch": {**SPEC, "projectId": project, "baseUrl": base}})
    provider = registry.build(spec, {"secret": SecretStr("s\n")}, None)
    assert isinstance(provider, StytchProvider)
    provider._http = HttpClient(spec, transport=httpx.MockTransport(fail))
    await provider.finalize("c")
    assert asked[0].host == host
    assert asked[0].path == ("/stytch" if base else "") + "/v1/m2m/clients/c/secrets/rotate"


@pytest.mark.parametrize(
    ("block", "secret", "field"),
    [
        ({**SPEC, "baseUrl": "http://stytch.example.com"}, "s", "spec.stytch.baseUrl"),
        (SPEC, "", "spec.stytch.secretRef"),
        (SPEC, "\n", "spec.stytch.secretRef"),
        (None, "s", "spec"),
    ],
)
def test_what_cannot_be_built_names_its_field(block: dict[str, Any] | None, secret: str, field: str) -> None:
    with pytest.raises(ProviderConfigError) as raised:
        registry.build(ProviderSpec.model_validate({"stytch": block}), {"secret": SecretStr(secret)}, None)
    assert raised.value.field == field


def test_the_table() -> None:
    spec = ProviderSpec.model_validate({"stytch": SPEC})
    assert registry.kind_of(spec) == "stytch"
    assert registry.credential_refs(spec) == {"secret": spec.stytch.secret_ref if spec.stytch else None}
    assert registry.PROVIDERS[registry.kind_of(spec)].capabilities.semantics == "Staged"
    with pytest.raises(ProviderConfigError, match="exactly one of stytch"):
        registry.kind_of(ProviderSpec())


NAMES = st.sampled_from(
    [
        *("m2m_client", "next_client_secret", "client_secret_last_four", "next_client_secret_last_four"),
        *("error", "error_type", "error_message", "access_token", "request_id", "status"),
    ]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=5),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(NAMES, children, max_size=5),
    max_leaves=8,
)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from([200, 201, 302, 400, 401, 404, 429, 500]), JSON)
async def test_no_answer_whatever_it_holds_is_an_exception(status: int, body: Any) -> None:
    spec = ProviderSpec.model_validate({"stytch": SPEC, "rateLimit": {"requestsPerSecond": 1000, "burst": 1000}})
    transport = httpx.MockTransport(lambda _: answer(status, body))
    http = HttpClient(spec, transport=transport)
    assert spec.stytch
    provider = StytchProvider(spec.stytch, "https://host", "project-secret", http)
    issued = await provider.start("c", current=None, overlap=timedelta())
    assert (issued.secret is not None) == issued.outcome.ok == (issued.outcome.effect is Effect.APPLIED)
    inspection = await provider.inspect("c", previous=None, pending=SecretStr("abcd"))
    assert (inspection.standing is not None) == inspection.outcome.ok
    for outcome in (await provider.finalize("c"), await provider.cancel("c"), await provider.check()):
        assert outcome.ok or outcome.message
    verification = await provider.verify("c", SecretStr("abcd"))
    assert (verification.verdict is Verdict.ACCEPTED) == verification.outcome.ok
