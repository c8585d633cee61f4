"""What the controller queues of the events that it sees, and in which order it is worked on."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from copy import deepcopy
from datetime import UTC, datetime
from typing import Any

from kubernetes.aio import client as official

from keyturn.api.rotation import CANCEL_ANNOTATION
from keyturn.cluster.client import Kube
from keyturn.cluster.leases import LeaseObject
from keyturn.controller.crew import Single
from keyturn.controller.index import Key
from keyturn.controller.leadership import Leadership, Timing
from keyturn.controller.metrics import Metrics
from keyturn.controller.operator import Controller, Settings, make_room_for_slow_names
from tests.controller.test_index import provider, rotation
from tests.controller.virtual import virtually

NO_WORKERS = Settings(workers=0)


def with_controller(test: Callable[[Controller], Awaitable[None]]) -> None:
    """Run a test with a controller that queues and does not work; no API server is asked for anything."""

    async def run() -> None:
        kube = Kube(official.Configuration(host="http://127.0.0.1:9"))
        try:
            leadership = Leadership(LeaseObject(kube, "nowhere"), "we", Timing())
            await test(Controller(kube, NO_WORKERS, None, Single(leadership), lambda: datetime.now(UTC), Metrics()))
        finally:
            await kube.aclose()

    virtually(run())


async def order(controller: Controller) -> list[Key]:
    """What waits, in the order in which one worker would take it."""
    queue, keys = controller._rotations, []
    while len(queue):
        keys.append(await queue.get())
        queue.done(keys[-1])
    return keys


def rotating(name: str) -> dict[str, Any]:
    raw = rotation(name)
    subject = {field: raw["spec"][field] for field in ("providerRef", "clientId", "secretRef")}
    return {**raw, "status": {"rotation": {"id": "r", "subject": subject}}}


def test_who_stands_by_queues_nothing_and_begins_with_what_is_in_the_middle() -> None:
    async def test(controller: Controller) -> None:
        for raw in (rotation("a", client="a"), rotation("b", client="b"), rotating("c"), provider()):
            controller.seen(raw, False)
        assert (len(controller._rotations), len(controller._providers)) == (0, 0)
        controller._begin(0)
        assert await order(controller) == [("ns", "c"), ("ns", "a"), ("ns", "b")]
        assert len(controller._providers) == 1

    with_controller(test)


def test_what_somebody_says_goes_before_what_only_happens() -> None:
    async def test(controller: Controller) -> None:
        objects = {name: rotation(name, client=name) for name in "abcdef"}
        for raw in objects.values():
            controller.seen(raw, False)
        controller._working.add(0)

        def event(name: str, deleted: bool = False, status: str = "", **metadata: Any) -> None:
            raw = deepcopy(objects[name])
            raw["metadata"].update(resourceVersion="2", **metadata)
            controller.seen({**raw, "status": {"phase": status}}, deleted)

        event("a", status="Failed")
        event("b", finalizers=["x"])
        event("c", generation=2)
        event("d", annotations={CANCEL_ANNOTATION: "now"})
        event("e", deletionTimestamp="2026-01-01T00:00:00Z")
        event("f", deleted=True)
        controller.seen(rotation("g", client="g"), False)
        said, happened = [("ns", name) for name in "cdef"], [("ns", name) for name in "ab"]
        # After four in a row one of the others has its turn.
        assert await order(controller) == [*said, happened[0], ("ns", "g"), happened[1]]

    with_controller(test)


def test_a_provider_object_is_looked_at_when_somebody_has_said_something() -> None:
    async def test(controller: Controller) -> None:
        queue = controller._providers
        controller._working.add(0)
        for change, waiting in (({}, 1), ({"resourceVersion": "2"}, 0), ({"resourceVersion": "3", "generation": 2}, 1)):
            raw = provider()
            raw["metadata"].update(change)
            controller.seen(raw, False)
            assert len(queue) == waiting, change
            for _ in range(waiting):
                queue.done(await queue.get())

    with_controller(test)


async def test_names_that_resolve_slowly_leave_threads_for_others() -> None:
    """A thread cannot be taken away from who holds it: the API server's own name must still find one."""
    make_room_for_slow_names(workers=20)
    all_held = threading.Barrier(2 * 20 + 1, timeout=10)
    await asyncio.gather(*(asyncio.to_thread(all_held.wait) for _ in range(all_held.parties)))
