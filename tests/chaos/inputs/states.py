"""What the status of an object says."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, Final

_TIMES: Final = ("lastTransitionTime", "observedGeneration")


def _states(obj: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    return {item["type"]: item for item in (obj.get("status") or {}).get("conditions", [])}


def is_final(obj: Mapping[str, Any]) -> bool:
    """Whether the operator's status speaks of the spec as it is, and nothing but waiting is left to do."""
    status, states = obj.get("status") or {}, _states(obj)
    if status.get("observedGeneration") != obj["metadata"]["generation"] or "Ready" not in states:
        return False
    return "rotation" not in status or "Stalled" in states or status.get("phase") == "Soaking"


def complaint(obj: Mapping[str, Any]) -> str:
    """All that the conditions say against the object; empty when it is well."""
    wrong = [
        item
        for kind, item in _states(obj).items()
        if (kind == "Ready" and item["status"] != "True") or kind in ("Stalled", "Reconciling")
    ]
    return " ".join(f"{item['type']} {item['reason']}: {item['message']}" for item in wrong)


def timeless(obj: Mapping[str, Any] | None) -> Any:
    """The object without times and counters."""
    if obj is None:
        return None
    kept = copy.deepcopy(dict(obj))
    kept["metadata"] = {
        name: value
        for name, value in obj["metadata"].items()
        if name not in ("resourceVersion", "generation", "managedFields", "uid", "creationTimestamp")
    }
    for condition in kept.get("status", {}).get("conditions", []):
        for name in _TIMES:
            condition.pop(name, None)
    kept.get("status", {}).pop("observedGeneration", None)
    return kept


def difference(before: Any, after: Any, path: str = "") -> str:
    """In words, field by field."""
    if isinstance(before, dict) and isinstance(after, dict):
        parts = [
            difference(before.get(name), after.get(name), f"{path}.{name}")
            for name in sorted({*before, *after})
            if before.get(name) != after.get(name)
        ]
        return "; ".join(parts)
    return f"{path}: {before!r} became {after!r}"
