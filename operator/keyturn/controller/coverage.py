"""Which RotationPolicies cover which rotations: by the labels of the rotations, and of their Namespaces."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from keyturn.api.policy import RotationPolicySpec, RotationPolicyStatus
from keyturn.api.rotation import LabelSelector
from keyturn.api.rules import Invalid, validate_policy
from keyturn.cluster.resources import NAMESPACES
from keyturn.cluster.selection import matches
from keyturn.rotation.cron import BadSchedule
from keyturn.rotation.policy import Policy
from keyturn.rotation.windows import check_windows

Labels = Mapping[str, str]

NAME_LABEL: Final = "kubernetes.io/metadata.name"
"""Each Namespace has it from Kubernetes 1.21 on; before, it is taken as given."""
_KEPT: Final = ("name", "uid", "resourceVersion", "generation", "creationTimestamp")
_EVERYTHING: Final = RotationPolicySpec()
_SELECTORS: Final = ("namespaceSelector", "rotationSelector")


@dataclass(frozen=True, slots=True)
class _Known:
    """A policy as it was read, and what it means. scope: a spec whose selectors say what is covered."""

    raw: dict[str, Any]
    scope: RotationPolicySpec
    policy: Policy


class Coverage:
    """All RotationPolicies, and the labels of all Namespaces. Only the newest version of each is kept."""

    def __init__(self) -> None:
        self._policies: dict[str, _Known] = {}
        self._namespaces: dict[str, dict[str, Any]] = {}

    def policies(self) -> dict[str, dict[str, Any]]:
        """The objects, by their names."""
        return {name: known.raw for name, known in self._policies.items()}

    def raw(self, name: str) -> dict[str, Any] | None:
        """One of them."""
        known = self._policies.get(name)
        return known.raw if known is not None else None

    def namespaces(self) -> dict[str, dict[str, Any]]:
        """The objects, by their names, with nothing but metadata."""
        return self._namespaces

    def policy(self, name: str) -> Policy | None:
        """What a policy means."""
        known = self._policies.get(name)
        return known.policy if known is not None else None

    def put_policy(self, raw: dict[str, Any]) -> bool:
        """Take in a policy as it was read; the answer is whether it now means something else."""
        name = raw["metadata"]["name"]
        before = self._policies.get(name)
        if before is not None and version_of(before.raw) >= version_of(raw):
            return False
        after = self._policies[name] = _understood(raw, before)
        return before is None or (before.policy, before.scope) != (after.policy, after.scope)

    def note_age(self, name: str, since: datetime) -> None:
        """The maximum age that a policy sets counts as known since then, whatever becomes of its status."""
        known = self._policies.get(name)
        if known is not None:
            self._policies[name] = replace(known, policy=replace(known.policy, age_since=since))

    def drop_policy(self, name: str) -> None:
        self._policies.pop(name, None)

    def put_namespace(self, raw: dict[str, Any]) -> bool:
        """Take in a Namespace as it was read; the answer is whether other policies select it now."""
        meta = raw["metadata"]
        known = self._namespaces.get(meta["name"])
        if known is not None and version_of(known) >= version_of(raw):
            return False
        before = self._selecting(meta["name"])
        kept = {field: meta[field] for field in ("name", "uid", "resourceVersion") if field in meta}
        self._namespaces[meta["name"]] = {"kind": NAMESPACES.kind, "metadata": {**kept, "labels": shared(meta)}}
        return before != self._selecting(meta["name"])

    def drop_namespace(self, name: str) -> None:
        self._namespaces.pop(name, None)

    def needs(self, namespace: str) -> bool:
        """Whether this Namespace must be read before it is known which policies select it."""
        return namespace not in self._namespaces and any(
            known.scope.namespace_selector != _EVERYTHING.namespace_selector for known in self._policies.values()
        )

    def covering(self, namespace: str, labels: Labels) -> list[Policy]:
        """The policies that cover a rotation with these labels in this Namespace."""
        return [known.policy for known in self._policies.values() if self._covers(known, namespace, labels)]

    def covers(self, policy: str, namespace: str, labels: Labels) -> bool:
        """Whether that policy does."""
        known = self._policies.get(policy)
        return known is not None and self._covers(known, namespace, labels)

    def _covers(self, known: _Known, namespace: str, labels: Labels) -> bool:
        return matches(known.scope.rotation_selector, labels) and self._selects(known, namespace)

    def _selects(self, known: _Known, namespace: str) -> bool:
        selector: LabelSelector = known.scope.namespace_selector
        return selector == _EVERYTHING.namespace_selector or matches(selector, self._labels(namespace))

    def _selecting(self, namespace: str) -> list[str]:
        return [name for name, known in self._policies.items() if self._selects(known, namespace)]

    def _labels(self, namespace: str) -> Labels:
        known = self._namespaces.get(namespace)
        return {NAME_LABEL: namespace, **(known["metadata"]["labels"] if known is not None else {})}


def shared(metadata: Mapping[str, Any]) -> dict[str, str]:
    """The labels in an object's metadata; a fleet has few words among them, and each is kept once."""
    labels = metadata.get("labels") or {}
    return {sys.intern(key): sys.intern(value) for key, value in labels.items()}


def version_of(raw: dict[str, Any]) -> int:
    """resourceVersions are opaque by contract, but ordered by KEP-5504 and in every API server there has been."""
    return int(raw["metadata"]["resourceVersion"])


def _understood(raw: dict[str, Any], before: _Known | None) -> _Known:
    meta, spec = raw["metadata"], raw.get("spec") or {}
    kept = {field: meta[field] for field in _KEPT if field in meta}
    trimmed = {"apiVersion": raw["apiVersion"], "kind": raw["kind"], "metadata": kept, "spec": spec}
    if raw.get("status"):
        trimmed["status"] = raw["status"]
    known = validate_policy(spec)
    if isinstance(known, Invalid):
        return _Known(trimmed, _scope(spec), Policy(meta["name"], str(known)))
    try:
        # Whether there is such a day is the same for every year.
        check_windows(known.windows, known.time_zone, datetime.fromisoformat(meta["creationTimestamp"]))
    except BadSchedule as error:
        return _Known(trimmed, known, Policy(meta["name"], str(error)))
    return _Known(trimmed, known, Policy(meta["name"], known, _age_since(known, raw, before)))


def _age_since(spec: RotationPolicySpec, raw: dict[str, Any], before: _Known | None) -> datetime | None:
    """Since when the maximum age has been what it is: as it is written down, or else as it is remembered."""
    status = RotationPolicyStatus.model_validate(raw.get("status") or {})
    in_force = status.max_age_in_force
    if spec.max_age is None:
        return None
    if in_force is not None and in_force.max_age == spec.max_age:
        return in_force.since
    if before is not None and isinstance(before.policy.spec, RotationPolicySpec):
        return before.policy.age_since if before.policy.spec.max_age == spec.max_age else None
    return None


def _scope(spec: dict[str, Any]) -> RotationPolicySpec:
    """What a policy covers that is not valid: what it selects, and everything where that cannot be told."""
    scope = validate_policy({field: spec[field] for field in _SELECTORS if field in spec})
    return _EVERYTHING if isinstance(scope, Invalid) else scope
