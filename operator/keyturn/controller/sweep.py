"""The sweep: what the watches missed is found by listing, in long intervals (KOPF.md 1c: deletes lost on a re-list)."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Mapping
from typing import Any, Final

from keyturn.cluster.client import Kube, Resource
from keyturn.cluster.errors import ClusterError, NotFound
from keyturn.cluster.resources import CLUSTER_PROVIDERS, NAMESPACES, POLICIES, PROVIDERS, ROTATIONS
from keyturn.controller.index import Index, key_of, provider_key_of
from keyturn.controller.source import Seen

# What rotations go by is known before they are.
_ORDER: Final = (NAMESPACES, POLICIES, CLUSTER_PROVIDERS, PROVIDERS, ROTATIONS)
_COMPARED: Final = ("namespace", "name", "resourceVersion")
_log = logging.getLogger(__name__)
_SECOND_SECONDS: Final = 60.0
"""The second sweep comes as soon as this after the first."""
_FIRST_RETRY_SECONDS: Final = 1.0
_LONGEST_RETRY_SECONDS: Final = 10.0


def _name_of(raw: dict[str, Any]) -> str:
    name: str = raw["metadata"]["name"]
    return name


_IDENTIFY: Final[Mapping[Resource, Callable[[dict[str, Any]], Any]]] = {
    NAMESPACES: _name_of,
    POLICIES: _name_of,
    CLUSTER_PROVIDERS: provider_key_of,
    PROVIDERS: provider_key_of,
    ROTATIONS: key_of,
}


class Sweep:
    """Compares the index with lists of metadata, and repairs the index where they differ."""

    def __init__(self, kube: Kube, index: Index, seen: Seen, interval: float) -> None:
        """interval: seconds between two sweeps, on average."""
        self._kube = kube
        self._index = index
        self._seen = seen
        self._interval = interval
        self._read: set[Resource] = set()
        """What was read whole, to its end."""
        self._next: asyncio.Task[None] | None = None
        self._running: asyncio.Task[None] | None = None

    async def run(self, swept: asyncio.Event) -> None:
        """Sweep until cancelled; `swept` is set after the first sweep that succeeded."""
        retry = _FIRST_RETRY_SECONDS
        while True:
            try:
                await self.fresh()
                # What is deleted before the watches begin is not told by them.
                delay = self._interval if swept.is_set() else min(_SECOND_SECONDS, self._interval)
                swept.set()
                retry = _FIRST_RETRY_SECONDS
            except ClusterError as error:
                _log.warning("sweep: %s", error)
                delay, retry = min(retry, self._interval), min(2 * retry, _LONGEST_RETRY_SECONDS)
            await asyncio.sleep(delay * random.uniform(0.8, 1.2))  # noqa: S311 - jitter

    async def fresh(self) -> None:
        """Return when the index knows everything that was written before this was called. Raises ClusterError.

        Callers that wait at the same time share one sweep.
        """
        if self._next is None:
            self._next = asyncio.create_task(self._all(self._running), name="sweep-all")
        await asyncio.shield(self._next)

    async def aclose(self) -> None:
        """Break off what is under way."""
        left = [task for task in (self._running, self._next) if task is not None]
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    async def _all(self, running: asyncio.Task[None] | None) -> None:
        if running is not None:
            await asyncio.wait([running])
        self._running, self._next = self._next, None
        for resource in _ORDER:
            await self._sweep(resource)

    async def _sweep(self, resource: Resource) -> None:
        identify = _IDENTIFY[resource]
        if resource not in self._read:
            # The first time, everything is missing: reading it whole is one request, not one for each.
            async for page in self._kube.pages(resource, metadata_only=resource is NAMESPACES):
                for item in page.items:
                    self._tell({**item, "apiVersion": resource.api_version, "kind": resource.kind}, False)
            self._read.add(resource)
            return
        listed = {}
        async for page in self._kube.pages(resource, metadata_only=True):
            for item in page.items:
                metadata = {name: item["metadata"][name] for name in _COMPARED if name in item["metadata"]}
                listed[identify({"kind": resource.kind, "metadata": metadata})] = metadata
        known = self._known(resource)
        for key, raw in known.items():
            if key not in listed:
                await self._repair(resource, raw)
        for key, metadata in listed.items():
            entry = known.get(key)
            if entry is None or entry["metadata"]["resourceVersion"] != metadata["resourceVersion"]:
                await self._repair(resource, {"kind": resource.kind, "metadata": metadata})

    def _known(self, resource: Resource) -> dict[Any, dict[str, Any]]:
        """What the index holds of this kind now."""
        if resource is ROTATIONS:
            return {
                (namespace, name): {
                    "kind": resource.kind,
                    "metadata": {"namespace": namespace, "name": name, "resourceVersion": str(version)},
                }
                for (namespace, name), version in self._index.versions().items()
            }
        if resource is POLICIES:
            return dict(self._index.coverage.policies())
        if resource is NAMESPACES:
            return dict(self._index.coverage.namespaces())
        return {key: raw for key, raw in self._index.providers().items() if raw["kind"] == resource.kind}

    async def _repair(self, resource: Resource, raw: dict[str, Any]) -> None:
        """Ask for the object itself: only its absence, seen by name, makes it gone."""
        metadata = raw["metadata"]
        try:
            self._tell(await self._kube.get(resource, metadata.get("namespace"), metadata["name"]), False)
        except NotFound:
            self._tell(raw, True)

    def _tell(self, raw: dict[str, Any], deleted: bool) -> None:
        try:
            self._seen(raw, deleted)
        except Exception:  # noqa: BLE001
            # A defect that one object brings to light must not keep the others from being known.
            _log.exception("unexpected error", extra={"object": f"{raw['kind']}/{raw['metadata']['name']}"})
