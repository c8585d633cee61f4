"""Room for one more rotation: what is told where there is none, when it is asked for, and in which order."""

from __future__ import annotations

from dataclasses import replace

import pytest

from keyturn.api.conditions import ConditionStatus
from keyturn.api.policy import Concurrency
from keyturn.api.rotation import Phase, RotationStatus
from keyturn.controller.budget import Line, Usage
from keyturn.rotation.lifecycle import decide
from keyturn.rotation.policy import BUDGET_EXHAUSTED
from keyturn.rotation.report import report
from keyturn.rotation.steps import Enter, Observe, Wait
from keyturn.rotation.world import UNOBSERVED, Aspect, Problem, World
from tests.model.lab import EPOCH, Lab
from tests.model.reconciler import _Pass
from tests.model.scenarios import make_lab, make_spec
from tests.unit.test_report import states

FULL = Problem(BUDGET_EXHAUSTED, "RotationPolicy fleet: spec.concurrency.cluster 1 is reached", lasting=False)


def due() -> World:
    return World(EPOCH, "app", "uid", 1, False, False, make_spec(), RotationStatus(), "r1")


def test_without_room_nothing_is_looked_into_and_the_policy_is_named() -> None:
    world = replace(due(), budget=FULL)
    step = decide(world)
    assert isinstance(step, Wait)
    said = report(world, step)
    assert said.phase is Phase.PREPARING
    assert states(said)["Rotating"] == (ConditionStatus.FALSE, BUDGET_EXHAUSTED)
    assert states(said)["Reconciling"] == (ConditionStatus.TRUE, BUDGET_EXHAUSTED)
    assert "Stalled" not in states(said)
    over = report(replace(world, status=said, budget=None), Wait("ProviderUnreachable", "later"))
    assert states(over)["Rotating"][1] != BUDGET_EXHAUSTED


def prepared(lab: Lab) -> World:
    """As it is when every check has passed, and a permit is needed."""
    found = _Pass(lab)
    found.world = replace(found.world, permit=UNOBSERVED)
    while True:
        step = decide(found.world)
        if isinstance(step, Enter) or step == Observe((Aspect.PERMIT,)):
            return found.world
        found._take(step)


def test_a_permit_is_asked_for_last() -> None:
    world = prepared(make_lab())
    assert decide(world) == Observe((Aspect.PERMIT,))
    assert isinstance(decide(replace(world, permit=None)), Enter)
    refused = decide(replace(world, permit=FULL))
    assert isinstance(refused, Wait)
    assert refused.reason == BUDGET_EXHAUSTED


@pytest.mark.parametrize(
    ("limits", "full"),
    [
        ({}, None),
        ({"cluster": 3}, None),
        ({"cluster": 2}, "cluster 2"),
        ({"perNamespace": 1}, "perNamespace 1"),
        ({"perProvider": 2}, "perProvider 2"),
        ({"cluster": 3, "perNamespace": 2, "perProvider": 3}, None),
    ],
)
def test_each_limit_counts_for_itself(limits: dict[str, int], full: str | None) -> None:
    usage = Usage(Concurrency.model_validate(limits))
    for _ in range(2):
        usage.add(("a", "one"), "account")
        usage.add(("b", "two"), "account")
    assert usage.full("a", "account") == full


def test_namespaces_take_turns_and_who_finds_no_room_keeps_the_place() -> None:
    line = Line()
    for namespace, name, account in (
        ("a", "1", "x"),
        ("a", "2", "y"),
        ("a", "3", "y"),
        ("b", "1", "y"),
        ("c", "1", "y"),
    ):
        line.put((namespace, name), account)
    line.put(("a", "2"), "y")

    def take(*closed: str, full: str = "x") -> tuple[str, str] | None:
        found = line.take(lambda namespace: namespace in closed, lambda _, account: account == full)
        return found[0] if found is not None else None

    assert [take("c"), take("c"), take("c"), take("c")] == [("a", "2"), ("b", "1"), ("a", "3"), None]
    assert [take(full=""), take(full="")] == [("c", "1"), ("a", "1")]
    assert len(line) == 0
