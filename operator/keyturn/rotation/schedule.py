"""Calendars: the times of a cron expression, intervals, windows, and the stagger that keeps a fleet apart.

Pure: time comes in as an argument, and the same arguments give the same times. What cron expressions mean is left to
cronsim, which follows Debian's cron: a local time that a change of the clock skips is made up for right after it, one
that comes twice counts once. All times that are returned are in UTC, to the second.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import Final
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from keyturn.api.schedule import ScheduleSpec, Window, WindowKind

LONGEST_DEFAULT_STAGGER: Final = timedelta(hours=1)
_SECOND: Final = timedelta(seconds=1)
# A local time comes twice within this time, if it does: no clock was ever set back further by daylight-saving time.
_FOLD: Final = timedelta(hours=3)
# Windows are followed one by one. Where so many lead to no room for a rotation, there is taken to be none.
_MOST_WINDOWS: Final = 1000
# A fleet, and a search for windows, ask again and again about the same stretches of time.
_KNOWN_GAPS: Final = 8
_FAR: Final = datetime(9000, 1, 1, tzinfo=UTC)


class BadSchedule(Exception):
    """A schedule that can never be met; the text names the field and the remedy, and never a value."""


@dataclass(frozen=True, slots=True)
class _Gap:
    """A stretch without times of an expression, until `end`, which is one; `start` is one too where it is `whole`."""

    start: datetime
    end: datetime
    whole: bool = False


class Times:
    """The times of a cron expression in a time zone."""

    def __init__(self, cron: str, zone: ZoneInfo) -> None:
        self._cron = cron
        self._zone = zone
        self._gaps: deque[_Gap] = deque(maxlen=_KNOWN_GAPS)

    def after(self, moment: datetime) -> Iterator[datetime]:
        """The times later than `moment`, in order; it ends where there is none for fifty years."""
        last = moment
        for found in CronSim(self._cron, moment.astimezone(self._zone)):
            time = found.astimezone(UTC)
            # In the hour that comes twice, cronsim names the first one, which may be over.
            if time > last:
                yield time
                last = time

    def next(self, moment: datetime) -> datetime | None:
        """The first time later than `moment`."""
        gap = self._gap(moment)
        if gap is not None:
            return gap.end
        found = next(self.after(moment), None)
        if found is not None:
            self._gaps.append(_Gap(moment, found))
        return found

    def latest(self, moment: datetime) -> datetime | None:
        """The last time that is not later than `moment`."""
        gap = self._gap(moment, whole=True)
        if gap is not None:
            return gap.start
        found, following = self._before(moment), self.next(moment)
        if found is not None and following is not None:
            self._gaps.append(_Gap(found, following, whole=True))
        return found

    def _gap(self, moment: datetime, *, whole: bool = False) -> _Gap | None:
        return next((gap for gap in self._gaps if gap.start <= moment < gap.end and (gap.whole or not whole)), None)

    def _before(self, moment: datetime) -> datetime | None:
        if moment.astimezone(self._zone).fold:
            recent = list(self._between(moment - _FOLD, moment))
            if recent:
                return recent[-1]
        start = (moment.replace(microsecond=0) + _SECOND).astimezone(self._zone)
        times = (found.astimezone(UTC) for found in CronSim(self._cron, start, reverse=True))
        return next((time for time in times if time <= moment), None)

    def _between(self, start: datetime, end: datetime) -> Iterator[datetime]:
        for time in self.after(start):
            if time > end:
                return
            yield time


@dataclass(frozen=True, slots=True)
class _Opened:
    """A window with its calendar."""

    times: Times
    duration: timedelta

    def end(self, moment: datetime) -> datetime | None:
        """When it closes, if it is open."""
        begun = self.times.latest(moment)
        return begun + self.duration if begun is not None and begun + self.duration > moment else None


@dataclass(frozen=True, slots=True)
class Opening:
    """A stretch of time in which a rotation may begin: at `begin`, and until `last`."""

    begin: datetime
    last: datetime


class Calendar:
    """A schedule, read once: when rotations are due, and when they may begin. Made by `calendar_of`."""

    def __init__(self, schedule: ScheduleSpec, needed: timedelta) -> None:
        """needed: how long a rotation may take, for which a window must leave room."""
        zone = _zone(schedule.time_zone, "timeZone")
        self._needed = needed
        self._stagger = schedule.stagger
        self.times = Times(_checked(schedule.cron, zone, "cron"), zone) if schedule.cron is not None else None
        self._interval = schedule.interval
        self._windows = [(window.kind, _opened(window, zone, index)) for index, window in enumerate(schedule.windows)]
        self._allows = [window for kind, window in self._windows if kind is WindowKind.ALLOW]
        self._denies = [window for kind, window in self._windows if kind is WindowKind.DENY]

    def check(self, now: datetime) -> None:
        """Raise BadSchedule where a cron expression never fires, or no window leaves room for a rotation."""
        fields = {"cron": self.times} if self.times is not None else {}
        fields |= {f"windows[{index}].schedule": window.times for index, (_, window) in enumerate(self._windows)}
        for field, times in fields.items():
            if times.next(now) is None:
                raise BadSchedule(f"spec.schedule.{field}: there is no such day: correct it")
        self.opening(now)

    def opening(self, earliest: datetime) -> Opening:
        """The first stretch, from `earliest` on, in which a rotation may begin and has room until it must be over."""
        begin = earliest
        for _ in range(_MOST_WINDOWS):
            closed = max(filter(None, (window.end(begin) for window in self._denies)), default=None)
            if closed is not None:
                begin = closed
                continue
            end = self._allowed_until(begin) if self._allows else _FAR
            if end == begin:
                begin = _first_start(self._allows, begin)
                if begin == _FAR:
                    break
                continue
            end = min(end, _first_start(self._denies, begin))
            if begin + self._needed <= end:
                return Opening(begin, end - self._needed)
            begin = end
        remedy = "make them longer, or spec.rollout.timeout shorter"
        raise BadSchedule(f"spec.schedule.windows: they never leave room for spec.rollout.timeout: {remedy}")

    def placed(self, due: datetime, share: float) -> datetime:
        """The first time, from `due` on, at which a rotation may begin, staggered where a window has to open first."""
        return self._staggered(self.opening(due), due, share)

    def begins(self, due: datetime, share: float, now: datetime) -> datetime:
        """When a rotation that was due then begins: now at the earliest, and in a window that has just opened in turn.

        The same until then, whenever it is asked.
        """
        start = max(due, now - self.stagger(now))
        while True:
            opening = self.opening(start)
            time = self._staggered(opening, start, share)
            if time >= now:
                return time
            if opening.last >= now:
                return now
            start = opening.last + _SECOND

    def _staggered(self, opening: Opening, asked: datetime, share: float) -> datetime:
        if opening.begin == asked:
            return asked
        room = min(self.stagger(opening.begin), opening.last - opening.begin)
        return opening.begin + _seconds(room * share)

    def due_after(self, last: datetime, share: float) -> datetime | None:
        """When the next rotation is due after one that was completed, windows aside; None without times of its own.

        An interval is never exceeded by the stagger, and a cron time never anticipated.
        """
        stagger = _seconds(self.stagger(last) * share)
        if self._interval is not None:
            return (last + self._interval - stagger).replace(microsecond=0)
        found = self.times.next(last - stagger) if self.times is not None else None
        return found + stagger if found is not None else None

    def stagger(self, moment: datetime) -> timedelta:
        """Over how long rotations that fall due at about that time are spread."""
        if self._stagger is not None:
            return self._stagger
        between = self._interval
        if self.times is not None:
            first = self.times.next(moment)
            second = self.times.next(first) if first is not None else None
            between = second - first if first is not None and second is not None else None
        return min(between / 10, LONGEST_DEFAULT_STAGGER) if between is not None else LONGEST_DEFAULT_STAGGER

    def _allowed_until(self, moment: datetime) -> datetime:
        """Until when windows that allow follow upon each other, as far as that matters; `moment` where none is open."""
        end, enough = moment, moment + self._needed + self.stagger(moment)
        while end < enough:
            closes = max(filter(None, (window.end(end) for window in self._allows)), default=None)
            if closes is None:
                break
            end = closes
        return end


def calendar_of(schedule: ScheduleSpec, needed: timedelta, now: datetime) -> Calendar:
    """The calendar of a schedule for rotations that may take so long, which was found good. Raises BadSchedule."""
    found = _judged(schedule.model_dump_json(), needed, now.date())
    if isinstance(found, str):
        raise BadSchedule(found)
    return found


# A fleet has few schedules, and a bad one may take long to judge: it is done once a day.
@lru_cache(maxsize=1024)
def _judged(schedule: str, needed: timedelta, day: date) -> Calendar | str:
    """The calendar, or what is wrong with the schedule."""
    try:
        calendar = Calendar(ScheduleSpec.model_validate_json(schedule), needed)
        calendar.check(datetime(day.year, day.month, day.day, tzinfo=UTC))
    except BadSchedule as error:
        return str(error)
    return calendar


def share_of(namespace: str, name: str) -> float:
    """The object's own place in a stagger: from 0 to below 1, the same for ever, and spread evenly over a fleet."""
    digest = hashlib.sha256(f"{namespace}/{name}".encode()).digest()
    return int.from_bytes(digest[:6]) / 2**48


def _first_start(windows: Sequence[_Opened], moment: datetime) -> datetime:
    return min(filter(None, (window.times.next(moment) for window in windows)), default=_FAR)


def _opened(window: Window, zone: ZoneInfo, index: int) -> _Opened:
    field = f"windows[{index}]"
    if window.time_zone is not None:
        zone = _zone(window.time_zone, f"{field}.timeZone")
    times = Times(_checked(window.schedule, zone, f"{field}.schedule"), zone)
    return _Opened(times, window.duration)


def _zone(name: str, field: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    # What else it raises depends on what the machine has under that name (python/cpython#85702).
    except (KeyError, ValueError, OSError):
        raise BadSchedule(f"spec.schedule.{field}: not a known time zone: name one such as Europe/Berlin") from None


def _checked(cron: str, zone: ZoneInfo, field: str) -> str:
    try:
        CronSim(cron, datetime(2000, 1, 1, tzinfo=zone))
    except CronSimError as error:
        # Such as "Bad minute": it names the part and not the value.
        raise BadSchedule(f"spec.schedule.{field}: {str(error).lower()}: correct it") from None
    return cron


def _seconds(span: timedelta) -> timedelta:
    return span // _SECOND * _SECOND
