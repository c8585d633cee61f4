"""What users are told: conditions as kstatus reads them, Events, and nothing that is secret."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from typing import Any

import pytest

from keyturn.api.conditions import MESSAGE_LIMIT, ConditionStatus
from keyturn.api.rotation import Phase, RotationStatus
from keyturn.rotation.report import Announcement, announcements, report
from keyturn.rotation.steps import Wait
from keyturn.rotation.world import Operation, Problem, World
from tests.model.fakecluster import SECOND
from tests.model.lab import EPOCH, Lab
from tests.model.phases import ALLOWED
from tests.model.scenarios import SCENARIOS, Scenario, make_lab, make_spec
from tests.model.test_crashes import effects

TRUE, FALSE, UNKNOWN = ConditionStatus.TRUE, ConditionStatus.FALSE, ConditionStatus.UNKNOWN


def watch(lab: Lab) -> list[RotationStatus]:
    """Every status that a run writes."""
    seen: list[RotationStatus] = []
    for index in range(40):
        lab.actions[index] = lambda: seen.append(lab.resource.parsed())
    lab.run()
    return seen


def states(status: RotationStatus) -> dict[str, tuple[ConditionStatus, str]]:
    return {condition.type: (condition.status, condition.reason) for condition in status.conditions}


def ready_lab(**changes: Any) -> Lab:
    """Ready already, and then asked to rotate."""
    lab = make_lab(make_spec(rotation_request=None, **changes))
    lab.run()
    lab.edit_spec(rotation_request="a")
    return lab


def test_ready_stays_true_while_a_rotation_runs() -> None:
    seen = watch(ready_lab(soak=10 * SECOND))
    assert {states(status)["Ready"][0] for status in seen} == {TRUE}
    ready = [condition for status in seen for condition in status.conditions if condition.type == "Ready"]
    moments = {condition.last_transition_time for condition in ready}
    assert len(moments) == 1, "the transition time moves only with the status"


def test_rotating_is_abnormal_true_and_reconciling_with_it() -> None:
    for status in watch(ready_lab(soak=10 * SECOND)):
        known = states(status)
        running = status.rotation is not None
        if status.last_rotation is None and not running:
            continue
        assert known["Rotating"][0] is (TRUE if running else FALSE)
        assert ("Reconciling" in known) is running, "absent is its normal state (kstatus)"
        assert "Stalled" not in known


def test_transition_times_move_with_the_status_only() -> None:
    for scenario in SCENARIOS:
        before: dict[str, Any] = {}
        for status in watch(scenario.build()):
            for condition in status.conditions:
                known = before.get(condition.type)
                if known is not None and known.status is condition.status:
                    assert condition.last_transition_time == known.last_transition_time
            before = {condition.type: condition for condition in status.conditions}


def test_stalled_and_reconciling_exclude_each_other() -> None:
    for scenario in SCENARIOS:
        for status in watch(scenario.build()):
            assert not {"Stalled", "Reconciling"} <= states(status).keys()
            assert status.observed_generation is not None
            assert all(len(condition.message) <= MESSAGE_LIMIT for condition in status.conditions)
            assert all(condition.observed_generation == status.observed_generation for condition in status.conditions)


@pytest.mark.parametrize("name", ["not accepted", "never ready"])
def test_a_cancelled_rotation_leaves_no_word_about_the_withdrawn_value(name: str) -> None:
    lab = next(scenario for scenario in SCENARIOS if scenario.name == name).build()
    lab.edit_spec(rotation_request=None)
    lab.run()
    lab.edit_spec(rotation_request="a")
    lab.run()
    known = states(lab.resource.parsed())
    assert known["Ready"][0] is TRUE
    assert known["Rotating"] == (FALSE, "RotationCancelled")
    assert "RolloutComplete" not in known
    assert "CredentialVerified" not in known


@pytest.mark.parametrize(
    ("spoil", "reason", "ready"),
    [
        (lambda lab: setattr(lab.namespace, "secret", None), "SecretNotFound", FALSE),
        (lambda lab: lab.hold(None), "SecretKeyNotFound", FALSE),
        (lambda lab: lab.hold("wrong"), "CredentialRejected", FALSE),
        (lambda lab: setattr(lab, "account_gone", True), "ProviderNotFound", UNKNOWN),
    ],
)
def test_trouble_of_an_idle_object_names_itself(spoil: Any, reason: str, ready: ConditionStatus) -> None:
    """I10, and recovery on correction."""
    lab = Lab(make_spec(rotation_request=None))
    lab.hold("canary-0")
    spoil(lab)
    step = lab.run(20 * SECOND)
    assert isinstance(step, Wait)
    known = states(lab.resource.parsed())
    assert known["Stalled"] == (TRUE, reason)
    assert known["Ready"][0] is ready
    assert [said.reason for said in lab.events] == [reason], "said once"
    lab.account_gone = False
    lab.hold("canary-0")
    lab.run()
    known = states(lab.resource.parsed())
    assert known["Ready"][0] is TRUE
    assert "Stalled" not in known


@cache
def _told(name: str) -> tuple[str, ...]:
    lab = next(scenario for scenario in SCENARIOS if scenario.name == name).build()
    lab.run()
    return tuple(said.reason for said in lab.events)


def test_events_of_a_plain_rotation() -> None:
    """At most four for one rotation without soak (DESIGN.md, 8)."""
    assert _told("plain") == ("RotationStarted", "RolloutRestartTriggered", "Finalizing", "SecretRotated")


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_no_event_twice(scenario: Scenario) -> None:
    told = _told(scenario.name)
    assert len(told) == len(set(told)), told


def test_writes_of_a_plain_rotation() -> None:
    """At most twelve for one Deployment (DESIGN.md, 8)."""
    lab = make_lab()
    del lab.namespace.deployments["worker"]
    lab.elapse(10 * SECOND)
    lab.run()
    assert len([name for name in lab.log if name not in (Operation.START, Operation.FINALIZE)]) <= 12, lab.log


def test_leaving_blocked_or_preparing_says_nothing_old() -> None:
    lab = make_lab()
    lab.run()
    told = len(lab.events)
    lab.act_at_provider(Operation.START)
    lab.edit_spec(rotation_request="b")
    lab.run(20 * SECOND)
    assert lab.resource.parsed().phase is Phase.BLOCKED
    assert [said.reason for said in lab.events[told:]] == ["ForeignRotation"]
    lab.edit_spec(suspend=True)
    lab.run()
    assert lab.resource.parsed().phase is Phase.COMPLETED
    assert len(lab.events) == told + 1


def test_an_end_is_announced_also_when_another_step_reports_it() -> None:
    """The status write of the end failed, and was made good by the next one."""
    lab = make_lab()
    lab.run()
    after = lab.resource.parsed()
    before = after.model_copy(update={"last_rotation": None, "phase": Phase.FINALIZING})
    said = announcements(before, after, Wait("ApiServerUnavailable", "no answer"))
    assert [item.reason for item in said] == ["SecretRotated"]


def test_long_messages_are_cut_to_what_an_event_may_hold() -> None:
    stalled = Wait("SomeReason", "x" * 5000, stalled=True)
    (said,) = announcements(RotationStatus(), RotationStatus(), stalled)
    assert said == Announcement("SomeReason", "x" * MESSAGE_LIMIT, warning=True)


@pytest.mark.parametrize(("stalled", "kind"), [(True, "Stalled"), (False, "Reconciling")])
def test_report_is_a_function_of_world_and_step(stalled: bool, kind: str) -> None:
    spec = make_spec()
    world = World(EPOCH, "app", "uid", 3, False, False, spec, RotationStatus(), "r1")
    step = Wait("SomeReason", "some message", stalled=stalled)
    first = report(world, step)
    assert first == report(world, step)
    assert states(first)[kind] == (TRUE, "SomeReason")
    assert first.phase is Phase.PREPARING
    assert first.observed_generation == 3


def _runs() -> Iterator[Lab]:
    for scenario in SCENARIOS:
        for index in (None, *range(0, len(effects(scenario.name)), 3)):
            lab = scenario.build()
            if index is not None:
                lab.actions[index] = lab.delete
            yield lab


def test_the_phases_follow_each_other_as_written_down() -> None:
    """The driver refuses every other transition in all tests; here, those of a rotation's life are seen to happen."""
    seen: set[tuple[Phase, Phase]] = set()
    for lab in _runs():
        lab.run()
        seen |= lab.phases
    forward = [Phase.IDLE, Phase.STARTING, Phase.VERIFYING, Phase.DISTRIBUTING, Phase.ROLLING_OUT, Phase.SOAKING]
    life = set(zip(forward, [*forward[1:], Phase.FINALIZING], strict=True)) | {
        (Phase.ROLLING_OUT, Phase.FINALIZING),
        (Phase.FINALIZING, Phase.COMPLETED),
        (Phase.STARTING, Phase.CANCELLING),
        (Phase.VERIFYING, Phase.CANCELLING),
        (Phase.ROLLING_OUT, Phase.CANCELLING),
        (Phase.SOAKING, Phase.CANCELLING),
        (Phase.CANCELLING, Phase.CANCELLED),
    }
    assert life <= seen <= ALLOWED
    assert seen == life, seen ^ life


def test_a_running_rotation_says_that_it_is_contested_and_stalls_not() -> None:
    """I6: without it having to do anything else, and told once."""
    (before,) = [status for status in watch(ready_lab(soak=10 * SECOND)) if status.phase is Phase.SOAKING][:1]
    running = World(EPOCH, "app", "uid", 3, False, True, make_spec(), before, "r1")
    rival = replace(running, contested=Problem("ClientConflict", "ClientSecretRotation ns/b rotates it too"))
    step = Wait("Soaking", "a while longer")
    after = report(rival, step)
    assert states(after)["Contested"] == (TRUE, "ClientConflict")
    assert states(after)["Reconciling"] == (TRUE, "Soaking")
    assert "Stalled" not in states(after)
    assert after.conditions[0].type == "Contested", "the column shows the reason of the first one"
    assert [said.reason for said in announcements(before, after, step)] == ["ClientConflict"]
    assert announcements(after, after, step) == []
    assert "Contested" not in states(report(replace(running, status=after), step))
    idle = replace(rival, status=RotationStatus(), finalizer=False)
    stalls = Wait("ClientConflict", "ClientSecretRotation ns/b rotates it too", stalled=True)
    told = report(idle, stalls)
    assert [condition.type for condition in told.conditions][:2] == ["Stalled", "Contested"]
    assert [said.reason for said in announcements(idle.status, told, stalls)] == ["ClientConflict"]
