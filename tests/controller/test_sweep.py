"""The sweep outlives outages: work begins soon after the API server is there, however long it was away."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from keyturn.cluster.client import Kube, Resource
from keyturn.cluster.errors import Unavailable
from keyturn.controller.index import Index
from keyturn.controller.sweep import Sweep
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
