"""The simulators' own behaviour: a test is worth what its simulator is worth."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from sandbox.simulators.base import running
from sandbox.simulators.faults import HUGE_BODY, How
from sandbox.simulators.stytch import StytchSimulator

ID = "m2m-client-test-1"
FIRST = "the-first-secret"


class Remote:
    """A simulator as another process sees it: HTTP only."""

    def __init__(self, simulator: StytchSimulator, http: aiohttp.ClientSession) -> None:
        self._http = http
        self._auth = aiohttp.encode_basic_auth(simulator.project_id, simulator.project_secret)
        self._token = f"/v1/public/{simulator.project_id}/oauth2/token"

    async def ask(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        """Status and JSON of any request."""
        async with self._http.request(method, path, json=body, headers=headers, allow_redirects=False) as answer:
            return answer.status, await answer.json(content_type=None)

    async def manage(self, what: str, method: str = "POST", client: str = ID, **headers: str) -> tuple[int, Any]:
        """A management call for one client, with the project's credentials."""
        return await self.ask(method, f"/v1/m2m/clients/{client}{what}", **{"Authorization": self._auth, **headers})

    async def start(self) -> tuple[int, str]:
        """Start a rotation: the status and the new value."""
        status, body = await self.manage("/secrets/rotate/start")
        return status, body.get("m2m_client", {}).get("next_client_secret", "")

    async def token(self, secret: str) -> tuple[int, Any]:
        """A token call."""
        return await self.ask(
            "POST", self._token, {"grant_type": "client_credentials", "client_id": ID, "client_secret": secret}
        )

    async def works(self, *secrets: str) -> list[bool]:
        """Which values are accepted."""
        return [(await self.token(secret))[0] == 200 for secret in secrets]

    async def fault(self, **settings: Any) -> None:
        """Add a fault."""
        status, body = await self.ask("POST", "/_sim/faults", settings)
        assert status == 200, body

    async def switch(self, **switches: Any) -> None:
        """Change switches."""
        status, body = await self.ask("PATCH", "/_sim/switches", switches)
        assert status == 200, body

    async def state(self) -> Any:
        """The simulator's state."""
        return (await self.ask("GET", "/_sim/state"))[1]


@pytest.fixture
async def remote() -> AsyncIterator[Remote]:
    """A simulator with one client."""
    simulator = StytchSimulator()
    async with running(simulator) as url, aiohttp.ClientSession(url) as http:
        made = Remote(simulator, http)
        assert (await made.ask("POST", "/_sim/clients", {"client_id": ID, "client_secret": FIRST}))[0] == 200
        yield made


async def test_both_values_work_until_rotate_and_only_the_new_one_after(remote: Remote) -> None:
    _, second = await remote.start()
    assert await remote.works(FIRST, second, "another") == [True, True, False]
    _, shown = await remote.manage("", "GET")
    assert shown["m2m_client"]["client_secret_last_four"] == FIRST[-4:]
    assert shown["m2m_client"]["next_client_secret_last_four"] == second[-4:]
    assert "next_client_secret" not in shown["m2m_client"], "a value is shown once"
    assert (await remote.manage("/secrets/rotate"))[0] == 200
    assert await remote.works(FIRST, second) == [False, True]


async def test_cancel_drops_the_new_value(remote: Remote) -> None:
    _, second = await remote.start()
    assert (await remote.manage("/secrets/rotate/cancel"))[0] == 200
    assert await remote.works(FIRST, second) == [True, False]


@pytest.mark.parametrize(
    ("setting", "status", "works"), [("reject", 400, [True, True]), ("replace", 200, [True, False])]
)
async def test_start_while_started(remote: Remote, setting: str, status: int, works: list[bool]) -> None:
    await remote.switch(start_while_started=setting)
    _, second = await remote.start()
    assert (await remote.start())[0] == status
    assert await remote.works(FIRST, second) == works


@pytest.mark.parametrize("call", ["rotate", "cancel"])
@pytest.mark.parametrize("status", [200, 400, 404])
async def test_without_start(remote: Remote, call: str, status: int) -> None:
    await remote.switch(**{f"{call}_without_start": status})
    assert (await remote.manage("/secrets/rotate" + ("/cancel" if call == "cancel" else "")))[0] == status
    assert await remote.works(FIRST) == [True]


@pytest.mark.parametrize("status", [400, 401])
async def test_the_token_endpoint_speaks_oauth(remote: Remote, status: int) -> None:
    await remote.switch(token_error_status=status)
    answered, body = await remote.token("wrong")
    assert (answered, body["error"]) == (status, "invalid_client")
    assert "error_description" in body


async def test_new_values_spread_with_a_delay_and_the_clock_can_be_shifted(remote: Remote) -> None:
    await remote.switch(propagation_delay=30)
    _, second = await remote.start()
    assert await remote.works(FIRST, second) == [True, False]
    await remote.ask("POST", "/_sim/clock", {"advance": 31})
    assert await remote.works(FIRST, second) == [True, True]


async def test_errors_have_the_providers_shape(remote: Remote) -> None:
    unknown = await remote.manage("/secrets/rotate/start", client="nobody")
    foreign = await remote.manage("/secrets/rotate/start", Authorization="Basic bm86bm8=")
    await remote.switch(require_https=True)
    plain = await remote.manage("/secrets/rotate/start")
    assert [status for status, _ in (unknown, foreign, plain)] == [404, 401, 403]
    for status, body in (unknown, foreign, plain):
        assert set(body) == {"status_code", "request_id", "error_type", "error_message", "error_url"}
        assert body["status_code"] == status
    assert plain[1]["error_type"] == "use_https"


async def test_an_inactive_client_gets_no_token(remote: Remote) -> None:
    await remote.ask("PUT", f"/v1/m2m/clients/{ID}", {"status": "inactive"}, Authorization=remote._auth)
    assert await remote.works(FIRST) == [False]


async def test_faults_are_used_up_in_order_and_by_caller(remote: Remote) -> None:
    await remote.fault(operation="start", status=503, times=2)
    await remote.fault(operation="start", caller="keyturn", status=418, times=None)
    statuses = [(await remote.manage("/secrets/rotate/start", **{"User-Agent": "other"}))[0] for _ in range(3)]
    assert statuses == [503, 503, 200]
    ours = [(await remote.manage("/secrets/rotate/start", **{"User-Agent": "keyturn"}))[0] for _ in range(3)]
    assert ours == [418, 418, 418]
    assert (await remote.ask("DELETE", "/_sim/faults"))[0] == 200
    assert (await remote.state())["faults"] == []


@pytest.mark.parametrize("apply", [True, False])
@pytest.mark.parametrize("how", [How.DROP, How.TRUNCATE, How.MALFORMED, How.HUGE, How.REDIRECT, How.STATUS])
async def test_each_fault_with_and_without_effect(remote: Remote, how: How, apply: bool) -> None:
    await remote.fault(operation="start", how=how, apply=apply, status=500, headers={"Retry-After": "9"})
    path, headers = f"/v1/m2m/clients/{ID}/secrets/rotate/start", {"Authorization": remote._auth}
    seen: Any
    try:
        async with remote._http.post(path, headers=headers, allow_redirects=False) as answer:
            seen = (answer.status, answer.headers.get("Retry-After"), len(await answer.read()))
    except aiohttp.ClientError as error:
        seen = type(error)
    match how:
        case How.DROP:
            assert seen in (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError)
        case How.TRUNCATE:
            assert seen is aiohttp.ClientPayloadError
        case How.HUGE:
            assert seen[2] > HUGE_BODY
        case How.REDIRECT:
            assert seen[0] == 307
        case How.STATUS:
            assert seen[:2] == (500, "9")
    shown = (await remote.manage("", "GET"))[1]["m2m_client"]["next_client_secret_last_four"]
    assert (shown is not None) is apply
    counted = (await remote.state())["counters"][ID]["start"]
    assert counted["received"]["count"] == 1
    assert counted.get("applied", {"count": 0})["count"] == (1 if apply else 0)


async def test_what_came_over_the_wire_is_recorded(remote: Remote) -> None:
    await remote.token(FIRST)
    await remote.token("wrong")
    await remote.start()
    _, calls = await remote.ask("GET", "/_sim/calls?operation=start")
    assert [call["target"] for call in calls] == [f"/v1/m2m/clients/{ID}/secrets/rotate/start"]
    assert ["Authorization", remote._auth] in calls[0]["headers"]
    counters = (await remote.state())["counters"][ID]
    assert counters["token"]["accepted"]["count"] == counters["token"]["refused"]["count"] == 1
    assert len(counters["start"]["applied"]["times"]) == 1


async def test_the_state_shows_no_values(remote: Remote) -> None:
    _, second = await remote.start()
    state = json.dumps(await remote.state())
    assert FIRST not in state
    assert second not in state


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/_sim/faults", {"how": "nonsense"}),
        ("POST", "/_sim/faults", {"unknown": 1}),
        ("PATCH", "/_sim/switches", {"rotate_without_start": 418}),
        ("PATCH", "/_sim/switches", ["list"]),
        ("POST", "/_sim/clients", {"client_id": ID}),
        ("POST", "/_sim/clients", {"client_secret": "short"}),
        ("POST", "/_sim/clock", {"advance": "much"}),
    ],
)
async def test_mistakes_in_the_control_api_are_told(remote: Remote, method: str, path: str, body: Any) -> None:
    status, answer = await remote.ask(method, path, body)
    assert status == 400
    assert answer["error"]


def test_it_runs_alone_and_ends_in_good_order() -> None:
    process = subprocess.Popen([sys.executable, "-m", "sandbox.simulators"], stdout=subprocess.PIPE, text=True)
    assert process.stdout
    with process, process.stdout:
        said = list(iter(process.stdout.readline, "  curl URL/_sim/state\n"))
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 0
    for provider in ("Stytch", "Janrain", "SnapTrade"):
        assert any(line.startswith(f"{provider} at http://127.0.0.1:") for line in said)
