"""Provider accounts: the provider objects, and the Secrets that hold their credentials."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

from pydantic import SecretStr

from keyturn.api.provider import CredentialRef
from keyturn.cluster.client import Kube
from keyturn.cluster.errors import NotFound
from keyturn.cluster.resources import SECRETS


class CredentialMissing(Exception):
    """A credential that a provider object refers to is not there. `gone`: not even the Secret is."""

    def __init__(self, reason: str, message: str, *, gone: bool) -> None:
        super().__init__(message)
        self.reason = reason
        self.gone = gone


async def read_credentials(kube: Kube, namespace: str, refs: Mapping[str, CredentialRef]) -> dict[str, SecretStr]:
    """Read the credentials by name of their purpose. Raises CredentialMissing, or ClusterError."""
    return {purpose: await _read(kube, ref.namespace or namespace, ref) for purpose, ref in refs.items()}


async def _read(kube: Kube, namespace: str, ref: CredentialRef) -> SecretStr:
    where = f"Secret {ref.name} in namespace {namespace}"
    try:
        raw: dict[str, Any] = await kube.get(SECRETS, namespace, ref.name)
    except NotFound:
        message = f"{where}, which the provider object refers to, does not exist: create it with the key {ref.key}"
        raise CredentialMissing("CredentialsNotFound", message, gone=True) from None
    encoded = (raw.get("data") or {}).get(ref.key)
    if not encoded:
        message = f"{where}, which the provider object refers to, has no key {ref.key}: add it"
        raise CredentialMissing("CredentialsNotFound", message, gone=False)
    try:
        return SecretStr(base64.b64decode(encoded).decode().rstrip("\r\n"))
    except UnicodeDecodeError:
        message = f"{where}, key {ref.key} holds binary content: the credential is text"
        raise CredentialMissing("CredentialsInvalid", message, gone=False) from None
