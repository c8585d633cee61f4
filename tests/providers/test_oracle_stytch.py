"""The official SDK is the judge: what it sends and what Keyturn sends must be the same request."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest
import requests
import stytch
from pydantic import SecretStr
from stytch.core.response_base import StytchError

from keyturn.providers.base import Provider
from sandbox.simulators.base import Call, running
from sandbox.simulators.stytch import StytchSimulator
from tests.providers.subjects import STYTCH, provider_of

# The SDK's asynchronous half, unused here, is built with something that aiohttp has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:BasicAuth is deprecated:DeprecationWarning")

CLIENT_IDS = ["m2m-client-test-2d7f", "with/slash and+plus", "ä%2F?#&=;:@", "~-._"]
SECRET = 'a-secret-with-"quotes"-and-ünïcode'


class Sides:
    """Both clients of one simulator."""

    def __init__(self, simulator: StytchSimulator, keyturn: Provider, sdk: stytch.Client) -> None:
        self.simulator = simulator
        self.keyturn = keyturn
        self.sdk = sdk

    async def calls(self, operation: str, *sides: Callable[[], Awaitable[Any]]) -> list[Call]:
        """What each side sends for an operation."""
        for side in sides:
            await side()
        return list(self.simulator.calls[operation])


@pytest.fixture
async def sides() -> AsyncIterator[Sides]:
    """Keyturn and the SDK before the same simulator."""
    simulator = StytchSimulator(project_secret="secret-test-with:colon+/=")
    async with running(simulator) as url:
        keyturn = provider_of(STYTCH, simulator, url)
        # custom_base_url insists on https; the environment may be any address (PROVIDERS.md D).
        # Its synchronous client: the other one's HTTP library writes paths anew.
        with requests.Session() as session:
            sdk = stytch.Client(
                simulator.project_id, simulator.project_secret, environment=f"{url}/", sync_session=session
            )
            try:
                yield Sides(simulator, keyturn, sdk)
            finally:
                await keyturn.aclose()


def assert_same(ours: Call, theirs: Call) -> None:
    """Field by field: method, path, credentials, content type, meaning of the body."""
    assert ours.method == theirs.method
    assert ours.target == theirs.target
    assert ours.header("Authorization") == theirs.header("Authorization")
    assert ours.header("Content-Type") == theirs.header("Content-Type") == "application/json"
    assert json.loads(ours.body) == json.loads(theirs.body)
    assert int(ours.header("Content-Length") or 0) == len(ours.body)


@pytest.mark.parametrize("client_id", CLIENT_IDS)
async def test_start(sides: Sides, client_id: str) -> None:
    sides.simulator.switches.start_while_started = "replace"
    sides.simulator.create({"client_id": client_id})
    ours, theirs = await sides.calls(
        "start",
        lambda: sides.keyturn.start(client_id, current=None, overlap=timedelta()),
        lambda: asyncio.to_thread(sides.sdk.m2m.clients.secrets.rotate_start, client_id),
    )
    assert_same(ours, theirs)
    assert ours.params["client_id"] == client_id


@pytest.mark.parametrize("client_id", CLIENT_IDS)
async def test_finalize(sides: Sides, client_id: str) -> None:
    sides.simulator.switches.rotate_without_start = 200
    sides.simulator.create({"client_id": client_id})
    ours, theirs = await sides.calls(
        "rotate",
        lambda: sides.keyturn.finalize(client_id),
        lambda: asyncio.to_thread(sides.sdk.m2m.clients.secrets.rotate, client_id),
    )
    assert_same(ours, theirs)


@pytest.mark.parametrize("client_id", CLIENT_IDS)
async def test_cancel(sides: Sides, client_id: str) -> None:
    sides.simulator.switches.cancel_without_start = 200
    sides.simulator.create({"client_id": client_id})
    ours, theirs = await sides.calls(
        "cancel",
        lambda: sides.keyturn.cancel(client_id),
        lambda: asyncio.to_thread(sides.sdk.m2m.clients.secrets.rotate_cancel, client_id),
    )
    assert_same(ours, theirs)


@pytest.mark.parametrize("client_id", CLIENT_IDS)
async def test_inspect(sides: Sides, client_id: str) -> None:
    sides.simulator.create({"client_id": client_id})
    ours, theirs = await sides.calls(
        "get",
        lambda: sides.keyturn.inspect(client_id, previous=None, pending=None),
        lambda: asyncio.to_thread(sides.sdk.m2m.clients.get, client_id),
    )
    assert ours.method == theirs.method
    # The SDK repeats the client id in the query, where the API does not ask for it.
    path, _, query = theirs.target.partition("?")
    assert ours.target == path
    assert query.startswith("client_id=")
    assert ours.header("Authorization") == theirs.header("Authorization")
    assert ours.header("Content-Type") == theirs.header("Content-Type")
    assert ours.body == theirs.body == b""


@pytest.mark.parametrize("client_id", CLIENT_IDS)
async def test_verify(sides: Sides, client_id: str) -> None:
    sides.simulator.create({"client_id": client_id, "client_secret": SECRET})
    ours, theirs = await sides.calls(
        "token",
        lambda: sides.keyturn.verify(client_id, SecretStr(SECRET)),
        lambda: asyncio.to_thread(sides.sdk.m2m.token, client_id, SECRET),
    )
    assert (ours.method, ours.target) == (theirs.method, theirs.target)
    assert ours.header("Content-Type") == theirs.header("Content-Type")
    assert json.loads(ours.body) == json.loads(theirs.body)
    # The SDK sends the project's credentials with everything; the token endpoint needs none, so Keyturn sends none.
    assert ours.header("Authorization") is None
    assert sides.simulator.counted(client_id, "token", "accepted") == 2


async def test_the_sdk_reads_the_simulators_answers(sides: Sides) -> None:
    client = sides.sdk.m2m.clients
    created = await asyncio.to_thread(client.create, scopes=["read:users"], client_name="billing")
    client_id, old = created.m2m_client.client_id, created.m2m_client.client_secret
    assert created.m2m_client.client_secret_last_four == old[-4:]
    new = (await asyncio.to_thread(client.secrets.rotate_start, client_id)).m2m_client.next_client_secret
    shown = (await asyncio.to_thread(client.get, client_id)).m2m_client
    assert (shown.client_secret_last_four, shown.next_client_secret_last_four) == (old[-4:], new[-4:])
    assert shown.scopes == ["read:users"]
    assert (await asyncio.to_thread(sides.sdk.m2m.token, client_id, new)).token_type == "bearer"
    assert (await asyncio.to_thread(client.secrets.rotate, client_id)).m2m_client.client_secret_last_four == new[-4:]
    assert (await asyncio.to_thread(client.get, client_id)).m2m_client.next_client_secret_last_four is None
    with pytest.raises(StytchError):
        await asyncio.to_thread(sides.sdk.m2m.token, client_id, old)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 429, 500])
async def test_the_sdk_reads_the_simulators_errors(sides: Sides, status: int) -> None:
    sides.simulator.add_fault("start", status=status)
    with pytest.raises(StytchError) as raised:
        await asyncio.to_thread(sides.sdk.m2m.clients.secrets.rotate_start, "anyone")
    assert raised.value.details.status_code == status
    assert raised.value.details.request_id


async def test_both_recover_what_the_other_began(sides: Sides) -> None:
    sides.simulator.create({"client_id": "shared"})
    await asyncio.to_thread(sides.sdk.m2m.clients.secrets.rotate_start, "shared")
    assert (await sides.keyturn.cancel("shared")).ok
    issued = await sides.keyturn.start("shared", current=None, overlap=timedelta())
    assert issued.secret
    await asyncio.to_thread(sides.sdk.m2m.clients.secrets.rotate, "shared")
    assert sides.simulator.accepts("shared", issued.secret.get_secret_value())
