"""A fleet in virtual time: an API server that takes its time, and replicas that rotate as policies let them.

Passes are shorter than those of `keyturn.controller.reconciler`, and ask for permits as these do.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Iterable
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any, cast

from keyturn.cluster.client import Kube, Resource
from keyturn.cluster.errors import ClusterError, Conflict, NotFound, Unavailable
from keyturn.cluster.resources import POLICIES, ROTATIONS
from keyturn.controller.index import Index, Key
from keyturn.controller.permits import Permits
from tests.controller.test_index import provider, rotation

POLICY = "fleet"


def policy(**concurrency: int) -> dict[str, Any]:
    meta = {"name": POLICY, "uid": POLICY, "generation": 1, "creationTimestamp": "2026-01-01T00:00:00Z"}
    spec = {"concurrency": concurrency} if concurrency else {}
    return {"apiVersion": "keyturn.dev/v1alpha1", "kind": "RotationPolicy", "metadata": meta, "spec": spec}


@dataclass
class Task:
    """What a rotation is to do: begin from `due` on, and run for `lasts` seconds."""

    key: Key
    account: str
    due: float
    lasts: float
    urgent: bool = False
    begun: float | None = None
    ended: float | None = None


class Api:
    """Keeps objects, and tells all replicas of changes. trouble: how likely a request fails, or is lost."""

    def __init__(self, random: random.Random, trouble: float = 0.0, latency: float = 0.2) -> None:
        self.objects: dict[tuple[str, ...], dict[str, Any]] = {}
        self.watchers: list[Callable[[dict[str, Any], bool], None]] = []
        self.writes: Counter[str] = Counter()
        self.changed: Callable[[dict[str, Any], dict[str, Any]], None] = lambda *_: None
        self._random, self._trouble, self._latency = random, trouble, latency
        self._version = 0

    def put(self, raw: dict[str, Any]) -> dict[str, Any]:
        """Take in an object, and tell of it."""
        self._version += 1
        kept = deepcopy(raw)
        kept["metadata"]["resourceVersion"] = str(self._version)
        self.objects[_place(raw)] = kept
        self._tell(kept, deleted=False)
        return kept

    def delete(self, raw: dict[str, Any]) -> None:
        self._tell(self.objects.pop(_place(raw)), deleted=True)

    async def get(self, resource: Resource, namespace: str | None, name: str) -> dict[str, Any]:
        await self._way()
        found = self.objects.get((resource.kind, *filter(None, (namespace, name))))
        if found is None:
            raise NotFound(name)
        await self._way()
        return deepcopy(found)

    async def merge(
        self, resource: Resource, namespace: str | None, name: str, body: dict[str, Any], *, subresource: str
    ) -> dict[str, Any]:
        """Who dies after having asked has asked all the same."""
        assert subresource == "status"
        return await asyncio.shield(asyncio.ensure_future(self._merge(resource, namespace, name, body)))

    async def _merge(
        self, resource: Resource, namespace: str | None, name: str, body: dict[str, Any]
    ) -> dict[str, Any]:
        await self._way()
        known = self.objects.get((resource.kind, *filter(None, (namespace, name))))
        if known is None:
            raise NotFound(name)
        if body["metadata"]["resourceVersion"] != known["metadata"]["resourceVersion"]:
            raise Conflict(name)
        changed = deepcopy(known)
        status = {**(changed.get("status") or {}), **body["status"]}
        changed["status"] = {field: value for field, value in status.items() if value is not None}
        self.changed(known, changed)
        self.writes[resource.kind] += 1
        written = self.put(changed)
        await self._way()
        return deepcopy(written)

    async def _way(self) -> None:
        await asyncio.sleep(self._random.uniform(0, self._latency))
        if self._random.random() < self._trouble:
            raise Unavailable("503")

    def _tell(self, raw: dict[str, Any], *, deleted: bool) -> None:
        for watcher in self.watchers:
            asyncio.get_running_loop().call_later(
                self._random.uniform(0, self._latency), watcher, deepcopy(raw), deleted
            )


def _place(raw: dict[str, Any]) -> tuple[str, ...]:
    meta = raw["metadata"]
    return raw["kind"], *filter(None, (meta.get("namespace"), meta["name"]))


@dataclass
class Replica:
    """A process that works for some namespaces."""

    fleet: Fleet
    namespaces: set[str]
    index: Index = field(default_factory=Index)
    alive: bool = True

    def __post_init__(self) -> None:
        self._jobs: dict[Key, asyncio.Task[None]] = {}
        self._again: set[Key] = set()
        api = self.fleet.api
        self.permits = Permits(cast(Kube, api), self.index, self.wake, self.seen)
        for raw in api.objects.values():
            self.seen(deepcopy(raw), False)
        api.watchers.append(self.seen)
        self.fleet.replicas.append(self)
        self.permits.begin()
        for key in self.fleet.tasks:
            self.wake(key)

    def seen(self, raw: dict[str, Any], deleted: bool) -> None:
        if not self.alive:
            return
        name, working = raw["metadata"]["name"], hasattr(self, "permits")
        if raw["kind"] == POLICIES.kind:
            affected = self.index.drop_policy(name) if deleted else self.index.put_policy(raw)
            if working:
                self.permits.changed(name)
        elif raw["kind"] == ROTATIONS.kind:
            key = (raw["metadata"]["namespace"], name)
            affected = self.index.drop_rotation(key) | {key} if deleted else self.index.put_rotation(raw)
            if working:
                self.permits.ran()
        else:
            affected = self.index.put_provider(raw)
        for key in affected:
            self.wake(key)

    def wake(self, key: Key) -> None:
        """Look at a rotation, if it is ours; never twice at a time."""
        if not self.alive or key[0] not in self.namespaces:
            return
        if key in self._jobs:
            self._again.add(key)
            return
        self._jobs[key] = asyncio.create_task(self._work(key))

    def own(self, namespaces: Iterable[str]) -> None:
        """Take namespaces over."""
        self.namespaces |= set(namespaces)
        for key in self.fleet.tasks:
            self.wake(key)

    def kill(self) -> None:
        """kill -9: what is on its way arrives."""
        self.alive = False
        for job in self._jobs.values():
            job.cancel()
        self.permits.clear()

    async def _work(self, key: Key) -> None:
        delay: float | None = None
        try:
            delay = await self._look(key)
        except Conflict:
            delay = 0.0
        except ClusterError:
            delay = 0.5
        finally:
            if self.alive:
                self.permits.end_pass(key)
            del self._jobs[key]
        if key in self._again or delay == 0.0:
            self._again.discard(key)
            self.wake(key)
        elif delay is not None:
            asyncio.get_running_loop().call_later(delay, self.wake, key)

    async def _look(self, key: Key) -> float | None:
        task, now, api = self.fleet.tasks[key], self.fleet.now(), self.fleet.api
        self.index.settle(key)
        if key not in self.index.rotations():
            return None
        raw = await api.get(ROTATIONS, *key)
        self.seen(raw, False)
        if "rotation" in raw.get("status", {}):
            assert task.begun is not None
            if now < task.begun + task.lasts:
                return task.begun + task.lasts - now
            await self._write(raw, None)
            return None
        if task.ended is not None:
            return None
        if now < task.due:
            return task.due - now
        account = self.index.account_of(key)
        if self.permits.limits(key):
            problem = self.permits.room(key, urgent=task.urgent)
            problem = problem or await self.permits.take(key, account, urgent=task.urgent)
            if problem is not None:
                self.permits.wait(key)
                return 600.0
        await self._write(raw, {"id": "r", "subject": raw["spec"], "account": account})
        return task.lasts

    async def _write(self, raw: dict[str, Any], record: dict[str, Any] | None) -> None:
        key = (raw["metadata"]["namespace"], raw["metadata"]["name"])
        self.index.expect_status(key, {"rotation": record} if record else {})
        body = {"metadata": {"resourceVersion": raw["metadata"]["resourceVersion"]}, "status": {"rotation": record}}
        written = await self.fleet.api.merge(ROTATIONS, *key, body, subresource="status")
        self.seen(written, False)


class Fleet:
    """Rotations, their policy, and the replicas that rotate them. Looks at every beginning."""

    def __init__(self, tasks: Iterable[Task], api: Api, limits: dict[str, int] | None) -> None:
        self.api = api
        self.tasks = {task.key: task for task in tasks}
        self.most = 0
        self.replicas: list[Replica] = []
        self._limits = limits or {}
        self._grants = 0
        self._granted: dict[Key, int] = {}
        api.changed = self._changed
        for account in {(task.key[0], task.account) for task in self.tasks.values()}:
            api.put(provider(account[1], namespace=account[0], project=account[1]))
        for task in self.tasks.values():
            api.put(rotation(task.key[1], namespace=task.key[0], client=f"{task.key}", provider=task.account))
        if limits is not None:
            api.put(policy(**limits))

    def now(self) -> float:
        return asyncio.get_running_loop().time()

    def limit(self, **limits: int) -> None:
        """Have a policy that says this."""
        self._limits = limits
        known = self.api.objects.get((POLICIES.kind, POLICY)) or policy()
        self.api.put({**known, "spec": {"concurrency": limits}})

    async def stop(self) -> None:
        """kill -9 for all, and what is on its way arrives."""
        for replica in self.replicas:
            replica.kill()
        await asyncio.sleep(2)

    def running(self) -> list[Task]:
        return [task for task in self.tasks.values() if task.begun is not None and task.ended is None]

    async def end(self, seconds: float) -> None:
        """Return when all have ended, which must be within so many seconds."""
        until = self.now() + seconds
        while any(task.ended is None for task in self.tasks.values()):
            assert self.now() < until, f"{[task.key for task in self.tasks.values() if task.ended is None]} starve"
            await asyncio.sleep(1.0)

    def permits(self) -> list[dict[str, Any]]:
        """The entries in the policy's status."""
        raw = self.api.objects[POLICIES.kind, POLICY]
        return list((raw.get("status") or {}).get("running") or [])

    def _changed(self, before: dict[str, Any], after: dict[str, Any]) -> None:
        if after["kind"] == POLICIES.kind:
            self._grants += 1
            self._granted |= dict.fromkeys(_entries(after) - _entries(before), self._grants)
        if after["kind"] != ROTATIONS.kind:
            return
        task = self.tasks[after["metadata"]["namespace"], after["metadata"]["name"]]
        ran, runs = ("rotation" in (raw.get("status") or {}) for raw in (before, after))
        if ran and not runs:
            task.ended = self.now()
        elif runs and not ran:
            assert task.begun is None, f"{task.key} has begun twice"
            task.begun = self.now()
            self.most = max(self.most, len(self.running()))
            if not task.urgent:
                self._check(task)

    def _check(self, task: Task) -> None:
        """What is urgent begins all the same, also when the last place was given to this one just before."""
        mine = self._granted.get(task.key, 0)
        running = [one for one in self.running() if not one.urgent or self._granted.get(one.key, 0) <= mine]
        for name, count in (
            ("cluster", len(running)),
            ("perNamespace", sum(one.key[0] == task.key[0] for one in running)),
            ("perProvider", sum(one.account == task.account for one in running)),
        ):
            assert count <= self._limits.get(name, count), f"{name} is exceeded: {[one.key for one in running]}"


def _entries(raw: dict[str, Any]) -> set[Key]:
    return {(one["namespace"], one["name"]) for one in (raw.get("status") or {}).get("running") or []}
