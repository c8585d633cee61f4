"""What is known of all rotations and providers, kept small, with the questions that span several of them."""

from __future__ import annotations

from collections import defaultdict
from typing import Any, TypeVar

from keyturn.api.provider import ProviderKind, account_of
from keyturn.api.rotation import CANCEL_ANNOTATION, RESUME_ANNOTATION
from keyturn.cluster.resources import ROTATIONS
from keyturn.rotation.world import Problem

Key = tuple[str, str]
"""Namespace and name of a ClientSecretRotation."""
ProviderKey = tuple[str, str, str]
"""Kind, namespace ("" for cluster-scoped) and name of a provider object."""

T = TypeVar("T")

_KEPT_METADATA = (
    "name",
    "namespace",
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "finalizers",
)

_WORDS = (CANCEL_ANNOTATION, RESUME_ANNOTATION)


class Index:
    """All resources of Keyturn's own kinds. Only the newest version of each is kept."""

    def __init__(self) -> None:
        self._rotations: dict[Key, dict[str, Any]] = {}
        self._providers: dict[ProviderKey, dict[str, Any]] = {}
        self._expected: dict[Key, dict[str, Any]] = {}
        self._by_provider: defaultdict[ProviderKey, set[Key]] = defaultdict(set)
        self._by_secret: defaultdict[Key, set[Key]] = defaultdict(set)
        self._by_client: defaultdict[str, set[Key]] = defaultdict(set)

    def __len__(self) -> int:
        return len(self._rotations)

    def rotation(self, key: Key) -> dict[str, Any] | None:
        return self._rotations.get(key)

    def rotations(self) -> dict[Key, dict[str, Any]]:
        return self._rotations

    def provider(self, key: ProviderKey) -> dict[str, Any] | None:
        return self._providers.get(key)

    def providers(self) -> dict[ProviderKey, dict[str, Any]]:
        return self._providers

    def put_rotation(self, raw: dict[str, Any]) -> set[Key]:
        """Take in an object as it was read; the answer is which rotations may be affected by what changed."""
        key = key_of(raw)
        known = self._rotations.get(key)
        if known is not None and _version(known) >= _version(raw):
            return set()
        kept = _trim(raw)
        self._rotations[key] = kept
        if known is not None and known["spec"] == kept["spec"] and _links(known) == _links(kept):
            return set() if self._echo(key, known, kept) else {key}
        affected = self._unlink(key, known) if known is not None else set()
        provider, secret, client = _links(kept)
        self._by_provider[provider].add(key)
        self._by_secret[secret].add(key)
        self._by_client[client].add(key)
        return affected | self._by_secret[secret] | self._by_client[client] | {key}

    def drop_rotation(self, key: Key) -> set[Key]:
        """Forget an object that is gone; the answer is which other rotations may be affected."""
        known = self._rotations.pop(key, None)
        self._expected.pop(key, None)
        return self._unlink(key, known) - {key} if known is not None else set()

    def expect_status(self, key: Key, status: dict[str, Any]) -> None:
        """This status is about to be written by us: nobody needs to be woken when it comes back."""
        self._expected[key] = status

    def _echo(self, key: Key, known: dict[str, Any], kept: dict[str, Any]) -> bool:
        before, after = ({**raw["metadata"], "resourceVersion": ""} for raw in (known, kept))
        return before == after and kept.get("status") == self._expected.get(key, {})

    def rotations_of(self, provider: ProviderKey) -> set[Key]:
        """The rotations that use this provider object."""
        return set(self._by_provider.get(provider, ()))

    def put_provider(self, raw: dict[str, Any]) -> set[Key]:
        key = provider_key_of(raw)
        known = self._providers.get(key)
        if known is not None and _version(known) >= _version(raw):
            return set()
        self._providers[key] = _trim(raw)
        unchanged = known is not None and known.get("spec") == raw.get("spec")
        return set() if unchanged else self._concerned(key)

    def drop_provider(self, key: ProviderKey) -> set[Key]:
        self._providers.pop(key, None)
        return self._concerned(key)

    def conflict(self, key: Key) -> Problem | None:
        """Why this rotation must not begin because of another one (I6), or None."""
        raw = self._rotations.get(key)
        if raw is None:
            return None
        _, secret, client = _links(raw)
        ours = _written_keys(raw)
        for other in sorted(self._by_secret[secret] - {key}):
            shared = ours & _written_keys(self._rotations[other])
            if shared:
                where = f"Secret {secret[1]}, key {min(shared)}"
                message = (
                    f"ClientSecretRotation {other[1]} writes {where} too: delete one of the two, or change its key"
                )
                return Problem("SecretConflict", message)
        account = self._account(raw)
        for other in sorted(self._by_client[client] - {key}):
            if account == self._account(self._rotations[other]):
                name = f"{other[0]}/{other[1]}"
                message = (
                    f"ClientSecretRotation {name} rotates client {client} of the same account: delete one of the two"
                )
                return Problem("ClientConflict", message)
        return None

    def _concerned(self, provider: ProviderKey) -> set[Key]:
        """The rotations that use a provider, and those of clients with the same names, which may be of its account."""
        users = self.rotations_of(provider)
        return users.union(*(self._by_client[_links(self._rotations[user])[2]] for user in users))

    def _account(self, raw: dict[str, Any]) -> object:
        """What tells provider accounts apart: two objects may describe the same one."""
        provider, _, _ = _links(raw)
        known = self._providers.get(provider)
        return (account_of(known["spec"]) if known is not None else None) or provider

    def _unlink(self, key: Key, known: dict[str, Any]) -> set[Key]:
        """Forget the links of an object; the answer is who shared the Secret or the client with it."""
        provider, secret, client = _links(known)
        affected = self._by_secret[secret] | self._by_client[client]
        _discard(self._by_provider, provider, key)
        _discard(self._by_secret, secret, key)
        _discard(self._by_client, client, key)
        return affected


def _discard(table: dict[T, set[Key]], entry: T, key: Key) -> None:
    table[entry].discard(key)
    if not table[entry]:
        del table[entry]


def key_of(raw: dict[str, Any]) -> Key:
    meta = raw["metadata"]
    return meta["namespace"], meta["name"]


def provider_key_of(raw: dict[str, Any]) -> ProviderKey:
    meta = raw["metadata"]
    return raw["kind"], meta.get("namespace", ""), meta["name"]


def provider_key(kind: ProviderKind | str, namespace: str, name: str) -> ProviderKey:
    """The key of the provider that a rotation in `namespace` refers to."""
    return str(kind), "" if kind == ProviderKind.CLUSTER_ROTATION_PROVIDER else namespace, name


def _trim(raw: dict[str, Any]) -> dict[str, Any]:
    meta = {field: raw["metadata"][field] for field in _KEPT_METADATA if field in raw["metadata"]}
    kept = {"apiVersion": raw["apiVersion"], "kind": raw["kind"], "metadata": meta, "spec": raw.get("spec") or {}}
    words = {name: text for name, text in (raw["metadata"].get("annotations") or {}).items() if name in _WORDS}
    if words:
        meta["annotations"] = words
    if raw["kind"] == ROTATIONS.kind and raw.get("status"):
        kept["status"] = raw["status"]
    return kept


def _version(raw: dict[str, Any]) -> int:
    """resourceVersions are opaque by contract, but ordered by KEP-5504 and in every API server there has been."""
    return int(raw["metadata"]["resourceVersion"])


def _subject(raw: dict[str, Any]) -> dict[str, Any]:
    """What is being rotated, which an edit of the spec does not change before the end; else what would be."""
    running = (raw.get("status") or {}).get("rotation")
    subject: dict[str, Any] = running["subject"] if running else raw["spec"]
    return subject


def _links(raw: dict[str, Any]) -> tuple[ProviderKey, Key, str]:
    subject, namespace = _subject(raw), raw["metadata"]["namespace"]
    provider = subject.get("providerRef") or {}
    kind = provider.get("kind", ProviderKind.ROTATION_PROVIDER)
    secret = (subject.get("secretRef") or {}).get("name", "")
    return provider_key(kind, namespace, provider.get("name", "")), (namespace, secret), subject.get("clientId", "")


def _written_keys(raw: dict[str, Any]) -> set[str]:
    ref = _subject(raw).get("secretRef") or {}
    return {ref[field] for field in ("key", "clientIdKey", "previousKey") if ref.get(field)}
