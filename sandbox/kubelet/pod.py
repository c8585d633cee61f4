"""The life of one pod, from the binding to its removal, told to the API server step by step."""

import asyncio
import datetime
import logging
from typing import Any

from sandbox.kubelet import status
from sandbox.kubelet.api import API, APIError
from sandbox.kubelet.behaviour import Behaviour, Kind
from sandbox.kubelet.hooks import PodHooks
from sandbox.kubelet.references import Reference, problem, required

log = logging.getLogger(__name__)

_RETRY_REFERENCES = 0.25
_LONGEST_BACKOFF = 16  # times the first one
_COLLECTIONS = {"Secret": "secrets", "ConfigMap": "configmaps"}


class PodLife:
    """One pod's containers. `run` is a task of the stand-in; `observe` and `removed` tell it what the watch saw."""

    def __init__(self, api: API, hooks: PodHooks, pod: dict[str, Any], behaviour: Behaviour, address: str) -> None:
        self.pod = pod
        self._api = api
        self._hooks = hooks
        self._behaviour = behaviour
        self._address = address
        self._path = f"/api/v1/namespaces/{pod['metadata']['namespace']}/pods/{pod['metadata']['name']}"
        self._bound = self._started = _now()
        self._restarts = 0
        self._runs = False
        self._ending = asyncio.Event()  # deletion was asked for, or the object is gone
        self._gone = asyncio.Event()
        self.observe(pod)

    def observe(self, pod: dict[str, Any]) -> None:
        """A version of the pod was seen, by the watch or as the answer to a call; whichever is newest counts."""
        if int(pod["metadata"]["resourceVersion"]) >= int(self.pod["metadata"]["resourceVersion"]):
            self.pod = pod
        if pod["metadata"].get("deletionTimestamp"):
            self._ending.set()

    def removed(self) -> None:
        """The object is gone, whether or not this class had a part in it."""
        self._gone.set()
        self._ending.set()

    async def run(self) -> None:
        """Live until the object is gone. Cancelling it ends the containers, and leaves the object as it is."""
        try:
            await self._live()
            await self._ending.wait()
            await self._terminate()
        except APIError as error:
            # Somebody else removed or replaced the pod: 404, or 409 for another uid.
            log.debug("pod %s: %s", self._path, error)
        finally:
            await self._stop()

    async def _live(self) -> None:
        if self._ending.is_set() or self.pod.get("status", {}).get("phase") in ("Succeeded", "Failed"):
            return
        await self._bind()
        await self._show("Pending", status.Containers(status.waiting("ContainerCreating")))
        if await self._ends_within(self._behaviour.start_after) or not await self._references_exist():
            return
        match self._behaviour.kind:
            case Kind.CRASH_LOOP:
                await self._crash_loop()
            case Kind.COMPLETE:
                await self._start()
                if not await self._ends_within(self._behaviour.run_for):
                    await self._finish("Succeeded", 0)
            case Kind.NEVER_READY:
                await self._start()
            case Kind.RUN:
                await self._start()
                if self._behaviour.ready_after and not await self._ends_within(self._behaviour.ready_after):
                    await self._show("Running", self._running(ready=True))

    async def _bind(self) -> None:
        if self.pod["spec"].get("nodeName"):
            return
        name = self.pod["metadata"]["name"]
        binding = {"metadata": {"name": name}, "target": {"kind": "Node", "name": status.NODE_NAME}}
        try:
            await self._api.call("POST", f"{self._path}/binding", binding)
        except APIError as error:
            if error.status != 409:  # bound already, by a call whose answer was lost
                raise

    async def _references_exist(self) -> bool:
        """Wait until everything that the pod refers to exists; False when the pod ends before."""
        shown = ""
        while trouble := await self._trouble():
            reference, message = trouble
            if message != shown:
                # A kubelet says so in the container's status for its environment; for volumes, in an Event only.
                reason = "ContainerCreating" if reference.volume else "CreateContainerConfigError"
                await self._show("Pending", status.Containers(status.waiting(reason, message)))
                shown = message
            if await self._ends_within(_RETRY_REFERENCES):
                return False
        return True

    async def _trouble(self) -> tuple[Reference, str] | None:
        namespace = self.pod["metadata"]["namespace"]
        seen: dict[tuple[str, str], Any] = {}
        for reference in required(self.pod):
            identity = (reference.kind, reference.name)
            if identity not in seen:
                path = f"/api/v1/namespaces/{namespace}/{_COLLECTIONS[reference.kind]}/{reference.name}"
                seen[identity] = await self._api.get(path)
            if message := problem(reference, namespace, seen[identity]):
                return reference, message
        return None

    async def _crash_loop(self) -> None:
        backoff = self._behaviour.crash_backoff
        while True:
            await self._start()
            if await self._ends_within(self._behaviour.run_for):
                return
            if self.pod["spec"].get("restartPolicy") == "Never":
                await self._finish("Failed", 1)
                return
            await self._stop()
            self._restarts += 1
            message = f"back-off {backoff:g}s restarting failed container"
            await self._show(
                "Running",
                status.Containers(
                    status.waiting("CrashLoopBackOff", message),
                    restarts=self._restarts,
                    last_state=status.terminated(self._started, _now(), 1),
                ),
            )
            if await self._ends_within(backoff):
                return
            backoff = min(2 * backoff, _LONGEST_BACKOFF * self._behaviour.crash_backoff)

    async def _start(self) -> None:
        self._runs = True
        await self._call_hook("started")
        self._started = _now()
        kind = self._behaviour.kind
        ready = kind == Kind.COMPLETE or (kind == Kind.RUN and self._behaviour.ready_after == 0)
        await self._show("Running", self._running(ready=ready))

    async def _stop(self) -> None:
        if self._runs:
            self._runs = False
            await self._call_hook("stopped")

    async def _finish(self, phase: str, code: int) -> None:
        """The containers end by themselves, and are not started again."""
        await self._stop()
        ended = status.terminated(self._started, _now(), code)
        await self._show(phase, status.Containers(ended, restarts=self._restarts))

    async def _terminate(self) -> None:
        """Deletion was asked for: let the containers end, then remove the object."""
        if not self._gone.is_set():
            grace = self.pod["metadata"].get("deletionGracePeriodSeconds") or 0
            delay = min(self._behaviour.terminate_after, grace) if self._runs else 0
            await _within(self._gone, delay)
        await self._stop()
        if not self._gone.is_set():
            precondition = {"uid": self.pod["metadata"]["uid"]}
            await self._api.call("DELETE", self._path, {"gracePeriodSeconds": 0, "preconditions": precondition})

    async def _show(self, phase: str, containers: status.Containers) -> None:
        shown = status.build(self.pod, phase, containers, address=self._address, bound=self._bound, now=_now())
        body = {"metadata": {"uid": self.pod["metadata"]["uid"]}, "status": shown}
        answer = await self._api.call("PATCH", f"{self._path}/status", body, "application/merge-patch+json")
        self.observe(answer)

    def _running(self, *, ready: bool) -> status.Containers:
        return status.Containers(status.running(self._started), ready=ready, restarts=self._restarts)

    async def _ends_within(self, seconds: float) -> bool:
        return await _within(self._ending, seconds)

    async def _call_hook(self, name: str) -> None:
        try:
            await getattr(self._hooks, name)(self.pod)
        except Exception:  # a client's mistake must not stop the cluster
            log.exception("hook %s failed for pod %s", name, self._path)


async def _within(event: asyncio.Event, seconds: float) -> bool:
    """Whether `event` is set within this time."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return event.is_set()
    return True


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
