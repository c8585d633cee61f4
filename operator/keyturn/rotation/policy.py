"""What the RotationPolicies that cover a rotation say of it together: of each the strictest.

A policy that makes no sense is not passed over: who wrote it wanted to limit something, so nothing begins before it is
corrected, but for what is urgent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from keyturn.api.base import format_time
from keyturn.api.policy import RotationPolicySpec
from keyturn.api.schedule import Window

FROZEN: Final = "Frozen"
BUDGET_EXHAUSTED: Final = "BudgetExhausted"
INVALID_POLICY: Final = "InvalidPolicy"


@dataclass(frozen=True, slots=True)
class Policy:
    """One RotationPolicy.

    spec: or, in a sentence, what is wrong with it. age_since: since when its maximum age has been what it is; None
    where that is not written down yet.
    """

    name: str
    spec: RotationPolicySpec | str
    age_since: datetime | None = None

    @property
    def awaits_its_time(self) -> bool:
        """Whether it sets a maximum age of which it is not known yet when it came into force."""
        return isinstance(self.spec, RotationPolicySpec) and self.spec.max_age is not None and self.age_since is None


@dataclass(frozen=True, slots=True)
class MaxAge:
    """How old a secret may become, and since when that has been said."""

    policy: str
    age: timedelta
    since: datetime


@dataclass(frozen=True, slots=True)
class DefaultWindows:
    """The windows of one policy, for rotations that have none of their own."""

    policy: str
    time_zone: str
    windows: tuple[Window, ...]


@dataclass(frozen=True, slots=True)
class Hold:
    """That nothing begins before a time, or with None before somebody changes a policy; it may be over already."""

    reason: str
    message: str
    until: datetime | None

    def lasts(self, now: datetime) -> bool:
        return self.until is None or self.until > now


@dataclass(frozen=True, slots=True)
class MinGap:
    """How long after another rotation that restarts the same workload one may begin."""

    policy: str
    gap: timedelta


@dataclass(frozen=True, slots=True)
class Ruling:
    """What holds for one rotation by all policies that cover it; by default nothing."""

    max_age: MaxAge | None = None
    windows: tuple[DefaultWindows, ...] = ()
    hold: Hold | None = None
    min_gap: MinGap | None = None


NO_POLICY: Final = Ruling()


def ruling(policies: Sequence[Policy], now: datetime) -> Ruling:
    """Join what these policies say; their order makes no difference."""
    if not policies:
        return NO_POLICY
    valid = [(one.name, one.spec, one.age_since) for one in policies if isinstance(one.spec, RotationPolicySpec)]
    ages = [MaxAge(name, spec.max_age, since or now) for name, spec, since in valid if spec.max_age is not None]
    gaps = [MinGap(name, spec.min_gap) for name, spec, _ in valid if spec.min_gap is not None]
    windows = [DefaultWindows(name, spec.time_zone, tuple(spec.windows)) for name, spec, _ in valid if spec.windows]
    holds = [hold for policy in policies if (hold := _hold(policy)) is not None]
    return Ruling(
        max_age=min(ages, key=lambda one: (one.age, one.policy), default=None),
        windows=tuple(sorted(windows, key=lambda one: one.policy)),
        hold=max(holds, key=lambda one: (one.until is None, one.until or now, one.reason, one.message), default=None),
        min_gap=max(gaps, key=lambda one: (one.gap, one.policy), default=None),
    )


def _hold(policy: Policy) -> Hold | None:
    if isinstance(policy.spec, str):
        message = f"RotationPolicy {policy.name} makes no sense, and nothing begins before it is corrected"
        return Hold(INVALID_POLICY, f"{message}: {policy.spec}", None)
    freeze = policy.spec.freeze
    if freeze is None:
        return None
    end = f"until {format_time(freeze.until)}" if freeze.until is not None else "until spec.freeze is taken out of it"
    return Hold(FROZEN, f"RotationPolicy {policy.name} lets nothing begin {end}: {freeze.reason}", freeze.until)
