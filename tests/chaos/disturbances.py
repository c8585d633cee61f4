"""What is in the operator's way for a while, and what its side of the API server looks like then.

One of these lives as long as one rotation; `tests.chaos.faults` says which there are and how long they last.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

from aiohttp import web

from sandbox.stage import NAMESPACE, SERVICE_ACCOUNT
from tests.chaos.sites import api_write
from tests.chaos.strike import Guards, refusal
from tests.e2e.proxy import Exchange
from tests.e2e.scene import Scene

Onward = Callable[[Exchange], Awaitable[web.StreamResponse]]
_REASONS: Final = {
    401: "Unauthorized",
    410: "Expired",
    429: "TooManyRequests",
    500: "InternalError",
    503: "ServiceUnavailable",
}


class Disturbance:
    """Lets everything pass; a subclass does not.

    prepare: before the rotation, on the test's thread. started, over: when the fault begins and ends, on the event loop
    of the proxies. api: each request of the operator to the API server in between.
    """

    cuts_watches = False
    """Whether the watches that are open when it starts are reset."""
    stays = False
    """Whether requests go through it also when it is over."""
    scene: Scene
    guards: Guards

    def prepare(self, scene: Scene, guards: Guards) -> None:
        self.scene, self.guards = scene, guards

    def started(self) -> None:
        pass

    def over(self) -> None:
        pass

    async def api(self, exchange: Exchange, onward: Onward) -> web.StreamResponse:
        return await onward(exchange)

    def acted(self) -> None:
        """It was felt."""
        self.guards.struck.set()


class Outage(Disturbance):
    """Every request is answered with this status, or with a reset connection when it is None."""

    cuts_watches = True

    def __init__(self, status: int | None) -> None:
        self._status = status

    async def api(self, exchange: Exchange, onward: Onward) -> web.StreamResponse:
        self.acted()
        return exchange.drop() if self._status is None else refusal(self._status, _REASONS[self._status])


class Throttled(Disturbance):
    """429 for every request; a write must not come again before its time.

    reads: nor must reads of the rotation, where no watch is there yet whose own failures are a reason to look again.
    """

    cuts_watches = True

    def __init__(self, retry_after: int, *, reads: bool) -> None:
        self._retry_after, self._reads = retry_after, reads
        self._refused: dict[str, float] = {}

    async def api(self, exchange: Exchange, onward: Onward) -> web.StreamResponse:
        self.acted()
        what, now = api_write(exchange), time.monotonic()
        if self._reads and exchange.method == "GET" and exchange.path.endswith("/billing"):
            what = "GET billing"
        # What is wrong is said in the status at once, as far as that can be written.
        if what is not None and not what.endswith("/status"):
            early = self._refused.get(what, now) - now
            if early > self._retry_after / 5:
                self.guards.complaints.append(f"{what}: asked again {early:.1f} s before the end of Retry-After")
            self._refused[what] = now + self._retry_after
        return refusal(429, _REASONS[429], {"Retry-After": str(self._retry_after)})


class Slow(Disturbance):
    """Every answer comes so many seconds later."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    async def api(self, exchange: Exchange, onward: Onward) -> web.StreamResponse:
        self.acted()
        if exchange.is_watch:
            await asyncio.sleep(self._seconds)
            return await onward(exchange)
        answer = await onward(exchange)
        await asyncio.sleep(self._seconds)
        return answer


class WatchRefused(Disturbance):
    """Each watch is answered with this status."""

    cuts_watches = True

    def __init__(self, status: int) -> None:
        self._status = status

    async def api(self, exchange: Exchange, onward: Onward) -> web.StreamResponse:
        if not exchange.is_watch:
            return await onward(exchange)
        self.acted()
        return refusal(self._status, _REASONS[self._status])


class WatchEnds(Disturbance):
    """Each watch comes to an end after some time, with a last line; with a reset connection when there is none."""

    cuts_watches = True

    def __init__(self, after: float, last: bytes | None) -> None:
        self._after, self._last = after, last

    async def api(self, exchange: Exchange, onward: Onward) -> web.StreamResponse:
        if exchange.is_watch:
            exchange.through = lambda lines: self._short(exchange, lines)
        return await onward(exchange)

    async def _short(self, exchange: Exchange, lines: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        end = time.monotonic() + self._after
        async with _queued(lines) as queue:
            while (line := await _next(queue, end - time.monotonic())) is not _NOTHING:
                if line is None:
                    return
                yield line
        self.acted()
        if self._last is None:
            exchange.drop()
        else:
            yield self._last + b"\n"


class WatchFails(WatchEnds):
    """Each watch of rotations comes to an end with this line; who does not list them again cannot write.

    Until that list has come after the first such end, which keeps the rotation from being over before.
    """

    def __init__(self, after: float, last: bytes) -> None:
        super().__init__(after, last)
        self._listed_again = False

    async def api(self, exchange: Exchange, onward: Onward) -> web.StreamResponse:
        if exchange.path.endswith("/clientsecretrotations"):
            self._listed_again |= self.guards.struck.is_set() and not exchange.is_watch
            return await super().api(exchange, onward)
        if api_write(exchange) is not None and not self._listed_again:
            return refusal(503, _REASONS[503])
        return await onward(exchange)


class EventsDropped(Disturbance):
    """Events of these types are left out of all watches."""

    cuts_watches = True

    def __init__(self, *types: str) -> None:
        self._types = frozenset(types)

    async def api(self, exchange: Exchange, onward: Onward) -> web.StreamResponse:
        exchange.through = self._sifted
        return await onward(exchange)

    async def _sifted(self, lines: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        async for line in lines:
            if json.loads(line)["type"] in self._types:
                self.acted()
            else:
                yield line


class EventsCoalesced(Disturbance):
    """Of several events about an object within some seconds, only what they come to is told, in the end."""

    cuts_watches = True

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    async def api(self, exchange: Exchange, onward: Onward) -> web.StreamResponse:
        exchange.through = self._gathered
        return await onward(exchange)

    async def _gathered(self, lines: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        held: dict[str, dict[str, Any]] = {}
        until = 0.0
        async with _queued(lines) as queue:
            while True:
                line = await _next(queue, until - time.monotonic() if held else None)
                if line is _NOTHING or line is None:
                    for event in held.values():
                        yield json.dumps(event).encode() + b"\n"
                    held.clear()
                    if line is None:
                        return
                    continue
                event = json.loads(line)
                until = until if held else time.monotonic() + self._seconds
                self._merge(held, event)

    def _merge(self, held: dict[str, dict[str, Any]], event: dict[str, Any]) -> None:
        uid = event["object"].get("metadata", {}).get("uid", event["type"])
        before = held.pop(uid, None)
        if before is None:
            held[uid] = event
            return
        self.acted()
        if before["type"] == "ADDED" and event["type"] == "MODIFIED":
            event = {**event, "type": "ADDED"}
        if not (before["type"] == "ADDED" and event["type"] == "DELETED"):
            held[uid] = event


class PagesExpire(Disturbance):
    """Lists come in pages, and so many times the second page of each list is not there any more.

    Who watches must list first: the first watch of each kind is refused.
    """

    cuts_watches = True

    def __init__(self, times: int) -> None:
        self._times = times
        self._expired = Counter[str]()
        self._refused = set[str]()

    async def api(self, exchange: Exchange, onward: Onward) -> web.StreamResponse:
        path = exchange.path
        if exchange.is_watch and path not in self._refused:
            self._refused.add(path)
            return refusal(410, _REASONS[410])
        if exchange.method != "GET" or exchange.is_watch or "limit" not in exchange.query:
            return await onward(exchange)
        if "continue" in exchange.query:
            self._expired[path] += 1
            self.acted()
            return refusal(410, _REASONS[410])
        answer = await onward(exchange)
        if answer.status != 200 or self._expired[path] >= self._times:
            return answer
        page = _json_of(answer)
        page["items"] = page["items"][:1]
        page["metadata"] |= {"continue": "the-second-page", "remainingItemCount": 1}
        return web.json_response(page)


class Stale(Disturbance):
    """Reads of these kinds show what was there some seconds ago, as far as it was read then."""

    def __init__(self, seconds: float, *kinds: str) -> None:
        self._seconds, self._kinds = seconds, kinds
        self._known: dict[str, list[tuple[float, bytes]]] = {}

    async def api(self, exchange: Exchange, onward: Onward) -> web.StreamResponse:
        parts = exchange.path.split("/")
        if exchange.method != "GET" or exchange.is_watch or not set(self._kinds) & set(parts):
            return await onward(exchange)
        # Lists of metadata are none of whole objects.
        place = f"{exchange.path} {exchange.request.headers.get('Accept')}"
        answer, now = await onward(exchange), time.monotonic()
        if answer.status not in (200, 404):
            return answer
        known = self._known.setdefault(place, [])
        known.append((now, json.dumps([answer.status, _json_of(answer)]).encode()))
        old = [text for seen, text in known if seen <= now - self._seconds] or [known[0][1]]
        if old[-1] != known[-1][1]:
            self.acted()
        status, body = json.loads(old[-1])
        return web.json_response(body, status=status)


class TokenExpires(Disturbance):
    """The token of the operator's kubeconfig is refused; when it is over, the kubeconfig has another one."""

    cuts_watches = True
    stays = True

    def prepare(self, scene: Scene, guards: Guards) -> None:
        super().prepare(scene, guards)
        plane = scene.stage.control_plane
        self._fresh = plane.service_account_endpoint(NAMESPACE, SERVICE_ACCOUNT, seconds=7200).token
        self._old: str | None = None

    def over(self) -> None:
        path = self.guards.kubeconfig
        if path is not None and self._old is not None:
            path.write_text(path.read_text().replace(self._old, self._fresh))

    async def api(self, exchange: Exchange, onward: Onward) -> web.StreamResponse:
        token = exchange.request.headers.get("Authorization", "").removeprefix("Bearer ")
        if token == self._fresh:
            return await onward(exchange)
        self._old = token
        self.acted()
        return refusal(401, _REASONS[401])


def error_event(code: int) -> bytes:
    """A watch event of type ERROR, whose object is a metav1.Status."""
    status = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": "x"}
    return json.dumps({"type": "ERROR", "object": {**status, "reason": _REASONS[code], "code": code}}).encode()


_NOTHING: Final = b""
"""No line came in time."""


@asynccontextmanager
async def _queued(lines: AsyncIterator[bytes]) -> AsyncIterator[asyncio.Queue[bytes | None]]:
    """The lines as they come, then None: a wait for the next one can be given up without losing it."""
    queue: asyncio.Queue[bytes | None] = asyncio.Queue()

    async def pump() -> None:
        try:
            async for line in lines:
                queue.put_nowait(line)
        finally:
            queue.put_nowait(None)

    pumping = asyncio.create_task(pump())
    try:
        yield queue
    finally:
        pumping.cancel()
        await asyncio.gather(pumping, return_exceptions=True)


async def _next(queue: asyncio.Queue[bytes | None], seconds: float | None) -> bytes | None:
    """The next line, None at the end, _NOTHING when none came within so many seconds."""
    try:
        return await asyncio.wait_for(queue.get(), seconds if seconds is None else max(seconds, 0.0))
    except TimeoutError:
        return _NOTHING


def _json_of(answer: web.StreamResponse) -> Any:
    assert isinstance(answer, web.Response)
    assert isinstance(answer.body, bytes)
    return json.loads(answer.body)
