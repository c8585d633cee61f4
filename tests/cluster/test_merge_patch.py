"""The status is written as a patch: it must lead exactly from the old to the new, and be empty when they are equal."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keyturn.cluster.rotations import merge_patch

# Values of a status hold no nulls: what is not set is left out (KubeModel.to_wire).
LEAVES = st.integers(0, 3) | st.text("ab", max_size=2) | st.booleans() | st.lists(st.integers(0, 3), max_size=3)
TREES = st.recursive(LEAVES, lambda inner: st.dictionaries(st.sampled_from("xyz"), inner, max_size=3), max_leaves=8)
OBJECTS = st.dictionaries(st.sampled_from("xyz"), TREES, max_size=3)


def applied(target: Any, patch: Any) -> Any:
    """MergePatch, as RFC 7386, section 2 words it."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = applied(result.get(name), value)
    return result


@settings(max_examples=50, deadline=None)
@given(OBJECTS, OBJECTS)
def test_it_leads_from_the_old_to_the_new(old: dict[str, Any], new: dict[str, Any]) -> None:
    assert applied(old, merge_patch(old, new)) == new


@settings(max_examples=50, deadline=None)
@given(OBJECTS)
def test_it_is_empty_when_nothing_changed(same: dict[str, Any]) -> None:
    """I12: no patch, no write."""
    assert merge_patch(same, same) == {}


@pytest.mark.parametrize(
    ("old", "new", "patch"),
    [
        ({"a": 1, "b": 2}, {"b": 2}, {"a": None}),
        ({"a": {"b": 1, "c": 2}}, {"a": {"b": 1}}, {"a": {"c": None}}),
        ({"a": {"b": 1}}, {"a": {}}, {"a": {"b": None}}),
        ({"a": [1, 2]}, {"a": [1]}, {"a": [1]}),
        ({"a": {"b": 1}}, {"a": [1]}, {"a": [1]}),
        ({"a": 1}, {"a": {"b": 1}}, {"a": {"b": 1}}),
        ({}, {"a": {}}, {"a": {}}),
    ],
    ids=str,
)
def test_it_says_no_more_than_needed(old: dict[str, Any], new: dict[str, Any], patch: dict[str, Any]) -> None:
    assert merge_patch(old, new) == patch
