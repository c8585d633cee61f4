"""One pass over one rotation, and whom it concerns besides."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, cast

import pytest

from keyturn.cluster.client import Kube, Resource
from keyturn.cluster.errors import NotFound, Unavailable
from keyturn.cluster.observer import Observers
from keyturn.cluster.resources import ROTATIONS
from keyturn.controller.accounts import Accounts
from keyturn.controller.index import Key
from keyturn.controller.metrics import Metrics
from keyturn.controller.reconciler import Reconciler
from keyturn.providers.addresses import AddressRule
from tests.controller.test_index import index_of, provider, rotation


def clock() -> datetime:
    return datetime(2026, 11, 1, tzinfo=UTC)


class Ahead:
    """An API server that knows a rotation as it is now, and does nothing else."""

    def __init__(self, current: dict[str, Any] | None) -> None:
        self._current = current

    def restricted(self, _: object) -> Ahead:
        return self

    async def get(self, resource: Resource, namespace: str, name: str) -> dict[str, Any]:
        if resource is not ROTATIONS:
            raise Unavailable("get: 503")
        if self._current is None:
            raise NotFound("get clientsecretrotations one: 404")
        return self._current

    async def merge(self, *_: object, **__: object) -> dict[str, Any]:
        raise Unavailable("patch: 503")

    apply = create = merge


@pytest.mark.parametrize(
    "current", [None, rotation("one", client="corrected", version=9)], ids=["deleted", "corrected"]
)
async def test_the_end_of_a_conflict_is_passed_on_by_who_sees_it_first(current: dict[str, Any] | None) -> None:
    """I6, I10: the watch that tells it later finds nothing new, and would wake nobody."""
    index = index_of(provider(), rotation("one", client="shared"), rotation("two", client="shared"))
    kube, woken = cast(Kube, Ahead(current)), set[Key]()
    observers = Observers(kube, lambda _: None)
    accounts = Accounts(kube, index, AddressRule(), Metrics())
    reconciler = Reconciler(kube, index, accounts, observers, clock, Metrics(), woken.update)
    await reconciler.reconcile(("ns", "one"))
    assert index.conflict(("ns", "two")) is None
    assert woken == {("ns", "two")}
    await accounts.aclose()
    await observers.aclose()
