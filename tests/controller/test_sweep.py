"""The sweep outlives outages: work begins soon after the API server is there, however long it was away."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from keyturn.cluster.client import Kube, Resource
from keyturn.cluster.errors import Unavailable
from keyturn.cluster.resources import ROTATIONS
from keyturn.controller.index import Index
from keyturn.controller.sweep import Sweep
from tests.controller.test_index import rotation
from tests.controller.virtual import virtually


class FakeKube:
    """An empty cluster whose API server can be away."""

    def __init__(self, back_at: float) -> None:
        self._back_at = back_at

    async def list(self, resource: Resource, namespace: str | None = None, **_: Any) -> list[dict[str, Any]]:
        if asyncio.get_running_loop().time() < self._back_at:
            raise Unavailable("away")
        return []


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


def test_the_first_sweep_reads_everything_at_once() -> None:
    """I12: a start costs one list, however many there are; FakeKube answers no other request."""

    class Full(FakeKube):
        async def list(self, resource: Resource, namespace: str | None = None, **_: Any) -> list[dict[str, Any]]:
            if resource is not ROTATIONS:
                return []
            return [without_kind(rotation(str(number), client=str(number))) for number in range(100)]

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


def without_kind(raw: dict[str, Any]) -> dict[str, Any]:
    """As items of a list are."""
    return {field: value for field, value in raw.items() if field not in ("apiVersion", "kind")}
