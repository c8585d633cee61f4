"""Which of a host's addresses is connected to: one that was judged, whatever its name stands for a moment later."""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from keyturn.api.provider import ProviderSpec
from keyturn.api.semantics import Effect, Failure, Outcome
from keyturn.providers.addresses import AddressRule, parse_networks
from keyturn.providers.http import Answer, HttpClient
from tests.providers.test_transport import self_signed

HOST = "api.example.com"
GOOD, BAD, ALSO_GOOD = "127.0.0.2", "127.0.0.3", "127.0.0.4"
RULE = AddressRule(parse_networks([GOOD, ALSO_GOOD]))


@dataclass
class Listener:
    """Counts connections, and answers requests. closing: after each answer."""

    address: str
    closing: bool = False
    connections: int = 0
    requests: list[bytes] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        self.connections += 1
        end = b"Connection: close\r\n" if self.closing else b""
        try:
            while True:
                self.requests.append(await reader.readuntil(b"\r\n\r\n"))
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n" + end + b"\r\n{}")
                if self.closing:
                    break
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def listening(*listeners: Listener, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """All of them, at one port; gives it."""
    async with AsyncExitStack() as stack:
        port = 0
        for listener in listeners:
            server = await asyncio.start_server(listener.serve, listener.address, port, ssl=tls)
            stack.push_async_callback(server.wait_closed)
            stack.callback(server.close)
            port = port or server.sockets[0].getsockname()[1]
        yield port


class NameServer:
    """Stands for the resolver: HOST has these addresses, those of the last answer from then on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *answers: Iterable[str], seconds: float = 0) -> None:
        self.asked = 0
        real = socket.getaddrinfo

        def getaddrinfo(host: str | bytes | None, port: int, *more: Any, **options: Any) -> list[Any]:
            if host not in (HOST, HOST.encode()):
                return list(real(host, port, *more, **options))
            found = answers[min(self.asked, len(answers) - 1)]
            self.asked += 1
            time.sleep(seconds)
            return [entry for address in found for entry in real(address, port, type=socket.SOCK_STREAM)]

        monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


@asynccontextmanager
async def client(rule: AddressRule | None = RULE, **spec: Any) -> AsyncIterator[HttpClient]:
    """A client as a provider has it."""
    usual = {"timeouts": {"connect": "10s", "read": "20s"}}
    made = HttpClient(ProviderSpec.model_validate({**usual, **spec}), rule)
    try:
        yield made
    finally:
        await made.aclose()


async def call(made: HttpClient, port: int, host: str = HOST, scheme: str = "http") -> Answer | Outcome:
    """One request that changes something."""
    return await made.send(made.build_request("POST", f"{scheme}://{host}:{port}/", json={}), changing=True)


def assert_refused(outcome: Answer | Outcome) -> None:
    assert isinstance(outcome, Outcome)
    assert (outcome.effect, outcome.failure) == (Effect.NOT_APPLIED, Failure.ADDRESS_NOT_PERMITTED)


async def test_the_address_that_was_judged_is_the_one_that_is_connected_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that has another address when it is asked again, which it is for the next connection only."""
    good, bad = Listener(GOOD, closing=True), Listener(BAD)
    name_server = NameServer(monkeypatch, [GOOD], [BAD])
    async with listening(good, bad) as port, client() as made:
        assert isinstance(await call(made, port), Answer)
        assert (name_server.asked, good.connections, bad.connections) == (1, 1, 0)
        assert_refused(await call(made, port))
        assert (name_server.asked, good.connections, bad.connections) == (2, 1, 0)
    assert f"Host: {HOST}:{port}".encode() in good.requests[0]


async def test_a_connection_that_stands_is_used_again_and_nobody_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    good = Listener(GOOD)
    name_server = NameServer(monkeypatch, [GOOD], [BAD])
    async with listening(good) as port, client() as made:
        for _ in range(5):
            assert isinstance(await call(made, port), Answer)
    assert (name_server.asked, good.connections, len(good.requests)) == (1, 1, 5)


@pytest.mark.parametrize("order", [(BAD, GOOD), (GOOD, BAD), (BAD, "::1", "10.0.0.1", GOOD)])
async def test_of_several_addresses_only_the_permitted_are_tried(
    monkeypatch: pytest.MonkeyPatch, order: tuple[str, ...]
) -> None:
    good, bad = Listener(GOOD), Listener(BAD)
    NameServer(monkeypatch, order)
    async with listening(good, bad) as port, client() as made:
        assert isinstance(await call(made, port), Answer)
    assert (good.connections, bad.connections) == (1, 0)


async def test_no_forbidden_address_takes_the_place_of_one_that_does_not_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bad = Listener(BAD)
    NameServer(monkeypatch, [GOOD, BAD])
    async with listening(bad) as port, client() as made:
        outcome = await call(made, port)
    assert isinstance(outcome, Outcome)
    assert (outcome.effect, outcome.failure) == (Effect.NOT_APPLIED, Failure.UNREACHABLE)
    assert "connection refused" in outcome.message
    assert bad.connections == 0


async def test_a_second_address_is_tried_when_the_first_one_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    other = Listener(ALSO_GOOD)
    NameServer(monkeypatch, [GOOD, ALSO_GOOD])
    async with listening(other) as port, client() as made:
        assert isinstance(await call(made, port), Answer)


async def test_a_second_address_is_tried_when_the_first_one_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    """As it is where IPv6 leads nowhere: that must not cost every connection the whole timeout."""
    other = Listener(ALSO_GOOD)
    NameServer(monkeypatch, [GOOD, ALSO_GOOD])
    with socket.socket() as deaf, socket.socket() as first, socket.socket() as second:
        async with listening(other) as port, client() as made:
            deaf.bind((GOOD, port))
            deaf.listen(0)
            for waiting in (first, second):  # with these its queue is full, and what comes then is left without answer
                waiting.setblocking(False)
                waiting.connect_ex((GOOD, port))
            async with asyncio.timeout(5):
                assert isinstance(await call(made, port), Answer)
            assert other.connections == 1
    assert len(asyncio.all_tasks()) <= 2, "no attempt is left behind"


@pytest.mark.parametrize("host", ["keyturn.invalid", "a" * 64, "127.0.0.1%00", "127.0.0.1.5"])
async def test_a_host_without_address_was_not_called(host: str) -> None:
    async with client() as made:
        outcome = await call(made, 80, host)
    assert isinstance(outcome, Outcome)
    assert (outcome.effect, outcome.failure) == (Effect.NOT_APPLIED, Failure.UNREACHABLE)


async def test_a_name_server_that_does_not_answer_counts_towards_the_time_for_connecting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    NameServer(monkeypatch, [GOOD], seconds=2)
    async with client(timeouts={"connect": "200ms", "read": "20s"}) as made:
        began = time.monotonic()
        outcome = await call(made, 80)
        assert time.monotonic() - began < 1.5
    assert isinstance(outcome, Outcome)
    assert (outcome.effect, outcome.failure) == (Effect.NOT_APPLIED, Failure.UNREACHABLE)
    assert "too long" in outcome.message


SPELLINGS = [
    "127.0.0.1",
    "localhost",
    "127.1",
    "2130706433",
    "0x7f000001",
    "0x7f.1",
    "017700000001",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[0:0:0:0:0:ffff:7f00:0001]",
    "0.0.0.0",  # noqa: S104
    "0",
]


@pytest.mark.parametrize("host", SPELLINGS)
async def test_however_an_address_is_written_it_is_judged_as_what_it_is(host: str) -> None:
    """Each of these leads to the listener where it is allowed, so that it would without the rule."""
    listener = Listener("127.0.0.1")
    allowed = AddressRule(parse_networks(["127.0.0.0/8,0.0.0.0/8"]))
    async with listening(listener) as port, client(AddressRule()) as confined, client(allowed) as free:
        assert_refused(await call(confined, port, host))
        assert listener.connections == 0
        assert isinstance(await call(free, port, host), Answer)
        assert listener.connections == 1


async def test_what_is_not_a_tenant_s_may_be_anywhere() -> None:
    listener = Listener("127.0.0.1")
    async with listening(listener) as port, client(None) as free:
        assert isinstance(await call(free, port, "localhost"), Answer)


async def test_the_certificate_proves_the_name_and_not_the_address(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The server is asked for by its name, and a certificate for another one is refused as ever."""
    NameServer(monkeypatch, [GOOD])
    context, bundle = self_signed(tmp_path, HOST)
    asked: list[str | None] = []
    context.sni_callback = lambda _, name, __: asked.append(name)
    good = Listener(GOOD)
    async with listening(good, tls=context) as port, client(caBundle=bundle) as made:
        assert isinstance(await call(made, port, scheme="https"), Answer)
        assert asked == [HOST]
        mismatch = await call(made, port, GOOD, scheme="https")
    assert isinstance(mismatch, Outcome)
    assert (mismatch.effect, mismatch.failure) == (Effect.NOT_APPLIED, Failure.UNREACHABLE)
    assert "certificate" in mismatch.message

    context, bundle = self_signed(tmp_path, GOOD)
    good = Listener(GOOD)
    async with listening(good, tls=context) as port, client(caBundle=bundle) as made:
        mismatch = await call(made, port, scheme="https")
    assert isinstance(mismatch, Outcome)
    assert "certificate" in mismatch.message
    assert good.requests == []


async def test_a_redirect_to_a_forbidden_address_is_not_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    bad = Listener(BAD)
    NameServer(monkeypatch, [GOOD])

    async def redirect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        location = f"http://{BAD}:{port}/".encode()
        writer.write(b"HTTP/1.1 307 Temporary Redirect\r\nContent-Length: 0\r\nLocation: " + location + b"\r\n\r\n")
        writer.close()

    async with listening(bad) as port, client() as made:
        server = await asyncio.start_server(redirect, GOOD, port)
        async with server:
            answer = await call(made, port)
    assert isinstance(answer, Answer)
    assert answer.status == 307
    assert bad.connections == 0
