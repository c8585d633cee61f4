"""The table of providers. A new provider is one module, one row here, one simulator, and the contract suite."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from pydantic import SecretStr

from keyturn.api.provider import CredentialRef, ProviderSpec, normalized
from keyturn.api.semantics import Capabilities
from keyturn.providers import janrain, snaptrade, stytch
from keyturn.providers.addresses import AddressRule
from keyturn.providers.base import Provider, ProviderConfigError, Requests
from keyturn.providers.http import HttpClient, Limit


@dataclass(frozen=True, slots=True)
class Entry:
    """One kind of provider.

    requests: how many requests its calls make. base_url: where to, by the spec.
    credential_refs: the Secret keys to read, by names of the provider's own choice.
    factory: makes the provider from the values, by the same names, and all of its requests with the given client;
    raises ProviderConfigError.
    """

    capabilities: Capabilities
    requests: Requests
    base_url: Callable[[ProviderSpec], str]
    credential_refs: Callable[[ProviderSpec], Mapping[str, CredentialRef]]
    factory: Callable[[ProviderSpec, Mapping[str, SecretStr], HttpClient], Provider]


# The kind is the name of the provider's block in the spec.
PROVIDERS: Mapping[str, Entry] = {
    kind: Entry(one.CAPABILITIES, one.REQUESTS, one.base_url, one.credential_refs, one.build)
    for kind, one in (("stytch", stytch), ("janrain", janrain), ("snaptrade", snaptrade))
}


def kind_of(spec: ProviderSpec) -> str:
    """The kind of the one provider block that is set; raises ProviderConfigError when it is none or several."""
    kinds = [kind for kind in PROVIDERS if getattr(spec, kind) is not None]
    if len(kinds) != 1:
        found = f"found {' and '.join(kinds)}" if kinds else "found none that this version of Keyturn knows"
        raise ProviderConfigError("spec", f"must hold exactly one of {', '.join(PROVIDERS)}; {found}")
    return kinds[0]


def credential_refs(spec: ProviderSpec) -> Mapping[str, CredentialRef]:
    """The Secret keys whose values `build` needs, by name; raises ProviderConfigError as `kind_of` does."""
    return PROVIDERS[kind_of(spec)].credential_refs(spec)


def requests_of(spec: ProviderSpec) -> Requests:
    """How many requests the calls of this provider make; raises ProviderConfigError as `kind_of` does."""
    return PROVIDERS[kind_of(spec)].requests


def host_of(spec: ProviderSpec) -> str:
    """The host and port that the provider's calls go to; raises ProviderConfigError as `kind_of` does."""
    return normalized(PROVIDERS[kind_of(spec)].base_url(spec)).partition("/")[0]


def build(
    spec: ProviderSpec,
    credentials: Mapping[str, SecretStr],
    addresses: AddressRule | None,
    limit: Limit | None = None,
) -> Provider:
    """A provider ready to be called; close it with `aclose`.

    credentials: the values of `credential_refs`, by the same names.
    addresses: where to it may connect; None for anywhere, which is for the administrator's own objects.
    limit: told of every request.
    Raises ProviderConfigError naming the field of the provider object at fault.
    """
    return PROVIDERS[kind_of(spec)].factory(spec, credentials, HttpClient(spec, addresses, limit=limit))
