"""Windows: the stretches of time in which rotations may begin, by one set of windows or by several at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

from keyturn.api.base import format_duration
from keyturn.api.schedule import Window, WindowKind
from keyturn.rotation.cron import BadSchedule, Times, must_come, times_of, zone_of

# Windows are followed one by one. Where so many lead to no room for a rotation, there is taken to be none.
_MOST_WINDOWS: Final = 1000
_FAR: Final = datetime(9000, 1, 1, tzinfo=UTC)
_SHORTEST_ROLLOUT: Final = timedelta(seconds=10)


@dataclass(frozen=True, slots=True)
class Opening:
    """A stretch of time in which a rotation may begin: at `begin`, and until `last`."""

    begin: datetime
    last: datetime


@dataclass(frozen=True, slots=True)
class _Opened:
    """A window with its calendar."""

    field: str
    times: Times
    duration: timedelta

    def end(self, moment: datetime) -> datetime | None:
        """When it closes, if it is open."""
        begun = self.times.latest(moment)
        return begun + self.duration if begun is not None and begun + self.duration > moment else None


class WindowSet:
    """The windows that one object has: a rotation, or a policy."""

    def __init__(self, windows: Sequence[Window], time_zone: str, place: str, owner: str = "") -> None:
        """place: the field around `windows` and `timeZone`. owner: whose field that is, if not the rotation's own.

        Raises BadSchedule.
        """
        zone = zone_of(time_zone, f"{place}.timeZone")
        self.name = f"{owner}{place}.windows"
        opened = [
            (window.kind, _opened(window, zone, f"{place}.windows[{index}]")) for index, window in enumerate(windows)
        ]
        self.allows = [window for kind, window in opened if kind is WindowKind.ALLOW]
        self.denies = [window for kind, window in opened if kind is WindowKind.DENY]

    def check(self, now: datetime) -> None:
        """Raise BadSchedule where one of the windows never opens."""
        for window in (*self.allows, *self.denies):
            must_come(window.times, f"{window.field}.schedule", now)

    def allowed_until(self, moment: datetime, enough: datetime) -> datetime:
        """Until when windows that allow follow upon each other, as far as that matters; `moment` where none is open."""
        if not self.allows:
            return _FAR
        end = moment
        while end < enough:
            closes = max(filter(None, (window.end(end) for window in self.allows)), default=None)
            if closes is None:
                break
            end = closes
        return end


class Openings:
    """When rotations may begin, by several sets of windows of which all must permit it."""

    def __init__(self, sets: Sequence[WindowSet], needed: timedelta) -> None:
        """needed: how long a rotation may take, for which there must be room."""
        self._sets = sets
        self._needed = needed
        self._denies = [window for one in sets for window in one.denies]

    @property
    def always(self) -> bool:
        """Whether there are no windows at all."""
        return not self._sets

    @property
    def name(self) -> str:
        """The fields that say so."""
        return " and ".join(one.name for one in self._sets)

    def first(self, earliest: datetime, spread: timedelta) -> Opening:
        """The first one from `earliest` on. spread: how much of it counts, beyond the room that is needed.

        Raises BadSchedule where there is none.
        """
        begin = earliest
        for _ in range(_MOST_WINDOWS):
            closed = max(filter(None, (window.end(begin) for window in self._denies)), default=None)
            if closed is not None:
                begin = closed
                continue
            ends = [one.allowed_until(begin, begin + self._needed + spread) for one in self._sets]
            shut = [one for one, end in zip(self._sets, ends, strict=True) if end == begin]
            if shut:
                begin = max(_first_start(one.allows, begin) for one in shut)
                if begin == _FAR:
                    break
                continue
            end = min([*ends, _first_start(self._denies, begin)])
            if begin + self._needed <= end:
                return Opening(begin, end - self._needed)
            begin = end
        remedy = "make them longer, or spec.rollout.timeout shorter"
        raise BadSchedule(f"{self.name}: they never leave room for spec.rollout.timeout: {remedy}")

    def last_until(self, moment: datetime, earliest: datetime, spread: timedelta) -> Opening | None:
        """The last one that begins between `earliest` and `moment`, if there is one. May raise BadSchedule."""
        span = timedelta(hours=12)
        while True:
            start = max(earliest, moment - span)
            found, following = None, self.first(start, spread)
            while following.begin <= moment:
                found, following = following, self.first(following.last + timedelta(seconds=1), spread)
            if found is not None or start == earliest:
                return found
            span *= 2


def check_windows(windows: Sequence[Window], time_zone: str, now: datetime) -> None:
    """Raise BadSchedule where the windows of a policy make no sense, or never let any rotation begin."""
    one = WindowSet(windows, time_zone, "spec")
    one.check(now)
    try:
        Openings([one], _SHORTEST_ROLLOUT).first(now, timedelta())
    except BadSchedule:
        least = format_duration(_SHORTEST_ROLLOUT)
        raise BadSchedule(f"{one.name}: they never leave room for a rotation, not even for {least}") from None


def _first_start(windows: Sequence[_Opened], moment: datetime) -> datetime:
    return min(filter(None, (window.times.next(moment) for window in windows)), default=_FAR)


def _opened(window: Window, zone: ZoneInfo, field: str) -> _Opened:
    if window.time_zone is not None:
        zone = zone_of(window.time_zone, f"{field}.timeZone")
    return _Opened(field, times_of(window.schedule, zone, f"{field}.schedule"), window.duration)
