"""Acts that meet a cluster which has changed since it was looked at."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest
from pydantic import SecretStr

from keyturn.api.observed import Journal, Workload
from keyturn.cluster.client import Kube, Resource
from keyturn.cluster.errors import Invalid, NotFound, Unavailable
from keyturn.cluster.observer import Observers
from keyturn.cluster.secrets import Owner
from keyturn.controller.accounts import Accounts
from keyturn.controller.acts import Acts
from keyturn.controller.permits import Permits
from keyturn.rotation.steps import Restart
from keyturn.rotation.world import UNOBSERVED, World
from tests.unit.worlds import world

OWNER = Owner("ns", "billing", "uid")
KINDS = ("Deployment", "StatefulSet", "DaemonSet", "Rollout")
WRITTEN = datetime(2026, 10, 31, tzinfo=UTC)


class Throttling:
    """An API server that takes an answer into a journal only when it has been left alone for a while."""

    def __init__(self, *retry_after: timedelta | None) -> None:
        self._refusals = list(retry_after)

    def restricted(self, _: object) -> Throttling:
        return self

    async def merge(self, resource: Resource, namespace: str, name: str, body: Any) -> dict[str, Any]:
        if self._refusals:
            raise Unavailable("patch secrets: 429", self._refusals.pop(0))
        return {"metadata": {"uid": "uid", "resourceVersion": "2"}, "data": body["data"]}


class FakeKube:
    """An API server that refuses to apply, as it does where the patch would make a new workload without a spec."""

    def __init__(self, *, there: bool) -> None:
        self.there = there

    async def apply(self, resource: Resource, namespace: str, name: str, body: Any, *, dry_run: bool = False) -> None:
        raise Invalid("patch deployments web: 422 spec.selector: Required value")

    async def merge(self, resource: Resource, namespace: str, name: str, body: Any, *, dry_run: bool = False) -> None:
        raise Invalid("patch rollouts web: 400 admission webhook said no")

    async def get(self, resource: Resource, namespace: str, name: str) -> dict[str, Any]:
        if not self.there:
            raise NotFound("get deployments web: 404")
        return {"metadata": {"resourceVersion": "1"}, "spec": {}}


def restart(kube: FakeKube, kind: str) -> World:
    acts = Acts(cast(Kube, kube), cast(Accounts, None), cast(Observers, None), OWNER, cast(Permits, None), None)
    workload = Workload(kind=kind, name="web", restartable=True)
    return asyncio.run(acts.perform(Restart((workload,), "r-1", WRITTEN), world()))


@pytest.mark.parametrize("kind", KINDS)
def test_a_workload_that_was_deleted_meanwhile_needs_no_restart(kind: str) -> None:
    assert restart(FakeKube(there=False), kind).consumers is UNOBSERVED


@pytest.mark.parametrize("kind", KINDS)
def test_a_restart_that_is_refused_is_said(kind: str) -> None:
    """I10: an admission plugin, say."""
    with pytest.raises(Invalid):
        restart(FakeKube(there=True), kind)


def test_an_answer_waits_as_long_as_the_api_server_asks_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """I2: but never long, because it is in memory only until it is in its journal."""
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    kube = Throttling(timedelta(seconds=3), None, timedelta(hours=1))
    acts = Acts(cast(Kube, kube), cast(Accounts, None), cast(Observers, None), OWNER, cast(Permits, None), None)
    journal = Journal("journal", "1", "r-1", previous=None, pending=None)
    kept = asyncio.run(acts._keep(journal, SecretStr("new"), {}))
    assert kept is not None
    assert kept.resource_version == "2"
    assert pauses == [3.0, 0.2, 10.0]
