"""Where a tenant's provider object may have Keyturn connect to: what is judged, and that nothing else is called."""

from __future__ import annotations

import asyncio
import socket
from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr
from typer.testing import CliRunner

import keyturn.cli.main as cli
from keyturn.api.semantics import Effect, Failure
from keyturn.controller.settings import Settings
from keyturn.providers.addresses import AddressRule, parse_networks
from sandbox.simulators.base import running
from tests.providers.subjects import CLIENT_ID, OPERATIONS, Subject, World, provider_of

PUBLIC = AddressRule()


@pytest.mark.parametrize(
    ("address", "kind"),
    [
        ("1.1.1.1", None),
        ("172.15.255.255", None),
        ("172.32.0.0", None),
        ("100.63.255.255", None),
        ("100.128.0.0", None),
        ("168.63.129.15", None),
        ("223.255.255.255", None),
        ("2606:4700::1111", None),
        ("2a00:1450:4001:82b::200e", None),
        ("::ffff:1.1.1.1", None),
        ("64:ff9b::1.1.1.1", None),  # what DNS64 makes of a host without IPv6
        ("127.0.0.1", "loopback"),
        ("127.255.255.254", "loopback"),
        ("::1", "loopback"),
        ("169.254.169.254", "link-local"),
        ("169.254.0.1", "link-local"),
        ("fe80::1", "link-local"),
        ("fe80::1%1", "link-local"),
        ("febf:ffff::1", "link-local"),
        ("10.96.0.1", "private"),
        ("172.16.0.1", "private"),
        ("172.31.255.255", "private"),
        ("192.168.1.1", "private"),
        ("100.64.0.1", "private"),
        ("100.100.100.200", "private"),  # Alibaba's metadata
        ("fc00::1", "private"),
        ("fd00:ec2::254", "private"),  # Amazon's metadata
        ("fd20:ce::254", "private"),  # Google's metadata
        ("0.0.0.0", "unspecified"),  # noqa: S104
        ("0.1.2.3", "unspecified"),
        ("::", "unspecified"),
        ("224.0.0.1", "multicast"),
        ("239.255.255.255", "multicast"),
        ("ff02::1", "multicast"),
        ("ff0e::1", "multicast"),
        ("168.63.129.16", "cloud platform"),
        ("192.0.0.192", "reserved"),  # Oracle's metadata
        ("192.0.2.1", "reserved"),
        ("198.18.0.1", "reserved"),
        ("198.51.100.1", "reserved"),
        ("203.0.113.1", "reserved"),
        ("240.0.0.1", "reserved"),
        ("255.255.255.255", "reserved"),
        ("fec0::1", "reserved"),  # site-local, of old
        ("::127.0.0.1", "reserved"),  # IPv4-compatible
        ("100::1", "reserved"),  # discarded
        ("2001::1", "reserved"),  # Teredo
        ("2001:db8::1", "reserved"),
        ("2002:7f00:1::", "reserved"),  # 6to4 of 127.0.0.1
        ("2002:101:101::", "reserved"),
        ("3fff::1", "reserved"),
        ("5f00::1", "reserved"),  # segment routing
        ("64:ff9b:1::7f00:1", "reserved"),  # NAT64 of a network's own, of 127.0.0.1
        ("::ffff:127.0.0.1", "loopback"),
        ("::ffff:169.254.169.254", "link-local"),
        ("::ffff:10.0.0.1", "private"),
        ("64:ff9b::127.0.0.1", "loopback"),
        ("64:ff9b::169.254.169.254", "link-local"),
        ("64:ff9b::10.0.0.1", "private"),
    ],
)
def test_kinds_of_addresses(address: str, kind: str | None) -> None:
    found = PUBLIC.objection(ip_address(address))
    assert (found is None) == (kind is None), found
    assert kind is None or (found and kind in found)


@given(st.ip_addresses())
def test_nothing_is_permitted_that_python_knows_not_to_be_global(address: IPv4Address | IPv6Address) -> None:
    if PUBLIC.objection(address) is None:
        wrapped = int(address) & 0xFFFFFFFF
        translated = isinstance(address, IPv6Address) and str(address).startswith(("::ffff:", "64:ff9b::"))
        meant = IPv4Address(wrapped) if translated else address
        assert meant.is_global
        assert not meant.is_multicast


def test_the_administrator_s_networks_are_permitted_and_no_others() -> None:
    rule = AddressRule(parse_networks(["10.20.0.0/16, fd00:1::/64", "192.0.2.7"]))
    for permitted in ("10.20.0.1", "10.20.255.255", "::ffff:10.20.0.1", "64:ff9b::10.20.0.1", "fd00:1::9", "192.0.2.7"):
        assert rule.objection(ip_address(permitted)) is None, permitted
    for refused in ("10.21.0.0", "10.19.255.255", "fd00:1:0:1::", "192.0.2.8", "::ffff:10.21.0.1", "127.0.0.1"):
        assert rule.objection(ip_address(refused)) is not None, refused
    everything = AddressRule(parse_networks(["0.0.0.0/0,::/0"]))
    assert everything.objection(ip_address("169.254.169.254")) is None
    assert everything.objection(ip_address("fe80::1")) is None


def test_what_is_forbidden_is_permitted_to_nobody() -> None:
    """Whatever is allowed; and an administrator's own objects are confined by nothing else."""
    rule = AddressRule(parse_networks(["10.0.0.0/8"]), parse_networks(["10.96.0.0/12", "20.0.0.0/8", "2600::/16"]))
    unconfined = rule.unconfined()
    assert unconfined is not None
    for forbidden in ("10.96.0.1", "20.1.2.3", "2600::1", "::ffff:10.96.0.1", "64:ff9b::20.1.2.3"):
        for one in (rule, unconfined):
            assert one.objection(ip_address(forbidden)) == "an address that the administrator forbids", forbidden
    wrapped = AddressRule(parse_networks(["10.0.0.0/8"]), parse_networks(["::/0"]))
    assert wrapped.objection(ip_address("64:ff9b::10.1.2.3")) == "an address that the administrator forbids"
    for address in ("10.1.2.3", "1.1.1.1", "2606:4700::1111"):
        assert rule.objection(ip_address(address)) is None, address
    for address in ("127.0.0.1", "169.254.169.254", "fe80::1", "fd00::1", "192.168.0.1"):
        assert rule.objection(ip_address(address)) is not None, address
        assert unconfined.objection(ip_address(address)) is None, address
    assert PUBLIC.unconfined() is None


@pytest.mark.parametrize(
    "wrong", ["10.0.0.1/8", "10.0.0.0/33", "example.com", "10.0.0.0-10.0.0.9", "::ffff:10.0.0.0/104", "64:ff9b::/96"]
)
@pytest.mark.parametrize("by", ["option", "environment"])
@pytest.mark.parametrize("what", ["allow", "forbid"])
def test_what_is_no_network_ends_the_start(wrong: str, what: str, by: str) -> None:
    """I10"""
    given_as = [f"--{what}-provider-network", wrong] if by == "option" else []
    variables = {f"KEYTURN_{what.upper()}_PROVIDER_NETWORKS": f"10.9.0.0/16,{wrong}"} if by == "environment" else {}
    ended = CliRunner().invoke(cli.app, ["run", *given_as], env={"COLUMNS": "200", **variables})
    assert ended.exit_code == 2
    assert f"--{what}-provider-network" in ended.output
    assert f"'{wrong}'" in ended.output


@pytest.mark.parametrize(
    ("options", "variable"),
    [
        (["--allow-provider-network", "10.1.0.0/16", "--allow-provider-network", "fd00::/8"], "10.3.0.0/16"),
        (["--allow-provider-network", "10.1.0.0/16,fd00::/8"], ""),
        ([], "10.1.0.0/16,fd00::/8"),
        ([], " 10.1.0.0/16, fd00::/8 "),
        ([], "10.1.0.0/16 fd00::/8"),
    ],
)
def test_how_networks_are_allowed(monkeypatch: pytest.MonkeyPatch, options: list[str], variable: str) -> None:
    seen: list[Settings] = []

    async def started(settings: Settings) -> None:
        seen.append(settings)

    monkeypatch.setattr(cli, "run_operator", started)
    monkeypatch.setattr(cli, "configure", lambda *_, **__: None)
    environment = {
        "KEYTURN_ALLOW_PROVIDER_NETWORKS": variable or None,
        "KEYTURN_FORBID_PROVIDER_NETWORKS": "20.0.0.0/8",
    }
    CliRunner().invoke(cli.app, ["run", *options], env=environment)
    (settings,) = seen
    expected = AddressRule(parse_networks(["10.1.0.0/16", "fd00::/8"]), parse_networks(["20.0.0.0/8"]))
    assert settings.addresses == expected


def test_nothing_is_allowed_unless_the_administrator_says_so() -> None:
    assert Settings().addresses.objection(ip_address("127.0.0.1")) is not None


@pytest.mark.parametrize("operation", OPERATIONS)
async def test_no_call_of_any_provider_goes_to_an_address_that_is_not_permitted(
    subject: Subject, operation: str
) -> None:
    """Nothing was sent, which is said, with the field to correct and the option to ask for; the address is not."""
    if operation not in subject.calls:
        return
    simulator = subject.simulator()
    simulator.create({"client_id": CLIENT_ID})
    async with running(simulator) as url:
        tried = asyncio.Event()
        reached = await asyncio.start_server(lambda *_: tried.set(), "127.0.0.1", 0)
        here = f"http://localhost:{reached.sockets[0].getsockname()[1]}"
        provider = provider_of(subject, simulator, here, PUBLIC)
        permitted = provider_of(subject, simulator, url, AddressRule(parse_networks(["127.0.0.0/8"])))
        secret = SecretStr("some-value")
        try:
            outcome = await World(subject, simulator, here, provider, secret).perform(operation)
            assert (await permitted.check()).ok
        finally:
            await provider.aclose()
            await permitted.aclose()
            reached.close()
    assert (outcome.effect, outcome.failure) == (Effect.NOT_APPLIED, Failure.ADDRESS_NOT_PERMITTED)
    assert not tried.is_set()
    for said in (here, "a loopback address", f"Correct spec.{subject.kind}.", "baseUrl", "--allow-provider-network"):
        assert said in outcome.message
    assert "127.0.0.1" not in outcome.message
    assert "::1" not in outcome.message


async def test_what_is_forbidden_is_not_called_by_an_administrator_s_object_either(subject: Subject) -> None:
    simulator = subject.simulator()
    async with running(simulator) as url:
        forbidding = AddressRule(forbidden=parse_networks(["127.0.0.0/8", "::1"])).unconfined()
        provider = provider_of(subject, simulator, url.replace("127.0.0.1", "localhost"), forbidding)
        outcome = await provider.check()
        await provider.aclose()
    assert (outcome.effect, outcome.failure) == (Effect.NOT_APPLIED, Failure.ADDRESS_NOT_PERMITTED)
    assert not simulator.calls
    for said in (
        "an address that the administrator forbids",
        f"Correct spec.{subject.kind}.",
        "--forbid-provider-network",
    ):
        assert said in outcome.message
    assert "RotationProvider" not in outcome.message


async def test_a_host_of_the_provider_s_own_is_no_field_to_correct(
    subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a company's name server has the vendor's name at a proxy of its own, only the administrator can help."""
    if subject.kind == "janrain":
        return  # it has no address of its own
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [(2, 1, 6, "", ("10.1.2.3", 443))])
    provider = provider_of(subject, subject.simulator(), None, PUBLIC)
    outcome = await provider.check()
    await provider.aclose()
    assert outcome.failure is Failure.ADDRESS_NOT_PERMITTED
    assert "a private address" in outcome.message
    assert "Have the administrator allow the network" in outcome.message
    assert "10.1.2.3" not in outcome.message
