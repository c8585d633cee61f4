"""`RolloutsStandIn`: does with Rollouts what the controller of Argo Rollouts does, as far as a restart is concerned."""

import asyncio
import logging
from collections.abc import Callable
from types import TracebackType
from typing import Self

import aiohttp

from sandbox.argo.desired import Obj
from sandbox.argo.sync import ROLLOUTS_PATH, Key, Sync, key_of
from sandbox.controlplane.endpoint import Endpoint
from sandbox.kubelet.api import API, APIError

log = logging.getLogger(__name__)


class RolloutsStandIn:
    """An asynchronous context manager; the CustomResourceDefinition must be there.

    As upstream: a ReplicaSet for each pod template, whose pods the real controller makes; a changed template is rolled
    out within maxSurge and maxUnavailable, unless spec.paused; spec.restartAt evicts older pods, a few at a time, also
    while paused, and status.restartedAt follows when the last of them was evicted, not when it is gone; a template that
    changes meanwhile ends the restart; spec.workloadRef; the status.

    Left out: blueGreen, canary steps and with them aborting, analysis, traffic routing (a Rollout that asks for them is
    InvalidSpec); workloadRef to anything but a Deployment, and its scaleDown; anti-affinity; revisionHistoryLimit;
    Events. Hashes have other values. Where upstream looks again after 30 seconds, this one does after 0.2.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self._api = API(endpoint)
        self._sync = Sync(self._api)
        self._known: dict[Key, Obj] = {}
        self._waiting: set[Key] = set()
        self._queue: asyncio.Queue[Key] = asyncio.Queue()
        self._timers: dict[Key, asyncio.TimerHandle] = {}
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        await self._api.__aenter__()
        watches = {
            ROLLOUTS_PATH: self._rollout_seen,
            "/apis/apps/v1/replicasets": self._replicaset_seen,
            "/apis/apps/v1/deployments": self._deployment_seen,
        }
        self._tasks = [asyncio.create_task(self._follow(path, seen)) for path, seen in watches.items()]
        self._tasks.append(asyncio.create_task(self._work()))
        for task in self._tasks:
            task.add_done_callback(_complain)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for timer in self._timers.values():
            timer.cancel()
        await self._api.__aexit__(kind, error, traceback)

    # --- what makes it look at a Rollout -----------------------------------------------------------------------------

    async def _follow(self, path: str, seen: Callable[[str, Obj], None]) -> None:
        async for event, obj in self._api.watch(path):
            for item in obj["items"] if event == "LISTED" else [obj]:
                seen(event, item)

    def _rollout_seen(self, event: str, rollout: Obj) -> None:
        key = key_of(rollout)
        if event == "DELETED":
            self._known.pop(key, None)
        else:
            self._known[key] = rollout
            self._mark(key)

    def _replicaset_seen(self, _: str, replicaset: Obj) -> None:
        for owner in replicaset["metadata"].get("ownerReferences") or []:
            if owner["kind"] == "Rollout":
                self._mark((replicaset["metadata"]["namespace"], owner["name"]))

    def _deployment_seen(self, _: str, deployment: Obj) -> None:
        for key, rollout in self._known.items():
            name = rollout["spec"].get("workloadRef", {}).get("name")
            if (key[0], name) == key_of(deployment):
                self._mark(key)

    def _mark(self, key: Key) -> None:
        if key not in self._waiting:
            self._waiting.add(key)
            self._queue.put_nowait(key)

    async def _work(self) -> None:
        while True:
            key = await self._queue.get()
            self._waiting.discard(key)
            try:
                again = await self._sync.once(key)
            except (APIError, aiohttp.ClientError, TimeoutError) as error:  # somebody else was faster, or an outage
                log.debug("Rollout %s/%s: %s", *key, error)
                again = 0.2
            if timer := self._timers.pop(key, None):
                timer.cancel()
            if again is not None:
                loop = asyncio.get_running_loop()
                self._timers[key] = loop.call_later(again, self._mark, key)


def _complain(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()):
        log.error("the stand-in for Argo Rollouts has stopped", exc_info=error)
