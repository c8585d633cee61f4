"""What was measured, in numbers, and what it should be."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from benchmarks.due import CONCURRENCY, PER_NAMESPACE

Results = dict[str, float | dict[str, float]]


@dataclass(frozen=True)
class Goal:
    """A bound: the greatest value that is good, or with `least` the smallest one."""

    bound: float
    least: bool = False

    def __str__(self) -> str:
        return f"{'≥' if self.least else '≤'} {self.bound:g}"

    def met(self, value: float) -> bool:
        """Whether it is reached."""
        return value >= self.bound if self.least else value <= self.bound

    def used(self, value: float) -> float:
        """The share of what it allows that is used: 1 at the bound, more beyond it."""
        if self.bound == 0:
            return 0.0 if value <= 0 else float("inf")
        return (self.bound / value if value else float("inf")) if self.least else value / self.bound


# DESIGN.md, section 8, and what issue 6 must show.
GOALS: Final = {
    "rotationOverheadRatio": Goal(1.5),
    "apiWritesPerRotation": Goal(12),
    "eventsPerRotation": Goal(4),
    "throughputRatio": Goal(0.7, least=True),
    "resyncRatioToListWatch": Goal(3),
    "rssMiB10k": Goal(150),
    "writesOnRestart10k": Goal(0),
    "vsCustomaryKopf.timeRatio": Goal(5, least=True),
    "vsCustomaryKopf.rssRatio": Goal(3, least=True),
    "immediateWriteRoundTrips.p50": Goal(3),
    "writesAtRest10k": Goal(0),
    "dueTogether.lost": Goal(0),
    "dueTogether.twice": Goal(0),
    "dueTogether.mostAtOnce": Goal(CONCURRENCY),
    "dueTogether.mostAtOnceInANamespace": Goal(PER_NAMESPACE),
}


def flat(results: Results) -> Iterator[tuple[str, float]]:
    """Each number with its name; with dots where it is inside of another."""
    for name, value in results.items():
        if isinstance(value, dict):
            yield from ((f"{name}.{inner}", number) for inner, number in value.items())
        else:
            yield name, value


def met(name: str, value: float) -> bool | None:
    """Whether the goal is reached; None where there is none."""
    goal = GOALS.get(name)
    return None if goal is None else goal.met(value)


def spread(values: Sequence[float]) -> tuple[float, float, float]:
    """The median, the least and the greatest."""
    return round(statistics.median(values), 3), min(values), max(values)


def ratio(over: Sequence[float], under: Sequence[float]) -> float:
    """Of the medians."""
    return round(statistics.median(over) / statistics.median(under), 3)
