"""Where a tenant's provider object may have Keyturn connect to: to the internet, and to nothing that is closer.

Who may write a `RotationProvider` chooses its address, and Keyturn connects from within the cluster. So a host name is
resolved here, each of its addresses is judged, and the connection goes to one that was permitted and to no other: a
name that has another address a moment later gains nothing by it.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from functools import partial
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any, Final

import httpcore  # carries httpx's connections
import httpx

from keyturn.api.provider import ProviderSpec

ALLOW_OPTION: Final = "--allow-provider-network"
FORBID_OPTION: Final = "--forbid-provider-network"

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

# IANA's registries of special-purpose addresses. `ipaddress.is_global` is not asked, because it has changed within
# 3.11 and 3.12, permits multicast, and does not know what lives at some public addresses.
_NOT_PUBLIC: Final[tuple[tuple[str, tuple[Network, ...]], ...]] = tuple(
    (kind, tuple(map(ip_network, networks)))
    for kind, networks in (
        ("a loopback address", ("127.0.0.0/8", "::1/128")),
        ("a link-local address", ("169.254.0.0/16", "fe80::/10")),
        ("a private address", ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7")),
        ("the unspecified address", ("0.0.0.0/8", "::/128")),
        ("a multicast address", ("224.0.0.0/4", "ff00::/8")),
        # Public by its number, and answered by Azure's own hosts to every machine on them.
        ("an address of the cloud platform", ("168.63.129.16/32",)),
        (
            "a reserved address",
            (
                *("192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "198.18.0.0/15", "198.51.100.0/24"),
                *("203.0.113.0/24", "240.0.0.0/4"),
                # Teredo and other protocols, documentation, 6to4, documentation. Outside of 2000::/3 all is reserved.
                *("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20", "::/3", "4000::/2", "8000::/1"),
            ),
        ),
    )
)
_FORBIDDEN: Final = "an address that the administrator forbids"
_ANYWHERE: Final[tuple[Network, ...]] = (IPv4Network("0.0.0.0/0"), IPv6Network("::/0"))
_MAPPED: Final = IPv6Network("::ffff:0:0/96")
_NAT64: Final = IPv6Network("64:ff9b::/96")

_HEAD_START: Final = 0.25
"""Seconds before the next address is tried beside the one before (RFC 8305)."""


class AddressNotPermitted(Exception):
    """The host has no address to which this provider object may connect. The text says what is wrong with one of them.

    Which one it is stays unsaid: what a name stands for within the cluster's network is not for every tenant to know.
    """


@dataclass(frozen=True, slots=True)
class AddressRule:
    """Public addresses are permitted, and those in networks that the administrator allows; none in those forbidden."""

    allowed: tuple[Network, ...] = ()
    forbidden: tuple[Network, ...] = ()

    def objection(self, address: Address) -> str | None:
        """What kind of address it is, where it is not permitted; None where it is."""
        meant = _meant(address)
        if any(meant in network for network in self.forbidden):
            return _FORBIDDEN
        if any(meant in network for network in self.allowed):
            return None
        kinds = (kind for kind, networks in _NOT_PUBLIC if any(meant in network for network in networks))
        return next((f"{kind}, which no RotationProvider may call" for kind in kinds), None)

    def unconfined(self) -> AddressRule | None:
        """The rule for objects of an administrator: anywhere, which is None, but for what is forbidden to all."""
        return AddressRule(_ANYWHERE, self.forbidden) if self.forbidden else None


def parse_networks(texts: Iterable[str]) -> tuple[Network, ...]:
    """Networks in CIDR notation, several in one text with commas between them; ValueError names the one at fault."""
    return tuple(_network(part) for text in texts for part in map(str.strip, text.split(",")) if part)


def _network(text: str) -> Network:
    try:
        network = ip_network(text)
    except ValueError as error:
        raise ValueError(f"{text!r} is not a network such as 10.20.0.0/16 or fd00:1::/64: {error}") from None
    if isinstance(network, IPv6Network) and (network.subnet_of(_MAPPED) or network.subnet_of(_NAT64)):
        raise ValueError(f"{text!r} stands for a network of IPv4: write that one")
    return network


def _meant(address: Address) -> Address:
    """The IPv4 address that is reached by an IPv6 address which only wraps it (RFC 4291 2.5.5.2, RFC 6052)."""
    if isinstance(address, IPv6Address) and (address in _MAPPED or address in _NAT64):
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address


def remedy_for(url: httpx.URL, spec: ProviderSpec, objection: str) -> str:
    """What to do when the host of this URL has no permitted address: correct the field that it is from, or ask."""
    allow = f"have the administrator allow the network with keyturn run {ALLOW_OPTION}."
    if objection == _FORBIDDEN:
        allow = f"have the administrator take the network out of {FORBID_OPTION} of keyturn run."
    field = _field_of(url, spec.to_wire(), "spec")
    return f"Correct {field}, or {allow}" if field else allow.capitalize()


def _field_of(url: httpx.URL, block: dict[str, Any], path: str) -> str | None:
    """Where in a spec the base URL of this host and port is; None where the provider's own default is used."""
    for name, value in block.items():
        if isinstance(value, dict) and (found := _field_of(url, value, f"{path}.{name}")):
            return found
        if name == "baseUrl" and httpx.URL(value).netloc == url.netloc:
            return f"{path}.{name}"
    return None


class CheckedTransport(httpx.AsyncHTTPTransport):
    """Connects to addresses that the rule permits; else a request raises AddressNotPermitted, and nothing is sent.

    TLS still proves the name of the host, and connections that stand are used again.
    """

    def __init__(self, tls: ssl.SSLContext, rule: AddressRule) -> None:
        limits = httpx.Limits(max_connections=100, max_keepalive_connections=20, keepalive_expiry=5)
        super().__init__(verify=tls, trust_env=False, limits=limits)
        # httpx has no way to name a network backend. Should it keep its pool elsewhere one day, nothing may be sent.
        assert isinstance(self._pool, httpcore.AsyncConnectionPool)
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=tls,
            max_connections=limits.max_connections,
            max_keepalive_connections=limits.max_keepalive_connections,
            keepalive_expiry=limits.keepalive_expiry,
            network_backend=_CheckedBackend(rule),
        )


class _CheckedBackend(httpcore.AnyIOBackend):
    def __init__(self, rule: AddressRule) -> None:
        self._rule = rule

    async def connect_tcp(  # the parameters are httpcore's
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109
        *more: Any,
        **options: Any,
    ) -> httpcore.AsyncNetworkStream:
        """Called for each new connection; `timeout` is for resolving and connecting together."""
        try:
            async with asyncio.timeout(timeout):
                judged = {one: self._rule.objection(ip_address(one)) for one in await _resolve(host, port)}
                permitted = [one for one, objection in judged.items() if objection is None]
                if not permitted:
                    raise AddressNotPermitted(next(iter(judged.values())))
                connect = super().connect_tcp
                return await _first([partial(connect, one, port, timeout, *more, **options) for one in permitted])
        except TimeoutError as error:
            raise httpcore.ConnectTimeout from error


async def _resolve(host: str, port: int) -> list[str]:
    """The addresses of a host, the one to try first first, in the resolver's own reading of odd numbers (127.1)."""
    try:
        # As bytes, because Python gives text to its own codec for names, which raises errors of its own.
        found = await asyncio.get_running_loop().getaddrinfo(host.encode("ascii"), port, type=socket.SOCK_STREAM)
    except (OSError, ValueError) as error:
        raise httpcore.ConnectError from error
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


async def _first(attempts: list[Callable[[], Awaitable[httpcore.AsyncNetworkStream]]]) -> httpcore.AsyncNetworkStream:
    """The first connection that stands; the next attempt begins when the one before has failed, or takes its time."""
    tasks: list[asyncio.Future[httpcore.AsyncNetworkStream]] = []
    try:
        for attempt in attempts:
            tasks.append(asyncio.ensure_future(attempt()))
            last = len(tasks) == len(attempts)
            while pending := [task for task in tasks if not task.done()]:
                done, _ = await asyncio.wait(
                    pending, timeout=None if last else _HEAD_START, return_when=asyncio.FIRST_COMPLETED
                )
                won = next((task for task in done if task.exception() is None), None)
                if won is not None:
                    tasks.remove(won)
                    return won.result()
                if not last:
                    break
        return tasks[-1].result()  # raises
    finally:
        for task in tasks:
            task.cancel()
        for left in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(left, httpcore.AsyncNetworkStream):
                await left.aclose()
