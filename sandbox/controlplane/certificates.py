"""Keys and certificates of one control plane: a throw-away authority, a serving certificate, a token-signing key."""

import datetime
import ipaddress
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

_LIFETIME = datetime.timedelta(days=30)


@dataclass(frozen=True)
class Credentials:
    """Files in the control plane's directory; the certificate authority's own key is never written."""

    ca_file: Path
    serving_certificate: Path
    serving_key: Path
    token_key: Path
    token_public_key: Path


def create(directory: Path) -> Credentials:
    """Write fresh credentials for a server on 127.0.0.1 into `directory` and return their paths."""
    ca_key, serving_key, token_key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(3))
    authority = _certificate("keyturn-sandbox-ca", ca_key.public_key(), "keyturn-sandbox-ca", ca_key, is_ca=True)
    serving = _certificate("kube-apiserver", serving_key.public_key(), "keyturn-sandbox-ca", ca_key, is_ca=False)
    files = Credentials(
        *(directory / name for name in ("ca.crt", "apiserver.crt", "apiserver.key", "sa.key", "sa.pub")),
    )
    files.ca_file.write_bytes(authority.public_bytes(serialization.Encoding.PEM))
    files.serving_certificate.write_bytes(serving.public_bytes(serialization.Encoding.PEM))
    files.serving_key.write_bytes(_private_pem(serving_key))
    files.token_key.write_bytes(_private_pem(token_key))
    files.token_public_key.write_bytes(
        token_key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    return files


def _certificate(
    subject: str, key: ec.EllipticCurvePublicKey, issuer: str, issuer_key: ec.EllipticCurvePrivateKey, *, is_ca: bool
) -> x509.Certificate:
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(_name(subject))
        .issuer_name(_name(issuer))
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + _LIFETIME)
        .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
        # Python 3.13's default TLS context is strict about these three.
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
        .add_extension(_key_usage(is_ca=is_ca), critical=True)
    )
    if not is_ca:
        loopback = x509.IPAddress(ipaddress.IPv4Address("127.0.0.1"))
        builder = builder.add_extension(
            x509.SubjectAlternativeName([x509.DNSName("localhost"), loopback]), critical=False
        )
    return builder.sign(issuer_key, hashes.SHA256())


def _key_usage(*, is_ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not is_ca,
        key_cert_sign=is_ca,
        crl_sign=is_ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, common_name)])


def _private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """The key as an 'EC PRIVATE KEY' block, which every Kubernetes reads."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )
