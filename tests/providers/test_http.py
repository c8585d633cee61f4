"""The parts of the shared HTTP client, alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keyturn.api.provider import ProviderSpec
from keyturn.api.semantics import Effect, Failure, Outcome
from keyturn.providers.addresses import AddressRule, parse_networks
from keyturn.providers.base import ProviderConfigError
from keyturn.providers.http import (
    MAX_BODY,
    Answer,
    HttpClient,
    checked_base_url,
    classify,
    retry_after,
    text_at,
)
from keyturn.providers.quoting import MAX_QUOTE, quote

NOW = datetime(2026, 11, 21, 12, 0, 0, tzinfo=UTC)

_NOT_SENT = (
    *(httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout),
    *(httpx.LocalProtocolError, httpx.UnsupportedProtocol),
)
_MAYBE_SENT = (
    *(httpx.ReadTimeout, httpx.WriteTimeout, httpx.ReadError, httpx.WriteError, httpx.CloseError),
    *(httpx.RemoteProtocolError, httpx.DecodingError, OSError),
)


@pytest.mark.parametrize(
    ("headers", "limited", "seconds"),
    [
        ({}, True, None),
        ({"Retry-After": "120"}, False, 120),
        ({"Retry-After": "0"}, True, 0),
        ({"Retry-After": "-5"}, True, 0),
        ({"Retry-After": "1e300"}, True, 86400),
        ({"Retry-After": "nan"}, True, None),
        ({"Retry-After": "soon"}, True, None),
        ({"Retry-After": "Sat, 21 Nov 2026 12:01:00 GMT"}, True, 60),
        ({"Retry-After": "Sat, 21 Nov 2026 11:00:00 GMT"}, True, 0),
        # The provider's own clock counts, where it shows it.
        ({"Retry-After": "Sat, 21 Nov 2026 13:01:00 GMT", "Date": "Sat, 21 Nov 2026 13:00:30 GMT"}, True, 30),
        ({"Retry-After": "Sat, 99 Nov 2026 13:01:00 GMT"}, True, None),
        ({"X-RateLimit-Reset": "30"}, True, 30),
        ({"X-RateLimit-Reset": "30"}, False, None),
        ({"X-RateLimit-Reset": str(int(NOW.timestamp()) + 45)}, True, 45),
        ({"X-Rate-Limit-Reset": str(int(NOW.timestamp()) + 45)}, True, 45),
        ({"Retry-After": "5", "X-RateLimit-Reset": "30"}, True, 5),
    ],
)
def test_how_long_to_wait(headers: dict[str, str], limited: bool, seconds: float | None) -> None:
    wait = retry_after(httpx.Headers(headers), limited=limited, now=NOW)
    assert wait == (None if seconds is None else timedelta(seconds=seconds))


@settings(deadline=None)
@given(st.binary(max_size=40), st.binary(max_size=40))
def test_headers_of_any_text_are_survived(value: bytes, date: bytes) -> None:
    headers = httpx.Headers([(b"Retry-After", value), (b"Date", date), (b"X-RateLimit-Reset", value)])
    wait = retry_after(headers, limited=True, now=NOW)
    assert wait is None or timedelta() <= wait <= timedelta(days=1)


@settings(deadline=None)
@given(st.integers(100, 999))
def test_only_client_errors_prove_that_nothing_changed(status: int) -> None:
    effect, _ = classify(status)
    assert (effect is Effect.NOT_APPLIED) == (400 <= status < 500 and status != 408)


@settings(deadline=None)
@given(st.text(), st.text(min_size=4), st.text())
def test_no_quotation_holds_the_secret(before: str, secret: str, after: str) -> None:
    quoted = quote(f"{before}{secret}{after}{secret}", secret)
    assert secret not in quoted.replace("[redacted]", "")
    assert len(quoted) <= MAX_QUOTE
    assert quoted.isprintable()


@pytest.mark.parametrize(
    "text", ["s3cr/t+value", "s3cr%2Ft%2Bvalue", "czNjci90K3ZhbHVl", "s3cr/\u200bt+value", '{"x": "s3cr/t+value"}']
)
def test_a_secret_is_recognised_in_disguise(text: str) -> None:
    assert "[redacted]" in quote(f"sent {text} to us", "s3cr/t+value")


def test_what_an_answer_calls_secret_is_redacted() -> None:
    body = {"m2m_client": [{"next_client_secret": "n3xt", "client_secret_last_four": "sent"}], "access_token": "t0ken"}
    quoted = quote("sent n3xt and t0ken", answer=body)
    assert quoted == "sent [redacted] and [redacted]"


@pytest.mark.parametrize(
    "body", [None, [], 7, {}, {"a": None}, {"a": {"b": ""}}, {"a": {"b": "\ud800"}}, {"a": {"b": 1}}]
)
def test_text_that_is_none(body: object) -> None:
    assert text_at(body, "a", "b") is None


@pytest.mark.parametrize(
    ("url", "checked"),
    [
        ("https://api.example.com/", "https://api.example.com"),
        ("https://api.example.com/base/", "https://api.example.com/base"),
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("http://[::1]:8080", "http://[::1]:8080"),
        ("http://localhost", "http://localhost"),
    ],
)
def test_base_urls(url: str, checked: str) -> None:
    assert checked_base_url(url, "spec.x.baseUrl") == checked


@pytest.mark.parametrize(
    "url",
    [
        "http://api.example.com",
        "http://10.0.0.1",
        "http://localhost.example.com",
        "https://[::",
        "https://a:1234567",
        "https://a:-1",
    ],
)
def test_base_urls_that_would_show_credentials_or_are_none(url: str) -> None:
    with pytest.raises(ProviderConfigError, match=r"spec\.x\.baseUrl"):
        checked_base_url(url, "spec.x.baseUrl")


Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def server(script: Script) -> AsyncIterator[str]:
    """A server that does as the script says with each connection."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            await script(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    listening = await asyncio.start_server(handle, "127.0.0.1", 0)
    async with listening:
        yield f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/"


WHOSE = pytest.mark.parametrize(
    "addresses", [None, AddressRule(parse_networks(["127.0.0.0/8"]))], ids=["the administrator's", "a tenant's"]
)


async def exchange(
    url: str,
    *,
    changing: bool = True,
    connect: str = "10s",
    read: str = "20s",
    addresses: AddressRule | None = None,
) -> Answer | Outcome:
    """One request to a raw server."""
    spec = ProviderSpec.model_validate({"timeouts": {"connect": connect, "read": read}})
    client = HttpClient(spec, addresses)
    try:
        return await client.send(client.build_request("POST", url, json={}), changing=changing)
    finally:
        await client.aclose()


def says(*pieces: bytes) -> Script:
    """A script that writes these pieces."""

    async def script(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()

    return script


def sized(body: bytes, *headers: bytes) -> bytes:
    """An answer with a body of a declared length."""
    return b"\r\n".join([b"HTTP/1.1 200 OK", b"Content-Length: %d" % len(body), *headers, b"", body])


async def test_a_body_of_the_greatest_length_is_read() -> None:
    body = b'{"a": "' + b"x" * (MAX_BODY - 9) + b'"}'
    async with server(says(sized(body))) as url:
        answer = await exchange(url)
    assert isinstance(answer, Answer)
    assert answer.body == {"a": "x" * (MAX_BODY - 9)}


async def endless_headers(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Lines without end, until the other side has had enough."""
    writer.write(b"HTTP/1.1 200 OK\r\n")
    while True:
        writer.write(b"X-More: " + b"x" * 8192 + b"\r\n")
        await writer.drain()


BAD = {
    "headers without end": endless_headers,
    "one byte too long": says(sized(b" " * (MAX_BODY + 1))),
    "endless": says(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n", *[b" " * 65536] * 20),
    "compressed": says(sized(b"\x1f\x8b", b"Content-Encoding: gzip")),
    "not HTTP": says(b"220 mail.example.com ESMTP\r\n"),
    "a header that is none": says(b"HTTP/1.1 200 OK\r\nno colon s3cret\r\n\r\n"),
    "nothing": says(),
    "half a status line": says(b"HTTP/1.1 2"),
    "half a body": says(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{"),
    "half a chunk": says(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{"),
    "a chunk that is none": says(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"),
}


@WHOSE
@pytest.mark.parametrize("changing", [True, False])
@pytest.mark.parametrize("script", BAD.values(), ids=BAD.keys())
async def test_an_answer_that_is_none(script: Script, changing: bool, addresses: AddressRule | None) -> None:
    async with server(script) as url:
        outcome = await exchange(url, changing=changing, addresses=addresses)
    assert isinstance(outcome, Outcome)
    assert outcome.effect is (Effect.UNKNOWN if changing else Effect.NOT_APPLIED)
    assert outcome.failure is Failure.UNREACHABLE
    assert "s3cret" not in outcome.message


@WHOSE
async def test_an_answer_that_trickles_for_ever_ends_all_the_same(addresses: AddressRule | None) -> None:
    async def trickle(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        while True:
            writer.write(b" ")
            await writer.drain()
            await asyncio.sleep(0.02)

    async with server(trickle) as url, asyncio.timeout(30):
        outcome = await exchange(url, connect="200ms", read="200ms", addresses=addresses)
    assert isinstance(outcome, Outcome)
    assert outcome.effect is Effect.UNKNOWN
    assert "too long" in outcome.message


async def test_an_answer_that_must_not_be_given_up_on_is_waited_for() -> None:
    async def late(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.8)
        writer.write(sized(b"{}"))

    async with server(late) as url:
        client = HttpClient(ProviderSpec.model_validate({"timeouts": {"connect": "100ms", "read": "100ms"}}))
        request = client.build_request("POST", url)
        assert isinstance(await client.send(request, changing=True, patience=timedelta(seconds=9)), Answer)
        assert isinstance(await client.send(client.build_request("POST", url), changing=True), Outcome)
        await client.aclose()


@pytest.mark.parametrize("body", [b"[" * 100_000, b'{"a": ' + b"9" * 5000 + b"}", b"\xff\xfe\x00", b"", b"null"])
async def test_a_body_that_is_no_json_object_is_told_by_its_status(body: bytes) -> None:
    async with server(says(sized(body))) as url:
        answer = await exchange(url)
    assert isinstance(answer, Answer)
    assert (answer.status, answer.body) == (200, None)


async def test_proxies_of_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    async with server(says(sized(b"{}"))) as url:
        assert isinstance(await exchange(url), Answer)


@pytest.mark.parametrize(
    ("error", "effect"),
    [*((error, Effect.NOT_APPLIED) for error in _NOT_SENT), *((error, Effect.UNKNOWN) for error in _MAYBE_SENT)],
)
async def test_each_error_of_the_library(error: type[Exception], effect: Effect) -> None:
    def fail(_: httpx.Request) -> httpx.Response:
        raise error("words of the library with s3cret")

    client = HttpClient(ProviderSpec(), transport=httpx.MockTransport(fail))
    outcome = await client.send(client.build_request("POST", "https://host/p?q=s3cret"), changing=True)
    assert isinstance(outcome, Outcome)
    assert (outcome.effect, outcome.failure) == (effect, Failure.UNREACHABLE)
    assert "s3cret" not in outcome.message
    assert "https://host" in outcome.message


class Heard:
    """A limit that writes down what it is told."""

    def __init__(self) -> None:
        self.words: list[object] = []

    def sent(self) -> None:
        self.words.append("sent")

    def ended(self) -> None:
        self.words.append("ended")

    def told(self, limit: int | None, remaining: int, reset: float) -> None:
        self.words.append((limit, remaining, reset))


@pytest.mark.parametrize(
    ("headers", "told"),
    [
        ({}, []),
        ({"X-RateLimit-Limit": "250", "X-RateLimit-Remaining": "249", "X-RateLimit-Reset": "30"}, [(250, 249, 30.0)]),
        ({"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "0"}, [(None, 0, 0.0)]),
        ({"X-RateLimit-Remaining": "0"}, []),
        ({"X-RateLimit-Remaining": "-1", "X-RateLimit-Reset": "30"}, []),
        ({"X-RateLimit-Remaining": "nan", "X-RateLimit-Reset": "30"}, []),
        ({"X-RateLimit-Remaining": "7", "X-RateLimit-Reset": "1e300"}, []),
        ({"X-RateLimit-Remaining": "7", "X-RateLimit-Reset": "-5"}, []),
        ({"X-RateLimit-Limit": "0", "X-RateLimit-Remaining": "7", "X-RateLimit-Reset": "9"}, [(None, 7, 9.0)]),
    ],
)
async def test_the_limit_is_told_of_each_request_and_of_what_the_provider_counts(
    headers: dict[str, str], told: list[object]
) -> None:
    heard = Heard()
    transport = httpx.MockTransport(lambda _: httpx.Response(429, headers=headers))
    client = HttpClient(ProviderSpec(), limit=heard, transport=transport)
    await client.send(client.build_request("GET", "https://host/"), changing=False)
    assert heard.words == ["sent", *told, "ended"]


async def test_a_request_that_fails_has_ended_too() -> None:
    def fail(_: httpx.Request) -> httpx.Response:
        raise httpx.ReadTimeout("too late")

    heard = Heard()
    client = HttpClient(ProviderSpec(), limit=heard, transport=httpx.MockTransport(fail))
    await client.send(client.build_request("GET", "https://host/"), changing=True)
    assert heard.words == ["sent", "ended"]


@pytest.mark.parametrize(
    ("patience", "expected"), [(timedelta(), 7), (timedelta(seconds=5), 7), (timedelta(60), 5184000)]
)
async def test_patience_only_ever_makes_the_read_timeout_longer(patience: timedelta, expected: float) -> None:
    seen: list[float] = []

    def look(request: httpx.Request) -> httpx.Response:
        seen.append(request.extensions["timeout"]["read"])
        return httpx.Response(200)

    client = HttpClient(ProviderSpec.model_validate({"timeouts": {"read": "7s"}}), transport=httpx.MockTransport(look))
    for wanted in (patience, timedelta()):
        await client.send(client.build_request("GET", "https://host/"), changing=True, patience=wanted)
    assert seen == [expected, 7]
