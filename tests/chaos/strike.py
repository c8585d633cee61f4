"""One blow against an operator, at one request: a kill, a lost reply, a fault, a freeze, or a stale answer."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from aiohttp import web

from tests.chaos.sites import API, CHANGES, PROVIDER, Counted, Operations, Site, api_write
from tests.e2e.proxy import Exchange, pass_on
from tests.e2e.scene import Scene

_CLUSTER_WIDE: Final = "/apis/keyturn.dev/v1alpha1/"
_NAMESPACED: Final = frozenset({"clientsecretrotations", "rotationproviders"})
_ROTATION: Final = "clientsecretrotations"
_LAG: Final = 10.0
"""Seconds until a server that lags behind tells the truth at last."""


class When(StrEnum):
    """What happens at a request.

    before, after: kill -9, and the request never arrives, or was carried out. lost: it was carried out, and the
    operator gets no answer. conflict, throttled, failed: the API server answers so, and does nothing. frozen: it was
    carried out, and the operator stands still until another replica has come to the end. stale: it was carried out,
    then kill -9, and what the next operator sees of the rotation before it writes is as it was at its beginning.
    """

    BEFORE = "killed before"
    AFTER = "killed after"
    LOST = "reply lost"
    CONFLICT = "answered 409"
    THROTTLED = "answered 429"
    FAILED = "answered 500"
    FROZEN = "frozen after"
    STALE = "killed after, stale reads"


KILLS: Final = frozenset({When.BEFORE, When.AFTER, When.STALE})
_ANSWERS: Final = {
    When.CONFLICT: (409, "Conflict", {}),
    When.THROTTLED: (429, "TooManyRequests", {"Retry-After": "1"}),
    When.FAILED: (500, "InternalError", {}),
}


class Guards:
    """What stands before the API server and before the provider of one scene.

    Writes and calls are counted from `begin` on. The operator is shown the scene's namespace only, so that many
    operators can run beside each other; all else is as it would be.
    """

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self._operations = Operations(scene.account.simulator)
        self._act: Callable[[When], None] = lambda _: None
        self._blow: tuple[Site, When] | None = None
        self._counting = False
        self._stale: dict[str, Any] | None = None
        self._caught_up = asyncio.Event()
        self.kubeconfig: Path | None = None
        """Of the operator, once there is one."""
        self.complaints: list[str] = []
        """What the operator did wrong, as seen from here."""
        self.counted = Counted()
        self.struck = threading.Event()
        self.looked_after = threading.Event()
        """An operator has listed or watched all rotations since the blow: the one that has been struck, or the next.

        Where reads are stale: it has written what it makes of them.
        """
        self.unannounced: list[str] = []
        """Changing calls of the provider that found no intent, finalizer or journal in the cluster (I1, I2)."""

    def begin(self, act: Callable[[When], None], site: Site | None, when: When | None) -> None:
        """Count from now on, and strike when the site comes. act: kills or freezes the operator, at once."""
        self._act = act
        self._blow = (site, when) if site is not None and when is not None else None
        self._counting = True

    def remember(self) -> None:
        """What the rotation is like now is what stale reads show later."""
        if self._blow is not None and self._blow[1] is When.STALE:
            self._stale = self._scene.rotation()

    async def api(self, exchange: Exchange) -> web.StreamResponse:
        """The guard before the API server."""
        kind = exchange.path.removeprefix(_CLUSTER_WIDE)
        if kind in _NAMESPACED:
            exchange.path = f"{_CLUSTER_WIDE}namespaces/{self._scene.namespace}/{kind}"
            if kind == _ROTATION and self.struck.is_set() and self._stale is None:
                self.looked_after.set()
        lags = self._stale is not None and self.struck.is_set() and not self._caught_up.is_set()
        if lags and _ROTATION in exchange.path:
            return await self._answer_stale(exchange)
        return await self._pass(exchange, API, api_write(exchange))

    async def provider(self, exchange: Exchange) -> web.StreamResponse:
        """The guard before the provider."""
        operation = self._operations.name(exchange)
        if operation in CHANGES:
            await asyncio.to_thread(self._look_for_the_intent, operation)
        return await self._pass(exchange, PROVIDER, operation)

    def _look_for_the_intent(self, operation: str) -> None:
        found = self._scene.rotation()
        status = found.get("status") or {}
        missing = [
            *(() if (status.get("rotation") or {}).get("id") else ("intent",)),
            *(() if found["metadata"].get("finalizers") else ("finalizer",)),
            *(() if self._scene.journals() else ("journal",)),
        ]
        self.unannounced += [f"{operation} without {it}" for it in missing]

    async def _pass(self, exchange: Exchange, side: str, what: str | None) -> web.StreamResponse:
        if what is None or not self._counting:
            return await pass_on(exchange)
        site = self.counted.add(side, what)
        if self._blow is None or self._blow[0] != site or self.struck.is_set():
            return await pass_on(exchange)
        return await self._strike(exchange, self._blow[1])

    async def _strike(self, exchange: Exchange, when: When) -> web.StreamResponse:
        if when in _ANSWERS:
            self.struck.set()
            return refusal(*_ANSWERS[when])
        answer = await exchange.forward() if when is not When.BEFORE else None
        self._act(when)
        self.struck.set()
        return answer if when is When.FROZEN and answer is not None else exchange.drop()

    async def _answer_stale(self, exchange: Exchange) -> web.StreamResponse:
        """The lists that the next operator begins with, and its first look at the object, are of an older version.

        What it writes then comes to the object as it is, and with that the lag is over.
        """
        if exchange.is_watch:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._caught_up.wait(), _LAG)
            self._catch_up()
            return await pass_on(exchange)
        if exchange.method != "GET":
            try:
                return await self._pass(exchange, API, api_write(exchange))
            finally:
                self._catch_up()
        stale = self._stale or {}
        if not exchange.path.endswith(_ROTATION):
            return web.json_response(stale)
        found = await exchange.forward()
        body = json.loads(found.body or b"{}")  # type: ignore[arg-type]
        body["items"] = [stale for _ in body["items"]]
        body["metadata"]["resourceVersion"] = stale["metadata"]["resourceVersion"]
        return web.json_response(body)

    def _catch_up(self) -> None:
        self._caught_up.set()
        self.looked_after.set()


def refusal(code: int, reason: str, headers: dict[str, str] | None = None) -> web.Response:
    """A Status as API servers word it (metav1.Status)."""
    status = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "code": code, "message": "x"}
    return web.json_response(status, status=code, headers=headers)
