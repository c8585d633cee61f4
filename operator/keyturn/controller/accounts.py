"""Provider accounts that are ready to be called: built from their objects, kept while nothing about them changes."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping
from typing import Any, Final

from pydantic import SecretStr

from keyturn.api.provider import ProviderKind, ProviderSpec, account_of, permits
from keyturn.api.rotation import ProviderRef
from keyturn.api.rules import Invalid, validate_provider
from keyturn.cluster.accounts import CredentialMissing, read_credentials
from keyturn.cluster.client import Kube
from keyturn.cluster.errors import NotFound
from keyturn.cluster.resources import CLUSTER_PROVIDERS, PROVIDERS
from keyturn.controller.index import Index, ProviderKey, provider_key
from keyturn.controller.measured import MeasuredProvider
from keyturn.controller.metrics import Metrics
from keyturn.controller.paced import PacedProvider
from keyturn.controller.turns import Turns
from keyturn.providers import registry
from keyturn.providers.addresses import AddressRule
from keyturn.providers.base import Provider, ProviderConfigError
from keyturn.rotation.world import Problem, ProviderView

_LINGER_SECONDS: Final = 1800.0
"""No call lasts longer, with the longest timeouts that a spec may set: after this nobody uses a replaced provider."""


class Accounts:
    """Finds the provider of a rotation, with its credentials as they are now."""

    def __init__(self, kube: Kube, index: Index, addresses: AddressRule, metrics: Metrics, turns: Turns) -> None:
        """addresses: where to provider objects may have Keyturn connect."""
        self._turns = turns
        self._kube = kube
        self._index = index
        self._addresses = addresses
        self._metrics = metrics
        self._built: dict[ProviderKey, tuple[tuple[object, ...], PacedProvider]] = {}
        self._closing: set[asyncio.Task[None]] = set()

    async def find(self, namespace: str, ref: ProviderRef) -> tuple[ProviderView, PacedProvider | None]:
        """The account that a rotation in `namespace` refers to, or why it cannot be used. Raises ClusterError."""
        return await self.at(provider_key(ref.kind, namespace, ref.name), user=namespace)

    async def at(self, key: ProviderKey, *, user: str | None = None) -> tuple[ProviderView, PacedProvider | None]:
        """As `find`, by the key of the provider object. user: the namespace that wants to use it, None for Keyturn."""
        kind, namespace, name = key
        raw = self._index.provider(key) or await self._fetch(key)
        if raw is None:
            self._retire(key)
            self._turns.drop(key)
            message = f"{kind} {name} does not exist: create it, or correct spec.providerRef"
            return ProviderView(problem=Problem("ProviderNotFound", message), gone=True), None
        account = account_of(raw.get("spec") or {})
        spec = validate_provider(raw.get("spec") or {}, ProviderKind(kind))
        if isinstance(spec, Invalid):
            return ProviderView(account=account, problem=Problem("ProviderInvalid", f"{kind} {name}: {spec}")), None
        if user is not None and not permits(spec, user):
            message = f"{kind} {name} may not be used in namespace {user}: have it added to its spec.namespaces"
            return ProviderView(account=account, problem=Problem("ProviderNotPermitted", message)), None
        try:
            credentials = await read_credentials(self._kube, namespace, registry.credential_refs(spec))
            provider = await self._build(key, raw, spec, credentials)
        except ProviderConfigError as error:
            return ProviderView(account=account, problem=Problem(error.reason, f"{kind} {name}: {error}")), None
        except CredentialMissing as error:
            problem = Problem(error.reason, f"{kind} {name}: {error}")
            return ProviderView(account=account, problem=problem, gone=error.gone), None
        return ProviderView(account=account, capabilities=provider.capabilities), provider

    async def _fetch(self, key: ProviderKey) -> dict[str, Any] | None:
        """Ask the API server before saying that something is missing: the index may lag behind."""
        kind, namespace, name = key
        resource = CLUSTER_PROVIDERS if kind == ProviderKind.CLUSTER_ROTATION_PROVIDER else PROVIDERS
        try:
            return await self._kube.get(resource, namespace or None, name)
        except NotFound:
            return None

    async def _build(
        self, key: ProviderKey, raw: dict[str, Any], spec: ProviderSpec, credentials: Mapping[str, SecretStr]
    ) -> PacedProvider:
        digest = hashlib.sha256()
        for purpose in sorted(credentials):
            digest.update(f"{purpose}\0{credentials[purpose].get_secret_value()}\0".encode())
        version = (raw["metadata"]["uid"], raw["metadata"]["generation"], digest.digest())
        known = self._built.get(key)
        if known is not None and known[0] == version:
            return known[1]
        # Who may write a ClusterRotationProvider may read all Secrets anyway: only what is forbidden to all counts.
        confined = key[0] != ProviderKind.CLUSTER_ROTATION_PROVIDER
        rule = self._addresses if confined else self._addresses.unconfined()
        account = account_of(raw.get("spec") or {}), registry.host_of(spec)
        allowance = self._turns.allowance(account, key, spec.rate_limit)
        built = registry.build(spec, credentials, rule, allowance)
        measured = MeasuredProvider(built, registry.kind_of(spec), self._metrics)
        provider = PacedProvider(measured, registry.requests_of(spec), allowance)
        self._retire(key)
        self._built[key] = (version, provider)
        return provider

    def _retire(self, key: ProviderKey) -> None:
        """Close what was built before, once the calls that other passes make with it have come to their end."""
        known = self._built.pop(key, None)
        if known is not None:
            task = asyncio.create_task(_close_later(known[1]), name=f"close {key}")
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    async def aclose(self) -> None:
        """Close everything; no pass may be under way."""
        for key in list(self._built):
            self._retire(key)
        await asyncio.sleep(0)  # a task that is cancelled before it began would close nothing
        closing = list(self._closing)
        for task in closing:
            task.cancel()
        await asyncio.gather(*closing, return_exceptions=True)


async def _close_later(provider: Provider) -> None:
    try:
        await asyncio.sleep(_LINGER_SECONDS)
    finally:
        await provider.aclose()
