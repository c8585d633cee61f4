"""The life of one pod, from the binding to its removal, told to the API server step by step."""

import asyncio
import base64
import datetime
import logging
from typing import Any

from sandbox.kubelet import status
from sandbox.kubelet.api import API, APIError
from sandbox.kubelet.behaviour import Behaviour, Kind
from sandbox.kubelet.hooks import PodHooks
from sandbox.kubelet.references import Reference, problem, required
from sandbox.traffic.consumption import Way, ways
from sandbox.traffic.report import fingerprint

log = logging.getLogger(__name__)

_RETRY_REFERENCES = 0.25
_VOLUME_REFRESH = 0.25
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
        self._last_state: dict[str, Any] | None = None
        self._runs = False
        self._ending = asyncio.Event()  # deletion was asked for, or the object is gone
        self._gone = asyncio.Event()
        self._hooking = asyncio.Lock()
        self._attached: dict[str, asyncio.Task[None]] = {}
        self.observe(pod)

    def observe(self, pod: dict[str, Any]) -> None:
        """A version of the pod was seen, by the watch or as the answer to a call; whichever is newest counts."""
        if int(pod["metadata"]["resourceVersion"]) >= int(self.pod["metadata"]["resourceVersion"]):
            self.pod = pod
        if pod["metadata"].get("deletionTimestamp"):
            self._ending.set()
        for container in pod["spec"].get("ephemeralContainers") or []:
            if (name := container["name"]) not in self._attached:
                self._attached[name] = asyncio.create_task(self._attach(name))

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
            for task in self._attached.values():
                task.cancel()
            await asyncio.gather(*self._attached.values(), return_exceptions=True)
            await self._stop()

    async def _live(self) -> None:
        if self._ending.is_set() or self.pod.get("status", {}).get("phase") in ("Succeeded", "Failed"):
            return
        await self._bind()
        await self._show("Pending", status.Containers(status.waiting("ContainerCreating")))
        if await self._ends_within(self._behaviour.start_after) or not await self._references_exist():
            return
        kind: Kind | None = await self._kind(self._behaviour.kind)
        while kind is not None:
            match kind:
                case Kind.CRASH_LOOP:
                    kind = await self._crash()
                case Kind.COMPLETE:
                    kind = await self._complete()
                case Kind.RUN | Kind.NEVER_READY:
                    kind = await self._serve(kind)

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

    async def _kind(self, before: Kind) -> Kind:
        """What the containers do with the value that they find now; `before` when they find none."""
        unless = self._behaviour.unless
        if unless is None:
            return self._behaviour.kind
        namespace = self.pod["metadata"]["namespace"]
        secret = await self._api.get(f"/api/v1/namespaces/{namespace}/secrets/{unless.secret}")
        value = ((secret or {}).get("data") or {}).get(unless.key)
        if value is None:
            return before
        good = fingerprint(base64.b64decode(value).decode(errors="replace")) == unless.good
        return self._behaviour.kind if good else unless.kind

    # Each of these three returns what the containers do next, or None at their end.

    async def _serve(self, kind: Kind) -> Kind | None:
        behaviour = self._behaviour
        at_once = kind == Kind.RUN and not behaviour.ready_after
        if not self._runs:
            await self._start(ready=at_once)
        elif at_once or kind == Kind.NEVER_READY:
            await self._show("Running", self._running(ready=at_once))
        if kind == Kind.RUN and not at_once:
            if await self._ends_within(behaviour.ready_after):
                return None
            await self._show("Running", self._running(ready=True))
        if kind == Kind.RUN and behaviour.unready_after:
            if await self._ends_within(behaviour.unready_after):
                return None
            await self._show("Running", self._running(ready=False))
        return await self._changed(kind)

    async def _complete(self) -> Kind | None:
        if not self._runs:
            await self._start(ready=True)
        if not await self._ends_within(self._behaviour.run_for):
            await self._finish("Succeeded", 0)
        return None

    async def _crash(self) -> Kind | None:
        if not self._runs:
            await self._start(ready=False)
        if await self._ends_within(self._behaviour.run_for):
            return None
        if self.pod["spec"].get("restartPolicy") == "Never":
            await self._finish("Failed", 1)
            return None
        await self._stop()
        self._last_state = status.terminated(self._started, _now(), 1)
        if self._restarts and await self._backs_off():
            return None
        self._restarts += 1
        return await self._kind(Kind.CRASH_LOOP)

    async def _backs_off(self) -> bool:
        """Wait before the next start, as kubelets do from the second failure on; True when the pod ends meanwhile."""
        wait = self._behaviour.crash_backoff * min(2 ** (self._restarts - 1), _LONGEST_BACKOFF)
        reason = status.waiting("CrashLoopBackOff", f"back-off {wait:g}s restarting failed container")
        shown = status.Containers(reason, restarts=self._restarts, last_state=self._last_state)
        await self._show("Running", shown)
        return await self._ends_within(wait)

    async def _changed(self, kind: Kind) -> Kind | None:
        """Wait until a volume shows another value, with which the containers do something else."""
        unless = self._behaviour.unless
        if unless is None or Way.LIVE not in ways(self.pod, unless.secret, unless.key):
            return None
        while not await self._ends_within(_VOLUME_REFRESH):
            if (now := await self._kind(kind)) != kind:
                return now
        return None

    async def _start(self, *, ready: bool) -> None:
        self._runs = True
        await self._call_hook("started")
        self._started = _now()
        await self._show("Running", self._running(ready=ready))

    async def _attach(self, name: str) -> None:
        """Start an ephemeral container, as soon as the others run."""
        while True:
            async with self._hooking:
                if self._runs:
                    await self._tell("attached", name)
                    break
            if await self._ends_within(_RETRY_REFERENCES):
                return
        body = {
            "metadata": {"uid": self.pod["metadata"]["uid"]},
            "status": status.ephemeral(self.pod, self._attached, _now()),
        }
        self.observe(await self._api.call("PATCH", f"{self._path}/status", body, "application/merge-patch+json"))

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
        running = status.running(self._started)
        return status.Containers(running, ready=ready, restarts=self._restarts, last_state=self._last_state)

    async def _ends_within(self, seconds: float) -> bool:
        return await _within(self._ending, seconds)

    async def _call_hook(self, name: str) -> None:
        async with self._hooking:
            await self._tell(name)

    async def _tell(self, name: str, *more: str) -> None:
        try:
            await getattr(self._hooks, name)(self.pod, *more)
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
