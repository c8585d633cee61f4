"""The simulators of Janrain and SnapTrade, as other programs see them: what is unsettled is a switch, and errors."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from yarl import URL

from sandbox.simulators.base import Call, Simulator, running
from sandbox.simulators.janrain import JanrainSimulator
from sandbox.simulators.janrain import signature as janrain_signature
from sandbox.simulators.snaptrade import SnapTradeSimulator, signature

ID = "client-1"
FIRST = "the-first-secret"


class Remote:
    """A simulator as another process sees it: HTTP only."""

    def __init__(self, simulator: Simulator, url: str, http: aiohttp.ClientSession) -> None:
        self.simulator = simulator
        self._url = url
        self._http = http

    async def ask(self, method: str, target: str, **content: Any) -> tuple[int, Any]:
        """Status and JSON of any request; the target goes out as it is."""
        async with self._http.request(method, URL(self._url + target, encoded=True), **content) as answer:
            return answer.status, await answer.json(content_type=None)

    async def switch(self, **switches: Any) -> None:
        """Change switches."""
        status, body = await self.ask("PATCH", "/_sim/switches", json=switches)
        assert status == 200, body

    async def pass_time(self, seconds: float) -> None:
        """Shift the clock."""
        await self.ask("POST", "/_sim/clock", json={"advance": seconds})


class Janrain(Remote):
    """Calls of a Janrain client."""

    simulator: JanrainSimulator

    async def call(self, path: str, client: str, secret: str, method: str = "POST", **form: str) -> tuple[int, Any]:
        """A call with basic-auth."""
        login = base64.b64encode(f"{client}:{secret}".encode()).decode()
        return await self.ask(method, path, data=form or None, headers={"Authorization": f"Basic {login}"})

    async def reset(self, **form: str) -> Any:
        """reset_secret as the owner; errors come with status 200."""
        owner = self.simulator.owner_id, self.simulator.owner_secret
        status, body = await self.call("/clients/reset_secret", *owner, **form)
        assert status == 200
        return body

    async def read(self, client: str = ID, app: str | None = None) -> tuple[int, Any]:
        """A client of the configuration API."""
        path = f"/config/{app or self.simulator.app_id}/clients/{client}"
        return await self.call(path, self.simulator.owner_id, self.simulator.owner_secret, "GET")

    async def works(self, *secrets: str) -> list[bool]:
        """Which values are accepted."""
        answers = [await self.call("/entity.count", ID, secret, type_name="user") for secret in secrets]
        return [body["stat"] == "ok" for _, body in answers]


class SnapTrade(Remote):
    """Signed calls with a SnapTrade API key."""

    simulator: SnapTradeSimulator

    async def call(self, method: str, path: str, query: str = "", body: Any = None, **override: str) -> tuple[int, Any]:
        """A signed call. override: clientId, timestamp or key to use instead."""
        client = override.get("clientId", self.simulator.client_id)
        stamp = override.get("timestamp", str(int(time.time())))
        target = f"{path}?{query}{'&' if query else ''}clientId={client}&timestamp={stamp}"
        headers = {"Signature": signature(override.get("key", self.simulator.consumer_key), target, body)}
        return await self.ask(method, target, json=body, headers=headers)

    async def reset(self, user: str = ID, secret: str = FIRST, prefix: str = "") -> tuple[int, Any]:
        """resetUserSecret."""
        body = {"userId": user, "userSecret": secret}
        return await self.call("POST", f"{prefix}/snapTrade/resetUserSecret", body=body)

    async def works(self, *secrets: str) -> list[bool]:
        """Which values are accepted."""
        queries = [f"userId={ID}&userSecret={secret}" for secret in secrets]
        return [(await self.call("GET", "/authorizations", query))[0] == 200 for query in queries]


@pytest.fixture
async def janrain() -> AsyncIterator[Janrain]:
    """An application with one client."""
    simulator = JanrainSimulator()
    async with running(simulator) as url, aiohttp.ClientSession() as http:
        made = Janrain(simulator, url, http)
        await made.ask("POST", "/_sim/clients", json={"client_id": ID, "client_secret": FIRST})
        yield made


@pytest.fixture
async def snaptrade() -> AsyncIterator[SnapTrade]:
    """An API key with one user."""
    simulator = SnapTradeSimulator()
    async with running(simulator) as url, aiohttp.ClientSession() as http:
        made = SnapTrade(simulator, url, http)
        await made.ask("POST", "/_sim/clients", json={"client_id": ID, "client_secret": FIRST})
        yield made


async def test_janrain_keeps_the_old_value_for_as_long_as_was_asked(janrain: Janrain) -> None:
    body = await janrain.reset(for_client_id=ID, hours_to_live="2")
    assert set(body) == {"stat", "new_secret"}
    assert await janrain.works(FIRST, body["new_secret"], "another") == [True, True, False]
    await janrain.pass_time(7201)
    assert await janrain.works(FIRST, body["new_secret"]) == [False, True]
    assert await janrain.works((await janrain.reset(for_client_id=ID, hours_to_live="0"))["new_secret"]) == [True]
    assert await janrain.works(body["new_secret"]) == [False]


@pytest.mark.parametrize(("setting", "oldest"), [("kills", False), ("keeps", True)])
async def test_janrains_second_reset(janrain: Janrain, setting: str, oldest: bool) -> None:
    await janrain.switch(second_reset=setting)
    second = (await janrain.reset(for_client_id=ID, hours_to_live="2"))["new_secret"]
    third = (await janrain.reset(for_client_id=ID, hours_to_live="1"))["new_secret"]
    assert await janrain.works(FIRST, second, third) == [oldest, True, True]
    await janrain.pass_time(3601)
    assert await janrain.works(FIRST, second, third) == [oldest, False, True]


async def test_janrains_new_values_spread_with_a_delay_without_a_gap(janrain: Janrain) -> None:
    await janrain.switch(propagation_delay=30)
    second = (await janrain.reset(for_client_id=ID, hours_to_live="0"))["new_secret"]
    assert await janrain.works(FIRST, second) == [True, False]
    await janrain.pass_time(30)
    assert await janrain.works(FIRST, second) == [False, True]


@pytest.mark.parametrize("hours", ["169", "320", "-1", "1.5", "", "²", "one"])
async def test_janrains_documented_error(janrain: Janrain, hours: str) -> None:
    body = await janrain.reset(for_client_id=ID, hours_to_live=hours)
    assert (body["stat"], body["code"], body["error"]) == ("error", 200, "invalid_argument")
    assert body["argument_name"] == "hours_to_live"
    assert "between 0 and 168" in body["error_description"]
    assert len(body["request_id"]) == 16
    assert await janrain.works(FIRST) == [True]


async def test_janrains_errors(janrain: Janrain) -> None:
    assert (await janrain.reset(hours_to_live="1"))["code"] == 100
    assert (await janrain.reset(for_client_id=ID))["code"] == 100
    assert (await janrain.reset(for_client_id="nobody", hours_to_live="1"))["code"] == 310
    await janrain.switch(unknown_client_code=200, default_hours=1, request_id_member="request_token")
    body = await janrain.reset(for_client_id="nobody", hours_to_live="1")
    assert body["code"] == 200
    assert body["request_token"]
    assert "new_secret" in await janrain.reset(for_client_id=ID)
    mine = {"for_client_id": ID, "hours_to_live": "1"}
    assert (await janrain.call("/clients/reset_secret", ID, FIRST, **mine))[1]["code"] == 403
    assert (await janrain.call("/clients/reset_secret", ID, "wrong", **mine))[1]["code"] == 402
    assert (await janrain.ask("POST", "/entity.count", headers={"Authorization": "Basic !"}))[1]["code"] == 402
    janrain.simulator.clients[ID].may_count = False
    assert (await janrain.call("/entity.count", ID, FIRST, type_name="user"))[1]["code"] == 403


async def test_janrains_signatures_and_their_clock(janrain: Janrain) -> None:
    async def count(date: str, signed_date: str | None = None) -> Any:
        call = Call(0, "", "POST", "/entity.count", (), b"type_name=user", {}, "http")
        sent = janrain_signature(FIRST, call, signed_date or date)
        headers = {"Date": date, "Authorization": f"Signature {ID}:{sent}"}
        return (await janrain.ask("POST", "/entity.count", data={"type_name": "user"}, headers=headers))[1]

    assert (await count("2016-02-26 19:08:44"))["stat"] == "ok"
    assert (await count("2016-02-26 19:08:44", "2016-02-26 19:08:45"))["code"] == 402
    assert (await count("Fri, 26 Feb 2016 19:08:44 GMT"))["code"] == 402
    await janrain.switch(clock_skew=60)
    assert (await count("2016-02-26 19:08:44"))["code"] == 402
    assert (await count(time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime())))["stat"] == "ok"


def test_janrains_documented_signature() -> None:
    """The vector of PROVIDERS.md A1."""
    body = b"hours_to_live=24&for_client_id=67890fghij67890fghij"
    call = Call(0, "start", "POST", "/clients/reset_secret", (), body, {}, "http")
    assert janrain_signature("hijklmnop", call, "2016-02-26 19:08:44") == "T+Ly9SLtsUu5De5G1/sNwVx9++8="


async def test_janrains_configuration(janrain: Janrain) -> None:
    assert (await janrain.read())[1]["_secret"] == FIRST
    second = (await janrain.reset(for_client_id=ID, hours_to_live="1"))["new_secret"]
    assert (await janrain.read())[1]["_secret"] == second
    assert [(await janrain.read(client="nobody"))[0], (await janrain.read(app="other"))[0]] == [404, 404]
    path = f"/config/{janrain.simulator.app_id}/clients/{ID}"
    assert (await janrain.call(path, ID, second, "GET"))[0] == 403
    assert (await janrain.call(path, ID, "wrong", "GET"))[0] == 401
    for shape, shown in (("client_secret", second), ("nested", None), ("absent", None)):
        await janrain.switch(read_back=shape)
        body = (await janrain.read())[1]
        assert "_secret" not in body
        assert body.get("client_secret") == shown


async def test_snaptrade_replaces_the_value_at_once(snaptrade: SnapTrade) -> None:
    status, body = await snaptrade.reset()
    assert (status, body["userId"]) == (200, ID)
    assert await snaptrade.works(FIRST, body["userSecret"]) == [False, True]
    assert (await snaptrade.reset())[0] == 401, "the old value authorises nothing any more"
    await snaptrade.switch(propagation_delay=30)
    third = (await snaptrade.reset(secret=body["userSecret"]))[1]["userSecret"]
    assert await snaptrade.works(body["userSecret"], third) == [False, False]
    await snaptrade.pass_time(30)
    assert await snaptrade.works(third) == [True]


async def test_snaptrades_signatures_and_their_clock(snaptrade: SnapTrade) -> None:
    path = "/snapTrade/listUsers"
    assert (await snaptrade.call("GET", path))[1] == [ID]
    for wrong in ({"key": "other"}, {"clientId": "other"}):
        status, body = await snaptrade.call("GET", path, **wrong)
        assert (status, body["code"]) == (401, "1076")
    await snaptrade.switch(timestamp_tolerance=60, timestamp_code=7)
    assert (await snaptrade.call("GET", path, timestamp="1635790389"))[1]["code"] == 7
    assert (await snaptrade.call("GET", path))[0] == 200
    signed = f"{path}?clientId={snaptrade.simulator.client_id}&timestamp={int(time.time())}"
    headers = {"Signature": signature(snaptrade.simulator.consumer_key, signed)}
    assert (await snaptrade.ask("GET", f"{signed}&more=1", headers=headers))[0] == 401, "all of the query is signed"


@pytest.mark.parametrize("fields", ["", "default_"])
async def test_snaptrades_errors(snaptrade: SnapTrade, fields: str) -> None:
    await snaptrade.switch(error_fields=fields, user_code=1, refused_user_status=400, answers_user_id=False)
    status, body = await snaptrade.reset(secret="wrong")
    assert (status, body[f"{fields}code"]) == (400, 1)
    assert f"{fields}detail" in body
    assert (await snaptrade.call("POST", "/snapTrade/resetUserSecret", body={"userId": ID}))[0] == 400
    assert set((await snaptrade.reset())[1]) == {"userSecret"}


async def test_snaptrades_legacy_prefix(snaptrade: SnapTrade) -> None:
    assert (await snaptrade.reset(prefix="/api/v1"))[0] == 200
    await snaptrade.switch(legacy_prefix=False)
    assert (await snaptrade.reset(prefix="/api/v1"))[0] == 404


async def test_snaptrades_rate_limit(snaptrade: SnapTrade) -> None:
    await snaptrade.switch(requests_per_minute=1)
    assert [(await snaptrade.call("GET", "/authorizations"))[0] for _ in range(2)] == [401, 429]
    await snaptrade.pass_time(60)
    assert (await snaptrade.reset())[0] == 200


async def test_snaptrades_personal_keys_and_users(snaptrade: SnapTrade) -> None:
    assert (await snaptrade.call("DELETE", "/snapTrade/deleteUser", f"userId={ID}"))[0] == 200
    assert (await snaptrade.call("DELETE", "/snapTrade/deleteUser", f"userId={ID}"))[0] == 404
    fresh = (await snaptrade.call("POST", "/snapTrade/registerUser", body={"userId": ID}))[1]["userSecret"]
    assert await snaptrade.works(fresh) == [True]
    assert (await snaptrade.call("POST", "/snapTrade/registerUser", body={"userId": ID}))[0] == 400
    await snaptrade.switch(commercial=False)
    assert (await snaptrade.reset(secret=fresh))[0] == 403
    assert await snaptrade.works(fresh) == [True]


async def test_calls_are_counted_by_client_and_the_state_shows_no_values(
    janrain: Janrain, snaptrade: SnapTrade
) -> None:
    await janrain.works(FIRST, "wrong")
    await snaptrade.works(FIRST, "wrong")
    values = [(await janrain.reset(for_client_id=ID, hours_to_live="1"))["new_secret"]]
    await janrain.reset(for_client_id=ID, hours_to_live="many")
    values.append((await snaptrade.reset())[1]["userSecret"])
    await snaptrade.reset()
    for remote, operation in ((janrain, "count"), (snaptrade, "authorizations")):
        _, state = await remote.ask("GET", "/_sim/state")
        counted = {name: series["count"] for name, series in state["counters"][ID][operation].items()}
        assert counted == {"received": 2, "accepted": 1, "refused": 1}
        started = {name: series["count"] for name, series in state["counters"][ID]["start"].items()}
        assert started == {"received": 2, "applied": 1}
        assert not [value for value in (*values, FIRST) if value in json.dumps(state)]
