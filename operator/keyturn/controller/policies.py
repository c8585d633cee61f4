"""The status of RotationPolicies: whether they make sense, how many rotations they cover, and since when they hold."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime
from typing import Any, Final

from keyturn.api.conditions import ConditionStatus, ConditionType, merge_conditions
from keyturn.api.policy import MaxAgeInForce, RotationPolicySpec, RotationPolicyStatus
from keyturn.cluster.client import Kube
from keyturn.cluster.errors import ClusterError, Conflict, NotFound
from keyturn.cluster.resources import POLICIES
from keyturn.cluster.rotations import write_status
from keyturn.controller.index import Index, Key
from keyturn.controller.workers import Again
from keyturn.rotation.policy import Policy

RECOUNT_SECONDS: Final = 30.0
"""So often the rotations that a policy covers are counted anew, at most: a fleet that grows is not a write for each."""

_log = logging.getLogger(__name__)


class PolicyReconciler:
    """Says of one policy at a time what Keyturn makes of it: when it changes, and when what it covers does."""

    def __init__(
        self, kube: Kube, index: Index, wake: Callable[[set[Key]], None], clock: Callable[[], datetime]
    ) -> None:
        """`wake` is called with the rotations of a policy that has come into force."""
        self._kube = kube
        self._index = index
        self._wake = wake
        self._clock = clock

    async def reconcile(self, name: str) -> Again | None:
        """Write the status of the policy of this name, if it changed. None: nothing to do until something changes."""
        policy = self._index.coverage.policy(name)
        if policy is None:
            return None
        in_force = self._in_force(policy)
        if in_force is not None and policy.awaits_its_time:
            # Known from now on, also if it cannot be written: no rotation waits for its maximum age again and again.
            self._index.coverage.note_age(name, in_force.since)
            self._wake(self._index.covered(name))
        try:
            await self._record(name, policy, in_force)
        except NotFound:
            return None
        except Conflict:
            return Again(None)
        except ClusterError as error:
            _log.warning("%s", error, extra={"object": name})
            return Again(None)
        return None

    def _in_force(self, policy: Policy) -> MaxAgeInForce | None:
        if isinstance(policy.spec, str) or policy.spec.max_age is None:
            return None
        since = policy.age_since or self._clock().replace(microsecond=0)
        return MaxAgeInForce(max_age=policy.spec.max_age, since=since)

    async def _record(self, name: str, policy: Policy, in_force: MaxAgeInForce | None) -> None:
        raw = self._index.coverage.policies()[name]
        before = RotationPolicyStatus.model_validate(raw.get("status") or {})
        generation = raw["metadata"]["generation"]
        changes: dict[str, Any] = {
            "observed_generation": generation,
            "rotations": len(self._index.covered(name)),
            "conditions": merge_conditions(before.conditions, [_ready(policy)], generation, self._clock()),
        }
        if isinstance(policy.spec, RotationPolicySpec):
            # A mistake that is corrected changes nothing about what was in force before.
            changes["max_age_in_force"] = in_force
        after = before.model_copy(update=changes)
        if after == before:
            return
        self._index.put_policy(await write_status(self._kube, raw, after.to_wire(), POLICIES))
        if after.conditions != before.conditions:
            _log.info("Ready=%s: %s", *_ready(policy)[1::2], extra={"object": name})


def _ready(policy: Policy) -> tuple[ConditionType, ConditionStatus, str, str]:
    if isinstance(policy.spec, str):
        message = f"{policy.spec}; of the rotations that this policy covers none begins before it is corrected"
        return ConditionType.READY, ConditionStatus.FALSE, "InvalidSpec", message
    return ConditionType.READY, ConditionStatus.TRUE, "InForce", "the policy is in force"
