"""Calendars: when rotations are due by an interval, a cron expression or a maximum age, and when they may begin.

Pure: time comes in as an argument, and the same arguments give the same times. All times that are returned are in UTC,
to the second.
"""

from __future__ import annotations

import hashlib
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import Final

from keyturn.api.schedule import ScheduleSpec
from keyturn.rotation.cron import SECOND, BadSchedule, must_come, times_of, zone_of
from keyturn.rotation.policy import DefaultWindows
from keyturn.rotation.windows import Opening, Openings, WindowSet

LONGEST_DEFAULT_STAGGER: Final = timedelta(hours=1)
_SLACK: Final = timedelta(hours=1)
_EARLY: Final = timedelta(days=1)
"""So long before it closes, at most, a window is used that is the last one before a secret becomes too old."""
_PLACE: Final = "spec.schedule"


class Calendar:
    """A schedule, read once: when rotations are due, and when they may begin. Made by `calendar_of`.

    `frozen` in its methods: before that time nothing begins, whatever the windows say; those that wait for it are
    spread as those that wait for a window.
    """

    def __init__(
        self,
        schedule: ScheduleSpec,
        needed: timedelta,
        defaults: tuple[DefaultWindows, ...] = (),
        max_age: timedelta | None = None,
    ) -> None:
        """needed: how long a rotation may take, for which a window must leave room.

        defaults: the windows of policies, for a schedule that has none. max_age: how old a secret may become by them.
        """
        zone = zone_of(schedule.time_zone, f"{_PLACE}.timeZone")
        self._stagger = schedule.stagger
        self.times = times_of(schedule.cron, zone, f"{_PLACE}.cron") if schedule.cron is not None else None
        self._interval = schedule.interval
        self._max_age = max_age
        self._sets = [
            WindowSet(one.windows, one.time_zone, "spec", f"RotationPolicy {one.policy}, ") for one in defaults
        ]
        if schedule.windows:
            self._sets = [WindowSet(schedule.windows, schedule.time_zone, _PLACE)]
        self._openings = Openings(self._sets, needed)

    @property
    def windows(self) -> str:
        """The fields that say when rotations may begin."""
        return self._openings.name

    def check(self, now: datetime) -> None:
        """Raise BadSchedule where a cron expression never fires, or no window leaves room for a rotation."""
        if self.times is not None:
            must_come(self.times, f"{_PLACE}.cron", now)
        for one in self._sets:
            one.check(now)
        self.opening(now)

    def opening(self, earliest: datetime, frozen: datetime | None = None) -> Opening:
        """The first stretch, from `earliest` on, in which a rotation may begin and has room until it must be over."""
        begin = earliest if frozen is None else max(earliest, frozen)
        return self._openings.first(begin, self.stagger(begin))

    def placed(self, due: datetime, share: float) -> datetime:
        """The first time, from `due` on, at which a rotation may begin, staggered where a window has to open first."""
        return self._staggered(self.opening(due), due, share)

    def begins(self, due: datetime, share: float, now: datetime, frozen: datetime | None = None) -> datetime:
        """When a rotation that was due then begins: now at the earliest, and in a window that has just opened in turn.

        The same until then, whenever it is asked.
        """
        start = max(due, now - self.stagger(now))
        while True:
            opening = self.opening(start, frozen)
            time = self._staggered(opening, start, share)
            if time >= now:
                return time
            if opening.last >= now:
                return now
            start = opening.last + SECOND

    def _staggered(self, opening: Opening, asked: datetime, share: float) -> datetime:
        if opening.begin == asked:
            return asked
        room = min(self.stagger(opening.begin), opening.last - opening.begin)
        return opening.begin + _seconds(room * share)

    def due_after(self, last: datetime, share: float) -> datetime | None:
        """When the next rotation is due after one that was completed, windows aside; None without times of its own.

        An interval is never exceeded by the stagger, and a cron time never anticipated.
        """
        if self._interval is not None:
            return (last + self._interval - _seconds(self.stagger(last) * share)).replace(microsecond=0)
        if self.times is None:
            return None
        # The stagger belongs to the cron time, whenever it is asked for: else, one would be served twice.
        longest = self._stagger if self._stagger is not None else LONGEST_DEFAULT_STAGGER
        time = self.times.next(last - longest)
        while time is not None:
            due = time + _seconds(self._spread(time) * share)
            if due > last:
                return due
            time = self.times.next(time)
        return None

    def due_by_age(self, since: datetime, earliest: datetime, share: float) -> datetime:
        """When a secret that is in use since then is to be rotated so that it does not become too old.

        That is in the last window before, from `earliest` on; where there is none, when it reaches its maximum age. A
        window in the first half of its life is none: the one in which it was made would be used again and again.
        """
        assert self._max_age is not None
        deadline = (since + self._max_age).replace(microsecond=0)
        spread = min(self.stagger(since), self._max_age / 2)
        if self._openings.always:
            return deadline - _seconds(spread * share)
        found = self._openings.last_until(deadline, max(earliest, since + self._max_age / 2), spread)
        if found is None:
            return deadline
        if found.last >= deadline + _SLACK:
            return deadline - _seconds(min(spread, deadline - found.begin) * share)
        # Not in the last moment: who comes too late for it finds the window closed.
        latest = min(found.last, deadline)
        start = max(found.begin, latest - _EARLY)
        return start + _seconds(min(spread, latest - start) * share)

    def stagger(self, moment: datetime) -> timedelta:
        """Over how long rotations that fall due at about that time are spread."""
        return self._spread(self.times.next(moment) if self.times is not None else None)

    def _spread(self, time: datetime | None) -> timedelta:
        """As `stagger`, for a time of the cron expression if there is one."""
        if self._stagger is not None:
            return self._stagger
        following = self.times.next(time) if self.times is not None and time is not None else None
        between = following - time if following is not None and time is not None else self._interval
        usual = (span / 10 for span in (between, self._max_age) if span is not None)
        return min([*usual, LONGEST_DEFAULT_STAGGER])


def calendar_of(
    schedule: ScheduleSpec,
    needed: timedelta,
    now: datetime,
    defaults: tuple[DefaultWindows, ...] = (),
    max_age: timedelta | None = None,
) -> Calendar:
    """The calendar of a schedule for rotations that may take so long, which was found good. Raises BadSchedule."""
    found = _judged(schedule.model_dump_json(), needed, now.date(), defaults, max_age)
    if isinstance(found, str):
        raise BadSchedule(found)
    return found


# A fleet has few schedules, and a bad one may take long to judge: it is done once a day.
@lru_cache(maxsize=1024)
def _judged(
    schedule: str, needed: timedelta, day: date, defaults: tuple[DefaultWindows, ...], max_age: timedelta | None
) -> Calendar | str:
    """The calendar, or what is wrong with the schedule."""
    try:
        calendar = Calendar(ScheduleSpec.model_validate_json(schedule), needed, defaults, max_age)
        calendar.check(datetime(day.year, day.month, day.day, tzinfo=UTC))
    except BadSchedule as error:
        return str(error)
    return calendar


def share_of(namespace: str, name: str) -> float:
    """The object's own place in a stagger: from 0 to below 1, the same for ever, and spread evenly over a fleet."""
    digest = hashlib.sha256(f"{namespace}/{name}".encode()).digest()
    return int.from_bytes(digest[:6]) / 2**48


def _seconds(span: timedelta) -> timedelta:
    return span // SECOND * SECOND
