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
from keyturn.controller.controller import Controller
from keyturn.controller.crew import Shards, Single, Work
from keyturn.controller.index import Key
from keyturn.controller.leadership import Leadership, NotLeading, Timing
from keyturn.controller.metrics import LEADER, OBJECTS, OWNED, SHARDS, Metrics
from keyturn.controller.operator import make_room_for_slow_names
from keyturn.controller.settings import Settings
from keyturn.providers.permission import MAY_SEND
from tests.controller.test_index import provider, rotation
from tests.controller.virtual import virtually

NO_WORKERS = Settings(workers=0)


class Three:
    """Three shards, of which a test says which ones are ours."""

    count = 3

    def __init__(self) -> None:
        self.ours: set[int] = set()

    def check(self, shard: int) -> None:
        if shard not in self.ours:
            raise NotLeading

    def held(self) -> frozenset[int]:
        return frozenset(self.ours)

    async def campaign(self, work: Work) -> None:
        await asyncio.Event().wait()


def with_controller(test: Callable[[Controller], Awaitable[None]], shards: Shards | None = None) -> None:
    """Run a test with a controller that queues and does not work; no API server is asked for anything."""

    async def run() -> None:
        kube = Kube(official.Configuration(host="http://127.0.0.1:9"))
        try:
            leadership = Leadership(LeaseObject(kube, "nowhere"), "we", Timing())
            owned = shards or Single(leadership)
            await test(Controller(kube, NO_WORKERS, None, owned, lambda: datetime.now(UTC), Metrics()))
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


SPREAD = {0: "team-a", 1: "default", 2: "ünïcode"}
"""A namespace of each of three shards."""


def fill(controller: Controller) -> None:
    for namespace in SPREAD.values():
        controller.seen(rotation("r", namespace=namespace, client=namespace), False)
        controller.seen(provider(namespace=namespace), False)


def test_only_what_is_in_our_shards_is_worked_on_and_counted() -> None:
    shards = Three()

    async def test(controller: Controller) -> None:
        fill(controller)
        shards.ours = {1, 2}
        for shard in shards.ours:
            controller._begin(shard)
        assert {key[0] for key in await order(controller)} == {SPREAD[1], SPREAD[2]}
        assert len(controller._providers) == 2
        for namespace in SPREAD.values():
            controller.seen(rotation("new", namespace=namespace, client="n" + namespace), False)
        assert {key[0] for key in await order(controller)} == {SPREAD[1], SPREAD[2]}
        told = {(family.name, labels): value for family, labels, value in controller.samples()}
        assert [told[family.name, ()] for family in (SHARDS, OWNED, LEADER)] == [3, 2, 1]
        assert told[OBJECTS.name, ("Idle",)] == 4

    with_controller(test, shards)


def test_a_shard_that_is_left_takes_nothing_of_the_others_along() -> None:
    """Of a change that is seen later, too, only theirs is queued."""
    shards = Three()

    async def test(controller: Controller) -> None:
        fill(controller)
        for shard in range(3):
            controller._begin(shard)
        await controller.wind_down(1)
        assert {key[0] for key in await order(controller)} == {SPREAD[0], SPREAD[2]}
        assert len(controller._providers) == 2
        assert await controller.rotate((SPREAD[1], "r")) is None, "handed out right before"

    with_controller(test, shards)


def test_a_process_that_is_told_to_end_does_not_first_look_at_all_that_waits() -> None:
    async def test(controller: Controller) -> None:
        controller.seen(rotation("r"), False)
        controller._working.add(0)
        controller._stopping = True
        assert await asyncio.wait_for(controller.rotate(("ns", "r")), 1) is None

    with_controller(test)


def test_each_pass_may_act_as_long_as_its_own_shard_is_ours() -> None:
    """I1: whoever still holds other shards, or had this one, writes nothing and calls nobody for it."""
    shards, passes = Three(), list[tuple[Key, bool]]()

    async def test(controller: Controller) -> None:
        async def look(key: Key) -> None:
            await asyncio.sleep(1)
            await asyncio.create_task(act(key))

        async def act(key: Key) -> None:
            try:
                controller._reconciler._kube._permit()  # type: ignore[misc]
                MAY_SEND.get()()
                passes.append((key, True))
            except NotLeading:
                passes.append((key, False))

        controller._reconciler.reconcile = look  # type: ignore[method-assign]
        controller._working = {0, 1, 2}
        shards.ours = {0, 1, 2}
        keys = [(SPREAD[shard], "r") for shard in range(3)]
        under_way = [asyncio.create_task(controller.rotate(key)) for key in keys]
        await asyncio.sleep(0.5)
        shards.ours = {0, 2}
        await asyncio.gather(*under_way)
        assert sorted(passes) == sorted([(keys[0], True), (keys[1], False), (keys[2], True)])

    with_controller(test, shards)


def test_who_uses_an_account_is_woken_where_it_is_not_checked() -> None:
    """Another process has found out that its credentials work; only its word in the status tells of it."""
    shards = Three()

    async def test(controller: Controller) -> None:
        shared = provider(namespace=None)
        controller.seen(shared, False)
        controller.seen(rotation("r", namespace=SPREAD[0], kind="ClusterRotationProvider"), False)
        controller._working = {0}
        status = {
            "observedGeneration": 1,
            "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "t"}],
        }
        for version, waiting in (("2", 1), ("3", 0)):
            raw = deepcopy(shared)
            raw["metadata"]["resourceVersion"] = version
            controller.seen({**raw, "status": status}, False)
            assert len(await order(controller)) == waiting

    with_controller(test, shards)


async def test_names_that_resolve_slowly_leave_threads_for_others() -> None:
    """A thread cannot be taken away from who holds it: the API server's own name must still find one."""
    make_room_for_slow_names(workers=20)
    all_held = threading.Barrier(2 * 20 + 1, timeout=10)
    await asyncio.gather(*(asyncio.to_thread(all_held.wait) for _ in range(all_held.parties)))


def test_an_edit_leads_to_one_pass_also_where_a_worker_is_idle() -> None:
    """I12: the second pass of every rotation that somebody asks for would be for nothing, and slow down its rollout."""

    async def test(controller: Controller) -> None:
        controller._working.add(0)
        controller.seen(rotation("a"), False)
        assert await order(controller) == [("ns", "a")]
        idle = asyncio.create_task(controller._rotations.get())
        await asyncio.sleep(0)
        edited = rotation("a", version=2)
        edited["metadata"]["generation"] = 2
        controller.seen(edited, False)
        controller._rotations.done(await idle)
        assert len(controller._rotations) == 0

    with_controller(test)
