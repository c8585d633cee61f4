"""When rotations begin by schedule, and on request in a window; in the model, under a clock that jumps."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from keyturn.api.rotation import Phase
from keyturn.rotation.due import OVERDUE_GRACE
from keyturn.rotation.steps import Wait
from tests.model.fakecluster import SECOND
from tests.model.fakeprovider import Fault
from tests.model.lab import EPOCH
from tests.model.scenarios import make_spec
from tests.unit.test_policy import policy, under
from tests.unit.timed import (
    AT_NIGHT,
    DAY,
    HOUR,
    MINUTE,
    MONTHLY,
    condition,
    next_time,
    reasons,
    reschedule,
    rest_of,
    scheduled,
    skip_to,
    status,
)


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


@pytest.mark.parametrize(
    "text",
    [
        "yesterday",
        "2026-01-01",
        "2026-01-01T00:00:00",
        "1735689600",
        "",
        "9999-12-31T00:00:00Z",
        "2062-01-01T00:00:00Z",
        "0001-01-01T00:00:00+14:00",
    ],
)
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
    lab = scheduled(initial="Immediately", **schedule)
    until = rest_of(lab.run())
    assert reasons(lab) == ["Schedule"]
    assert until is not None
    assert until > lab.now + 25 * DAY


def test_immediate_alone_schedules_nothing() -> None:
    lab = scheduled(initial="Immediately")
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


def test_another_client_has_an_age_of_its_own() -> None:
    """The time of the last rotation is that of what was rotated."""
    lab = scheduled(age=10 * DAY, **MONTHLY)
    lab.run()
    skip_to(lab, next_time(lab))
    done = status(lab).last_rotation_time
    assert (reasons(lab), status(lab).secret_since) == (["Schedule"], None)
    assert done is not None
    lab.now += DAY
    assert lab.namespace.secret is not None
    lab.namespace.secret.created = (lab.now - 20 * DAY).replace(microsecond=0)
    first = make_spec().client_id
    lab.edit_spec(client_id="another")
    lab.run()
    assert status(lab).secret_since == lab.namespace.secret.created
    assert (lab.now - lab.namespace.secret.created) + (next_time(lab) - lab.now) <= 30 * DAY
    lab.edit_spec(client_id=first)
    lab.run()
    assert status(lab).secret_since is None
    assert next_time(lab) > done + 26 * DAY


def test_another_secret_has_an_age_of_its_own() -> None:
    """Also where none was rotated yet: what was seen of the first one is forgotten."""
    lab = scheduled(age=10 * DAY, **MONTHLY)
    lab.run()
    assert lab.namespace.secret is not None
    assert status(lab).secret_since == lab.namespace.secret.created
    lab.namespace.secret.created = (EPOCH - 29 * DAY).replace(microsecond=0)
    lab.edit_spec(client_id="another")
    lab.run()
    assert status(lab).secret_since == lab.namespace.secret.created


@pytest.mark.parametrize("age", [timedelta(), 23 * HOUR])
def test_a_stagger_that_is_longer_does_not_let_a_secret_become_too_old(age: timedelta) -> None:
    lab = under(policy(maxAge="24h", since=EPOCH), cron="0 3 * * 0", stagger="168h", age=age)
    lab.run()
    assert next_time(lab) <= EPOCH - age + DAY
