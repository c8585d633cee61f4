"""All that is of interest in a namespace, listed at once."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from keyturn.cluster.client import Kube, Listed, Resource
from keyturn.cluster.errors import NotFound
from keyturn.cluster.objects import Raw, controller_of
from keyturn.cluster.resources import (
    CONTROLLERREVISIONS,
    CRONJOBS,
    CRONJOBS_BETA,
    DAEMONSETS,
    DEPLOYMENTS,
    JOBS,
    PODS,
    REPLICASETS,
    ROLLOUTS,
    STATEFULSETS,
)

_ABSENT_SECONDS: Final = 60.0
_EMPTY_SECONDS: Final = 10.0
# Each with what its controllers keep between a workload and its pods: one without the other would mislead.
_GROUPS: Final = (
    (DEPLOYMENTS, REPLICASETS, ROLLOUTS),
    (STATEFULSETS, DAEMONSETS, CONTROLLERREVISIONS),
    (JOBS, CRONJOBS),
)
_NOT_EVERYWHERE: Final = {ROLLOUTS: (ROLLOUTS,), CRONJOBS: (CRONJOBS, CRONJOBS_BETA)}
_NONE: Final = Listed([], "")


@dataclass(frozen=True, slots=True)
class Namespace:
    """Pods, workloads and what their controllers keep between the two, as the API server returned them."""

    pods: list[Raw] = field(default_factory=list)
    deployments: list[Raw] = field(default_factory=list)
    replicasets: list[Raw] = field(default_factory=list)
    statefulsets: list[Raw] = field(default_factory=list)
    daemonsets: list[Raw] = field(default_factory=list)
    controllerrevisions: list[Raw] = field(default_factory=list)
    jobs: list[Raw] = field(default_factory=list)
    cronjobs: list[Raw] = field(default_factory=list)
    rollouts: list[Raw] = field(default_factory=list)
    versions: Mapping[Resource, str] = field(default_factory=dict)
    """Of each kind that was listed: what happens after it can be watched."""


class Lister:
    """Lists namespaces, and remembers for a while what need not be asked for each time.

    That is, for a minute, which kinds the API server does not serve; and for a few seconds, which kinds a namespace has
    none of: a workload that is new since then has no pods that are not listed, and these tell when to look for it.
    """

    def __init__(self, kube: Kube) -> None:
        self._kube = kube
        self._absent_until: dict[Resource, float] = {}
        self._empty_until: dict[tuple[str, int], float] = {}

    async def list_all(self, namespace: str) -> Namespace:
        """List every kind, each as of one moment since the call. Raises ClusterError."""
        now = asyncio.get_running_loop().time()
        self._empty_until = {place: until for place, until in self._empty_until.items() if until > now}
        asked = [number for number in range(len(_GROUPS)) if (namespace, number) not in self._empty_until]
        pods, found = await asyncio.gather(self._kube.list(PODS, namespace), self._list_groups(namespace, asked))
        others = [number for number in range(len(_GROUPS)) if number not in asked]
        if others and _owners(pods.items) & {resource.kind for number in others for resource in _GROUPS[number]}:
            found |= await self._list_groups(namespace, others)
            asked += others
        for number in asked:
            if not any(found[resource].items for resource in _GROUPS[number]):
                self._empty_until[namespace, number] = now + _EMPTY_SECONDS
        found[PODS] = pods
        versions = {resource: listed.version for resource, listed in found.items() if listed is not _NONE}
        return Namespace(**{resource.plural: listed.items for resource, listed in found.items()}, versions=versions)

    async def _list_groups(self, namespace: str, numbers: Sequence[int]) -> dict[Resource, Listed]:
        kinds = [resource for number in numbers for resource in _GROUPS[number]]
        listed = await asyncio.gather(*(self._list(namespace, resource) for resource in kinds))
        return dict(zip(kinds, listed, strict=True))

    async def _list(self, namespace: str, resource: Resource) -> Listed:
        """All objects of a kind, in the first version that the API server serves; none where it serves none."""
        if resource not in _NOT_EVERYWHERE:
            return await self._kube.list(resource, namespace)
        for version in _NOT_EVERYWHERE[resource]:
            now = asyncio.get_running_loop().time()
            if self._absent_until.get(version, now) > now:
                continue
            try:
                return await self._kube.list(version, namespace)
            except NotFound:
                self._absent_until[version] = now + _ABSENT_SECONDS
        return _NONE


def _owners(pods: list[Raw]) -> set[str]:
    return {owner["kind"] for pod in pods if (owner := controller_of(pod)) is not None}
