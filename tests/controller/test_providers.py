"""Checks of provider accounts: how often they ask."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest

from keyturn.api.semantics import Effect, Outcome
from keyturn.cluster.client import Kube
from keyturn.controller.accounts import Accounts
from keyturn.controller.index import ProviderKey, provider_key_of
from keyturn.controller.providers import ProviderReconciler
from keyturn.rotation.world import ProviderView
from tests.controller.test_index import index_of, provider

NOON = datetime(2026, 11, 1, 12, tzinfo=UTC)


class Account:
    """A provider that is well, and counts how often it is asked; also what knows it."""

    capabilities = None

    def __init__(self) -> None:
        self.asked = 0

    async def check(self) -> Outcome:
        self.asked += 1
        return Outcome(Effect.NOT_APPLIED)

    async def at(self, _: ProviderKey) -> tuple[ProviderView, Account]:
        return ProviderView(), self


class Store:
    """Keeps one object."""

    def __init__(self, raw: dict[str, Any]) -> None:
        self.raw = raw

    async def get(self, *_: object) -> dict[str, Any]:
        return self.raw

    async def merge(self, *names: Any, **_: object) -> dict[str, Any]:
        self.raw = {**self.raw, "status": names[-1]["status"]}
        return self.raw


@pytest.mark.parametrize(("later", "asked"), [(0, 1), (299, 1), (301, 2), (-1, 2)])
async def test_the_provider_is_asked_again_after_the_interval_and_when_the_clock_was_set_back(
    later: float, asked: int
) -> None:
    raw, account, time = provider(), Account(), [NOON]
    kube, accounts = cast(Kube, Store(raw)), cast(Accounts, account)
    checks = ProviderReconciler(kube, index_of(raw), accounts, lambda _: None, lambda: time[0], 300)
    key = provider_key_of(raw)
    await checks.reconcile(key)
    time[0] += timedelta(seconds=later)
    await checks.reconcile(key)
    assert account.asked == asked
