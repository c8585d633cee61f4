"""Writing the ClientSecretRotation itself: its status and its finalizer, never its spec."""

from __future__ import annotations

from typing import Any, Final

from keyturn.api.base import GROUP
from keyturn.cluster.client import Kube, Resource
from keyturn.cluster.resources import ROTATIONS

FINALIZER: Final = f"{GROUP}/rotation"


async def write_status(
    kube: Kube, raw: dict[str, Any], status: dict[str, Any], resource: Resource = ROTATIONS
) -> dict[str, Any]:
    """Replace the status, only if the object is still the one that was read (I1). Returns the new object.

    Raises Conflict when it is not, and NotFound when it is gone.
    """
    patch = merge_patch(raw.get("status") or {}, status)
    if not patch:
        return raw
    meta = raw["metadata"]
    body = {"metadata": {"resourceVersion": meta["resourceVersion"]}, "status": patch}
    return await kube.merge(resource, meta.get("namespace"), meta["name"], body, subresource="status")


async def write_finalizer(kube: Kube, raw: dict[str, Any], *, present: bool) -> dict[str, Any]:
    """Add or remove Keyturn's finalizer, leaving others alone. Returns the new object; raises as `write_status`."""
    meta = raw["metadata"]
    others = [item for item in meta.get("finalizers") or [] if item != FINALIZER]
    finalizers = [*others, FINALIZER] if present else others
    body = {"metadata": {"resourceVersion": meta["resourceVersion"], "finalizers": finalizers}}
    return await kube.merge(ROTATIONS, meta["namespace"], meta["name"], body)


def has_finalizer(raw: dict[str, Any]) -> bool:
    return FINALIZER in (raw["metadata"].get("finalizers") or [])


def merge_patch(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """The RFC 7386 patch that turns `old` into `new`; empty when they are equal."""
    patch: dict[str, Any] = {key: None for key in old if key not in new}
    for key, value in new.items():
        known = old.get(key)
        if isinstance(value, dict) and isinstance(known, dict):
            inner = merge_patch(known, value)
            if inner:
                patch[key] = inner
        elif value != known:
            patch[key] = value
    return patch
