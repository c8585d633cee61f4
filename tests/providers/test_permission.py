"""The last word before a request leaves: what is refused then has not sent a byte (I5)."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from keyturn.api.provider import ProviderSpec
from keyturn.providers.addresses import AddressRule, parse_networks
from keyturn.providers.http import Answer, HttpClient
from keyturn.providers.permission import MAY_SEND
from tests.providers.test_transport import self_signed

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


class RefusedError(Exception):
    pass


class Server:
    """Says yes to everything. handshake: set when a TLS handshake may go on."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._context = context
        self.connections = 0
        self.received = b""
        self.handshake = asyncio.Event()
        self.connected = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.connected.set()
        await self.handshake.wait()
        try:
            await writer.start_tls(self._context)
            while piece := await reader.read(65536):
                self.received += piece
                writer.write(ANSWER)
        except (OSError, ssl.SSLError):
            pass
        finally:
            writer.close()


@pytest.fixture(params=[None, AddressRule(parse_networks(["127.0.0.0/8"]))], ids=["the administrator's", "a tenant's"])
async def server(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[tuple[Server, HttpClient, str]]:
    context, bundle = self_signed(tmp_path)
    server = Server(context)
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    client = HttpClient(ProviderSpec(ca_bundle=bundle), request.param)
    try:
        yield server, client, f"https://127.0.0.1:{listening.sockets[0].getsockname()[1]}/"
    finally:
        await client.aclose()
        listening.close()
        await listening.wait_closed()


@pytest.fixture
def allowed() -> Iterator[asyncio.Event]:
    """Permission is given while this is set."""
    event = asyncio.Event()

    def ask() -> None:
        if not event.is_set():
            raise RefusedError

    token = MAY_SEND.set(ask)
    yield event
    MAY_SEND.reset(token)


async def test_what_is_refused_while_connecting_is_not_sent(
    server: tuple[Server, HttpClient, str], allowed: asyncio.Event
) -> None:
    """The question is asked when the connection stands, which may be long after the call began."""
    there, client, url = server
    allowed.set()
    calling = asyncio.create_task(client.send(client.build_request("POST", url), changing=True))
    await there.connected.wait()
    allowed.clear()
    there.handshake.set()
    with pytest.raises(RefusedError):
        await calling
    assert (there.connections, there.received) == (1, b"")


async def test_every_request_is_asked_for_also_on_a_connection_that_stands(
    server: tuple[Server, HttpClient, str], allowed: asyncio.Event
) -> None:
    there, client, url = server
    there.handshake.set()
    allowed.set()
    answer = await client.send(client.build_request("GET", url), changing=False)
    assert isinstance(answer, Answer)
    received = there.received
    allowed.clear()
    with pytest.raises(RefusedError):
        await client.send(client.build_request("GET", url), changing=False)
    allowed.set()
    assert there.received == received
    assert isinstance(await client.send(client.build_request("GET", url), changing=False), Answer)
