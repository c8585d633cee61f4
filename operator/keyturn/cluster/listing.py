"""All that is of interest in a namespace, listed at once."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Final

from keyturn.cluster.client import Kube, Resource
from keyturn.cluster.errors import NotFound
from keyturn.cluster.objects import Raw
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


class Lister:
    """Lists namespaces, and remembers for a minute which kinds the API server does not serve."""

    def __init__(self, kube: Kube) -> None:
        self._kube = kube
        self._absent_until: dict[Resource, float] = {}

    async def list_all(self, namespace: str) -> Namespace:
        """List every kind, each as of one moment since the call. Raises ClusterError."""
        kinds = (PODS, DEPLOYMENTS, REPLICASETS, STATEFULSETS, DAEMONSETS, CONTROLLERREVISIONS, JOBS)
        listed = await asyncio.gather(
            *(self._kube.list(resource, namespace) for resource in kinds),
            self._list_first_served(namespace, CRONJOBS, CRONJOBS_BETA),
            self._list_first_served(namespace, ROLLOUTS),
        )
        return Namespace(*listed)

    async def _list_first_served(self, namespace: str, *versions: Resource) -> list[Raw]:
        """All objects of a kind, in the first version that the API server serves; none where it serves none."""
        for resource in versions:
            now = asyncio.get_running_loop().time()
            if self._absent_until.get(resource, now) > now:
                continue
            try:
                return await self._kube.list(resource, namespace)
            except NotFound:
                self._absent_until[resource] = now + _ABSENT_SECONDS
        return []
