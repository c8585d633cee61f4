"""Events from Kopf: its watches and its login; none of its stateful handlers.

`on.event` writes nothing to objects. Kopf runs on an event loop in a thread of its own, because it cancels every task
that it finds on its loop when it ends. What it leaves open is closed here and in `sweep`: an outage, a fatal error in a
stream or a refused login ends Kopf, and it is started again; deletes that it misses are swept up.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import threading
from collections.abc import Coroutine, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeVar, cast

import kopf
from kopf._core.reactor.inventory import ResourceMemories, ResourceMemory

from keyturn.cluster.client import Kube
from keyturn.cluster.resources import CLUSTER_PROVIDERS, NAMESPACES, POLICIES, PROVIDERS, ROTATIONS
from keyturn.controller.source import Seen

T = TypeVar("T")

_log = logging.getLogger(__name__)

_KINDS: Final = (ROTATIONS, PROVIDERS, CLUSTER_PROVIDERS, POLICIES, NAMESPACES)
_RESTART_SECONDS: Final = 2.0
_STOP_SECONDS: Final = 10.0
_END_SECONDS: Final = 7.0
"""Kopf itself gives its tasks five seconds."""
_CREDENTIALS_LIFE: Final = timedelta(minutes=10)


class EndlessBackoff:
    """Delays in seconds without an end, growing to ten, with jitter: an outage must not end the process."""

    def __iter__(self) -> Iterator[float]:
        delay = 0.5
        while True:
            yield delay * random.uniform(0.5, 1.0)  # noqa: S311 - jitter
            delay = min(delay * 2, 10.0)


class _NoMemories(ResourceMemories):
    """Kopf keeps 900 bytes for each object for as long as it exists, of which handlers of events use nothing."""

    async def recall(self, *args: Any, **how: Any) -> ResourceMemory:
        return await super().recall(*args, **{**how, "ephemeral": True})


class _NoEssence(kopf.DiffBaseStorage):
    """Nobody asks what has changed in an object; to find it out, Kopf would copy each object several times."""

    def build(self, **_: Any) -> kopf.BodyEssence:
        return cast(kopf.BodyEssence, {})

    def fetch(self, **_: Any) -> kopf.BodyEssence | None:
        return None

    def store(self, **_: Any) -> None:
        pass


class KopfSource:
    """Runs Kopf until `stop` is set. Its callbacks are called on the event loop on which `run` runs."""

    def __init__(self, kube: Kube, seen: Seen, stop: asyncio.Event) -> None:
        self._kube = kube
        self._seen = seen
        self._stop = stop

    async def run(self) -> None:
        """See `EventSource.run`."""
        self._home = asyncio.get_running_loop()
        while not self._stop.is_set():
            await self._run_once()
            with contextlib.suppress(TimeoutError):
                pause = _RESTART_SECONDS * random.uniform(0.5, 1.0)  # noqa: S311 - jitter
                await asyncio.wait_for(self._stop.wait(), pause)

    async def _run_once(self) -> None:
        """One life of Kopf. A thread that does not end when it is told to is left behind; it dies with the process."""
        loop = asyncio.new_event_loop()
        loop.set_exception_handler(_note_left_failure)
        kopf_stop = asyncio.Event()
        ended = asyncio.Event()

        def live() -> None:
            try:
                loop.run_until_complete(self._operate(kopf_stop))
            except Exception as error:  # noqa: BLE001 - whatever ended Kopf, the operator goes on
                _log.warning("Kopf ended (%s: %s) and is started again", type(error).__name__, error)
            finally:
                _clear(loop)
                loop.close()
                with contextlib.suppress(RuntimeError):
                    self._home.call_soon_threadsafe(ended.set)

        threading.Thread(target=live, name="kopf", daemon=True).start()
        stopping, ending = asyncio.create_task(self._stop.wait()), asyncio.create_task(ended.wait())
        await asyncio.wait([stopping, ending], return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(kopf_stop.set)
        await asyncio.wait([ending], timeout=_STOP_SECONDS)
        ending.cancel()

    async def _operate(self, stop: asyncio.Event) -> None:
        await operate(
            registry=self._registry(),
            settings=_settings(),
            memories=_NoMemories(),
            clusterwide=True,
            standalone=True,
            stop_flag=stop,
        )

    async def _at_home(self, work: Coroutine[Any, Any, T]) -> T:
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._home))

    def _registry(self) -> kopf.OperatorRegistry:
        registry = kopf.OperatorRegistry()

        @kopf.on.login(registry=registry)
        async def login(**_: Any) -> kopf.ConnectionInfo:
            credentials = await self._at_home(self._kube.credentials())
            return kopf.ConnectionInfo(**credentials, expiration=datetime.now(UTC) + _CREDENTIALS_LIFE)

        for resource in _KINDS:
            group, _, version = resource.api_version.rpartition("/")

            @kopf.on.event(group, version, resource.plural, registry=registry)
            async def event(event: kopf.RawEvent, **_: Any) -> None:
                raw: Any = event["object"]
                self._home.call_soon_threadsafe(self._seen, raw, event["type"] == "DELETED")

        return registry


async def operate(**how: Any) -> None:
    """`kopf.operator`, but sure to end: after a failure of one of its tasks, others may wait to be let in for ever.

    Raises what the failed task raised, or TimeoutError when Kopf does not come to its end after that.
    """
    before = asyncio.all_tasks()
    tasks = await kopf.spawn_tasks(**how)
    running = asyncio.ensure_future(kopf.run_tasks(tasks, ignored=before))
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    done, _ = await asyncio.wait([running], timeout=_END_SECONDS)
    if done:
        return await running
    failures = [task.exception() for task in tasks if task.done() and not task.cancelled()]
    raise next((failure for failure in failures if failure is not None), TimeoutError("some of its tasks hang"))


def _note_left_failure(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Of several tasks of Kopf that fail together, one ends it; nobody asks what became of the others."""
    _log.debug("left by Kopf: %s (%s)", context["message"], type(context.get("exception")).__name__)


def _clear(loop: asyncio.AbstractEventLoop) -> None:
    """Cancel what a Kopf that hung has left, so that its port is free for the next; what resists is left behind."""
    left = asyncio.all_tasks(loop)
    for task in left:
        task.cancel()
    if left:
        loop.run_until_complete(asyncio.wait(left, timeout=1))


def _settings() -> kopf.OperatorSettings:
    settings = kopf.OperatorSettings()
    # It would SIGKILL the whole process some time after Kopf ended, although another Kopf runs by then.
    settings.process.ultimate_exiting_timeout = None
    settings.persistence.diffbase_storage = _NoEssence()
    settings.scanning.disabled = True
    settings.peering.standalone = True
    settings.posting.enabled = False
    settings.queueing.idle_timeout = 0.1
    settings.watching.chunk_size = 500
    settings.watching.server_timeout = 300
    settings.watching.client_timeout = 310
    settings.watching.connect_timeout = 10
    settings.watching.reconnect_backoff = 1.0
    settings.networking.request_timeout = 30
    settings.networking.error_backoffs = EndlessBackoff()
    return settings
