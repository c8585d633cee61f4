"""`RotationProvider` and `ClusterRotationProvider`: an account at a provider, with its credentials by reference."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from datetime import timedelta
from enum import StrEnum
from typing import Annotated, Any, Final

from pydantic import AfterValidator, Field

from keyturn.api.base import Duration, KubeModel, ObjectName, SecretKey
from keyturn.api.conditions import Condition

# Character classes are spelled out: \s means other characters to an API server than to pydantic.
BASE_URL_PATTERN = r"^https?://[^/?#@\x00-\x20\x7f]+(/[^?#\x00-\x20\x7f]*)?$"
PROJECT_ID_PATTERN = r"^[-_a-zA-Z0-9]+$"

BaseUrl = Annotated[str, Field(max_length=2048, pattern=BASE_URL_PATTERN)]


NAMESPACE_PATTERN = r"^(\*|[a-z0-9][-a-z0-9]*\*?)$"
NamespacePattern = Annotated[
    str, Field(max_length=64, pattern=NAMESPACE_PATTERN, description="A namespace, or the beginning of some with *.")
]


class ProviderKind(StrEnum):
    ROTATION_PROVIDER = "RotationProvider"
    CLUSTER_ROTATION_PROVIDER = "ClusterRotationProvider"


class CredentialRef(KubeModel):
    """One key of a Secret that holds a credential of the provider account."""

    name: ObjectName
    """Name of the Secret."""
    key: SecretKey
    """Key within the Secret."""
    namespace: ObjectName | None = None
    """Namespace of the Secret. Required in a ClusterRotationProvider; a RotationProvider reads its own namespace."""


class StytchSpec(KubeModel):
    """A Stytch project (Consumer or B2B) whose M2M clients are rotated."""

    project_id: Annotated[str, Field(min_length=1, max_length=253, pattern=PROJECT_ID_PATTERN)]
    """The project's id, `project-live-…` or `project-test-…`; it also decides which Stytch environment is called."""
    secret_ref: CredentialRef
    """The project secret."""
    base_url: BaseUrl | None = None
    """Another address of the API, for a proxy or a simulator; by default Stytch's own for this project id."""


class JanrainAuth(StrEnum):
    BASIC = "Basic"
    SIGNED = "Signed"


class JanrainReadBack(KubeModel):
    """The configuration API, from which the answer of a reset that got lost can be read back.

    It takes Basic authentication, whatever `auth` says of the other calls.
    """

    base_url: BaseUrl
    """Address of the region, such as https://v1.api.us.janrain.com."""
    app_id: Annotated[str, Field(min_length=1, max_length=253, pattern=PROJECT_ID_PATTERN)]
    """The application's id."""


class JanrainSpec(KubeModel):
    """A Janrain (Akamai Identity Cloud) application whose API clients are rotated."""

    base_url: BaseUrl
    """The application's Capture domain, such as https://my-app.janraincapture.com."""
    client_id: Annotated[str, Field(min_length=1, max_length=253, pattern=PROJECT_ID_PATTERN)]
    """The owner client: only it may reset the secrets of others."""
    secret_ref: CredentialRef
    """The owner client's secret."""
    auth: JanrainAuth = JanrainAuth.BASIC
    """How requests are authenticated. Basic sends the secret with each; Signed proves it by a signature."""
    read_back: JanrainReadBack | None = None
    """Where to read a new secret whose answer got lost. Without it, such a rotation waits for a person."""


class SnapTradeSpec(KubeModel):
    """A SnapTrade API key whose users' secrets are rotated."""

    client_id: Annotated[str, Field(min_length=1, max_length=253, pattern=PROJECT_ID_PATTERN)]
    """The API key's client id."""
    secret_ref: CredentialRef
    """The API key's consumer key."""
    base_url: BaseUrl | None = None
    """Another address of the API, for a proxy or a simulator. Give it a path of /api/v1 for the legacy prefix."""


class Timeouts(KubeModel):
    """How long to wait for the provider."""

    connect: Annotated[Duration, Field(validate_default=True)] = timedelta(seconds=5)
    """Until a connection stands."""
    read: Annotated[Duration, Field(validate_default=True)] = timedelta(seconds=60)
    """Between two pieces of an answer. A shorter value makes answers get lost that were on their way.
    The reset of a SnapTrade user is given 60 seconds at least: its lost answer would cost the user's access."""


class RateLimit(KubeModel):
    """The most that Keyturn asks of the provider, over all rotations that use this object."""

    requests_per_second: Annotated[int, Field(ge=1, le=1000)] = 10
    """Sustained rate."""
    burst: Annotated[int, Field(ge=1, le=1000)] = 20
    """Requests that may be made at once after a quiet time."""


def _base64(text: str | None) -> str | None:
    """As API servers check the format "byte", line breaks apart."""
    try:
        base64.b64decode(re.sub("[\r\n]", "", text or ""), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("must be certificates in PEM format, base64-encoded") from None
    return text


class ProviderSpec(KubeModel):
    """Exactly one provider block, and how to talk to it."""

    stytch: StytchSpec | None = None
    """Stytch M2M clients: two-phase rotation, no refused calls, can be cancelled until the end."""
    janrain: JanrainSpec | None = None
    """Janrain clients: the old value dies at a time that is chosen before. No refused calls; cannot be cancelled."""
    snaptrade: SnapTradeSpec | None = None
    """SnapTrade users: the old value dies with the call. Calls are refused until the workloads have restarted."""
    namespaces: Annotated[list[NamespacePattern] | None, Field(min_length=1, max_length=256)] = None
    """Namespaces whose rotations may use this account: names, or beginnings of names followed by *. Required in a
    ClusterRotationProvider: who may use it can replace the secret of any of its clients."""
    ca_bundle: Annotated[
        str | None, Field(max_length=1_048_576, json_schema_extra={"format": "byte"}), AfterValidator(_base64)
    ] = None
    """Certificate authorities (PEM, base64-encoded) to trust for this provider instead of the system's."""
    timeouts: Timeouts = Timeouts()
    """Timeouts of calls to the provider."""
    rate_limit: RateLimit = RateLimit()
    """Limit of calls to the provider."""


# The field of each provider block that tells one account at the provider from another.
_ACCOUNT_FIELDS: Final = {"stytch": "projectId", "janrain": "baseUrl", "snaptrade": "clientId"}


def account_of(spec: Mapping[str, Any]) -> str | None:
    """What account a provider object's spec, as the API server holds it, speaks of; None where it cannot be told.

    Two objects that describe one account give the same text, however they write its address.
    """
    for kind, field in _ACCOUNT_FIELDS.items():
        block = spec.get(kind)
        if isinstance(block, Mapping) and isinstance(block.get(field), str):
            return f"{kind}/{normalized(block[field])}"
    return None


def normalized(text: str) -> str:
    """An address without what makes no difference: the case of its host, a default port, a slash at its end."""
    address = re.match(r"(https?)://([^/?#]*?)(:[0-9]+)?(/[^?#]*)?$", text)
    if address is None:
        return text
    scheme, host, port, path = address.groups(default="")
    default = {"https": ":443", "http": ":80"}[scheme]
    return host.lower() + ("" if port == default else port) + path.rstrip("/")


def permits(spec: ProviderSpec, namespace: str) -> bool:
    """Whether rotations in this namespace may use an account; without a list, as in a RotationProvider, all may."""
    return spec.namespaces is None or any(
        namespace.startswith(pattern[:-1]) if pattern.endswith("*") else namespace == pattern
        for pattern in spec.namespaces
    )


class ProviderStatus(KubeModel):
    """What Keyturn observed of the provider account."""

    observed_generation: int | None = None
    """The generation of the spec that this status speaks of."""
    conditions: list[Condition] = []
    """`Ready`: the credentials work."""
