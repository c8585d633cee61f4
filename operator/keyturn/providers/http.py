"""HTTP as providers need it: one bounded exchange, never repeated, whose end is always a value.

What was not sent cannot have changed anything; what was sent and not answered completely may have (I5). Nothing of a
request or an answer is logged here; messages quote a provider only through `keyturn.providers.quoting` (I8).
"""

from __future__ import annotations

import asyncio
import base64
import functools
import json
import logging
import math
import os
import re
import socket
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from ipaddress import ip_address
from typing import Any, Protocol

import httpx

from keyturn.api.provider import ProviderSpec
from keyturn.api.semantics import Effect, Failure, Outcome
from keyturn.providers.addresses import AddressNotPermitted, AddressRule, CheckedTransport, remedy_for
from keyturn.providers.base import ProviderConfigError
from keyturn.providers.permission import MAY_SEND

MAX_BODY = 1024 * 1024
MAX_WAIT = timedelta(days=1)

_NOT_SENT = (
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.PoolTimeout,
    httpx.ProxyError,
    httpx.LocalProtocolError,
    httpx.UnsupportedProtocol,
)


@dataclass(frozen=True, slots=True)
class Answer:
    """A complete answer. `body` is None when it is not a JSON object, `items` when it is not a JSON array."""

    status: int
    headers: httpx.Headers
    body: dict[str, Any] | None
    items: list[Any] | None = None


class _BadAnswerError(Exception):
    """The answer broke a bound. The text names the bound, nothing of the answer."""


class Limit(Protocol):
    """Keeps count of a client's requests, and hears what the provider says of its own limit."""

    def sent(self) -> None:
        """A request is about to be sent."""
        ...

    def ended(self) -> None:
        """A request was answered, or has failed."""
        ...

    def told(self, limit: int | None, remaining: int, reset: float) -> None:
        """By an answer the provider takes `remaining` requests more within `reset` seconds, of `limit` in all."""
        ...


class HttpClient:
    """Connections to one provider, with its timeouts and certificate authorities.

    Redirects are not followed: credentials go nowhere but to the address that a person has written down. Proxy
    settings of the environment are not used either, for the same reason.
    """

    def __init__(
        self,
        spec: ProviderSpec,
        addresses: AddressRule | None = None,
        *,
        limit: Limit | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """Raise ProviderConfigError when spec.caBundle holds no certificates.

        addresses: where to it may connect; None for anywhere. limit: told of every request; this class delays none.
        transport: replaces the network.
        """
        _silence_loggers()
        self._spec = spec
        tls = _tls_context(spec.ca_bundle)
        if transport is None and addresses is not None:
            transport = CheckedTransport(tls, addresses)
        connect, read = (span.total_seconds() for span in (spec.timeouts.connect, spec.timeouts.read))
        self._limit = limit
        # The read timeout is between two pieces: this one ends an answer that trickles for ever.
        self._connect, self._deadline = connect, 3 * connect + 2 * read
        self._client = httpx.AsyncClient(
            verify=tls,
            timeout=httpx.Timeout(connect=connect, read=read, write=read, pool=connect),
            transport=transport,
            follow_redirects=False,
            trust_env=False,
            # Without compression the bound of the body is also the bound of the memory that it takes.
            headers={"Accept": "application/json", "Accept-Encoding": "identity", "User-Agent": "keyturn"},
        )

    def build_request(
        self,
        method: str,
        url: str,
        *,
        headers: dict[str, str] | None = None,
        json: object | None = None,
        form: dict[str, str] | None = None,
    ) -> httpx.Request:
        """A request with this client's own headers; `url` is sent as it is, with its query string."""
        return self._client.build_request(method, url, headers=headers, json=json, data=form)

    async def send(
        self,
        request: httpx.Request | Callable[[], httpx.Request],
        *,
        changing: bool,
        patience: timedelta = timedelta(),
        status_only: bool = False,
    ) -> Answer | Outcome:
        """Send a request once, and read the whole answer, whatever its status.

        request: what is sent, or where it holds the time something that makes it.
        changing: whether the call may change something at the provider; then a lost answer is an UNKNOWN effect.
        patience: a read timeout that the spec cannot make shorter.
        status_only: the body of a 200, which may be of any length, is not read.
        Returns the outcome when there is no complete answer.
        """
        if not isinstance(request, httpx.Request):
            request = request()
        where, read = _origin(request.url), patience.total_seconds()
        timeouts = request.extensions["timeout"]
        timeouts["read"] = max(timeouts["read"], read)
        try:
            async with asyncio.timeout(max(self._deadline, 3 * self._connect + 2 * read)):
                return await self._exchange(request, status_only=status_only)
        except AddressNotPermitted as error:
            message = f"no connection to {where}: its host has {error}"
            remedy = remedy_for(request.url, self._spec, str(error))
            return Outcome(Effect.NOT_APPLIED, Failure.ADDRESS_NOT_PERMITTED, f"{message}. {remedy}")
        except _NOT_SENT as error:
            return Outcome(Effect.NOT_APPLIED, Failure.UNREACHABLE, f"no connection to {where}: {_reason(error)}")
        except (httpx.HTTPError, httpx.StreamError, httpx.InvalidURL, OSError, _BadAnswerError) as error:
            return Outcome(
                Effect.UNKNOWN if changing else Effect.NOT_APPLIED,
                Failure.UNREACHABLE,
                f"no usable answer from {where}: {_reason(error)}",
            )

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def _exchange(self, request: httpx.Request, *, status_only: bool) -> Answer:
        request.extensions["trace"] = _ask_permission
        if self._limit is not None:
            self._limit.sent()
        try:
            return await self._answer(request, status_only=status_only)
        finally:
            if self._limit is not None:
                self._limit.ended()

    async def _answer(self, request: httpx.Request, *, status_only: bool) -> Answer:
        response = await self._client.send(request, stream=True)
        try:
            if self._limit is not None and (left := requests_left(response.headers, now=datetime.now(UTC))):
                self._limit.told(*left)
            parsed = None if status_only and response.status_code == 200 else _json(await _read(response))
            return Answer(
                response.status_code,
                response.headers,
                body=parsed if isinstance(parsed, dict) else None,
                items=parsed if isinstance(parsed, list) else None,
            )
        finally:
            await response.aclose()


def checked_base_url(url: str, field: str) -> str:
    """The base URL without its last slash, to put paths behind.

    Raises ProviderConfigError naming `field` when it is no URL, or would send credentials over a network unencrypted:
    plain http is for simulators and proxies at a loopback address.
    """
    shape = "is not a URL: write it as https://host[:port][/path]"
    try:
        host, port = httpx.URL(url).host, httpx.URL(url).port
    except httpx.InvalidURL as error:
        raise ProviderConfigError(field, shape) from error
    if not host or not 0 <= (port or 0) <= 65535:
        raise ProviderConfigError(field, shape)
    if not url.startswith("https://") and not _is_loopback(host):
        raise ProviderConfigError(field, "must begin with https://: plain http is only for loopback addresses")
    return url.rstrip("/")


def refusal(
    answer: Answer, failure: Failure, message: str, *, changing: bool, request_id: str | None = None
) -> Outcome:
    """The outcome of an answer that is not a success: its effect by the HTTP status, and how long to wait."""
    effect = classify(answer.status)[0] if changing else Effect.NOT_APPLIED
    wait = retry_after(answer.headers, limited=answer.status == 429, now=datetime.now(UTC))
    return Outcome(effect, failure, message, wait, request_id)


def classify(status: int) -> tuple[Effect, Failure]:
    """What an HTTP status that is no success says of a changing call (PROVIDERS.md part B, rules that follow)."""
    match status:
        case 429:
            return Effect.NOT_APPLIED, Failure.RATE_LIMITED
        case 401 | 403:
            return Effect.NOT_APPLIED, Failure.UNAUTHORIZED
        case 404:
            return Effect.NOT_APPLIED, Failure.CLIENT_NOT_FOUND
        case 408:  # gateways also say this of a server behind them that took too long
            return Effect.UNKNOWN, Failure.UNREACHABLE
        case _ if 400 <= status < 500:
            return Effect.NOT_APPLIED, Failure.REJECTED
        case _ if 300 <= status < 400:  # 303 and often 302 follow upon success
            return Effect.UNKNOWN, Failure.REJECTED
        case _:
            return Effect.UNKNOWN, Failure.UNREACHABLE


def retry_after(headers: httpx.Headers, *, limited: bool, now: datetime) -> timedelta | None:
    """How long the provider asks us to wait, at most a day; None where it says nothing readable.

    Retry-After is a number of seconds or an HTTP date (RFC 9110, 10.2.3). X-RateLimit-Reset comes with every answer
    and counts only when we were limited: seconds, or the time as Unix seconds (PROVIDERS.md part E).
    """
    wait = _seconds(headers.get("retry-after"))
    if wait is None and (date := _http_date(headers.get("retry-after"))):
        wait = (date - (_http_date(headers.get("date")) or now)).total_seconds()
    if wait is None and limited:
        wait = _reset(headers, now)
    if wait is None:
        return None
    return timedelta(seconds=min(max(wait, 0), MAX_WAIT.total_seconds()))


def requests_left(headers: httpx.Headers, *, now: datetime) -> tuple[int | None, int, float] | None:
    """How many requests the provider takes in all, how many more, and for how many seconds that holds.

    From the headers X-RateLimit-Limit, -Remaining and -Reset, of which SnapTrade is known to send all three
    (PROVIDERS.md A2); None where the last two are not readable.
    """
    limit, remaining = (_seconds(headers.get(f"x-ratelimit-{name}")) for name in ("limit", "remaining"))
    reset = _reset(headers, now)
    if remaining is None or remaining < 0 or reset is None or not 0 <= reset <= MAX_WAIT.total_seconds():
        return None
    return None if limit is None or limit < 1 else int(limit), int(remaining), reset


def text_at(body: object, *path: str) -> str | None:
    """The non-empty text at these keys of a JSON object; None where there is none, or none that UTF-8 can hold."""
    for key in path:
        body = body.get(key) if isinstance(body, dict) else None
    if not isinstance(body, str) or not body or re.search("[\ud800-\udfff]", body):
        return None
    return body


def basic_authorization(user: str, password: str) -> str:
    """The value of an Authorization header of the scheme Basic (RFC 7617, in UTF-8)."""
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


async def _ask_permission(stage: str, _: object) -> None:
    """Called by httpcore at every stage of a request: https://www.encode.io/httpcore/extensions/#trace."""
    if stage.endswith(".send_request_headers.started"):
        MAY_SEND.get()()


async def _read(response: httpx.Response) -> bytes:
    if response.headers.get("content-encoding", "identity") != "identity":
        raise _BadAnswerError("it is compressed, though Keyturn does not accept that")
    body = bytearray()
    async for piece in response.aiter_raw():
        body += piece
        if len(body) > MAX_BODY:
            raise _BadAnswerError(f"it is longer than {MAX_BODY} bytes")
    return bytes(body)


def _json(body: bytes) -> object:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _seconds(text: str | None) -> float | None:
    try:
        seconds = float(text or "")
    except ValueError:
        return None
    return seconds if math.isfinite(seconds) else None


def _reset(headers: httpx.Headers, now: datetime) -> float | None:
    """In how many seconds a limit ends, which is said in seconds or as Unix seconds (PROVIDERS.md part E)."""
    seconds = _seconds(headers.get("x-ratelimit-reset") or headers.get("x-rate-limit-reset"))
    return seconds - now.timestamp() if seconds is not None and seconds > 1_000_000_000 else seconds


def _http_date(text: str | None) -> datetime | None:
    try:
        date = parsedate_to_datetime(text or "")
    except (ValueError, OverflowError):
        return None
    return date if date.tzinfo else date.replace(tzinfo=UTC)


def _origin(url: httpx.URL) -> str:
    return f"{url.scheme}://{url.netloc.decode('ascii')}"


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _reason(error: BaseException) -> str:
    """Words for a failed exchange. The libraries' own texts are not used: they may quote headers and answers."""
    for cause in _causes(error):
        match cause:
            case ssl.SSLCertVerificationError():
                return f"its certificate is not trusted ({cause.verify_message}): put its authority into spec.caBundle"
            case ssl.SSLError():
                return f"the TLS handshake failed ({cause.reason or 'no reason given'})"
            case socket.gaierror():
                return "its host name cannot be resolved"
            case _BadAnswerError():
                return str(cause)
            case OSError(errno=int(number)):
                return os.strerror(number).lower()
            case httpx.TimeoutException() | TimeoutError():
                return "it took too long"
            case httpx.ProtocolError():
                return "the connection ended early or did not speak HTTP"
    return "the connection failed"


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An exception and what led to it, the origin first."""
    chain: list[BaseException] = []
    following: BaseException | None = error
    while following is not None and following not in chain:
        chain.append(following)
        following = following.__cause__ or following.__context__
    return reversed(chain)


def _tls_context(ca_bundle: str | None) -> ssl.SSLContext:
    """Trust the given authorities (PEM, base64-encoded) and no others, or the system's when there are none."""
    pem = base64.b64decode(ca_bundle or "")
    if not pem:
        return _system_context()
    try:
        return ssl.create_default_context(cadata=pem.decode("ascii"))
    except (UnicodeDecodeError, ssl.SSLError) as error:
        raise ProviderConfigError("spec.caBundle", "must be certificates in PEM format, base64-encoded") from error


@functools.cache  # reading the system's authorities takes tens of milliseconds
def _system_context() -> ssl.SSLContext:
    return ssl.create_default_context()


def _silence_loggers() -> None:
    # httpx logs whole URLs at INFO, httpcore headers at DEBUG; with levels of their own the root's does not count.
    for name in ("httpx", "httpcore"):
        logging.getLogger(name).setLevel(logging.WARNING)
