"""What an operator asks of the API server, in order: a proxy between the two that writes down every request."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from aiohttp import web

from sandbox.controlplane.endpoint import Endpoint
from sandbox.stage import NAMESPACE, SERVICE_ACCOUNT
from tests.e2e.proxy import Exchange, Guard, pass_on, proxy
from tests.e2e.scene import Scene


@dataclass(frozen=True, slots=True)
class Request:
    """One request of the operator. `time`: when it came, in seconds since the epoch. `what`: the last of the path."""

    time: float
    method: str
    path: str
    dry_run: bool

    @property
    def what(self) -> str:
        return "/".join(self.path.rstrip("/").split("/")[-2:])


@dataclass
class ApiLog:
    """The requests so far, without watches. `kubeconfig` leads an operator through the proxy."""

    kubeconfig: Path
    requests: list[Request] = field(default_factory=list)

    def about(self, scene: Scene, *, since: float = 0.0) -> list[Request]:
        """The requests that concern the scene's namespace, in the order in which they came."""
        place = f"/namespaces/{scene.namespace}/"
        return [one for one in self.requests if place in one.path and one.time >= since]


@contextmanager
def recorded(scene: Scene, guard: Guard = pass_on) -> Iterator[ApiLog]:
    """Serve a proxy before the API server for as long as the context lasts. guard: what becomes of the requests."""
    plane = scene.stage.control_plane
    upstream = plane.service_account_endpoint(NAMESPACE, SERVICE_ACCOUNT)
    log = ApiLog(plane.directory / f"kubeconfig-recorded-{scene.namespace}")

    async def write_down(exchange: Exchange) -> web.StreamResponse:
        if not exchange.is_watch:
            log.requests.append(Request(time.time(), exchange.method, exchange.path, "dryRun" in exchange.query))
        return await guard(exchange)

    served = AsyncExitStack()
    before = proxy(upstream.server, write_down, upstream.ssl_context())
    address = scene.stage.do(served.enter_async_context(before))
    Endpoint(address, upstream.ca_file, upstream.token).write_kubeconfig(log.kubeconfig, "recorded")
    try:
        yield log
    finally:
        scene.stage.do(served.aclose())
