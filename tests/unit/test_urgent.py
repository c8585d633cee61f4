"""The user's urgent word; and that no crash makes anything be forgotten, or begun twice."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from keyturn.api.rotation import Phase
from keyturn.rotation.steps import Rest
from tests.model.fakesemantics import TIMED, make_resetting
from tests.model.lab import Disturbance, Lab
from tests.model.scenarios import make_lab, make_spec
from tests.unit.timed import (
    AT_NIGHT,
    DAY,
    HOUR,
    MINUTE,
    MONTHLY,
    condition,
    next_time,
    reasons,
    scheduled,
    skip_to,
    status,
)


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


def _by_schedule() -> Lab:
    lab = scheduled(age=20 * DAY, **MONTHLY)
    lab.run()
    lab.now = next_time(lab)
    return lab


def _urgent() -> Lab:
    lab = scheduled(windows=AT_NIGHT, **MONTHLY)
    lab.run()
    lab.say(urgent_request="leaked")
    return lab


@pytest.mark.parametrize("make", [_by_schedule, _urgent])
@pytest.mark.parametrize("disturbance", [Disturbance.CRASH_AFTER, Disturbance.REPLY_LOST])
def test_a_crash_anywhere_leads_to_one_rotation_all_the_same(make: Callable[[], Lab], disturbance: Disturbance) -> None:
    """I9: neither is it forgotten why it was begun, nor is it begun again."""
    lab = make()
    begun = len(lab.log)
    undisturbed = lab.run()
    expected = [(past.reason, past.urgent) for past in status(lab).history]
    assert len(expected) == 1
    for number in range(begun, len(lab.log)):
        other = make()
        other.plan = {number: disturbance}
        end = other.run()
        found = [(past.reason, past.urgent) for past in status(other).history]
        assert found == expected, other.log
        assert isinstance(end, Rest)
        assert isinstance(undisturbed, Rest)
        assert end.until is not None
        assert undisturbed.until is not None
        assert abs(end.until - undisturbed.until) < MINUTE


def test_long_words_that_begin_alike_are_two() -> None:
    """Only so much of a word is kept."""
    lab = scheduled(**MONTHLY)
    for number, word in enumerate(("x" * 256, "x" * 300, "x" * 300 + " and again", "x" * 300 + " and again")):
        lab.say(urgent_request=word)
        lab.run()
        assert len(reasons(lab)) == min(number + 1, 3), word
        assert len(status(lab).last_handled_urgent or "") <= 256
