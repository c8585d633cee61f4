"""The control API of a simulator: JSON over HTTP under `/_sim/`, on the simulator's own port.

    GET    /_sim/state                     clock, switches, faults, clients, counters
    POST   /_sim/clients      {…}          create a client, as the provider's own call would; answers with its secret
    PATCH  /_sim/switches     {name: …}    change switches
    POST   /_sim/faults       {…} or […]   add faults (`sandbox.simulators.faults.Fault`)
    DELETE /_sim/faults                    clear them
    POST   /_sim/clock        {"advance": seconds}
    GET    /_sim/calls?operation=start     recorded requests, oldest first

Mistakes are answered 400 with {"error": …}.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from aiohttp import web
from pydantic import TypeAdapter, ValidationError

from sandbox.simulators.faults import Fault

if TYPE_CHECKING:
    from sandbox.simulators.base import Simulator

_FAULTS: TypeAdapter[list[Fault]] = TypeAdapter(list[Fault])


def control_routes(simulator: Simulator) -> list[web.RouteDef]:
    """The routes that drive this simulator."""
    control = _Control(simulator)
    return [
        web.get("/_sim/state", _answered(control.state)),
        web.post("/_sim/clients", _answered(control.create)),
        web.patch("/_sim/switches", _answered(control.switch)),
        web.post("/_sim/faults", _answered(control.add_faults)),
        web.delete("/_sim/faults", _answered(control.clear_faults)),
        web.post("/_sim/clock", _answered(control.advance)),
        web.get("/_sim/calls", _answered(control.calls)),
    ]


def state_of(simulator: Simulator) -> dict[str, Any]:
    """What `GET /_sim/state` answers."""
    return {
        "kind": simulator.kind,
        "now": simulator.now(),
        "switches": simulator.switches.model_dump(mode="json"),
        "faults": [fault.model_dump(mode="json") for fault in simulator.faults.waiting],
        "clients": simulator.clients_state(),
        "counters": {
            client: {
                operation: {
                    event: {"count": series.count, "times": list(series.times)} for event, series in events.items()
                }
                for operation, events in operations.items()
            }
            for client, operations in simulator.counters.items()
        },
    }


class _Control:
    def __init__(self, simulator: Simulator) -> None:
        self._simulator = simulator

    async def state(self, _: web.Request) -> Any:
        return state_of(self._simulator)

    async def create(self, request: web.Request) -> Any:
        return self._simulator.create(await _object(request))

    async def switch(self, request: web.Request) -> Any:
        switches = self._simulator.switches
        merged = {**switches.model_dump(), **await _object(request)}
        self._simulator.switches = type(switches).model_validate(merged)
        return self._simulator.switches.model_dump(mode="json")

    async def add_faults(self, request: web.Request) -> Any:
        body = await request.json()
        self._simulator.await_faults(_FAULTS.validate_python(body if isinstance(body, list) else [body]))
        return [fault.model_dump(mode="json") for fault in self._simulator.faults.waiting]

    async def clear_faults(self, _: web.Request) -> Any:
        self._simulator.clear_faults()
        return []

    async def advance(self, request: web.Request) -> Any:
        self._simulator.advance(float((await _object(request)).get("advance", 0)))
        return {"now": self._simulator.now()}

    async def calls(self, request: web.Request) -> Any:
        wanted = request.query.get("operation")
        found = [
            call for operation, calls in self._simulator.calls.items() if wanted in (None, operation) for call in calls
        ]
        return [call.to_json() for call in sorted(found, key=lambda call: call.time)]


async def _object(request: web.Request) -> dict[str, Any]:
    body = await request.json() if request.can_read_body else {}
    if not isinstance(body, dict):
        raise TypeError("the body must be a JSON object")
    return body


def _answered(
    handler: Callable[[web.Request], Awaitable[Any]],
) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def handle(request: web.Request) -> web.StreamResponse:
        try:
            return web.json_response(await handler(request))
        except ValidationError as error:
            return web.json_response({"error": error.errors(include_url=False, include_context=False)}, status=400)
        except (ValueError, TypeError) as error:
            return web.json_response({"error": str(error)}, status=400)

    return handle
