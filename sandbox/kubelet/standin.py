"""`KubeletStandIn`: one Node that runs every pod of the cluster, without running anything."""

import asyncio
import contextlib
import logging
from types import TracebackType
from typing import Any, Self

from sandbox.controlplane.endpoint import Endpoint
from sandbox.kubelet.api import API, APIError
from sandbox.kubelet.behaviour import Behaviour, BehaviourError, Kind, behaviour_of
from sandbox.kubelet.hooks import NoHooks, PodHooks
from sandbox.kubelet.pod import PodLife
from sandbox.kubelet.status import NODE_IP, NODE_NAME

log = logging.getLogger(__name__)

_NODE = {
    "apiVersion": "v1",
    "kind": "Node",
    "metadata": {"name": NODE_NAME, "labels": {"kubernetes.io/hostname": NODE_NAME, "kubernetes.io/os": "linux"}},
}
_CAPACITY = {"cpu": "1000", "memory": "4Ti", "pods": "100000", "ephemeral-storage": "4Ti"}


class KubeletStandIn:
    """Binds every pod to its node and shows it Running, Ready and gone, as `behaviour` and annotations say.

    An asynchronous context manager; leaving it ends all pods' containers (hooks are told) and leaves the objects. It
    outlives outages and restarts of the API server. `in_thread` runs one beside synchronous code.
    """

    def __init__(self, endpoint: Endpoint, hooks: PodHooks | None = None, behaviour: Behaviour | None = None) -> None:
        self._api = API(endpoint)
        self._hooks = hooks or NoHooks()
        self._defaults = behaviour or Behaviour()
        self._lives: dict[str, PodLife] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._addresses = 0

    async def __aenter__(self) -> Self:
        await self._api.__aenter__()
        try:
            await self._register()
        except BaseException:
            await self._api.__aexit__(None, None, None)
            raise
        self._watch = asyncio.create_task(self._follow())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        tasks = [self._watch, *self._tasks.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._api.__aexit__(kind, error, traceback)

    async def _register(self) -> None:
        """Create the Node and show it Ready, without the taint that admission gives to new nodes."""
        with contextlib.suppress(APIError):  # it is there already
            await self._api.call("POST", "/api/v1/nodes", _NODE)
        path = f"/api/v1/nodes/{NODE_NAME}"
        await self._api.call("PATCH", path, {"spec": {"taints": None}}, "application/merge-patch+json")
        node = await self._api.call("GET", path)
        condition = {
            "type": "Ready",
            "status": "True",
            "reason": "KubeletReady",
            "message": "the sandbox's stand-in for a kubelet is running",
            "lastHeartbeatTime": node["metadata"]["creationTimestamp"],
            "lastTransitionTime": node["metadata"]["creationTimestamp"],
        }
        status = {
            "capacity": _CAPACITY,
            "allocatable": _CAPACITY,
            "conditions": [condition],
            "addresses": [{"type": "InternalIP", "address": NODE_IP}],
            "nodeInfo": {**node["status"].get("nodeInfo", {}), "kubeletVersion": "sandbox"},
        }
        await self._api.call("PATCH", f"{path}/status", {"status": status}, "application/merge-patch+json")

    async def _follow(self) -> None:
        async for event, obj in self._api.watch("/api/v1/pods"):
            match event:
                case "LISTED":
                    self._relist(obj["items"])
                case "DELETED":
                    self._remove(obj["metadata"]["uid"])
                case _:
                    self._observe(obj)

    def _relist(self, pods: list[dict[str, Any]]) -> None:
        present = {pod["metadata"]["uid"] for pod in pods}
        for uid in set(self._lives) - present:
            self._remove(uid)
        for pod in pods:
            self._observe(pod)

    def _observe(self, pod: dict[str, Any]) -> None:
        if pod["spec"].get("nodeName", NODE_NAME) != NODE_NAME:
            return
        uid = pod["metadata"]["uid"]
        if uid in self._lives:
            self._lives[uid].observe(pod)
            return
        life = PodLife(self._api, self._hooks, pod, self._behaviour(pod), self._address())
        self._lives[uid] = life
        task = asyncio.create_task(life.run(), name=f"pod {pod['metadata']['namespace']}/{pod['metadata']['name']}")
        self._tasks[uid] = task
        task.add_done_callback(lambda task: self._ended(uid, task))

    def _remove(self, uid: str) -> None:
        if life := self._lives.pop(uid, None):
            life.removed()

    def _ended(self, uid: str, task: asyncio.Task[None]) -> None:
        self._tasks.pop(uid, None)
        if not task.cancelled() and (error := task.exception()):
            log.error("%s: the stand-in gave up on it", task.get_name(), exc_info=error)

    def _behaviour(self, pod: dict[str, Any]) -> Behaviour:
        try:
            return behaviour_of(pod, self._defaults)
        except BehaviourError as error:
            metadata = pod["metadata"]
            log.error("pod %s/%s stays unready: %s", metadata["namespace"], metadata["name"], error)
            return Behaviour(kind=Kind.NEVER_READY)

    def _address(self) -> str:
        """A pod IP that no other pod has had; it is data only, nothing listens on it."""
        self._addresses += 1
        return f"10.{201 + (self._addresses >> 16)}.{self._addresses >> 8 & 255}.{self._addresses & 255}"
