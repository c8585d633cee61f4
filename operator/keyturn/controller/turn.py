"""The turn of one object at a provider: what it may ask for in its passes, and its place in line."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final

from keyturn.controller.index import Key, ProviderKey
from keyturn.controller.queue import Waited

if TYPE_CHECKING:
    from keyturn.controller.allowance import Allowance

TurnKey = Key | ProviderKey
"""Who calls: a rotation, or a provider object that is checked."""

LONG_SECONDS: Final = 5.0
"""Who waits longer than this, or will, says so in the status; shorter waits are not worth a write."""


class Turn:
    """The requests that one object may make in its passes. One for each object that is in work or in line."""

    def __init__(self, key: TurnKey, tenant: Hashable, clock: Callable[[], float], waited: Waited) -> None:
        self._waited = waited
        self.key = key
        self.tenant = tenant
        self.hurried = False
        """Whether it goes before others: for what has begun, and for what is urgent."""
        self.wanted = 0
        self.held = 0
        """Requests that are set aside for it."""
        self._clock = clock
        self._at: Allowance | None = None
        self._since: float | None = None
        self._refused = False

    def take(self, allowance: Allowance, needed: int, wanted: int) -> bool:
        """Whether so many requests may be made now; if not, this is woken when `wanted` are set aside for it."""
        if self._at is not allowance:
            self.give_back()
            self._at = allowance
        if self.held < needed or allowance.account.shut(needed):
            self.keep(0)
            self.wanted = max(needed, wanted)
            allowance.join(self)
            allowance.account.serve(asking=self)
        self._refused = self.held < needed
        if not self._refused and self._since is not None:
            self._waited(self.hurried, self._clock() - self._since)
            self._since = None
        elif self._refused and self._since is None:
            self._since = self._clock()
        return not self._refused

    def spend(self, allowance: Allowance) -> bool:
        """Whether a request that is about to be sent was set aside."""
        if self._at is not allowance or not self.held:
            return False
        self.held -= 1
        return True

    def keep(self, count: int) -> None:
        """Give back what is set aside beyond so many."""
        if self._at is not None and self.held > count:
            surplus, self.held = self.held - count, count
            self._at.credit(surplus)

    @property
    def long(self) -> bool:
        """Whether this has waited for long, or will."""
        waited = self._clock() - self._since if self._since is not None else 0.0
        return max(waited, self._at.estimate(self) if self._at is not None else 0.0) >= LONG_SECONDS

    def end_pass(self) -> None:
        """Nothing more is called in this pass: who was refused stays in line, or keeps what has come since."""
        if not self._refused:
            self.give_back()

    def give_back(self) -> None:
        """Leave the line, with nothing."""
        if self._at is not None:
            self._at.leave(self)
            self.keep(0)
            self._at.account.leave(self)
        self._at, self._since, self._refused = None, None, False

    @property
    def idle(self) -> bool:
        return self._at is None


TURN: Final[ContextVar[Turn | None]] = ContextVar("turn", default=None)
"""The turn of the object that is worked on. Calls without one are counted, and never held back."""
