"""What must hold of label selectors, beyond what their schema says."""

from __future__ import annotations

import re
from collections.abc import Callable

from keyturn.api.base import LABEL_KEY_PATTERN
from keyturn.api.rotation import LabelSelector, SelectorOperator
from keyturn.api.rule import Rule, Spec


def selector_rules(
    field: str, selector: Callable[[Spec], LabelSelector | None], *, always: bool = False
) -> tuple[Rule[Spec], Rule[Spec]]:
    """The rules about a selector at `field`. always: it is never left out, because it has a default."""
    place = f"self.{field}"
    unless = "" if always else f"!has({place}) || "
    return (
        Rule(
            f"{field}.matchLabels",
            "must have labels as keys, such as app.kubernetes.io/name",
            f"{unless}{place}.matchLabels.all(key, key.matches(r'{LABEL_KEY_PATTERN}'))",
            lambda spec: (found := selector(spec)) is None or _keys_are_labels(found),
        ),
        Rule(
            f"{field}.matchExpressions",
            "must have values for In and NotIn, and none for Exists and DoesNotExist",
            f"{unless}{place}.matchExpressions.all(one, (one.operator in ['In', 'NotIn']) == (size(one.values) > 0))",
            lambda spec: (found := selector(spec)) is None or _values_fit(found),
        ),
    )


def _keys_are_labels(selector: LabelSelector) -> bool:
    return all(re.fullmatch(LABEL_KEY_PATTERN, key) for key in selector.match_labels)


def _values_fit(selector: LabelSelector) -> bool:
    compares = (SelectorOperator.IN, SelectorOperator.NOT_IN)
    return all((one.operator in compares) == bool(one.values) for one in selector.match_expressions)
