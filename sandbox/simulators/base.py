"""What all provider simulators share: serving, recording, counting, faults and a clock that can be shifted."""

from __future__ import annotations

import json
import ssl
import time
from abc import ABC, abstractmethod
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar

from aiohttp import web
from pydantic import BaseModel

from sandbox.simulators.control import control_routes
from sandbox.simulators.faults import REDIRECT_TARGET, Fault, Faults, How, Reply, answer

# Token calls of a hundred pods must not push out the calls that a test asks about: the rings are per operation.
RECORDED_CALLS = 1000


@dataclass(frozen=True, slots=True)
class Call:
    """One request, as it came over the wire.

    time: seconds since the epoch by the simulator's clock. target: path and query, still encoded.
    headers: in the order they came. params: the decoded variables of the path.
    """

    time: float
    operation: str
    method: str
    target: str
    headers: tuple[tuple[str, str], ...]
    body: bytes
    params: dict[str, str]
    scheme: str

    def header(self, name: str) -> str | None:
        """The first header of this name, in any case."""
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)

    def json(self) -> Any:
        """The body as JSON; None when it is none."""
        try:
            return json.loads(self.body)
        except ValueError:
            return None

    def to_json(self) -> dict[str, Any]:
        """A form for the control API. It holds what was sent, secrets included: a simulator has no real ones."""
        return {
            "time": self.time,
            "operation": self.operation,
            "method": self.method,
            "target": self.target,
            "headers": [list(pair) for pair in self.headers],
            "body": self.body.decode(errors="replace"),
        }


@dataclass(slots=True)
class Series:
    """How often something happened, and when: the newest thousand times, in epoch seconds."""

    count: int = 0
    times: deque[float] = field(default_factory=lambda: deque(maxlen=RECORDED_CALLS))

    def add(self, now: float) -> None:
        """Count one."""
        self.count += 1
        self.times.append(now)


@dataclass(frozen=True, slots=True)
class Route:
    """An operation of the provider: where it is, and what answers it."""

    operation: str
    method: str
    path: str
    handler: Callable[[Call], Reply]


class Simulator(ABC):
    """One provider's API. State lives in the object: tests in the same process may look at it and change it."""

    kind: ClassVar[str]

    def __init__(self, switches: BaseModel) -> None:
        self.switches = switches
        self.faults = Faults()
        self.calls: dict[str, deque[Call]] = defaultdict(lambda: deque(maxlen=RECORDED_CALLS))
        self.counters: dict[str, dict[str, dict[str, Series]]] = {}
        self._offset = 0.0

    @abstractmethod
    def routes(self) -> Iterable[Route]:
        """The provider's operations."""

    @abstractmethod
    def error(self, status: int) -> Reply:
        """An error of the provider's own shape."""

    @abstractmethod
    def create(self, wanted: dict[str, Any]) -> dict[str, Any]:
        """Make a client and return it with its id and secret; ValueError says what is wrong with `wanted`."""

    @abstractmethod
    def clients_state(self) -> dict[str, Any]:
        """The clients by id, without secret values."""

    def client_of(self, call: Call) -> str | None:
        """The client that a call is about, if any: calls received are counted by it."""
        return call.params.get("client_id")

    def now(self) -> float:
        """The simulator's time, in seconds since the epoch."""
        return time.time() + self._offset

    def advance(self, seconds: float) -> None:
        """Shift the clock."""
        self._offset += seconds

    def add_fault(self, operation: str = "*", how: How = How.STATUS, **settings: Any) -> None:
        """Make the next call of an operation go wrong; see `Fault` for the settings."""
        self.await_faults([Fault(operation=operation, how=how, **settings)])

    def await_faults(self, faults: Iterable[Fault]) -> None:
        """Add faults; ValueError for an operation that there is not, which would never come."""
        wanted, known = list(faults), {"*", "redirected", "unknown", *(route.operation for route in self.routes())}
        for fault in wanted:
            if fault.operation not in known:
                raise ValueError(f"no operation {fault.operation}: there are {', '.join(sorted(known))}")
        self.faults.waiting += wanted

    def clear_faults(self) -> None:
        """Answer properly from now on."""
        self.faults.waiting.clear()

    def count(self, client_id: str, operation: str, event: str) -> None:
        """Count an event of a client: `received` and `applied` for changes, `accepted` and `refused` for proofs."""
        events = self.counters.setdefault(client_id, {}).setdefault(operation, {})
        events.setdefault(event, Series()).add(self.now())

    def counted(self, client_id: str, operation: str, event: str) -> int:
        """How often an event was counted."""
        series = self.counters.get(client_id, {}).get(operation, {}).get(event)
        return series.count if series else 0

    def application(self) -> web.Application:
        """The simulator as an aiohttp application, its control API included."""
        app = web.Application(client_max_size=1024 * 1024)
        app.add_routes(control_routes(self))
        for route in self.routes():
            app.router.add_route(route.method, route.path, self._serve(route))
        app.router.add_route("*", REDIRECT_TARGET, self._serve(Route("redirected", "*", "", self._nothing_here)))
        app.router.add_route("*", "/{path:.*}", self._serve(Route("unknown", "*", "", self._nothing_here)))
        return app

    def _nothing_here(self, _: Call) -> Reply:
        return self.error(404)

    def _serve(self, route: Route) -> Callable[[web.Request], Any]:
        async def handle(request: web.Request) -> web.StreamResponse:
            call = Call(
                time=self.now(),
                operation=route.operation,
                method=request.method,
                target=request.raw_path,
                headers=tuple(request.headers.items()),
                body=await request.read(),
                params=dict(request.match_info),
                scheme=request.scheme,
            )
            self.calls[route.operation].append(call)
            if client_id := self.client_of(call):
                self.count(client_id, route.operation, "received")
            fault = self.faults.take(route.operation, call.header("User-Agent") or "")
            if fault is None:
                reply = route.handler(call)
                return web.json_response(reply.body, status=reply.status, headers=reply.headers)
            proper = route.handler(call) if fault.apply or fault.how is How.PROPER else self.error(fault.status)
            if fault.how is How.STATUS:
                body = fault.body if fault.body is not None else self.error(fault.status).body
                proper = Reply(fault.status, body)
            return await answer(request, fault, proper)

        return handle


@asynccontextmanager
async def running(
    simulator: Simulator, *, host: str = "127.0.0.1", port: int = 0, tls: ssl.SSLContext | None = None
) -> AsyncIterator[str]:
    """Serve a simulator and give its base URL; port 0 takes a free one."""
    runner = web.AppRunner(simulator.application(), access_log=None, shutdown_timeout=1)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port, ssl_context=tls).start()
        bound = runner.addresses[0][1]
        yield f"{'https' if tls else 'http'}://{host}:{bound}"
    finally:
        await runner.cleanup()
