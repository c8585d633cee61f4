"""What may be asked of a provider account: by the limits of all objects for it, and by what the provider says."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final

from keyturn.api.base import format_time
from keyturn.api.provider import RateLimit
from keyturn.api.semantics import Effect, Failure, Outcome
from keyturn.controller.buckets import Bucket, Window
from keyturn.controller.index import ProviderKey
from keyturn.controller.queue import URGENT_IN_A_ROW, Line
from keyturn.controller.turn import LONG_SECONDS, TURN, Turn

_SAME_WINDOW_SECONDS: Final = 2.0  # providers count in full seconds
_LOOK_AGAIN: Final = timedelta(minutes=10)  # who waits is woken; this is for the case of a defect


class Allowance:
    """What one provider object may ask of its account. A `keyturn.providers.http.Limit`."""

    def __init__(self, account: Account, key: ProviderKey, limit: RateLimit, now: float) -> None:
        self.account = account
        self.key = key
        self.bucket = Bucket(limit.requests_per_second, limit.burst, now)
        self._lines: dict[bool, Line[Turn]] = {True: Line(), False: Line()}
        self._waiting: dict[Turn, bool] = {}
        self._hurried_in_a_row = 0

    def join(self, turn: Turn) -> None:
        """Get in line; who is there already keeps the place."""
        if self._waiting.get(turn) is turn.hurried:
            return
        self.leave(turn)
        self._waiting[turn] = turn.hurried
        self._lines[turn.hurried].put(turn.tenant, turn)

    def leave(self, turn: Turn) -> None:
        hurried = self._waiting.pop(turn, None)
        if hurried is not None:
            self._lines[hurried].remove(turn.tenant, turn)

    def first(self) -> Turn | None:
        """Whose turn is next: tenants take turns, what is hurried goes first, but never for ever."""
        hurried, usual = self._lines[True].first(), self._lines[False].first()
        if usual is None or (hurried is not None and self._hurried_in_a_row < URGENT_IN_A_ROW):
            return hurried
        return usual

    def served(self, turn: Turn) -> None:
        hurried = self._waiting.pop(turn)
        self._lines[hurried].take(lambda _: True)
        self._hurried_in_a_row = self._hurried_in_a_row + 1 if hurried else 0

    def everybody(self) -> list[Turn]:
        return list(self._waiting)

    def credit(self, count: int) -> None:
        """Requests that were set aside are not made."""
        self.bucket.put_back(count)
        self.account.credit(count)

    def estimate(self, turn: Turn) -> float:
        """In how many seconds it may be this one's turn, if those before it make all the requests they want."""
        ahead = sum(other.wanted for other, hurried in self._waiting.items() if hurried >= turn.hurried)
        rest = self.account.wait(self, turn.wanted)
        return max(rest, (ahead - self.bucket.tokens) / self.bucket.rate)

    def held_back(self, turn: Turn) -> Outcome:
        """Why a call is not made yet, as its outcome."""
        kind, _, name = self.key
        why = self.account.word() or (
            f"spec.rateLimit of {kind} {name} allows {self.bucket.rate} requests in a second, and others are before it"
        )
        after = _LOOK_AGAIN if turn.long else timedelta(seconds=LONG_SECONDS)
        return Outcome(Effect.NOT_APPLIED, Failure.HELD_BACK, f"waits for its turn at the provider: {why}", after)

    def heard(self, outcome: Outcome) -> None:
        """Take in how a call has ended: who is asked to wait, or was too fast, lets the account alone for a while."""
        limited = outcome.failure is Failure.RATE_LIMITED
        if outcome.retry_after is not None and (limited or outcome.failure is Failure.UNREACHABLE):
            self.account.pause(outcome.retry_after)
            return
        if limited:
            self.account.drain()
        self.account.open()

    def sent(self) -> None:
        turn = TURN.get()
        set_aside = turn is not None and turn.spend(self)
        if not set_aside:
            self.bucket.tokens -= 1
        self.account.sent(set_aside=set_aside)

    def ended(self) -> None:
        self.account.ended()

    def told(self, limit: int | None, remaining: int, reset: float) -> None:
        self.account.told(limit, remaining, reset)


class Account:
    """One account at a provider: what all objects for it ask for, and what the provider says."""

    def __init__(self, wake: Callable[[Turn], None], clock: Callable[[], float], now: Callable[[], datetime]) -> None:
        self.allowances: dict[ProviderKey, Allowance] = {}
        self._bucket = Bucket(1, 0, clock())
        self._wake = wake
        self._clock = clock
        self._now = now
        self._paused_until = -math.inf
        self._paused_until_time: datetime | None = None
        self._wary = False
        """After a pause one call is tried before the others, or the quickest would be refused for everybody."""
        self._trial: Turn | None = None
        self._window: Window | None = None
        self._in_flight = 0
        self._set_aside = 0
        self._timer: asyncio.TimerHandle | None = None

    def sent(self, *, set_aside: bool) -> None:
        self._in_flight += 1
        if set_aside:
            self._set_aside -= 1
        else:
            self._bucket.tokens -= 1
        if self._window is not None:
            self._window.left -= 1

    def fit(self) -> None:
        """Keep to the highest limit of the objects that there are."""
        buckets = [allowance.bucket for allowance in self.allowances.values()]
        rate, burst = (max(getattr(bucket, name) for bucket in buckets) for name in ("rate", "burst"))
        grown = burst - self._bucket.burst
        self._bucket.change(rate, burst, self._clock())
        self._bucket.put_back(max(grown, 0))
        self.serve()

    def ended(self) -> None:
        self._in_flight -= 1

    def told(self, limit: int | None, remaining: int, reset: float) -> None:
        """What is on its way may not be counted in what the provider says."""
        now = self._clock()
        left, until = remaining - (self._in_flight - 1), now + reset
        known = self._window if self._window is not None and self._window.until > now else None
        if known is None or until > known.until + _SAME_WINDOW_SECONDS:
            self._window = Window(until, left, limit)
        elif until > known.until - _SAME_WINDOW_SECONDS:
            known.left, known.limit = min(known.left, left), limit
        self.serve()

    def pause(self, wait: timedelta) -> None:
        until = self._clock() + wait.total_seconds()
        if until > self._paused_until:
            self._paused_until = until
            self._paused_until_time = self._now() + wait
        self._wary, self._trial = True, None
        self.serve()

    def open(self) -> None:
        """It takes calls again."""
        if self._wary:
            self._wary, self._trial = False, None
            self.serve()

    def leave(self, turn: Turn) -> None:
        """Whatever came of its call, if it made one: others are not kept waiting for it."""
        if self._trial is turn:
            self._trial = None
            self.serve()

    def drain(self) -> None:
        """We were too fast, and nobody says how fast is right: from now on at the steady rate."""
        self._bucket.refill(self._clock())
        self._bucket.tokens = min(self._bucket.tokens, 0.0)
        self.serve()

    def credit(self, count: int) -> None:
        """As `Allowance.credit`."""
        self._set_aside -= count
        self._bucket.put_back(count)
        self.serve()

    def shut(self, needed: int) -> bool:
        """Whether the provider has said meanwhile that it takes no such call now, whatever was set aside."""
        now, window = self._clock(), self._window
        return self._paused_until > now or (window is not None and window.until > now and not window.holds(needed))

    def wait(self, allowance: Allowance, wanted: int) -> float:
        """Seconds until so many requests may be set aside, if nobody else asks."""
        now = self._clock()
        waits = [allowance.bucket.wait(wanted, now), self._bucket.wait(wanted, now), self._paused_until - now]
        window = self._window
        if window is not None and not window.holds(wanted, self._set_aside):
            waits.append(window.until - now)
        return max(waits)

    def word(self) -> str | None:
        """What the provider has asked for, while that holds."""
        now = self._clock()
        if self._paused_until > now and self._paused_until_time is not None:
            return f"it asks to be left alone until {format_time(self._paused_until_time)}"
        if self._window is not None and self._window.left < 1 and self._window.until > now:
            return "by its own count it takes no more requests for now"
        if self._trial is not None:
            return "it has asked to be left alone, and one call is tried before the others"
        return None

    def serve(self, asking: Turn | None = None) -> None:
        """Set requests aside for those in line, as far as there are any; the objects of the account take turns.

        asking: it is there already, and needs not be woken.
        """
        if self._window is not None and self._window.until <= self._clock():
            self._window = None
        soonest, progress = math.inf, True
        while progress and self._trial is None:
            soonest, progress = math.inf, False
            for key, allowance in list(self.allowances.items()):
                turn = allowance.first()
                if turn is None or self._trial is not None:
                    continue
                wait = self.wait(allowance, turn.wanted)
                if wait > 0:
                    soonest = min(soonest, wait)
                    continue
                progress = True
                self.allowances[key] = self.allowances.pop(key)  # the others go first next time
                self._set_aside_for(allowance, turn)
                if turn is not asking:
                    self._wake(turn)
        self._arm(soonest)

    def close(self) -> None:
        self._arm(math.inf)

    def _set_aside_for(self, allowance: Allowance, turn: Turn) -> None:
        allowance.served(turn)
        self._trial = turn if self._wary else None
        turn.held += turn.wanted
        self._set_aside += turn.wanted
        allowance.bucket.tokens -= turn.wanted
        self._bucket.tokens -= turn.wanted

    def _arm(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if seconds < math.inf:
            # A little late is better than once more for a rounding error.
            self._timer = asyncio.get_running_loop().call_later(seconds + 0.001, self.serve)
