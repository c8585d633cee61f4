"""The times of cron expressions.

What they mean is left to cronsim, which follows Debian's cron: a local time that a change of the clock skips is made up
for right after it, one that comes twice counts once. All times that are returned are in UTC, to the second.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

SECOND: Final = timedelta(seconds=1)
# A local time comes twice within this time, if it does: no clock was ever set back further by daylight-saving time.
_FOLD: Final = timedelta(hours=3)
# A fleet, and a search for windows, ask again and again about the same stretches of time.
_KNOWN_GAPS: Final = 8


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
        start = (moment.replace(microsecond=0) + SECOND).astimezone(self._zone)
        times = (found.astimezone(UTC) for found in CronSim(self._cron, start, reverse=True))
        return next((time for time in times if time <= moment), None)

    def _between(self, start: datetime, end: datetime) -> Iterator[datetime]:
        for time in self.after(start):
            if time > end:
                return
            yield time


def times_of(cron: str, zone: ZoneInfo, field: str) -> Times:
    """The times of an expression that was written in a field. Raises BadSchedule."""
    try:
        CronSim(cron, datetime(2000, 1, 1, tzinfo=zone))
    except CronSimError as error:
        # Such as "Bad minute": it names the part and not the value.
        raise BadSchedule(f"{field}: {str(error).lower()}: correct it") from None
    return Times(cron, zone)


def zone_of(name: str, field: str) -> ZoneInfo:
    """The time zone that is named in a field. Raises BadSchedule."""
    try:
        return ZoneInfo(name)
    # What else it raises depends on what the machine has under that name (python/cpython#85702).
    except (KeyError, ValueError, OSError):
        raise BadSchedule(f"{field}: not a known time zone: name one such as Europe/Berlin") from None


def must_come(times: Times, field: str, now: datetime) -> None:
    """Raise BadSchedule where an expression names days that there never are."""
    if times.next(now) is None:
        raise BadSchedule(f"{field}: there is no such day: correct it")
