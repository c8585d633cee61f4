"""Eyes on the namespaces in which rotations run: shared listings, and a wake-up when something changes there."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from operator import attrgetter
from typing import Final

from keyturn.api.observed import Consumers
from keyturn.api.rotation import RolloutSpec
from keyturn.cluster.client import Kube, Resource
from keyturn.cluster.errors import ClusterError
from keyturn.cluster.family import Family
from keyturn.cluster.kinds import moves
from keyturn.cluster.listing import Lister, Namespace
from keyturn.cluster.objects import Raw, name_of
from keyturn.cluster.resources import DAEMONSETS, DEPLOYMENTS, PODS, ROLLOUTS, STATEFULSETS
from keyturn.cluster.workloads import consumers_of

Key = tuple[str, str]

_log = logging.getLogger(__name__)
_LULL_SECONDS: Final = 1.0
"""While pods are being replaced, everything else that happens in the namespace is looked at so often at most."""
_BACKOFF_SECONDS: Final = (0.5, 1.0, 2.0, 5.0, 10.0)
# Their status is waited for. Of all others, the pods tell.
_WATCHED: Final = {
    DEPLOYMENTS: attrgetter("deployments"),
    STATEFULSETS: attrgetter("statefulsets"),
    DAEMONSETS: attrgetter("daemonsets"),
    ROLLOUTS: attrgetter("rollouts"),
}


@dataclass(frozen=True, slots=True)
class _Beginning:
    """Where a watch begins: after a listing, with the workloads that moved in it; or anew, without a version."""

    version: str | None
    moving: frozenset[tuple[str, str]]


_ANEW: Final = _Beginning(None, frozenset())


class Observers:
    """Listings of any namespace, and watches on those that are followed.

    A listing that `look` returns began after `look` was called, and is a consistent read: what decides over the end of
    a value is never stale (I4). Callers that wait at the same time share one listing.
    """

    def __init__(self, kube: Kube, wake: Callable[[Key], None]) -> None:
        """`wake` is called with every following key when something changes in its namespace."""
        self._kube = kube
        self._wake = wake
        self._lister = Lister(kube)
        self._next: dict[str, asyncio.Task[Family]] = {}
        self._running: dict[str, asyncio.Task[Family]] = {}
        self._followers: dict[str, set[Key]] = {}
        self._looked: dict[Key, Mapping[Resource, str]] = {}
        """Who looks, or has looked and may be about to follow: at these versions, once they are known."""
        self._missed: set[Key] = set()
        """Those of them for whom something has happened since."""
        self._present: dict[str, dict[Resource, _Beginning]] = {}
        self._watches: dict[str, dict[Resource, asyncio.Task[None]]] = {}
        self._moving: dict[str, set[tuple[str, str]]] = {}
        self._later: dict[str, asyncio.TimerHandle] = {}

    async def look(self, key: Key, secret: str, rollout: RolloutSpec) -> Consumers:
        """Everything in the namespace of this rotation that uses the Secret, as far as `rollout` says that it counts.

        `follow` or `unfollow` it after that. Raises ClusterError.
        """
        namespace = key[0]
        self._looked[key] = {}
        self._missed.discard(key)
        task = self._next.get(namespace)
        if task is None:
            task = asyncio.create_task(self._list(namespace, self._running.get(namespace)))
            self._next[namespace] = task
        family = await asyncio.shield(task)
        self._looked[key] = family.namespace.versions
        return consumers_of(family, secret, rollout)

    def follow(self, key: Key) -> None:
        """Wake the key (namespace, name) on changes in its namespace since it looked last, until `unfollow`."""
        followers = self._followers.setdefault(key[0], set())
        self._start_watches(key[0])
        if key not in followers and key in self._missed:
            self._wake(key)
        followers.add(key)
        self._looked.pop(key, None)
        self._missed.discard(key)

    def unfollow(self, key: Key) -> None:
        self._looked.pop(key, None)
        self._missed.discard(key)
        followers = self._followers.get(key[0], set())
        followers.discard(key)
        if not followers and not self._lookers(key[0]):
            self._followers.pop(key[0], None)
            self._present.pop(key[0], None)
            self._moving.pop(key[0], None)
            self._wake_later(key[0], None)
            for task in self._watches.pop(key[0], {}).values():
                task.cancel()

    async def aclose(self) -> None:
        for namespace in list(self._later):
            self._wake_later(namespace, None)
        tasks = [task for watches in self._watches.values() for task in watches.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, *self._next.values(), *self._running.values(), return_exceptions=True)

    async def _list(self, namespace: str, running: asyncio.Task[Family] | None) -> Family:
        if running is not None:
            await asyncio.wait([running])
        self._running[namespace] = self._next.pop(namespace)
        try:
            listed = await self._lister.list_all(namespace)
        finally:
            if namespace not in self._next:
                self._running.pop(namespace, None)
        self._present[namespace] = _beginnings(listed)
        if namespace in self._followers:
            self._start_watches(namespace)
        return Family(listed)

    def _start_watches(self, namespace: str) -> None:
        """Watch the pods, and the kinds of workloads that there are."""
        watches = self._watches.setdefault(namespace, {})
        for resource, begin in self._present.get(namespace, {PODS: _ANEW}).items():
            if resource not in watches:
                name = f"watch-{resource.plural}-{namespace}"
                # Another one has looked since: what happened in between is not told of.
                self._missed |= {
                    key for key in self._lookers(namespace) if self._looked[key].get(resource) != begin.version
                }
                watches[resource] = asyncio.create_task(self._watch(resource, namespace, begin), name=name)

    async def _watch(self, resource: Resource, namespace: str, begin: _Beginning) -> None:
        failures = 0
        while True:
            asked = 0.0
            # A watch that begins anew tells of all there is: what was deleted meanwhile is not waited for.
            moving = self._moving.setdefault(namespace, set())
            moving -= {key for key in moving if key[0] == resource.kind}
            moving |= begin.moving
            try:
                async for event in self._kube.watch(resource, namespace, begin.version):
                    failures = 0
                    if event["type"] != "BOOKMARK":
                        self._happened(resource, namespace, event)
            except ClusterError as error:
                asked = error.retry_after.total_seconds() if error.retry_after is not None else 0.0
            begin = _ANEW
            longest = _BACKOFF_SECONDS[min(failures, len(_BACKOFF_SECONDS) - 1)]
            failures += 1
            pause = max(longest * random.uniform(0.5, 1.0), asked)  # noqa: S311 - jitter
            _log.debug("watching %s in %s again in %.1f s", resource.plural, namespace, pause)
            await asyncio.sleep(pause)
            # What happened between two watches went unseen. Not earlier: a look asks the same server.
            self._wake_followers(namespace)

    def _happened(self, resource: Resource, namespace: str, event: Raw) -> None:
        """Wake at once when a workload has come to rest, or nothing moves and a pod changes or goes; else a bit later.

        A rollout is a storm of events, and looking at the namespace at each of them slows it down.
        """
        moving = self._moving.setdefault(namespace, set())
        if resource is not PODS:
            item = event["object"]
            key = (resource.kind, name_of(item))
            if event["type"] != "DELETED" and moves(resource.kind, item):
                moving.add(key)
            else:
                moving.discard(key)
                self._wake_followers(namespace)
                return
        if moving or event["type"] == "ADDED":
            self._wake_later(namespace, _LULL_SECONDS)
        else:
            self._wake_followers(namespace)

    def _wake_later(self, namespace: str, seconds: float | None) -> None:
        """In so many seconds at the latest; None: not any more."""
        if seconds is None:
            timer = self._later.pop(namespace, None)
            if timer is not None:
                timer.cancel()
        elif namespace not in self._later:
            loop = asyncio.get_running_loop()
            self._later[namespace] = loop.call_later(seconds, self._wake_followers, namespace)

    def _wake_followers(self, namespace: str) -> None:
        self._wake_later(namespace, None)
        self._missed |= self._lookers(namespace)
        for key in self._followers.get(namespace, ()):
            self._wake(key)

    def _lookers(self, namespace: str) -> set[Key]:
        return {key for key in self._looked if key[0] == namespace}


def _beginnings(listed: Namespace) -> dict[Resource, _Beginning]:
    """Of the pods, and of the kinds of workloads that there are."""
    found = {PODS: _Beginning(listed.versions[PODS], frozenset())}
    for resource, items_of in _WATCHED.items():
        items = items_of(listed)
        if items:
            moving = frozenset((resource.kind, name_of(item)) for item in items if moves(resource.kind, item))
            found[resource] = _Beginning(listed.versions[resource], moving)
    return found
