"""The sweep outlives outages: work begins soon after the API server is there, however long it was away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any, cast

import pytest

from keyturn.cluster.client import Kube, Listed, Resource
from keyturn.cluster.errors import NotFound, Unavailable
from keyturn.cluster.resources import NAMESPACES, ROTATIONS
from keyturn.controller.index import Index, key_of
from keyturn.controller.sweep import Sweep
from tests.controller.test_index import rotation
from tests.controller.virtual import virtually


class FakeKube:
    """An empty cluster whose API server can be away."""

    def __init__(self, back_at: float) -> None:
        self._back_at = back_at

    async def list(self, resource: Resource, namespace: str | None = None, **_: Any) -> Listed:
        if asyncio.get_running_loop().time() < self._back_at:
            raise Unavailable("away")
        return Listed([], "1")

    async def pages(self, resource: Resource, **how: Any) -> AsyncIterator[Listed]:
        yield await self.list(resource, **how)


@pytest.mark.parametrize("outage", [0.0, 5.0, 3600.0])
def test_work_begins_soon_after_an_outage(outage: float) -> None:
    """I9: an operator that was started in an outage must not stay idle for as long again."""

    async def scenario() -> None:
        swept = asyncio.Event()
        sweep = Sweep(cast(Kube, FakeKube(outage)), Index(), lambda raw, deleted: None, interval=600)
        task = asyncio.create_task(sweep.run(swept))
        await swept.wait()
        assert asyncio.get_running_loop().time() - outage <= 12
        task.cancel()

    virtually(scenario())


def test_what_was_deleted_at_the_start_is_missed_soon() -> None:
    """I9: the watches begin after the first sweep, and tell nothing of what is gone by then."""

    async def scenario() -> None:
        index, swept, there = Index(), asyncio.Event(), [rotation("billing")]

        class Emptied(FakeKube):
            async def list(self, resource: Resource, namespace: str | None = None, **_: Any) -> Listed:
                return Listed([without_kind(raw) for raw in there] if resource is ROTATIONS else [], "1")

            async def get(self, resource: Resource, namespace: str | None, name: str) -> dict[str, Any]:
                raise NotFound(name)

        def seen(raw: dict[str, Any], deleted: bool) -> None:
            (index.drop_rotation(key_of(raw)) if deleted else index.put_rotation(raw))

        task = asyncio.create_task(Sweep(cast(Kube, Emptied(0)), index, seen, 600).run(swept))
        await swept.wait()
        there.clear()
        assert len(index) == 1
        await asyncio.sleep(75)
        assert len(index) == 0
        task.cancel()

    virtually(scenario())


def test_the_first_sweep_reads_everything_at_once() -> None:
    """I12: a start costs one list, however many there are; FakeKube answers no other request."""

    class Full(FakeKube):
        async def list(self, resource: Resource, namespace: str | None = None, **_: Any) -> Listed:
            if resource is not ROTATIONS:
                return Listed([], "1")
            return Listed([without_kind(rotation(str(one), client=str(one))) for one in range(100)], "1")

    async def scenario() -> None:
        index, swept = Index(), asyncio.Event()

        def seen(raw: dict[str, Any], deleted: bool) -> None:
            index.put_rotation(raw)

        sweep = Sweep(cast(Kube, Full(0)), index, seen, 600)
        task = asyncio.create_task(sweep.run(swept))
        await swept.wait()
        assert len(index) == 100
        task.cancel()

    virtually(scenario())


def test_a_fresh_sweep_begins_after_it_was_asked_for_and_is_shared() -> None:
    """I6: what was written before the question is known after the answer."""

    class Slow(FakeKube):
        begun: list[float] = []  # noqa: RUF012

        async def list(self, resource: Resource, namespace: str | None = None, **_: Any) -> Listed:
            if resource is NAMESPACES:
                self.begun.append(asyncio.get_running_loop().time())
            await asyncio.sleep(1)
            return Listed([], "1")

    async def scenario() -> None:
        clock, kube = asyncio.get_running_loop().time, Slow(0)
        sweep = Sweep(cast(Kube, kube), Index(), lambda raw, deleted: None, 600)
        ends = dict[float, float]()

        async def ask(moment: float) -> None:
            await asyncio.sleep(moment)
            await sweep.fresh()
            ends[moment] = clock()

        await asyncio.gather(*(ask(moment) for moment in (0.0, 0.5, 1.0, 6.0, 20.0)))
        assert kube.begun == [0, 5, 10, 20]
        assert ends == {0.0: 5, 0.5: 10, 1.0: 10, 6.0: 15, 20.0: 25}

    virtually(scenario())


def test_a_fresh_sweep_that_fails_says_so_to_all_who_wait_and_the_next_one_is_a_new_one() -> None:
    async def scenario() -> None:
        sweep = Sweep(cast(Kube, FakeKube(5.0)), Index(), lambda raw, deleted: None, 600)
        ends = await asyncio.gather(sweep.fresh(), sweep.fresh(), return_exceptions=True)
        assert [type(end) for end in ends] == [Unavailable, Unavailable]
        await asyncio.sleep(5)
        await sweep.fresh()

    virtually(scenario())


def without_kind(raw: dict[str, Any]) -> dict[str, Any]:
    """As items of a list are."""
    return {field: value for field, value in raw.items() if field not in ("apiVersion", "kind")}


class Breaking(FakeKube):
    """Ten rotations in two pages; the first listing breaks off between them. It answers no single reads."""

    def __init__(self) -> None:
        super().__init__(0)
        self.breaks = 1

    async def pages(self, resource: Resource, **how: Any) -> AsyncIterator[Listed]:
        if resource is not ROTATIONS:
            yield Listed([], "1")
            return
        found = [without_kind(rotation(str(one), client=str(one))) for one in range(10)]
        yield Listed(found[:5], "1")
        if self.breaks:
            self.breaks -= 1
            raise Unavailable("connection lost")
        yield Listed(found[5:], "1")


def swept_by(kube: FakeKube, seen: Callable[[Index, dict[str, Any]], None]) -> Index:
    """The index after a sweep has succeeded."""
    index = Index()

    async def scenario() -> None:
        swept = asyncio.Event()
        sweep = Sweep(cast(Kube, kube), index, lambda raw, deleted: seen(index, raw), 600)
        task = asyncio.create_task(sweep.run(swept))
        await asyncio.wait_for(swept.wait(), 60)
        task.cancel()

    virtually(scenario())
    return index


def test_a_first_listing_that_breaks_off_is_read_whole_again() -> None:
    """I12: else, everything that was not on its first page is read one by one."""

    def seen(index: Index, raw: dict[str, Any]) -> None:
        index.put_rotation(raw)

    assert len(swept_by(Breaking(), seen)) == 10


def test_one_object_that_cannot_be_taken_in_does_not_keep_the_others_from_being_known(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """I10: nor the operator from its work."""

    def seen(index: Index, raw: dict[str, Any]) -> None:
        if raw["metadata"]["name"] == "3":
            raise ValueError("a defect")
        index.put_rotation(raw)

    assert len(swept_by(Breaking(), seen)) == 9
    assert any(getattr(record, "object", "") == "ClientSecretRotation/3" for record in caplog.records)
