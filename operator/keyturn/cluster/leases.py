"""The Leases by which replicas agree who works (coordination.k8s.io/v1), used as client-go's leader election does."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from keyturn.cluster.client import Kube, Resource
from keyturn.cluster.errors import NotFound

LEASES: Final = Resource("coordination.k8s.io/v1", "leases", "Lease")
NAME: Final = "keyturn"


@dataclass(frozen=True, slots=True)
class Lease:
    """What a Lease says. Two are equal when nobody has renewed, taken or released it in between.

    holder: who works, None when nobody does. duration: seconds of silence after which another may take it. acquired,
    renewed: by the holder's clock, so good for nothing but telling one from another. version: the resourceVersion, ""
    before it was written; uid: "" then, too.
    """

    holder: str | None
    duration: int
    acquired: str
    renewed: str
    transitions: int
    version: str = field(default="", compare=False)
    uid: str = field(default="", compare=False)


class LeaseObject:
    """One Lease on the API server."""

    def __init__(self, kube: Kube, namespace: str, name: str = NAME) -> None:
        self._kube = kube
        self._namespace = namespace
        self._name = name

    def __str__(self) -> str:
        return f"Lease {self._namespace}/{self._name}"

    async def read(self) -> Lease | None:
        """The Lease as it is now; None when there is none. Raises ClusterError."""
        try:
            return _lease(await self._kube.get(LEASES, self._namespace, self._name))
        except NotFound:
            return None

    async def write(self, lease: Lease) -> Lease:
        """Replace the version that `lease` was made from, or create it. Returns what is there now.

        Raises Conflict when somebody else was faster, NotFound when it was deleted, and other ClusterErrors.
        """
        spec = {
            "holderIdentity": lease.holder,
            "leaseDurationSeconds": lease.duration,
            "acquireTime": lease.acquired,
            "renewTime": lease.renewed,
            "leaseTransitions": lease.transitions,
        }
        if not lease.version:
            body = {"metadata": {"name": self._name}, "spec": spec}
            return _lease(await self._kube.create(LEASES, self._namespace, body))
        patch = {"metadata": {"resourceVersion": lease.version}, "spec": spec}
        return _lease(await self._kube.merge(LEASES, self._namespace, self._name, patch))


class Leases:
    """The Leases of one namespace."""

    def __init__(self, kube: Kube, namespace: str) -> None:
        self._kube = kube
        self._namespace = namespace

    def named(self, name: str = NAME) -> LeaseObject:
        return LeaseObject(self._kube, self._namespace, name)

    async def list(self) -> dict[str, Lease]:
        """All there are, by name, as of one moment that is not before this was called. Raises ClusterError."""
        listed = await self._kube.list(LEASES, self._namespace)
        return {raw["metadata"]["name"]: _lease(raw) for raw in listed.items}

    async def delete(self, name: str, lease: Lease) -> None:
        """Delete the version that was read. Raises Conflict, NotFound and other ClusterErrors."""
        await self._kube.delete(LEASES, self._namespace, name, uid=lease.uid, version=lease.version)


def now() -> str:
    """The time, as a Lease holds it (metav1.MicroTime)."""
    return datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _lease(raw: dict[str, Any]) -> Lease:
    spec = raw.get("spec") or {}
    return Lease(
        holder=spec.get("holderIdentity") or None,
        duration=spec.get("leaseDurationSeconds") or 0,
        acquired=spec.get("acquireTime") or "",
        renewed=spec.get("renewTime") or "",
        transitions=spec.get("leaseTransitions") or 0,
        version=raw["metadata"]["resourceVersion"],
        uid=raw["metadata"]["uid"],
    )
