"""The distance between rotations of one workload: how it is measured, and whom it holds back."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from keyturn.api.observed import Consumers, Template, Workload
from keyturn.api.policy import RotationPolicySpec
from keyturn.api.rotation import RestartPolicy, RotationSpec, RotationStatus, TargetState
from keyturn.api.schedule import ScheduleSpec
from keyturn.rotation.due import REQUESTED, URGENT, Next
from keyturn.rotation.gap import begun_at, expected_targets, known_to_be_too_soon, restarts_of, too_soon
from keyturn.rotation.policy import NO_POLICY, Policy, ruling
from keyturn.rotation.report import report
from keyturn.rotation.steps import Rest
from keyturn.rotation.world import UNOBSERVED, LookFirst, World
from tests.model.scenarios import make_spec
from tests.unit.consumers import WEB, ZERO, pod, web

HOUR = timedelta(hours=1)
GAP = ruling([Policy("fleet", RotationPolicySpec.model_validate({"minGap": "1h"}))], ZERO)
LAST = f"{ZERO - timedelta(minutes=20):%Y%m%d-%H%M%S}-abcdef"
ENDS = ZERO + timedelta(minutes=40, seconds=1)
DUE = Next(REQUESTED, ZERO)


def world(*workloads: Workload, pods: bool = True, **more: Any) -> World:
    seen = tuple(pod(0, name=one.name, owner=(one.kind, one.name)) for one in workloads) if pods else ()
    whole: dict[str, Any] = {
        "now": ZERO,
        "name": "app",
        "uid": "u",
        "generation": 1,
        "deleting": False,
        "finalizer": False,
        "spec": make_spec(),
        "status": RotationStatus(),
        "fresh_id": "r",
        "ruling": GAP,
        "consumers": Consumers(workloads, seen),
    }
    return World(**{**whole, **more})


def until(found: World, due: Next = DUE) -> datetime | None:
    assert isinstance(found.spec, RotationSpec)
    hold = too_soon(found, found.spec, due)
    return hold.until if hold is not None else None


@pytest.mark.parametrize(
    "workload",
    [
        web(LAST),
        web(f"{LAST}-cancelled"),
        web(None, templates=(Template(1, LAST, ZERO), Template(2, None, ZERO))),
        web("20250101-000000-abcdef", templates=(Template(1, LAST, ZERO),)),
    ],
    ids=["its stamp", "of one that was cancelled", "that was taken off again", "the newest counts"],
)
def test_the_workload_tells_when_it_was_restarted_last(workload: Workload) -> None:
    assert until(world(workload)) == ENDS
    assert until(world(workload, now=ENDS)) is None
    assert until(world(workload, ruling=NO_POLICY)) is None
    assert until(world(workload), Next(URGENT, ZERO)) is None


def test_what_others_have_begun_counts_before_they_come_to_their_restarts() -> None:
    """Two that are due at once: the first one has written down what it will restart."""
    both = world(web(LAST), web(name="api"), restarting={("Deployment", "api"): ZERO - timedelta(minutes=5)})
    assert until(both) == ZERO + timedelta(minutes=55, seconds=1)
    assert until(world(web(), restarting={("Deployment", "api"): ZERO})) is None, "not a workload of this one"


@pytest.mark.parametrize(
    "case",
    [
        world(web("yesterday")),
        world(web("99999999-999999-abcdef")),
        world(web(LAST), pods=False),
        world(web(LAST, restartable=False)),
        world(
            web(LAST), spec=make_spec(rollout=make_spec().rollout.model_copy(update={"restart": RestartPolicy.NEVER}))
        ),
    ],
    ids=["no stamp of ours", "no time", "no pods", "not restartable", "restart: Never"],
)
def test_who_restarts_nothing_waits_for_nobody(case: World) -> None:
    assert until(case) is None


def test_the_message_names_the_workload_the_policy_and_the_time() -> None:
    found = world(web(LAST))
    assert isinstance(found.spec, RotationSpec)
    hold = too_soon(found, found.spec, DUE)
    assert hold is not None
    assert hold.reason == "MinGap"
    assert hold.message == (
        "a rotation that restarts Deployment/web has begun at 2026-03-01T11:40:00Z; this one may at"
        " 2026-03-01T12:40:01Z (RotationPolicy fleet, spec.minGap 1h)"
    )


def test_workloads_are_looked_at_only_where_somebody_wants_a_gap() -> None:
    unseen = world(consumers=UNOBSERVED)
    assert isinstance(unseen.spec, RotationSpec)
    with pytest.raises(LookFirst):
        too_soon(unseen, unseen.spec, DUE)
    assert known_to_be_too_soon(unseen, unseen.spec, DUE) is None
    assert too_soon(replace(unseen, ruling=NO_POLICY), unseen.spec, DUE) is None
    later = world(web(LAST))
    assert known_to_be_too_soon(later, make_spec(), Next(REQUESTED, ZERO + HOUR)) is None, "it is not due"
    assert known_to_be_too_soon(later, make_spec(), Next(REQUESTED, None)) is None


def test_what_a_rotation_writes_down_is_what_others_read() -> None:
    of = world(web(), web(name="job", restartable=False), web(name="idle"))
    consumers = of.see_consumers()
    kept = Consumers(consumers.workloads, tuple(one for one in consumers.pods if one.owner[1] != "idle"))
    listed = expected_targets(of, make_spec(), kept)
    assert {one.name: one.state for one in listed} == {
        "web": TargetState.PENDING,
        "job": TargetState.WAITING,
        "idle": TargetState.READY,
    }
    wire = {"targets": [one.to_wire() for one in listed]}
    assert list(restarts_of(wire)) == [WEB]
    wire["targets"][0]["restarted"] = True
    assert len(list(restarts_of(wire))) == 2
    assert list(restarts_of({})) == list(restarts_of({"targets": None})) == []


def test_an_id_tells_its_time() -> None:
    assert begun_at("20260301-120000-abcdef-cancelled") == ZERO == datetime(2026, 3, 1, 12, tzinfo=UTC)


def test_the_next_time_is_one_at_which_a_window_is_open() -> None:
    """nextRotationTime is always true: when the gap is over, the window has closed."""
    now = ZERO.replace(hour=2, minute=30) + timedelta(days=1)
    windows = [{"kind": "allow", "schedule": "0 2 * * *", "duration": "4h"}]
    schedule = ScheduleSpec.model_validate({"interval": "720h", "stagger": "0s", "windows": windows})
    begun = f"{now - timedelta(minutes=20):%Y%m%d-%H%M%S}-abcdef"
    found = world(
        web(begun),
        now=now,
        spec=make_spec(rotation_request=None, schedule=schedule),
        status=RotationStatus(last_rotation_time=now - timedelta(days=30, minutes=5)),
        ruling=ruling([Policy("fleet", RotationPolicySpec.model_validate({"minGap": "12h"}))], ZERO),
        created=ZERO - timedelta(days=99),
    )
    assert report(found, Rest()).next_rotation_time == now + timedelta(hours=23, minutes=30)
