"""The `Ready` condition of provider objects: whether their credentials work, by a call that changes nothing."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from keyturn.api.conditions import ConditionStatus, ConditionType, merge_conditions
from keyturn.api.provider import ProviderKind, ProviderStatus
from keyturn.api.semantics import Failure, Outcome
from keyturn.cluster.client import Kube
from keyturn.cluster.errors import ClusterError, Conflict, NotFound
from keyturn.cluster.resources import CLUSTER_PROVIDERS, PROVIDERS
from keyturn.cluster.rotations import write_status
from keyturn.controller.accounts import Accounts
from keyturn.controller.index import Index, Key, ProviderKey
from keyturn.controller.turns import Turns
from keyturn.controller.workers import Again
from keyturn.providers.base import Provider

_log = logging.getLogger(__name__)

_LOOK_SECONDS: Final = 30.0
"""How long a changed credential can go unnoticed: Secrets are read by name and never watched."""


@dataclass(frozen=True, slots=True)
class _Verdict:
    """What to say of an account; retry_after: how long the provider asks us to leave it alone."""

    status: ConditionStatus
    reason: str
    message: str
    retry_after: timedelta | None = None


class ProviderReconciler:
    """Checks one account at a time: when its object or its credentials change, and every `interval` seconds."""

    def __init__(
        self,
        kube: Kube,
        index: Index,
        accounts: Accounts,
        wake: Callable[[set[Key]], None],
        clock: Callable[[], datetime],
        interval: float,
        turns: Turns,
    ) -> None:
        """`wake` is called with the rotations that what was found may concern: see `Index.put_provider`."""
        self._kube = kube
        self._index = index
        self._accounts = accounts
        self._wake = wake
        self._turns = turns
        self._clock = clock
        self._interval = interval
        self._checked: dict[ProviderKey, tuple[Provider, datetime]] = {}

    async def reconcile(self, key: ProviderKey) -> Again | None:
        """Check the account of this key, if it is due, and say in its status what came of it."""
        raw = self._index.provider(key)
        if raw is None:
            self._checked.pop(key, None)
            self._turns.drop(key)
            self._turns.forget(key)
            return None
        turn = self._turns.begin_pass(key, key[1] or key, hurried=False)
        try:
            verdict = await self._verdict(key)
            if verdict is not None:
                await self._record(key, raw, verdict)
        except NotFound:
            return None
        except Conflict:
            self._checked.pop(key, None)  # its verdict was not written
            return Again(None)
        except ClusterError as error:
            self._checked.pop(key, None)
            _log.warning("%s", error, extra={"object": "/".join(key)})
            return Again(None)
        finally:
            self._turns.end_pass(turn)
        if verdict is not None and verdict.status is ConditionStatus.UNKNOWN:
            return Again(verdict.retry_after.total_seconds() if verdict.retry_after is not None else None)
        return Again(min(_LOOK_SECONDS, self._interval) * random.uniform(0.8, 1.2))  # noqa: S311 - jitter

    async def _verdict(self, key: ProviderKey) -> _Verdict | None:
        """What to say of the account; None when the provider's word is recent and nothing has changed since."""
        try:
            view, provider = await self._accounts.at(key)
        except ClusterError as error:
            status = ConditionStatus.FALSE if error.lasting else ConditionStatus.UNKNOWN
            return _Verdict(status, error.reason, str(error))
        if provider is None or view.problem is not None:
            self._checked.pop(key, None)
            problem = view.problem
            return _Verdict(ConditionStatus.FALSE, problem.reason, problem.message) if problem else None
        now = self._clock()
        known = self._checked.get(key)
        if known is not None and known[0] is provider and 0 <= (now - known[1]).total_seconds() < self._interval:
            return None
        outcome = await provider.check()
        if outcome.failure is Failure.HELD_BACK:
            return None
        verdict = _judged(outcome)
        if verdict.status is ConditionStatus.UNKNOWN:
            self._checked.pop(key, None)
        else:
            self._checked[key] = (provider, now)
        return verdict

    async def _record(self, key: ProviderKey, raw: dict[str, Any], verdict: _Verdict) -> None:
        resource = CLUSTER_PROVIDERS if key[0] == ProviderKind.CLUSTER_ROTATION_PROVIDER else PROVIDERS
        fresh = await self._kube.get(resource, key[1] or None, key[2])
        before = ProviderStatus.model_validate(fresh.get("status") or {})
        generation = raw["metadata"]["generation"]
        drafts = [(ConditionType.READY, verdict.status, verdict.reason, verdict.message)]
        conditions = merge_conditions(before.conditions, drafts, generation, self._clock())
        after = ProviderStatus(observed_generation=generation, conditions=conditions)
        if after == before:
            return
        written = await write_status(self._kube, fresh, after.to_wire(), resource)
        _log.info("Ready=%s: %s", verdict.status, verdict.message, extra={"object": "/".join(filter(None, key))})
        self._wake(self._index.put_provider(written))


def _judged(outcome: Outcome) -> _Verdict:
    if outcome.ok:
        return _Verdict(ConditionStatus.TRUE, "CredentialsAccepted", "the provider accepts the credentials")
    if outcome.failure in (Failure.UNREACHABLE, Failure.RATE_LIMITED):
        return _Verdict(ConditionStatus.UNKNOWN, "ProviderUnreachable", outcome.message, outcome.retry_after)
    if outcome.failure is Failure.ADDRESS_NOT_PERMITTED:
        return _Verdict(ConditionStatus.FALSE, "ProviderAddressNotPermitted", outcome.message)
    return _Verdict(ConditionStatus.FALSE, "CredentialsRefused", outcome.message)
