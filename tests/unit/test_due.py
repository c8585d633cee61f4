"""When rotations begin: by schedule, on request, at the user's urgent word; in the model, under a clock that jumps."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keyturn.api.conditions import Condition
from keyturn.api.rotation import Phase, RotationSpec, RotationStatus
from keyturn.api.schedule import ScheduleSpec
from keyturn.rotation.due import OVERDUE_GRACE, Next, next_rotation
from keyturn.rotation.report import report
from keyturn.rotation.steps import Rest, Wait
from keyturn.rotation.world import World
from tests.model.fakecluster import SECOND
from tests.model.fakeprovider import Fault
from tests.model.fakesemantics import TIMED, make_resetting
from tests.model.lab import EPOCH, Lab
from tests.model.scenarios import make_lab, make_spec

MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
MONTHLY: dict[str, Any] = {"interval": "720h", "stagger": "0s"}
AT_NIGHT = [{"kind": "allow", "schedule": "0 2 * * *", "duration": "4h"}]


def scheduled(*, age: timedelta = timedelta(), **schedule: Any) -> Lab:
    """A lab without a request; the Secret is as old as told, and the resource was made at EPOCH, at noon."""
    lab = make_lab(make_spec(rotation_request=None, schedule=ScheduleSpec.model_validate(schedule)))
    assert lab.namespace.secret is not None
    lab.namespace.secret.created = (EPOCH - age).replace(microsecond=0)
    return lab


def reschedule(lab: Lab, **schedule: Any) -> Wait | Rest | None:
    lab.edit_spec(schedule=ScheduleSpec.model_validate(schedule))
    return lab.run()


def skip_to(lab: Lab, moment: datetime) -> Wait | Rest | None:
    """Nothing happens until then; and the operator looks, as its timer makes it."""
    lab.now = max(lab.now, moment)
    lab.elapse(SECOND)
    return lab.run()


def status(lab: Lab) -> RotationStatus:
    return lab.resource.parsed()


def condition(lab: Lab, kind: str) -> Condition | None:
    return next((one for one in status(lab).conditions if one.type == kind), None)


def reasons(lab: Lab) -> list[str]:
    return [past.reason for past in reversed(status(lab).history)]


def rest_of(step: Wait | Rest | None) -> datetime | None:
    assert isinstance(step, Rest)
    return step.until


def next_time(lab: Lab) -> datetime:
    found = status(lab).next_rotation_time
    assert found is not None
    return found


def test_an_interval_counts_from_the_end_of_the_last_rotation() -> None:
    """I12 besides: until then there is one timer, and nothing is written."""
    lab = scheduled(**MONTHLY)
    until = rest_of(lab.run())
    assert until == next_time(lab) == (EPOCH + 30 * DAY).replace(microsecond=0)
    written = len(lab.log)
    assert rest_of(skip_to(lab, until - 2 * SECOND)) == until
    assert len(lab.log) == written
    for count in range(1, 4):
        again = skip_to(lab, until)
        last = status(lab).last_rotation_time
        assert last is not None
        assert last - until < 2 * MINUTE
        until = rest_of(again)
        assert until == next_time(lab) == (last + 30 * DAY).replace(microsecond=0)
        assert reasons(lab) == ["Schedule"] * count


@pytest.mark.parametrize("schedule", [MONTHLY, {"cron": "0 3 1 * *", "stagger": "0s"}])
def test_times_that_were_missed_are_made_up_for_by_one_rotation(schedule: dict[str, Any]) -> None:
    lab = scheduled(**schedule)
    lab.run()
    until = rest_of(skip_to(lab, EPOCH + 100 * DAY))
    assert reasons(lab) == ["Schedule"]
    assert until is not None
    assert until > lab.now + 10 * DAY
    assert status(lab).phase is Phase.COMPLETED


def test_the_age_counts_from_the_creation_of_the_secret() -> None:
    lab = scheduled(age=20 * DAY, **MONTHLY)
    assert rest_of(lab.run()) == (EPOCH + 10 * DAY).replace(microsecond=0)
    # Kept in the status: nobody looks again, though the Secret be replaced meanwhile by one that is older.
    assert lab.namespace.secret is not None
    lab.namespace.secret.created = EPOCH - 90 * DAY
    assert rest_of(lab.run()) == (EPOCH + 10 * DAY).replace(microsecond=0)


def test_the_age_counts_from_the_annotation_of_the_secret() -> None:
    lab = scheduled(age=90 * DAY, **MONTHLY)
    assert lab.namespace.secret is not None
    lab.namespace.secret.rotated_at = (EPOCH - 10 * DAY).isoformat()
    assert rest_of(lab.run()) == (EPOCH + 20 * DAY).replace(microsecond=0)
    # Corrected before it was due: seen when the time has come.
    lab.namespace.secret.rotated_at = (EPOCH - 5 * DAY).isoformat()
    assert rest_of(skip_to(lab, EPOCH + 20 * DAY)) == (EPOCH + 25 * DAY).replace(microsecond=0)
    assert reasons(lab) == []
    skip_to(lab, EPOCH + 25 * DAY)
    assert reasons(lab) == ["Schedule"]
    assert status(lab).secret_since is None


@pytest.mark.parametrize("text", ["yesterday", "2026-01-01", "2026-01-01T00:00:00", "1735689600", ""])
def test_an_annotation_that_is_no_time_is_an_answer(text: str) -> None:
    """I10."""
    lab = scheduled(age=90 * DAY, **MONTHLY)
    assert lab.namespace.secret is not None
    lab.namespace.secret.rotated_at = text
    step = lab.run(MINUTE)
    assert isinstance(step, Wait)
    assert (step.reason, step.stalled) == ("InvalidAge", True)
    assert "keyturn.dev/rotated-at" in step.message
    assert reasons(lab) == []
    lab.namespace.secret.rotated_at = EPOCH.isoformat()
    assert rest_of(lab.run()) == (EPOCH + 30 * DAY).replace(microsecond=0)
    assert condition(lab, "Stalled") is None


def test_secrets_that_are_too_old_already_are_spread_from_the_first_day() -> None:
    lab = scheduled(age=900 * DAY, interval="720h", stagger="100h")
    until = rest_of(lab.run())
    assert until is not None
    assert EPOCH + HOUR < until < EPOCH + 100 * HOUR, "where its name has put it, which is not the beginning"
    skip_to(lab, until)
    assert reasons(lab) == ["Schedule"]


@pytest.mark.parametrize("schedule", [{"interval": "720h"}, {"cron": "0 3 1 * *"}])
def test_immediate_rotates_once_at_once(schedule: dict[str, Any]) -> None:
    lab = scheduled(initial="Immediate", **schedule)
    until = rest_of(lab.run())
    assert reasons(lab) == ["Schedule"]
    assert until is not None
    assert until > lab.now + 25 * DAY


def test_immediate_alone_schedules_nothing() -> None:
    lab = scheduled(initial="Immediate")
    assert rest_of(lab.run()) is None
    assert reasons(lab) == []
    assert status(lab).next_rotation_time is None


def test_an_interval_shorter_than_the_age_rotates_at_once() -> None:
    lab = scheduled(age=20 * DAY, **MONTHLY)
    lab.run()
    reschedule(lab, interval="240h", stagger="0s")
    assert reasons(lab) == ["Schedule"]


def test_a_new_cron_makes_up_for_nothing_that_was_before_it() -> None:
    lab = scheduled(cron="0 3 * * *", timeZone="UTC", stagger="0s")
    lab.run()
    skip_to(lab, next_time(lab))
    assert reasons(lab) == ["Schedule"]
    skip_to(lab, EPOCH + DAY + HOUR)
    until = rest_of(reschedule(lab, cron="0 12 * * *", stagger="0s"))
    assert reasons(lab) == ["Schedule"], "today's noon was before the change"
    assert until == datetime(2026, 3, 3, 12, tzinfo=UTC)


def test_rotations_that_fail_are_tried_again_after_growing_pauses() -> None:
    lab = scheduled(**MONTHLY)
    lab.run()
    due = next_time(lab)
    lab.provider.faults.extend([Fault.REJECTED] * 3)
    skip_to(lab, due)
    pauses = []
    for failures in range(1, 4):
        now = status(lab)
        assert (now.failures, now.phase) == (failures, Phase.FAILED)
        assert now.last_rotation is not None
        pauses.append(next_time(lab) - now.last_rotation.finished_time)
        skip_to(lab, next_time(lab))
    assert [round(pause / MINUTE) for pause in pauses] == [10, 20, 40]
    assert (status(lab).failures, status(lab).phase) == (None, Phase.COMPLETED)
    assert next_time(lab) > due + 30 * DAY


def test_overdue_is_said_when_its_time_has_come_and_taken_back_when_it_begins() -> None:
    lab = scheduled(**MONTHLY)
    lab.run()
    due = next_time(lab)
    lab.edit_spec(suspend=True)
    assert rest_of(lab.run()) == due + OVERDUE_GRACE, "one timer, for that alone"
    assert status(lab).next_rotation_time is None
    skip_to(lab, due + OVERDUE_GRACE)
    late = condition(lab, "Overdue")
    assert late is not None
    assert (late.status, late.reason) == ("True", "Suspended")
    assert [event.reason for event in lab.events] == ["RotationOverdue"]
    written = len(lab.log)
    assert rest_of(skip_to(lab, due + 5 * DAY)) is None
    assert len(lab.log) == written
    lab.edit_spec(suspend=False)
    lab.run()
    assert reasons(lab) == ["Schedule"]
    assert condition(lab, "Overdue") is None


def test_overdue_names_what_holds_a_rotation_up() -> None:
    lab = scheduled(**MONTHLY)
    lab.run()
    due = next_time(lab)
    lab.account_gone = True
    skip_to(lab, due)
    late = condition(lab, "Overdue")
    assert late is not None
    assert late.reason == "ProviderNotFound"
    assert "create it" in late.message
    assert status(lab).next_rotation_time == due
    lab.account_gone = False
    lab.run()
    assert condition(lab, "Overdue") is None


def test_the_operator_was_down_while_the_window_was_open() -> None:
    lab = scheduled(windows=AT_NIGHT, **MONTHLY)
    lab.run()
    due = next_time(lab)
    assert due == datetime(2026, 4, 1, 2, tzinfo=UTC), "the first night after thirty days"
    until = rest_of(skip_to(lab, due + 5 * HOUR))
    assert reasons(lab) == []
    assert until == next_time(lab) == due + DAY
    late = condition(lab, "Overdue")
    assert late is not None
    assert late.reason == "OutsideWindow"
    skip_to(lab, until)
    assert reasons(lab) == ["Schedule"]


def test_a_request_waits_for_a_window() -> None:
    lab = scheduled(windows=AT_NIGHT)
    assert rest_of(lab.run()) is None
    lab.edit_spec(rotation_request="a")
    until = rest_of(lab.run())
    assert until == next_time(lab) == datetime(2026, 3, 2, 2, tzinfo=UTC)
    rotating = condition(lab, "Rotating")
    assert rotating is not None
    assert (rotating.status, rotating.reason) == ("False", "OutsideWindow")
    assert status(lab).phase is Phase.IDLE
    skip_to(lab, until)
    assert [(past.reason, past.request) for past in status(lab).history] == [("RotationRequest", "a")]
    rotating = condition(lab, "Rotating")
    assert rotating is not None
    assert rotating.reason == "RotationCompleted"


def test_a_schedule_that_makes_no_sense_rotates_nothing_but_what_is_urgent() -> None:
    lab = scheduled(cron="0 3 32 * *")
    lab.edit_spec(rotation_request="a")
    step = lab.run(MINUTE)
    assert isinstance(step, Wait)
    assert (step.reason, step.stalled, step.after) == ("InvalidSchedule", True, HOUR)
    assert "spec.schedule.cron" in step.message
    assert status(lab).phase is Phase.IDLE
    assert reasons(lab) == []
    lab.say(urgent_request="leaked")
    lab.run(5 * MINUTE)
    assert reasons(lab) == ["Urgent"]
    until = rest_of(reschedule(lab, cron="0 3 31 * *"))
    assert condition(lab, "Stalled") is None
    assert until is not None


def test_a_rotation_that_was_asked_for_by_schedule_answers_a_request_too() -> None:
    lab = scheduled(**MONTHLY)
    lab.run()
    due = next_time(lab)
    lab.edit_spec(suspend=True, rotation_request="a")
    skip_to(lab, due)
    lab.say(urgent_request="leaked")
    lab.run()
    lab.edit_spec(suspend=False)
    lab.run()
    assert [(past.reason, past.request, past.urgent) for past in status(lab).history] == [("Urgent", "a", "leaked")]


def test_a_request_is_answered_once_and_not_by_the_schedule_again() -> None:
    lab = scheduled(**MONTHLY)
    lab.edit_spec(rotation_request="a")
    lab.run()
    skip_to(lab, next_time(lab))
    assert [(past.reason, past.request) for past in status(lab).history] == [
        ("Schedule", None),
        ("RotationRequest", "a"),
    ]


# --- urgent ----------------------------------------------------------------------------------------------------------


def test_an_urgent_rotation_skips_windows_and_soak_and_is_done_once() -> None:
    lab = scheduled(windows=AT_NIGHT, **MONTHLY)
    lab.edit_spec(soak=100 * HOUR)
    lab.run()
    lab.say(urgent_request="  leaked in build log ")
    begun = lab.now
    lab.run(HOUR)
    assert lab.now - begun < MINUTE
    (past,) = status(lab).history
    assert (past.reason, past.urgent, past.result) == ("Urgent", "leaked in build log", "Completed")
    assert status(lab).last_handled_urgent == "leaked in build log"
    assert "Urgent: leaked in build log" in lab.events[0].message
    skip_to(lab, lab.now + HOUR)
    assert len(status(lab).history) == 1
    lab.say(urgent_request="leaked again")
    lab.run(HOUR)
    assert [past.urgent for past in status(lab).history] == ["leaked again", "leaked in build log"]


def test_an_urgent_word_that_was_removed_is_meant_when_it_is_said_again() -> None:
    lab = make_lab(make_spec(rotation_request=None))
    lab.say(urgent_request="leaked")
    lab.run()
    lab.say(urgent_request=None)
    lab.run()
    assert status(lab).last_handled_urgent is None
    lab.say(urgent_request="leaked")
    lab.run()
    assert reasons(lab) == ["Urgent", "Urgent"]


def test_an_urgent_word_without_a_reason_is_heard() -> None:
    lab = make_lab(make_spec(rotation_request=None))
    lab.say(urgent_request=" ")
    lab.run()
    assert [past.urgent for past in status(lab).history] == ["no reason given"]


def test_an_urgent_word_ends_the_soak_of_the_rotation_that_runs() -> None:
    lab = make_lab(make_spec(soak=100 * HOUR))
    lab.run(MINUTE)
    assert status(lab).phase is Phase.SOAKING
    lab.say(urgent_request="leaked")
    lab.run(5 * MINUTE)
    assert reasons(lab) == ["RotationRequest", "Urgent"]


def test_suspend_holds_what_is_urgent_and_says_so() -> None:
    lab = make_lab(make_spec(suspend=True))
    lab.say(urgent_request="leaked")
    lab.run(MINUTE)
    assert reasons(lab) == []
    rotating = condition(lab, "Rotating")
    assert rotating is not None
    assert "keyturn.dev/urgent" in rotating.message
    lab.edit_spec(suspend=False)
    lab.run()
    assert [(past.reason, past.request) for past in status(lab).history] == [("Urgent", "a")]


@pytest.mark.parametrize(("consent", "hours"), [(False, 1), (True, 0)])
def test_an_urgent_rotation_asks_for_the_shortest_overlap_that_refuses_nobody(consent: bool, hours: int) -> None:
    """Or for none at all, where the user has accepted that calls are refused."""
    lab = make_resetting(TIMED)
    lab.edit_spec(rotation_request=None, overlap=24 * HOUR, accept_downtime=consent)
    lab.say(urgent_request="leaked")
    begun = lab.now
    lab.run_to_effect(1)
    ends = status(lab).rotation
    assert ends is not None
    assert ends.previous_valid_until is not None
    assert round((ends.previous_valid_until - begun) / HOUR) == hours, "written down before the call, too"
    if consent:
        lab.excused = lambda pod: True  # type: ignore[method-assign]
    lab.run(30 * MINUTE)
    (past,) = status(lab).history
    assert past.reason == "Urgent"
    assert past.previous_valid_until is not None
    assert round((past.previous_valid_until - begun) / HOUR) == hours


# --- ten years -------------------------------------------------------------------------------------------------------

windows = st.sampled_from(
    [
        [],
        AT_NIGHT,
        [{"kind": "allow", "schedule": "30 1 * * 0", "duration": "6h"}, *AT_NIGHT],
        [{"kind": "deny", "schedule": "0 0 20 12 *", "duration": "400h"}],
        [*AT_NIGHT, {"kind": "deny", "schedule": "0 0 * * 6", "duration": "48h"}],
    ]
)
times = st.one_of(
    st.integers(20, 2000).map(lambda hours: {"interval": f"{hours}h"}),
    st.sampled_from(["30 2 * * 0", "0 3 1 * *", "30 2 28-31 3,10 *", "0 0 29 2 *", "15 1 L * *"]).map(
        lambda cron: {"cron": cron}
    ),
)


@settings(max_examples=6, deadline=None)
@given(times, windows, st.sampled_from(["Europe/Berlin", "America/New_York", "Australia/Lord_Howe"]), st.randoms())
def test_ten_years(schedule: dict[str, str], windows: list[dict[str, str]], zone: str, random: Any) -> None:
    """What the status says comes true to the second, or at once when the operator was away; nothing rotates twice."""
    spec = RotationSpec.model_validate(
        {
            "providerRef": {"name": "a"},
            "clientId": "c",
            "secretRef": {"name": "a", "key": "B"},
            "schedule": {**schedule, "windows": windows, "timeZone": zone},
        }
    )
    world = World(
        now=EPOCH,
        name=f"n{random.random()}",
        uid="u",
        generation=1,
        deleting=False,
        finalizer=False,
        spec=spec,
        status=RotationStatus(secret_since=EPOCH),
        fresh_id="r",
        created=EPOCH,
    )
    begun: list[datetime] = []
    while world.now < EPOCH + 3650 * DAY and len(begun) < 80:
        world = replace(world, status=report(world, Rest()))
        found = next_rotation(world, spec)
        assert isinstance(found, Next)
        assert found.due is not None
        if found.begins > world.now:
            told = world.status.next_rotation_time
            assert told == found.begins
            away = random.random() < 0.2
            world = replace(world, now=told + (random.randrange(400) * HOUR if away else timedelta()))
            assert away or next_rotation(world, spec) == Next("Schedule", told, found.due)
            continue
        done = world.now + 5 * MINUTE
        assert found.due <= world.now
        assert not begun or found.due > begun[-1]
        begun.append(world.now)
        world = replace(world, now=done, status=world.status.model_copy(update={"last_rotation_time": done}))
    assert len(begun) >= (1 if schedule.get("cron") == "0 0 29 2 *" else 15)
