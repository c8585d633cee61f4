"""What RotationPolicies do to the rotations that they cover; in the model, under a clock that jumps."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from keyturn.api.policy import RotationPolicySpec
from keyturn.api.schedule import ScheduleSpec
from keyturn.rotation.policy import NO_POLICY, Hold, Policy, ruling
from keyturn.rotation.steps import Rest, Wait
from tests.model.fakecluster import SECOND
from tests.model.lab import EPOCH, Lab
from tests.unit.timed import (
    AT_NIGHT,
    DAY,
    HOUR,
    MINUTE,
    condition,
    next_time,
    reasons,
    rest_of,
    scheduled,
    skip_to,
    status,
)

CLOSED = {"reason": "year-end close"}
LONG_AGO = EPOCH - 1000 * DAY


def policy(name: str = "fleet", *, since: datetime | None = LONG_AGO, **spec: Any) -> Policy:
    return Policy(name, RotationPolicySpec.model_validate(spec), since)


def under(*policies: Policy, age: timedelta = timedelta(), **schedule: Any) -> Lab:
    """A lab whose rotation they cover; without a schedule where none is told."""
    lab = scheduled(age=age, **schedule)
    if not schedule:
        lab.edit_spec(schedule=None)
    lab.policies = list(policies)
    return lab


def govern(lab: Lab, *policies: Policy) -> Wait | Rest | None:
    lab.policies = list(policies)
    return lab.run()


def told(lab: Lab, kind: str = "Rotating") -> tuple[str, str]:
    found = condition(lab, kind)
    assert found is not None
    return found.reason, found.message


def written(moment: datetime) -> str:
    return moment.replace(microsecond=0).isoformat()


# --- several policies ------------------------------------------------------------------------------------------------

OF_ALL_KINDS = [
    policy("a", maxAge="720h", minGap="1h", windows=AT_NIGHT),
    policy("b", maxAge="2160h", minGap="2h", freeze={**CLOSED, "until": "2026-03-05T00:00:00Z"}),
    policy("c", maxAge="720h", windows=AT_NIGHT, timeZone="Europe/Berlin"),
    policy("d", freeze={**CLOSED, "until": "2026-03-04T00:00:00Z"}),
]


@given(st.permutations(OF_ALL_KINDS))
def test_of_several_policies_the_strictest_of_each_counts(policies: list[Policy]) -> None:
    found = ruling(policies, EPOCH)
    assert found.max_age is not None
    assert found.min_gap is not None
    assert found.hold is not None
    assert (found.max_age.policy, found.max_age.age) == ("a", 720 * HOUR)
    assert (found.min_gap.policy, found.min_gap.gap) == ("b", 2 * HOUR)
    assert [(one.policy, one.time_zone) for one in found.windows] == [("a", "UTC"), ("c", "Europe/Berlin")]
    assert (found.hold.reason, found.hold.until) == ("Frozen", datetime(2026, 3, 5, tzinfo=UTC))
    assert "RotationPolicy b" in found.hold.message


def test_without_an_end_is_longer_than_any_end_and_what_is_wrong_has_none() -> None:
    endless, ending = policy("z", freeze=CLOSED), OF_ALL_KINDS[1]
    found = ruling([ending, endless], EPOCH).hold
    assert found == Hold("Frozen", found.message if found else "", None)
    assert "RotationPolicy z lets nothing begin until spec.freeze is taken out of it: year-end close" in found.message
    wrong = ruling([Policy("x", "spec.minGap: must be a duration"), ending], EPOCH).hold
    assert wrong is not None
    assert (wrong.reason, wrong.until) == ("InvalidPolicy", None)
    assert wrong.message.startswith("RotationPolicy x ")
    assert wrong.message.endswith(": spec.minGap: must be a duration")


def test_no_policy_and_one_that_says_nothing_are_the_same() -> None:
    assert ruling([], EPOCH) == ruling([policy()], EPOCH) == NO_POLICY


# --- maximum age -----------------------------------------------------------------------------------------------------


def test_a_rotation_without_a_schedule_inherits_the_maximum_age() -> None:
    lab = under(policy(maxAge="720h"))
    until = rest_of(lab.run())
    deadline = EPOCH.replace(microsecond=0) + 30 * DAY
    assert until is not None
    assert deadline - HOUR < until < deadline, "spread, and never beyond it"
    assert next_time(lab) == until
    assert "RotationPolicy fleet, spec.maxAge 720h" in told(lab)[1]
    count = len(lab.log)
    assert rest_of(skip_to(lab, until - 2 * SECOND)) == until
    assert len(lab.log) == count, "I12: nothing is written meanwhile"
    again = rest_of(skip_to(lab, until))
    assert reasons(lab) == ["MaxAge"]
    assert again is not None
    assert again - until > 29 * DAY
    assert condition(lab, "ScheduleOverridden") is None
    assert rest_of(govern(lab)) is None, "without the policy nothing is scheduled any more"
    assert status(lab).next_rotation_time is None


def test_a_schedule_with_nothing_but_other_words_inherits_it_too() -> None:
    lab = under(policy(maxAge="720h"), stagger="0s")
    assert rest_of(lab.run()) == EPOCH.replace(microsecond=0) + 30 * DAY
    first = under(policy(maxAge="720h"), initial="Immediately")
    first.run()
    assert reasons(first) == ["MaxAge"]


@pytest.mark.parametrize("schedule", [{"interval": "2160h", "stagger": "0s"}, {"cron": "0 3 1 */6 *", "stagger": "0s"}])
def test_a_slower_schedule_gives_way_and_is_told_so(schedule: dict[str, Any]) -> None:
    lab = under(policy(maxAge="720h"), **schedule)
    until = rest_of(lab.run())
    assert until == next_time(lab) == EPOCH.replace(microsecond=0) + 30 * DAY
    reason, message = told(lab, "ScheduleOverridden")
    assert (reason, "RotationPolicy fleet: spec.maxAge 720h" in message) == ("MaxAge", True)
    skip_to(lab, until)
    assert reasons(lab) == ["MaxAge"]
    lab.run()
    assert condition(lab, "ScheduleOverridden") is not None
    govern(lab, policy(maxAge="8760h"))
    assert condition(lab, "ScheduleOverridden") is None


def test_a_faster_schedule_is_left_alone() -> None:
    lab = under(policy(maxAge="720h"), interval="240h", stagger="0s")
    assert rest_of(lab.run()) == EPOCH.replace(microsecond=0) + 10 * DAY
    assert condition(lab, "ScheduleOverridden") is None


def test_what_is_too_old_when_a_policy_comes_is_spread_from_then_on() -> None:
    """Ten thousand old secrets must not all be rotated in the minute in which somebody writes a policy."""
    lab = under(age=900 * DAY)
    assert rest_of(lab.run()) is None
    begun = lab.now = lab.now + 10 * DAY
    until = rest_of(govern(lab, policy(maxAge="720h", since=begun)))
    assert until is not None
    assert begun + MINUTE < until < begun + HOUR
    assert condition(lab, "Overdue") is None
    skip_to(lab, until)
    assert reasons(lab) == ["MaxAge"]


def test_what_is_to_begin_at_once_is_spread_too_when_a_policy_comes_later() -> None:
    lab = under(policy(maxAge="720h", since=EPOCH + DAY), initial="Immediately")
    lab.now += DAY
    until = rest_of(lab.run())
    assert until is not None
    assert EPOCH + DAY + MINUTE < until < EPOCH + DAY + HOUR


def test_a_secret_that_does_not_exist_has_no_age() -> None:
    lab = under(policy(maxAge="720h"), cron="0 3 1 * *", stagger="0s")
    lab.namespace.secret = None
    lab.run(MINUTE)
    assert next_time(lab) == datetime(2026, 4, 1, 3, tzinfo=UTC)


# --- windows ---------------------------------------------------------------------------------------------------------


def test_windows_of_a_policy_hold_for_who_has_none() -> None:
    lab = under(policy(windows=AT_NIGHT))
    lab.run()
    assert told(lab)[0] == "NotDue"
    lab.edit_spec(rotation_request="b")
    until = rest_of(lab.run())
    assert until == next_time(lab) == datetime(2026, 3, 2, 2, tzinfo=UTC)
    assert told(lab) == (
        "OutsideWindow",
        "the request waits until 2026-03-02T02:00:00Z, when a window of RotationPolicy fleet, spec.windows opens",
    )
    skip_to(lab, until)
    assert reasons(lab) == ["RotationRequest"]
    own = under(policy(windows=AT_NIGHT), windows=[{"kind": "allow", "schedule": "0 12 * * *", "duration": "4h"}])
    own.edit_spec(rotation_request="b")
    own.run()
    assert reasons(own) == ["RotationRequest"]


def test_where_several_policies_have_windows_all_must_be_open() -> None:
    other = [{"kind": "allow", "schedule": "0 4 * * *", "duration": "4h"}]
    weekend = [{"kind": "deny", "schedule": "0 0 * * 1", "duration": "24h"}]
    lab = under(policy("a", windows=AT_NIGHT), policy("b", windows=other), policy("c", windows=weekend))
    lab.edit_spec(rotation_request="b")
    assert rest_of(lab.run()) == datetime(2026, 3, 3, 4, tzinfo=UTC), "the second of March is a Monday"


@pytest.mark.parametrize(
    ("policies", "names"),
    [
        ([policy("a", windows=[{**AT_NIGHT[0], "duration": "14m"}])], ["RotationPolicy a, spec.windows"]),
        (
            [
                policy("a", windows=AT_NIGHT),
                policy("b", windows=[{"kind": "allow", "schedule": "0 7 * * *", "duration": "4h"}]),
            ],
            ["RotationPolicy a, spec.windows", "RotationPolicy b, spec.windows"],
        ),
    ],
)
def test_windows_that_never_fit_are_said_at_once(policies: list[Policy], names: list[str]) -> None:
    lab = under(*policies, interval="720h")
    step = lab.run(MINUTE)
    assert isinstance(step, Wait)
    assert (step.reason, step.stalled) == ("InvalidSchedule", True)
    assert all(name in step.message for name in names)
    lab.say(urgent_request="leaked")
    lab.run()
    assert reasons(lab) == ["Urgent"]
    assert rest_of(govern(lab)) is not None
    assert condition(lab, "Stalled") is None


def test_the_maximum_age_is_kept_by_the_window_before() -> None:
    sundays = [{"kind": "allow", "schedule": "0 2 * * 0", "duration": "4h"}]
    lab = under(policy(maxAge="720h", windows=sundays), stagger="0s")
    # EPOCH is a Sunday: thirty days later it is a Tuesday.
    until = rest_of(lab.run())
    assert until == datetime(2026, 3, 29, 2, tzinfo=UTC)
    assert condition(lab, "Overdue") is None
    late = under(policy(maxAge="72h", windows=sundays), stagger="0s")
    late.run()
    assert next_time(late) == datetime(2026, 3, 8, 2, tzinfo=UTC), "none before: the next one"
    skip_to(late, EPOCH + 3 * DAY + 11 * MINUTE)
    assert told(late, "Overdue")[0] == "OutsideWindow"
    assert "RotationPolicy fleet, spec.windows" in told(late, "Overdue")[1]


def test_a_window_is_not_used_twice_for_want_of_a_later_one() -> None:
    """Found by the last test on this page: it rotated without end until the window closed."""
    weekend = [{"kind": "deny", "schedule": "0 0 * * 6", "duration": "48h"}]
    lab = under(policy("a", maxAge="68h", windows=AT_NIGHT), policy("b", windows=weekend), stagger="0s")
    friday = datetime(2026, 3, 6, 2, tzinfo=UTC)
    lab.run()
    while next_time(lab) <= friday:
        skip_to(lab, next_time(lab))
    assert len(reasons(lab)) == 2, "on Tuesday, and on Friday"
    assert next_time(lab) == friday + 3 * DAY, "Monday: there is none before"


# --- freeze ----------------------------------------------------------------------------------------------------------


def test_a_freeze_ends_by_itself() -> None:
    end = EPOCH.replace(microsecond=0) + 40 * DAY
    lab = under(policy(freeze={**CLOSED, "until": written(end)}), interval="720h", stagger="10h")
    due = EPOCH.replace(microsecond=0) + 30 * DAY
    until = rest_of(lab.run())
    assert told(lab)[0] == "Frozen"
    assert "RotationPolicy fleet lets nothing begin until 2026-04-10T12:00:00Z: year-end close" in told(lab)[1]
    assert end < next_time(lab) < end + 10 * HOUR, "and they do not all begin at once"
    begins = next_time(lab)
    assert until is not None
    assert until < due + 10 * MINUTE, "when it is overdue"
    until = rest_of(skip_to(lab, until))
    assert told(lab, "Overdue")[0] == "Frozen"
    assert reasons(lab) == []
    assert (until, next_time(lab)) == (end, begins)
    assert rest_of(skip_to(lab, end)) == next_time(lab) == begins
    assert told(lab, "Overdue") == ("Staggered", told(lab, "Overdue")[1])
    assert "it waits for its turn among those that were held up together" in told(lab, "Overdue")[1]
    skip_to(lab, begins)
    assert reasons(lab) == ["Schedule"]
    assert (lab.now - begins) < HOUR


def test_a_request_waits_for_the_end_of_a_freeze_and_what_is_urgent_does_not() -> None:
    end = EPOCH.replace(microsecond=0) + 2 * DAY
    lab = under(policy(freeze={**CLOSED, "until": written(end)}))
    lab.edit_spec(rotation_request="b")
    assert rest_of(lab.run()) == next_time(lab) == end
    assert told(lab)[0] == "Frozen"
    lab.say(urgent_request="leaked")
    lab.run()
    assert reasons(lab) == ["Urgent"], "it answers the request as well"
    other = under(policy(freeze={**CLOSED, "until": written(end)}))
    other.edit_spec(rotation_request="b")
    skip_to(other, end)
    assert reasons(other) == ["RotationRequest"]


@pytest.mark.parametrize("limit", [policy(freeze=CLOSED), Policy("fleet", "spec.windows[0].schedule: bad hour")])
def test_what_has_no_end_is_ended_by_hand(limit: Policy) -> None:
    reason = "Frozen" if isinstance(limit.spec, RotationPolicySpec) else "InvalidPolicy"
    lab = under(limit, interval="720h", stagger="0s")
    lab.run()
    assert status(lab).next_rotation_time is None, "nobody knows"
    assert told(lab)[0] == reason
    assert "RotationPolicy fleet" in told(lab)[1]
    assert rest_of(skip_to(lab, EPOCH + 31 * DAY)) is None, "nothing to do before somebody changes a policy"
    assert told(lab, "Overdue")[0] == reason
    assert reasons(lab) == []
    lab.edit_spec(rotation_request="b")
    lab.run()
    assert reasons(lab) == []
    govern(lab)
    assert reasons(lab) == ["RotationRequest"]
    urgent = under(limit)
    urgent.say(urgent_request="leaked")
    urgent.run()
    assert reasons(urgent) == ["Urgent"]


def test_a_rotation_that_runs_is_not_stopped() -> None:
    lab = under()
    lab.edit_spec(rotation_request="b", soak=2 * MINUTE)
    lab.run(MINUTE)
    assert status(lab).rotation is not None
    lab.policies = [policy(freeze=CLOSED)]
    lab.run(4 * MINUTE)
    assert reasons(lab) == ["RotationRequest"]


# --- what is told comes true -----------------------------------------------------------------------------------------

some_windows = st.sampled_from(
    [
        [],
        AT_NIGHT,
        [{"kind": "allow", "schedule": "0 1 * * 0", "duration": "6h"}],
        [{"kind": "deny", "schedule": "0 0 * * 6", "duration": "48h"}],
    ]
)
freezes = st.one_of(
    st.none(),
    st.integers(0, 400).map(lambda days: {**CLOSED, "until": written(EPOCH + days * DAY)}),
)
policies = st.builds(
    lambda age, windows, freeze: RotationPolicySpec.model_validate(
        {"maxAge": f"{age}h", "windows": windows, "freeze": freeze}
    ),
    st.integers(30, 2000),
    some_windows,
    freezes,
)
schedules = st.sampled_from([None, {"interval": "1000h"}, {"cron": "30 2 1 * *"}, {"stagger": "0s"}])


@settings(max_examples=6, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(st.lists(policies, min_size=1, max_size=2), schedules, st.integers(0, 400))
def test_what_the_status_tells_comes_true(
    specs: list[RotationPolicySpec], schedule: dict[str, Any] | None, age: int
) -> None:
    lab = under(*(Policy(f"p{number}", spec, LONG_AGO) for number, spec in enumerate(specs)), age=age * DAY)
    lab.edit_spec(schedule=ScheduleSpec.model_validate(schedule) if schedule is not None else None)
    frozen = max((one.freeze.until or EPOCH for one in specs if one.freeze is not None), default=EPOCH)
    limit = min(one.max_age or DAY for one in specs)
    weekly = any("* * 0" in window.schedule for one in specs for window in one.windows)
    step = lab.run(MINUTE)
    for _ in range(3):
        if isinstance(step, Wait):
            assert step.reason == "InvalidSchedule"
            return
        begins, count, last = next_time(lab), len(reasons(lab)), status(lab).last_rotation_time
        skip_to(lab, begins - 2 * SECOND)
        assert (len(reasons(lab)), next_time(lab)) == (count, begins)
        step = skip_to(lab, begins)
        assert len(reasons(lab)) == count + 1
        begun = status(lab).history[0].started_time
        assert begun >= frozen
        if last is not None and begun > frozen + DAY and not weekly and limit > 150 * HOUR:
            assert begun - last < limit + MINUTE, "in the second half of its life there was a window"


def test_a_policy_whose_age_is_not_known_to_be_in_force_lets_nothing_begin_early() -> None:
    now = EPOCH + DAY
    (found,) = (one for one in [ruling([policy(maxAge="1h", since=None)], now).max_age] if one is not None)
    assert found == replace(found, since=now)
