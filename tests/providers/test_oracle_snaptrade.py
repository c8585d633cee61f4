"""The official SDK is the judge: what it sends and what Keyturn sends must be the same request, signature included."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from typing import Any

import pytest
from pydantic import SecretStr

from keyturn.api.semantics import Standing, Verdict
from keyturn.providers.base import Provider
from sandbox.simulators.base import Call, running
from sandbox.simulators.snaptrade import SnapTradeSimulator, signature
from tests.providers.oracle import SnapTradeSDK
from tests.providers.subjects import SNAPTRADE, provider_of

USERS = ["snaptrade-user-123", "with/slash and+plus", "usér-1", "ä%2F?#&=;:@'\"(*)!", "~-._", "\U0001f511 ключ"]
SECRET = 'a-secret/with+"quotes"-and-ünïcode&='
NOW = 1_635_790_389


@pytest.fixture(scope="module")
def sdk() -> Iterator[SnapTradeSDK]:
    """The SDK in its own process and environment."""
    with SnapTradeSDK() as running_sdk:
        yield running_sdk


class Sides:
    """Both clients of one simulator, at the same second."""

    def __init__(self, simulator: SnapTradeSimulator, url: str, keyturn: Provider, sdk: SnapTradeSDK) -> None:
        self.simulator = simulator
        self.keyturn = keyturn
        self._sdk = sdk
        self._account: dict[str, Any] = {
            "host": url,
            "client_id": simulator.client_id,
            "consumer_key": simulator.consumer_key,
            "time": NOW,
        }

    async def ask(self, operation: str, **arguments: Any) -> dict[str, Any]:
        """Make a call with the SDK."""
        return await asyncio.to_thread(self._sdk.call, operation, arguments, **self._account)

    def calls(self, operation: str) -> tuple[Call, Call]:
        """The first two requests for an operation."""
        ours, theirs = self.simulator.calls[operation]
        return ours, theirs


@pytest.fixture
async def sides(sdk: SnapTradeSDK, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Sides]:
    """Keyturn and the SDK before the same simulator."""
    simulator = SnapTradeSimulator(client_id="PASSIVTEST", consumer_key="key-with:colon+/=ünïcode")
    async with running(simulator) as url:
        keyturn = provider_of(SNAPTRADE, simulator, url)
        with monkeypatch.context() as patched:
            patched.setattr(time, "time", lambda: float(NOW))
            yield Sides(simulator, url, keyturn, sdk)
        await keyturn.aclose()


def assert_same(ours: Call, theirs: Call) -> None:
    """Field by field: method, path, order and encoding of the query, signature, content type, bytes of the body."""
    assert ours.method == theirs.method
    assert ours.target == theirs.target
    assert ours.header("Signature") == theirs.header("Signature") is not None
    assert ours.header("Accept") == theirs.header("Accept") == "application/json"
    assert ours.json() == theirs.json()
    assert ours.body == theirs.body
    assert ours.header("Content-Type") == theirs.header("Content-Type")
    assert int(ours.header("Content-Length") or 0) == len(ours.body)


@pytest.mark.parametrize("user", USERS)
async def test_reset(sides: Sides, user: str) -> None:
    sides.simulator.create({"client_id": user, "client_secret": SECRET})
    issued = await sides.keyturn.start(user, current=SecretStr(SECRET), overlap=timedelta())
    assert issued.secret
    sides.simulator.users[user].secret = SECRET
    answer = await sides.ask("reset", user_id=user, user_secret=SECRET)
    assert answer["body"] == {"userId": user, "userSecret": sides.simulator.users[user].secret}
    assert_same(*sides.calls("start"))


@pytest.mark.parametrize("user", USERS)
async def test_list_of_connections(sides: Sides, user: str) -> None:
    sides.simulator.create({"client_id": user, "client_secret": SECRET})
    assert (await sides.keyturn.verify(user, SecretStr(SECRET))).verdict is Verdict.ACCEPTED
    answer = await sides.ask("authorizations", user_id=user, user_secret=SECRET)
    assert len(answer["body"]) == 1
    assert_same(*sides.calls("authorizations"))


async def test_list_of_users(sides: Sides) -> None:
    sides.simulator.create({"client_id": "one"})
    assert (await sides.keyturn.check()).ok
    assert (await sides.ask("list"))["body"] == ["one"]
    assert_same(*sides.calls("list"))


@pytest.mark.parametrize(
    ("operation", "arguments"),
    [
        ("reset", {"user_id": "nobody", "user_secret": SECRET}),
        ("authorizations", {"user_id": "nobody", "user_secret": SECRET}),
    ],
)
@pytest.mark.parametrize("before", ["", "default_"])
async def test_the_sdk_reads_the_simulators_errors(
    sides: Sides, operation: str, arguments: dict[str, str], before: str
) -> None:
    sides.simulator.switches.error_fields = "default_" if before else ""
    answer = await sides.ask(operation, **arguments)
    assert answer["status"] == 401
    assert answer["error"][f"{before}code"] == "1083"
    assert answer["error"][f"{before}detail"] == "Invalid userID or userSecret provided"


async def test_the_way_back_after_a_lost_answer_is_the_one_that_the_vendor_describes(sides: Sides) -> None:
    """Delete, register, and reconnect: what `Capabilities.lost_remedy` tells a person to do."""
    sides.simulator.create({"client_id": "user-1", "client_secret": SECRET})
    old = SecretStr(SECRET)
    sides.simulator.add_fault("start", status=500, apply=True)
    assert (await sides.keyturn.start("user-1", current=old, overlap=timedelta())).secret is None
    assert (await sides.keyturn.inspect("user-1", previous=old, pending=None)).standing is Standing.LOST
    assert (await sides.ask("delete", user_id="user-1"))["body"]["userId"] == "user-1"
    fresh = (await sides.ask("register", user_id="user-1"))["body"]["userSecret"]
    assert (await sides.keyturn.verify("user-1", SecretStr(fresh))).verdict is Verdict.ACCEPTED
    assert (await sides.ask("authorizations", user_id="user-1", user_secret=fresh))["body"] == []


def test_the_simulator_wants_the_signatures_that_the_vendor_documents() -> None:
    """The vectors of PROVIDERS.md A2, recomputed there from the SDK's headers."""
    target = "/snapTrade/resetUserSecret?clientId=PASSIVTEST&timestamp=1635790389"
    body = {"userId": "snaptrade-user-123", "userSecret": "adf2aa34-8219-40f7-a6b3-60156985cc61"}
    assert signature("YOUR_CONSUMER_KEY", target, body) == "BVQea+sXMrA+D6qof7WAgi5VoZpERHsmSpYRGm+GhpM="
    other = {"userId": "usér-1", "userSecret": "old"}
    assert signature("YOUR_CONSUMER_KEY", target, other) == "5isfeGpmxzGbjhXGz8OEJiqNeOALc0K0l2cFm41BKmk="
