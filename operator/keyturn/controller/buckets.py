"""How many requests may be made: token buckets, and what a provider counts by itself."""

from __future__ import annotations

from dataclasses import dataclass


class Bucket:
    """Tokens: `burst` at most, `rate` more each second. Below zero there are debts, which are paid first."""

    def __init__(self, rate: int, burst: int, now: float) -> None:
        self._filled = now
        self.rate, self.burst = rate, burst
        self.tokens = float(burst)

    def change(self, rate: int, burst: int, now: float) -> None:
        """Keep to another limit from now on."""
        self.refill(now)
        self.rate, self.burst = rate, burst
        self.tokens = min(self.tokens, burst)

    def refill(self, now: float) -> None:
        self.tokens = min(self.burst, self.tokens + (now - self._filled) * self.rate)
        self._filled = now

    def wait(self, wanted: int, now: float) -> float:
        """Seconds until so many are there; more than fit are lent as soon as it is full."""
        self.refill(now)
        return max(min(wanted, self.burst) - self.tokens, 0.0) / self.rate

    def put_back(self, count: int) -> None:
        self.tokens = min(self.tokens + count, self.burst)


@dataclass(slots=True)
class Window:
    """What the provider takes until a time of its own. limit: in all, where it says so."""

    until: float
    left: int
    limit: int | None

    def holds(self, wanted: int, set_aside: int = 0) -> bool:
        """Whether so many requests fit, beside those that are set aside; what never would does when it is full."""
        return self.left - set_aside >= min(wanted, self.limit or 1)
