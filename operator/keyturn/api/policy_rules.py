"""What must hold across the fields of a RotationPolicy, as far as it can be said without a calendar."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Final

from keyturn.api.base import parse_duration
from keyturn.api.policy import RotationPolicySpec
from keyturn.api.rule import Rule
from keyturn.api.schedule import Window
from keyturn.api.schedule_rules import LONGEST_INTERVAL, LONGEST_WINDOW
from keyturn.api.selector_rules import selector_rules

_LONGEST_GAP: Final = "168h"


def _between(
    field: str, low: str, high: str, value: Callable[[RotationPolicySpec], timedelta | None]
) -> Rule[RotationPolicySpec]:
    """The rule that a duration lies within bounds, for where there is one."""
    least, most = parse_duration(low), parse_duration(high)
    return Rule(
        field,
        f"must be between {low} and {high}",
        f"!has(self.{field}) || (duration(self.{field}) >= duration('{low}')"
        f" && duration(self.{field}) <= duration('{high}'))",
        lambda spec: (found := value(spec)) is None or least <= found <= most,
    )


def _lasts_long_enough(window: Window) -> bool:
    return timedelta(minutes=1) <= window.duration <= parse_duration(LONGEST_WINDOW)


POLICY: Final[tuple[Rule[RotationPolicySpec], ...]] = (
    *selector_rules("namespaceSelector", lambda spec: spec.namespace_selector, always=True),
    *selector_rules("rotationSelector", lambda spec: spec.rotation_selector, always=True),
    _between("maxAge", "1m", LONGEST_INTERVAL, lambda spec: spec.max_age),
    _between("minGap", "1s", _LONGEST_GAP, lambda spec: spec.min_gap),
    Rule(
        "windows",
        f"must last between 1m and {LONGEST_WINDOW} each",
        "self.windows.all(one, duration(one.duration) >= duration('1m')"
        f" && duration(one.duration) <= duration('{LONGEST_WINDOW}'))",
        lambda spec: all(map(_lasts_long_enough, spec.windows)),
    ),
)
