"""Connections that do not come about, or not to whom they should: nothing was sent, so nothing has changed."""

from __future__ import annotations

import base64
import datetime
import ipaddress
import socket
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from pydantic import SecretStr

from keyturn.api.semantics import Effect, Failure
from keyturn.providers.base import Provider, ProviderConfigError
from sandbox.simulators.base import Simulator, running
from tests.providers.subjects import CLIENT_ID, Subject, provider_of

VALUE = SecretStr("some-value")


def alternative_name(host: str) -> x509.GeneralName:
    """An address or a name, as a certificate has it."""
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def self_signed(directory: Path, host: str = "127.0.0.1") -> tuple[ssl.SSLContext, str]:
    """A server's TLS context with a certificate of its own making, and that certificate as spec.caBundle has it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "simulator")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([alternative_name(host)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    encoding = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    file = directory / f"{host}.pem"
    file.write_bytes(pem + key.private_bytes(*encoding))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(file)
    return context, base64.b64encode(pem).decode()


@dataclass
class Secured:
    """A simulator behind TLS."""

    subject: Subject
    simulator: Simulator
    url: str
    bundle: str

    def provider(self, bundle: str | None) -> Provider:
        """A provider that trusts this bundle."""
        return provider_of(self.subject, self.simulator, self.url, caBundle=bundle)


@pytest.fixture
async def secured(subject: Subject, tmp_path: Path) -> AsyncIterator[Secured]:
    """The provider under test behind a certificate that nobody knows."""
    context, bundle = self_signed(tmp_path)
    simulator = subject.simulator()
    simulator.create({"client_id": CLIENT_ID, "client_secret": VALUE.get_secret_value()})
    async with running(simulator, tls=context) as url:
        yield Secured(subject, simulator, url, bundle)


async def test_a_known_authority_is_accepted(secured: Secured) -> None:
    wrapped = "\n".join([secured.bundle[:64], secured.bundle[64:]])
    current = VALUE
    for bundle in (secured.bundle, wrapped):
        provider = secured.provider(bundle)
        assert (await provider.check()).ok
        issued = await provider.start(CLIENT_ID, current=current, overlap=timedelta())
        await provider.cancel(CLIENT_ID)
        await provider.aclose()
        assert issued.outcome.effect is Effect.APPLIED
        current = issued.secret or current


@pytest.mark.parametrize("other", [False, True], ids=["the system's authorities", "another authority"])
async def test_an_unknown_certificate_is_not_applied(secured: Secured, tmp_path: Path, other: bool) -> None:
    provider = secured.provider(self_signed(tmp_path, "127.0.0.9")[1] if other else None)
    issued = await provider.start(CLIENT_ID, current=VALUE, overlap=timedelta())
    await provider.aclose()
    assert (issued.outcome.effect, issued.outcome.failure) == (Effect.NOT_APPLIED, Failure.UNREACHABLE)
    assert "spec.caBundle" in issued.outcome.message
    assert not any(secured.simulator.calls.values())


async def test_a_certificate_for_another_host_is_not_applied(subject: Subject, tmp_path: Path) -> None:
    context, bundle = self_signed(tmp_path, "127.0.0.9")
    simulator = subject.simulator()
    async with running(simulator, tls=context) as url:
        provider = provider_of(subject, simulator, url, caBundle=bundle)
        outcome = (await provider.start(CLIENT_ID, current=VALUE, overlap=timedelta())).outcome
        await provider.aclose()
    assert (outcome.effect, outcome.failure) == (Effect.NOT_APPLIED, Failure.UNREACHABLE)
    assert "certificate" in outcome.message


async def test_tls_with_a_server_that_speaks_none(subject: Subject) -> None:
    simulator = subject.simulator()
    async with running(simulator) as url:
        provider = provider_of(subject, simulator, url.replace("http:", "https:"))
        outcome = (await provider.start(CLIENT_ID, current=VALUE, overlap=timedelta())).outcome
        await provider.aclose()
    assert (outcome.effect, outcome.failure) == (Effect.NOT_APPLIED, Failure.UNREACHABLE)
    assert "TLS" in outcome.message


async def test_a_bundle_without_certificates_is_a_configuration_error(subject: Subject) -> None:
    bundle = base64.b64encode(b"no certificate").decode()
    with pytest.raises(ProviderConfigError) as raised:
        provider_of(subject, subject.simulator(), "https://127.0.0.1:1", caBundle=bundle)
    assert raised.value.field == "spec.caBundle"


async def test_nobody_listens(subject: Subject) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
        provider = provider_of(subject, subject.simulator(), f"http://127.0.0.1:{taken.getsockname()[1]}")
        outcome = (await provider.start(CLIENT_ID, current=VALUE, overlap=timedelta())).outcome
        await provider.aclose()
    assert (outcome.effect, outcome.failure) == (Effect.NOT_APPLIED, Failure.UNREACHABLE)
    assert "connection refused" in outcome.message


async def test_a_host_without_address(subject: Subject) -> None:
    provider = provider_of(subject, subject.simulator(), "https://keyturn.invalid")
    outcome = (await provider.start(CLIENT_ID, current=VALUE, overlap=timedelta())).outcome
    await provider.aclose()
    assert (outcome.effect, outcome.failure) == (Effect.NOT_APPLIED, Failure.UNREACHABLE)
