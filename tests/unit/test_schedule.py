"""Calendars, over ten years of cron times, windows and changes of the clock, against a search minute by minute."""

from __future__ import annotations

import contextlib
import itertools
import re
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keyturn.api.schedule import CRON_PATTERN, ScheduleSpec
from keyturn.rotation.cron import BadSchedule, Times
from keyturn.rotation.schedule import Calendar, calendar_of, share_of

SECOND, MINUTE, HOUR, DAY = (timedelta(**{unit: 1}) for unit in ("seconds", "minutes", "hours", "days"))
START = datetime(2025, 1, 1, tzinfo=UTC)
YEARS = 10 * 365 * DAY
NEEDED = 15 * MINUTE
BERLIN = "Europe/Berlin"
ZONES = [BERLIN, "UTC", "America/New_York", "Australia/Lord_Howe", "America/Santiago", "Africa/Cairo", "Asia/Kathmandu"]

moments = st.integers(0, YEARS // SECOND).map(lambda seconds: START + seconds * SECOND)
zones = st.sampled_from(ZONES)
shares = st.floats(0, 1, exclude_max=True)


def field(low: int, high: int) -> st.SearchStrategy[str]:
    one = st.integers(low, high).map(str)
    return st.one_of(one, st.lists(one, min_size=2, max_size=3).map(",".join))


def often(strategy: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.one_of(st.just("*"), strategy)


crons = st.builds("{} {} {} * {}".format, field(0, 59), often(field(0, 23)), often(field(1, 28)), often(field(0, 6)))
daily = st.builds("{} {} * * *".format, st.integers(0, 59), st.integers(0, 23))


def at(text: str, zone: str = BERLIN) -> datetime:
    """A local time; the second of two has a trailing star."""
    local = datetime.fromisoformat(text.rstrip("*")).replace(tzinfo=ZoneInfo(zone), fold=int(text.endswith("*")))
    return local.astimezone(UTC)


def calendar(needed: timedelta = NEEDED, **spec: Any) -> Calendar:
    return Calendar(ScheduleSpec.model_validate(spec), needed)


def allow(schedule: str, duration: str, **more: str) -> dict[str, str]:
    return {"kind": "allow", "schedule": schedule, "duration": duration, **more}


def deny(schedule: str, duration: str) -> dict[str, str]:
    return {"kind": "deny", "schedule": schedule, "duration": duration}


# --- cron ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cron", "after", "expected"),
    [
        ("30 2 * * *", "2026-03-28 12:00", "2026-03-29 03:00"),  # that half past two does not exist
        ("30 2 * * *", "2026-03-29 03:00", "2026-03-30 02:30"),
        ("30 2 * * *", "2026-10-24 12:00", "2026-10-25 02:30"),  # the first of two
        ("30 2 * * *", "2026-10-25 02:30", "2026-10-26 02:30"),
        ("30 2 * * *", "2026-10-25 02:10*", "2026-10-26 02:30"),  # it was, an hour ago
        ("0 3 29 2 *", "2026-01-01 00:00", "2028-02-29 03:00"),
        ("0 3 29 2 *", "2096-03-01 00:00", "2104-02-29 03:00"),
        ("0 3 L * *", "2028-02-01 00:00", "2028-02-29 03:00"),
        ("0 3 * * 5#2", "2026-11-22 00:00", "2026-12-11 03:00"),
        ("0 */6 * * *", "2026-10-25 00:00", "2026-10-25 06:00"),
    ],
)
def test_times_of_cron(cron: str, after: str, expected: str) -> None:
    assert Times(cron, ZoneInfo(BERLIN)).next(at(after)) == at(expected)


@settings(max_examples=5, deadline=None)
@given(daily, zones, moments)
def test_a_daily_time_comes_once_a_day_whatever_the_clock_does(cron: str, zone: str, start: datetime) -> None:
    """Over every change of the clock in a year: once for each local date, and never twice."""
    times = Times(cron, ZoneInfo(zone))
    seen: list[date] = []
    moment = start
    while moment < start + 400 * DAY:
        following = times.next(moment)
        assert following is not None
        assert following > moment
        moment = following
        seen.append(moment.astimezone(ZoneInfo(zone)).date())
    assert seen == [seen[0] + number * DAY for number in range(len(seen))]


@settings(max_examples=35, deadline=None)
@given(crons, zones, moments, st.lists(st.integers(-3 * 86400, 3 * 86400), min_size=1, max_size=4))
def test_the_latest_time_is_the_one_before_the_next(cron: str, zone: str, moment: datetime, steps: list[int]) -> None:
    """Looking back agrees with looking forward, and what is remembered of earlier looks changes nothing."""
    remembering = Times(cron, ZoneInfo(zone))
    for step in steps:
        moment += step * SECOND
        latest, following = remembering.latest(moment), remembering.next(moment)
        assert latest is not None
        assert following is not None
        assert latest <= moment < following
        assert Times(cron, ZoneInfo(zone)).next(latest) == following
        assert Times(cron, ZoneInfo(zone)).next(latest - SECOND) == latest


@settings(max_examples=50, deadline=None)
@given(st.lists(st.text("0123457*,/-#LWmonJAN", min_size=1, max_size=6), min_size=5, max_size=5).map(" ".join))
def test_any_text_in_five_fields_is_a_schedule_or_is_refused(cron: str) -> None:
    assert re.fullmatch(CRON_PATTERN, cron)
    with contextlib.suppress(BadSchedule):
        calendar_of(ScheduleSpec(cron=cron), NEEDED, START)


# --- what is due -----------------------------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(moments, st.integers(60, 10**8), shares)
def test_an_interval_is_never_exceeded_and_hardly_undercut(last: datetime, seconds: int, share: float) -> None:
    interval = seconds * SECOND
    due = calendar(interval=f"{seconds // 3600}h{seconds // 60 % 60}m{seconds % 60}s").due_after(last, share)
    assert due is not None
    assert last + interval - min(interval / 10, HOUR) <= due <= last + interval


@settings(max_examples=25, deadline=None)
@given(crons, zones, moments, shares, st.sampled_from([None, "0s", "10m", "48h"]))
def test_cron_is_never_anticipated_and_never_due_in_the_past(
    cron: str, zone: str, last: datetime, share: float, stagger: str | None
) -> None:
    found = calendar(cron=cron, timeZone=zone, stagger=stagger)
    due = found.due_after(last, share)
    assert due is not None
    assert due > last
    times = Times(cron, ZoneInfo(zone))
    shift = share * found.stagger(last)
    assert times.latest(due) is not None
    fired = times.next(due - shift - 2 * SECOND)
    assert fired is not None
    assert timedelta() <= due - fired <= shift


@settings(deadline=None, max_examples=50)
@given(
    st.sampled_from(["0 0,6 * * *", "0 22,4 * * *", "0 9-17 * * 1-5", "0 2,3 * * 0", "*/7 1-3 * * *", "0 3 1,15 * *"]),
    st.sampled_from([None, "0s", "40m", "7h"]),
    st.floats(0, 1, exclude_max=True),
)
def test_a_cron_time_is_served_once(cron: str, stagger: str | None, share: float) -> None:
    """However far its times are apart: a stagger that depends on that came out differently after the rotation."""
    more = {} if stagger is None else {"stagger": stagger}
    calendar = calendar_of(ScheduleSpec.model_validate({"cron": cron, **more}), timedelta(minutes=1), START)
    assert calendar.times is not None
    times = list(itertools.islice(calendar.times.after(START - timedelta(days=15)), 900))
    served, last = [], START
    for _ in range(30):
        due = calendar.due_after(last, share)
        assert due is not None
        served.append(due)
        last = due + timedelta(seconds=30)
    if stagger is not None:
        offset = calendar.stagger(START) * share // timedelta(seconds=1) * timedelta(seconds=1)
        assert served == [time + offset for time in times if time + offset > START][:30]
        return
    begun = max(index for index, time in enumerate(times) if time <= served[0])
    assert all(
        time <= due < after for due, (time, after) in zip(served, itertools.pairwise(times[begun:]), strict=False)
    )


def test_a_fleet_does_not_rotate_in_one_minute() -> None:
    """A thousand objects of one day, each at its own time, the same after every restart."""
    shares_of_all = [share_of("shop", f"rotation-{number}") for number in range(1000)]
    assert shares_of_all == [share_of("shop", f"rotation-{number}") for number in range(1000)]
    schedules: list[dict[str, Any]] = [{"interval": "720h"}, {"cron": "0 3 * * 1", "timeZone": BERLIN}]
    for spec in schedules:
        found = calendar(**spec)
        dues = [found.due_after(START, share) for share in shares_of_all]
        minutes = [due.replace(second=0) for due in dues if due is not None]
        busiest = max(minutes.count(minute) for minute in set(minutes))
        assert busiest <= 40, "about 17 in a minute"
        assert max(minutes) - min(minutes) > 55 * MINUTE


def test_windows_that_open_are_entered_one_after_the_other() -> None:
    found = calendar(interval="720h", windows=[allow("0 2 * * *", "4h")])
    noon = START + 12 * HOUR
    begins = [found.placed(noon, share_of("shop", f"rotation-{number}")) for number in range(1000)]
    opens = START + DAY + 2 * HOUR
    assert all(opens <= begin < opens + HOUR for begin in begins)
    assert len(set(begins)) > 800


# --- windows ---------------------------------------------------------------------------------------------------------


def stretches(windows: list[dict[str, str]], zone: str, start: datetime, end: datetime) -> list[list[datetime]]:
    """The times in which rotations may run, by cutting time at every beginning and end of a window."""
    spans = []
    for window in windows:
        duration = timedelta(hours=int(window["duration"].rstrip("h")))
        for begun in Times(window["schedule"], ZoneInfo(zone)).after(start - DAY):
            if begun > end:
                break
            spans.append((window["kind"], begun, begun + duration))
    needs_allowance = any(window["kind"] == "allow" for window in windows)
    cuts = sorted({start, end, *(cut for _, *cuts in spans for cut in cuts if start < cut < end)})
    found: list[list[datetime]] = []
    for begin, close in itertools.pairwise(cuts):
        kinds = {kind for kind, since, until in spans if since <= begin < until}
        if "deny" in kinds or (needs_allowance and "allow" not in kinds):
            continue
        if found and found[-1][1] == begin:
            found[-1][1] = close
        else:
            found.append([begin, close])
    return found


any_window = st.fixed_dictionaries(
    {
        "kind": st.sampled_from(["allow", "deny"]),
        "schedule": st.builds(
            "{} {} * * {}".format, st.sampled_from(["0", "30"]), st.integers(0, 23), often(field(0, 6))
        ),
        "duration": st.integers(1, 20).map("{}h".format),
    }
)


@settings(max_examples=35, deadline=None)
@given(st.lists(any_window, min_size=1, max_size=3), zones, moments)
def test_a_rotation_begins_as_soon_as_it_fits_and_not_before(
    windows: list[dict[str, str]], zone: str, moment: datetime
) -> None:
    end = moment + 9 * DAY  # no window comes less often than once a week
    fitting = (begin for begin, close in stretches(windows, zone, moment, end) if begin + NEEDED <= close)
    expected = next(fitting, None)
    try:
        opening = calendar(windows=windows, timeZone=zone).opening(moment)
    except BadSchedule:
        assert expected is None
        return
    assert opening.begin == expected if expected is not None else opening.begin > end - DAY


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 20 * 86400), shares, st.lists(st.integers(1, 3 * 86400), min_size=1, max_size=20))
def test_a_time_that_was_told_stands_until_then(overdue: int, share: float, steps: list[int]) -> None:
    """However often it is asked meanwhile, and although the due time is long over."""
    found = calendar(interval="720h", windows=[allow("0 2 * * 1-5", "4h"), deny("0 0 24 12 *", "48h")])
    begun = now = START - 10 * DAY
    due = now - overdue * SECOND
    told = found.begins(due, share, now)
    for step in steps:
        now += step * SECOND
        if now >= told:
            break
        assert found.begins(due, share, now) == told
    if told - SECOND > begun:
        assert found.begins(due, share, told - SECOND) == told
    assert found.begins(due, share, told) == told


def test_who_was_due_long_ago_begins_at_once_where_a_window_is_open() -> None:
    found = calendar(interval="720h", windows=[allow("0 2 * * *", "4h")])
    now = START + 40 * DAY + 3 * HOUR + MINUTE
    assert found.begins(START, 0.9, now) == now
    assert found.begins(START, 0.0, now - HOUR) == now - HOUR


def test_windows_that_follow_upon_each_other_are_one() -> None:
    """A rotation of an hour fits across the seam; one of five does not."""
    windows = [allow("0 2 * * *", "2h"), allow("0 4 * * *", "2h")]
    seam = START + 3 * HOUR + 30 * MINUTE
    assert calendar(HOUR, windows=windows).opening(seam).begin == seam
    with pytest.raises(BadSchedule, match="never leave room"):
        calendar(5 * HOUR, windows=windows).opening(seam)


def test_a_rotation_does_not_run_into_a_denied_time() -> None:
    found = calendar(HOUR, windows=[deny("0 4 * * *", "2h")])
    assert found.opening(START + 3 * HOUR).begin == START + 3 * HOUR
    assert found.opening(START + 3 * HOUR + SECOND).begin == START + 6 * HOUR


def test_windows_have_time_zones_of_their_own() -> None:
    found = calendar(windows=[allow("0 2 * * *", "4h", timeZone="America/New_York")], timeZone=BERLIN)
    assert found.opening(START).begin == at("2025-01-01 02:00", "America/New_York")


def test_a_window_that_a_change_of_the_clock_skips_opens_right_after_it() -> None:
    for asked, begins in (
        ("2026-03-28 12:00", "2026-03-29 03:00"),
        # Two hours that have the same name: it opens in the first one, and closes an hour later in the second one.
        ("2026-10-25 02:40", "2026-10-25 02:40"),
        ("2026-10-25 02:10*", "2026-10-25 02:10*"),
        ("2026-10-25 02:30*", "2026-10-26 02:30"),
    ):
        found = calendar(windows=[allow("30 2 * * *", "1h")], timeZone=BERLIN)
        assert found.opening(at(asked)).begin == at(begins)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"cron": "61 3 * * *"}, "spec.schedule.cron: bad minute"),
        ({"cron": "0 3 30 2 *"}, "spec.schedule.cron: bad day-of-month"),
        ({"cron": "0 3 * 2 1#5", "timeZone": "UTC", "windows": []}, None),
        ({"cron": "0 3 31 4,6 *"}, "spec.schedule.cron: bad day-of-month"),
        ({"timeZone": "Mars/Base"}, "spec.schedule.timeZone: not a known time zone"),
        ({"timeZone": "Europe"}, "spec.schedule.timeZone: not a known time zone"),
        ({"windows": [allow("0 2 * * *", "4h"), deny("0 25 * * *", "1h")]}, "windows[1].schedule: bad hour"),
        ({"windows": [allow("0 2 * * *", "4h", timeZone="Mars/Base")]}, "windows[0].timeZone: not a known"),
        ({"windows": [allow("0 2 * * *", "4h"), deny("0 2 * * *", "4h")]}, "never leave room"),
        ({"windows": [deny("* * * * *", "1m")]}, "never leave room"),
        ({"windows": [deny("0 * * * *", "46m")]}, "never leave room"),
        ({"windows": [deny("0 * * * *", "45m")]}, None),
        ({"windows": [allow("0 2 29 2 *", "1h")]}, None),
    ],
    ids=str,
)
def test_what_can_never_be_met_is_told_at_once(spec: dict[str, Any], words: str | None) -> None:
    schedule = ScheduleSpec.model_validate(spec)
    if words is None:
        calendar_of(schedule, NEEDED, START)
        return
    for _ in range(2):  # the second time from memory
        with pytest.raises(BadSchedule) as told:
            calendar_of(schedule, NEEDED, START)
        assert words in str(told.value)
        assert "Mars" not in str(told.value)
