"""What is known of all rotations and providers, kept small, with the questions that span several of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, TypeVar

from keyturn.api.conditions import ConditionStatus, ConditionType
from keyturn.api.provider import ProviderKind, account_of
from keyturn.api.rotation import CANCEL_ANNOTATION, RESUME_ANNOTATION, URGENT_ANNOTATION
from keyturn.cluster.resources import ROTATIONS
from keyturn.cluster.rotations import has_finalizer
from keyturn.controller.census import Facts, facts_of
from keyturn.controller.coverage import Coverage, Labels, shared, version_of
from keyturn.controller.shelf import Shelf
from keyturn.rotation.gap import begun_at, restarts_of
from keyturn.rotation.policy import Policy
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

_WORDS = (CANCEL_ANNOTATION, RESUME_ANNOTATION, URGENT_ANNOTATION)

_NO_LABELS: Labels = {}


@dataclass(frozen=True, slots=True)
class _Claim:
    """What no two rotations may have in common: keys of a Secret, or a client of an account."""

    provider: ProviderKey
    secret: Key
    keys: frozenset[str]
    client: str
    account: str | None = field(default=None, compare=False)
    """Where it was begun, whatever the provider object says by now."""


class Index:
    """All resources of Keyturn's own kinds. Only the newest version of each is kept."""

    def __init__(self) -> None:
        self._rotations = Shelf()
        self._versions: dict[Key, int] = {}
        self._facts: dict[Key, Facts] = {}
        self._labels: dict[Key, Labels] = {}
        self._providers: dict[ProviderKey, dict[str, Any]] = {}
        self._expected: dict[Key, dict[str, Any]] = {}
        self._expected_finalizer: dict[Key, bool] = {}
        self._by_provider: defaultdict[ProviderKey, set[Key]] = defaultdict(set)
        self._by_secret: defaultdict[Key, set[Key]] = defaultdict(set)
        self._by_client: defaultdict[str, set[Key]] = defaultdict(set)
        self._running: dict[Key, dict[str, Any]] = {}
        self.coverage = Coverage()

    def __len__(self) -> int:
        return len(self._rotations)

    def rotation(self, key: Key) -> dict[str, Any] | None:
        return self._rotations.use(key)

    def rotations(self) -> Mapping[Key, dict[str, Any]]:
        """All of them; each is decoded as it is come by, so `versions` and `facts` are cheaper."""
        return self._rotations

    def versions(self) -> Mapping[Key, int]:
        """The newest resourceVersion of each rotation."""
        return self._versions

    def facts(self) -> Mapping[Key, Facts]:
        """What the status of each rotation says, in short."""
        return self._facts

    def provider(self, key: ProviderKey) -> dict[str, Any] | None:
        return self._providers.get(key)

    def providers(self) -> dict[ProviderKey, dict[str, Any]]:
        return self._providers

    def put_rotation(self, raw: dict[str, Any]) -> set[Key]:
        """Take in an object as it was read; the answer is which rotations may be affected by what changed."""
        key = key_of(raw)
        if self._versions.get(key, -1) >= version_of(raw):
            return set()
        known, kept = self._rotations.use(key), _trim(raw)
        self._rotations[key], self._versions[key], self._facts[key] = kept, version_of(raw), facts_of(kept)
        self._labels[key] = kept["metadata"].get("labels", _NO_LABELS)
        self.settle(key)
        if known is not None and known["spec"] == kept["spec"] and _claims(known) == _claims(kept):
            return set() if self._echo(key, known, kept) else {key}
        affected = self._unlink(key, known) if known is not None else set()
        for claim in _claims(kept):
            self._by_provider[claim.provider].add(key)
            self._by_secret[claim.secret].add(key)
            self._by_client[claim.client].add(key)
            affected |= self._by_secret[claim.secret] | self._by_client[claim.client]
        return affected | {key}

    def drop_rotation(self, key: Key) -> set[Key]:
        """Forget an object that is gone; the answer is which other rotations may be affected."""
        known = self._rotations.pop(key, None)
        self._versions.pop(key, None)
        self._facts.pop(key, None)
        self._labels.pop(key, None)
        self.expect_nothing(key)
        self._running.pop(key, None)
        return self._unlink(key, known) - {key} if known is not None else set()

    def expect_status(self, key: Key, status: dict[str, Any]) -> None:
        """This status is about to be written by us: nobody needs to be woken when it comes back.

        A rotation that it lets begin counts as running from now on, so that no other one begins on what is known from
        before.
        """
        self._expected[key] = status
        if status.get("rotation"):
            self._running[key] = status["rotation"]

    def expect_finalizer(self, key: Key, *, present: bool) -> None:
        """Our finalizer is about to be put there or taken away by us; see `expect_status`."""
        self._expected_finalizer[key] = present

    def expect_nothing(self, key: Key) -> None:
        """What we have written was taken in, or nobody knows what became of it."""
        self._expected.pop(key, None)
        self._expected_finalizer.pop(key, None)

    def settle(self, key: Key) -> None:
        """Go by what was read of a rotation, whatever became of a status that was about to be written."""
        record = ((self._rotations.use(key) or {}).get("status") or {}).get("rotation")
        if record:
            self._running[key] = record
        else:
            self._running.pop(key, None)

    def running(self) -> dict[Key, dict[str, Any]]:
        """`status.rotation` of all rotations that run, or whose beginning is being written."""
        return self._running

    def restarting(self, key: Key) -> dict[tuple[str, str], datetime]:
        """The workloads that other running rotations of its namespace restart, and when the newest of these began."""
        found: dict[tuple[str, str], datetime] = {}
        for other, record in self._running.items():
            begun = begun_at(record["id"]) if other[0] == key[0] and other != key else None
            if begun is not None:
                found |= {target: max(begun, found.get(target, begun)) for target in restarts_of(record)}
        return found

    def policies_of(self, key: Key) -> list[Policy]:
        """The policies that cover a rotation."""
        labels = self._labels.get(key)
        return self.coverage.covering(key[0], labels) if labels is not None else []

    def covers(self, policy: str, key: Key) -> bool:
        """Whether that policy covers this rotation."""
        labels = self._labels.get(key)
        return labels is not None and self.coverage.covers(policy, key[0], labels)

    def account_of(self, key: Key) -> str:
        """The account that a rotation's spec speaks of, as far as it is known; two that are the same have one name."""
        raw = self._rotations.use(key)
        account = self.account(_claim(raw["spec"], key[0]).provider) if raw is not None else ""
        return account if isinstance(account, str) else "/".join(account)

    def covered(self, policy: str) -> set[Key]:
        """The rotations that a policy covers."""
        return {key for key, labels in self._labels.items() if self.coverage.covers(policy, key[0], labels)}

    def put_policy(self, raw: dict[str, Any]) -> set[Key]:
        """Take in a policy as it was read; the answer is which rotations may be affected by what changed."""
        name = raw["metadata"]["name"]
        known = self.coverage.raw(name)
        # Each permit is written to its status: only where the spec changes, it may have covered others before.
        before = self.covered(name) if known is not None and known["spec"] != raw.get("spec") else set[Key]()
        return before | self.covered(name) if self.coverage.put_policy(raw) else set()

    def drop_policy(self, name: str) -> set[Key]:
        affected = self.covered(name)
        self.coverage.drop_policy(name)
        return affected

    def put_namespace(self, raw: dict[str, Any]) -> set[Key]:
        """Take in a Namespace as it was read; the answer is which rotations may be affected by what changed."""
        name = raw["metadata"]["name"]
        return {key for key in self._versions if key[0] == name} if self.coverage.put_namespace(raw) else set()

    def _echo(self, key: Key, known: dict[str, Any], kept: dict[str, Any]) -> bool:
        ours = {"resourceVersion": "", "finalizers": None}
        before, after = ({**raw["metadata"], **ours} for raw in (known, kept))
        bound = has_finalizer(kept)
        held = bound == has_finalizer(known) or bound is self._expected_finalizer.get(key)
        return before == after and held and kept.get("status") == self._expected.get(key, {})

    def rotations_of(self, provider: ProviderKey) -> set[Key]:
        """The rotations that use this provider object."""
        return set(self._by_provider.get(provider, ()))

    def put_provider(self, raw: dict[str, Any]) -> set[Key]:
        """As `put_rotation`. Also affected is who uses an account that was just found to be usable."""
        key = provider_key_of(raw)
        known = self._providers.get(key)
        if known is not None and version_of(known) >= version_of(raw):
            return set()
        kept = self._providers[key] = _trim(raw)
        if known is None or known["spec"] != kept["spec"]:
            return self._concerned(key)
        usable = kept["usable"] is not None and kept["usable"] != known["usable"]
        return self.rotations_of(key) if usable else set()

    def drop_provider(self, key: ProviderKey) -> set[Key]:
        self._providers.pop(key, None)
        return self._concerned(key)

    def conflict(self, key: Key) -> Problem | None:
        """Why this rotation must not begin because of another one (I6), or None."""
        raw = self._rotations.use(key)
        if raw is None:
            return None
        # What a running rotation has is its own: another one can only be in the way of what the spec names.
        return self._between(key, _claim(raw["spec"], key[0]))

    def contested(self, key: Key) -> Problem | None:
        """That another one claims what this rotation has, or its spec names; each of the two is told of the other."""
        raw = self._rotations.use(key)
        if raw is None:
            return None
        found = (self._between(key, claim) for claim in _claims(raw))
        return next((problem for problem in found if problem is not None), None)

    def _between(self, key: Key, ours: _Claim) -> Problem | None:
        return self._secret_conflict(key, ours) or self._client_conflict(key, ours)

    def _secret_conflict(self, key: Key, ours: _Claim) -> Problem | None:
        for other in sorted(self._by_secret[ours.secret] - {key}):
            for theirs in _claims(self._rotations[other]):
                shared = ours.keys & theirs.keys if theirs.secret == ours.secret else frozenset()
                if shared:
                    where = f"Secret {ours.secret[1]}, key {min(shared)}"
                    message = f"ClientSecretRotation {other[1]} writes {where} too"
                    return Problem("SecretConflict", f"{message}: delete one of the two, or change its key")
        return None

    def _client_conflict(self, key: Key, ours: _Claim) -> Problem | None:
        account = self.account(ours.provider)
        for other in sorted(self._by_client[ours.client] - {key}):
            claims = _claims(self._rotations[other])
            if any(
                account == (theirs.account or self.account(theirs.provider))
                for theirs in claims
                if theirs.client == ours.client
            ):
                name = f"{other[0]}/{other[1]}"
                message = f"ClientSecretRotation {name} rotates client {ours.client} of the same account"
                return Problem("ClientConflict", f"{message}: delete one of the two")
        return None

    def _concerned(self, provider: ProviderKey) -> set[Key]:
        """The rotations that use a provider, and those of clients with the same names, which may be of its account."""
        users = self.rotations_of(provider)
        claims = [claim for user in users for claim in _claims(self._rotations[user])]
        return users.union(*(self._by_client[claim.client] for claim in claims))

    def account(self, provider: ProviderKey) -> str | ProviderKey:
        """What tells provider accounts apart: two objects may describe the same one."""
        known = self._providers.get(provider)
        return (account_of(known["spec"]) if known is not None else None) or provider

    def _unlink(self, key: Key, known: dict[str, Any]) -> set[Key]:
        """Forget the links of an object; the answer is who shared the Secret or the client with it."""
        affected: set[Key] = set()
        for claim in _claims(known):
            affected |= self._by_secret[claim.secret] | self._by_client[claim.client]
        for claim in _claims(known):
            _discard(self._by_provider, claim.provider, key)
            _discard(self._by_secret, claim.secret, key)
            _discard(self._by_client, claim.client, key)
        return affected


def _discard(table: dict[T, set[Key]], entry: T, key: Key) -> None:
    if entry in table:
        table[entry].discard(key)
        if not table[entry]:
            del table[entry]


def key_of(raw: dict[str, Any]) -> Key:
    meta = raw["metadata"]
    return meta["namespace"], meta["name"]


def provider_key_of(raw: dict[str, Any]) -> ProviderKey:
    meta = raw["metadata"]
    return raw["kind"], meta.get("namespace", ""), meta["name"]


def said_something(before: dict[str, Any] | None, after: dict[str, Any] | None) -> bool:
    """Whether somebody said what they want: by making, editing, annotating or deleting an object of the index."""
    if before is None or after is None:
        return True
    old, new = before["metadata"], after["metadata"]
    return any(old.get(field) != new.get(field) for field in ("uid", "generation", "annotations", "deletionTimestamp"))


def provider_key(kind: ProviderKind | str, namespace: str, name: str) -> ProviderKey:
    """The key of the provider that a rotation in `namespace` refers to."""
    return str(kind), "" if kind == ProviderKind.CLUSTER_ROTATION_PROVIDER else namespace, name


def _trim(raw: dict[str, Any]) -> dict[str, Any]:
    meta = {field: raw["metadata"][field] for field in _KEPT_METADATA if field in raw["metadata"]}
    kept = {"apiVersion": raw["apiVersion"], "kind": raw["kind"], "metadata": meta, "spec": raw.get("spec") or {}}
    words = {name: text for name, text in (raw["metadata"].get("annotations") or {}).items() if name in _WORDS}
    if words:
        meta["annotations"] = words
    if raw["kind"] != ROTATIONS.kind:
        kept["usable"] = _usable(raw.get("status") or {})
        return kept
    if raw["metadata"].get("labels"):
        meta["labels"] = shared(raw["metadata"])
    if raw.get("status"):
        kept["status"] = raw["status"]
    return kept


def labels_of(rotation: dict[str, Any] | None) -> Labels | None:
    """The labels of a rotation of the index; None where there is no such rotation."""
    return rotation["metadata"].get("labels", {}) if rotation is not None else None


def _usable(status: dict[str, Any]) -> object:
    """Which state of a provider object was last found to be usable, or None."""
    wanted = ConditionType.READY, ConditionStatus.TRUE
    ready = (one for one in status.get("conditions") or () if (one["type"], one["status"]) == wanted)
    return next(((status.get("observedGeneration"), one.get("lastTransitionTime")) for one in ready), None)


def _claims(raw: dict[str, Any]) -> tuple[_Claim, ...]:
    """What is being rotated, which an edit of the spec does not change before the end; and what the spec names."""
    running = (raw.get("status") or {}).get("rotation")
    namespace = raw["metadata"]["namespace"]
    begun = [replace(_claim(running["subject"], namespace), account=running.get("account"))] if running else []
    # Of equal ones the first is kept.
    return tuple(dict.fromkeys([*begun, _claim(raw["spec"], namespace)]))


def _claim(subject: dict[str, Any], namespace: str) -> _Claim:
    provider, secret = subject.get("providerRef") or {}, subject.get("secretRef") or {}
    kind = provider.get("kind", ProviderKind.ROTATION_PROVIDER)
    return _Claim(
        provider=provider_key(kind, namespace, provider.get("name", "")),
        secret=(namespace, secret.get("name", "")),
        keys=frozenset(secret[field] for field in ("key", "clientIdKey", "previousKey") if secret.get(field)),
        client=subject.get("clientId", ""),
    )
