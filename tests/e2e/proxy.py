"""A proxy that a test can stand in the way with: before the API server, and before a provider.

A `Guard` sees each request before it goes on. It may forward it, answer it itself, or drop it: once, twice, or never.
"""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

import aiohttp
from aiohttp import web
from yarl import URL

from sandbox.simulators.faults import drop

_NOT_FORWARDED: Final = {"host", "transfer-encoding", "content-length", "connection"}
_MAX_BODY: Final = 16 * 1024 * 1024


@dataclass
class TruncatedError(Exception):
    """The answer ended early. body: as much of it as came. length: what was announced."""

    status: int
    headers: dict[str, str]
    body: bytes
    length: int | None


@dataclass(eq=False)
class Exchange:
    """A request on its way.

    method, path: as they came, the path without the query. query: decoded. body: its bytes. `path` may be changed
    before it is forwarded; the query goes on as it came, byte by byte. through: what makes other lines of those that
    a watch is answered with.
    """

    request: web.Request
    method: str
    path: str
    body: bytes
    upstream: Upstream
    through: Through | None = None

    @property
    def query(self) -> dict[str, str]:
        return dict(self.request.query)

    @property
    def is_watch(self) -> bool:
        return self.request.query.get("watch") in ("true", "1")

    async def forward(self) -> web.Response:
        """Send it on, and return the whole answer, which is not sent back yet. Raises TruncatedError."""
        async with self.upstream.send(self) as answer:
            body = bytearray()
            try:
                async for piece in answer.content.iter_any():
                    body += piece
            except aiohttp.ClientPayloadError:
                raise TruncatedError(answer.status, _kept(answer), bytes(body), answer.content_length) from None
            return web.Response(status=answer.status, headers=_kept(answer), body=bytes(body))

    async def stream(self) -> web.StreamResponse:
        """Send it on, and the answer back piece by piece: for watches."""
        async with self.upstream.send(self) as answer:
            response = web.StreamResponse(status=answer.status, headers=_kept(answer))
            with contextlib.suppress(ConnectionError):  # who asked has gone
                await response.prepare(self.request)
                pieces = answer.content.iter_any() if self.through is None else self.through(aiter(answer.content))
                async for piece in pieces:
                    await response.write(piece)
            return response

    async def truncate(self, error: TruncatedError) -> web.StreamResponse:
        """Answer with what came, then close the connection."""
        response = web.StreamResponse(status=error.status, headers=error.headers)
        response.content_length = error.length
        await response.prepare(self.request)
        await response.write(error.body)
        if self.request.transport:
            self.request.transport.close()
        return response

    def drop(self) -> web.Response:
        """Reset the connection: no answer."""
        return drop(self.request)


Through = Callable[[AsyncIterator[bytes]], AsyncIterator[bytes]]
Guard = Callable[[Exchange], Awaitable[web.StreamResponse]]


async def pass_on(exchange: Exchange) -> web.StreamResponse:
    """The guard that lets everything through."""
    return await (exchange.stream() if exchange.is_watch else exchange.forward())


class Upstream:
    """What the proxy is before. `address` is its URL without a path, `tls` how to trust it."""

    def __init__(self, address: str, tls: ssl.SSLContext | None = None) -> None:
        self._address = address.rstrip("/")
        connector = aiohttp.TCPConnector(ssl=tls if tls is not None else True, limit=0)
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=30)
        self._http = aiohttp.ClientSession(connector=connector, auto_decompress=False, timeout=timeout)

    @asynccontextmanager
    async def send(self, exchange: Exchange) -> AsyncIterator[aiohttp.ClientResponse]:
        """The answer to the exchange's request."""
        request = exchange.request
        headers = [(name, value) for name, value in request.headers.items() if name.lower() not in _NOT_FORWARDED]
        _, mark, query = request.raw_path.partition("?")
        path = exchange.path if exchange.path != request.path else request.raw_path.partition("?")[0]
        url = URL(f"{self._address}{path}{mark}{query}", encoded=True)
        skip = () if exchange.body else ("Content-Type",)  # aiohttp would add one, which old API servers refuse
        async with self._http.request(
            exchange.method,
            url,
            data=exchange.body or None,
            headers=headers,
            skip_auto_headers=skip,
            allow_redirects=False,
        ) as answer:
            yield answer

    async def close(self) -> None:
        await self._http.close()


@asynccontextmanager
async def proxy(address: str, guard: Guard, tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """Serve before `address` on a free port of the loopback for as long as the context lasts; gives the URL."""
    upstream = Upstream(address, tls)

    async def handle(request: web.Request) -> web.StreamResponse:
        exchange = Exchange(request, request.method, request.path, await request.read(), upstream)
        try:
            return await guard(exchange)
        except TruncatedError as error:
            return await exchange.truncate(error)
        except aiohttp.ClientConnectionError:  # what is behind has gone, and so do we
            return exchange.drop()

    app = web.Application(client_max_size=_MAX_BODY)
    app.router.add_route("*", "/{path:.*}", handle)
    # Watches of an operator that is gone end with it.
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1, handler_cancellation=True)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()
        await upstream.close()


def _kept(answer: aiohttp.ClientResponse) -> dict[str, str]:
    return {name: value for name, value in answer.headers.items() if name.lower() not in _NOT_FORWARDED}
