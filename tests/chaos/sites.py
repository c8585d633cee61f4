"""Where a rotation can be struck: every write to the API server, and every call of the provider, by name."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from sandbox.simulators.base import Simulator
from tests.e2e.proxy import Exchange

API: Final = "api"
PROVIDER: Final = "provider"
_WRITES: Final = frozenset({"POST", "PUT", "PATCH", "DELETE"})
# Leadership, and what the operator asks about its own rights.
_NOT_OURS: Final = re.compile(r"/(leases|self\w+reviews)(/|$)")
CHANGES: Final = frozenset({"start", "rotate", "cancel"})


@dataclass(frozen=True, order=True, slots=True)
class Site:
    """One request of a rotation: the nth of its kind.

    side: `api` or `provider`. what: method and object, or the operation as the provider's simulator calls it.
    """

    side: str
    what: str
    nth: int

    def __str__(self) -> str:
        return f"{self.side}: {self.what} #{self.nth}"

    @property
    def changes(self) -> bool:
        """Whether it changes something; most calls only ask the provider."""
        return self.side == API or self.what in CHANGES


def api_write(exchange: Exchange) -> str | None:
    """What a request changes on the API server; None when it changes nothing of a rotation, nor tries to."""
    path = exchange.path
    if exchange.method not in _WRITES or "dryRun" in exchange.query or _NOT_OURS.search(path):
        return None
    path = re.sub(r"^/apis?/(.*/)?namespaces/[^/]+/", "", path)
    path = re.sub(r"keyturn-journal-[^/]+", "JOURNAL", re.sub(r"events/[^/]+$", "events/EVENT", path))
    return f"{exchange.method} {path}"


class Operations:
    """The operations of a provider, by the routes of its simulator."""

    def __init__(self, simulator: Simulator) -> None:
        self._routes: list[tuple[str, re.Pattern[str], str]] = []
        for route in simulator.routes():
            pattern = re.sub(r"\\\{\w+\\\}", "[^/]+", re.escape(route.path))
            self._routes.append((route.method, re.compile(pattern), route.operation))

    def name(self, exchange: Exchange) -> str:
        """What is asked for; `unknown` when there is no such operation."""
        for method, pattern, operation in self._routes:
            if exchange.method == method and pattern.fullmatch(exchange.path):
                return operation
        return "unknown"


@dataclass
class Counted:
    """The requests so far, in the order in which they came."""

    seen: list[Site] = field(default_factory=list)
    _kinds: Counter[tuple[str, str]] = field(default_factory=Counter)

    def add(self, side: str, what: str) -> Site:
        """The site of the next request of this kind."""
        self._kinds[side, what] += 1
        site = Site(side, what, self._kinds[side, what])
        self.seen.append(site)
        return site
