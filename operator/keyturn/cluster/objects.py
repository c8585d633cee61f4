"""What all objects of Kubernetes have in common, read from their JSON."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

from keyturn.api.base import GROUP

Raw = dict[str, Any]
Key = tuple[str, str]
"""Kind and name of a workload."""

STAMP: Final = f"{GROUP}/rotation"
"""The annotation of pod templates, and of Rollouts, that names the rotation which has restarted them last."""


def name_of(item: Raw) -> str:
    return str(item["metadata"]["name"])


def uid_of(item: Raw) -> str:
    return str(item["metadata"]["uid"])


def annotation_of(item: Raw, key: str) -> str | None:
    """An annotation of an object, or of a pod template, which need not have metadata."""
    found: str | None = ((item.get("metadata") or {}).get("annotations") or {}).get(key)
    return found


def created(item: Raw) -> datetime:
    return datetime.fromisoformat(item["metadata"]["creationTimestamp"])


def controller_of(item: Raw) -> Raw | None:
    """The owner reference of the object's controller."""
    for owner in item["metadata"].get("ownerReferences") or []:
        if owner.get("controller"):
            reference: Raw = owner
            return reference
    return None


def observed(item: Raw) -> bool:
    """Whether its controller has seen the newest version of its spec."""
    return bool((item.get("status") or {}).get("observedGeneration", 0) >= item["metadata"]["generation"])


def is_ready(pod: Raw) -> bool:
    conditions = (pod.get("status") or {}).get("conditions") or []
    return any(condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions)
