"""Whose turn it is at a provider: rate limits, kept to without making a worker wait.

Who may not call yet is told so, keeps a place in line, and is woken with the requests it may make set aside for it.
What all objects for one account ask for counts together: they stay within the highest of their limits, and each within
its own. So nobody is slowed down by a low limit in somebody else's object.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable
from datetime import datetime

from keyturn.api.provider import RateLimit
from keyturn.controller.allowance import Account, Allowance
from keyturn.controller.index import ProviderKey
from keyturn.controller.queue import Waited
from keyturn.controller.turn import TURN, Turn, TurnKey


class Turns:
    """All accounts at providers, and all who want to call them. For one event loop."""

    def __init__(
        self, wake: Callable[[TurnKey], None], clock: Callable[[], datetime], waited: Waited = lambda *_: None
    ) -> None:
        """wake: told of whom requests have been set aside for; it must lead to a pass, or to `forget`.

        waited: told of each turn that had to be waited for.
        """
        self._waited = waited
        self._wake = wake
        self._clock = clock
        self._accounts: dict[Hashable, Account] = {}
        self._allowances: dict[ProviderKey, tuple[Hashable, Allowance]] = {}
        self._turns: dict[TurnKey, Turn] = {}

    def allowance(self, account: Hashable, key: ProviderKey, limit: RateLimit) -> Allowance:
        """What a provider object may ask of the account that it speaks of now."""
        known = self._allowances.get(key)
        if known is not None and known[0] == account:
            known[1].bucket.change(limit.requests_per_second, limit.burst, _monotonic())
            known[1].account.fit()
            return known[1]
        self.drop(key)
        there = self._accounts.get(account)
        if there is None:
            there = self._accounts[account] = Account(lambda turn: self._wake(turn.key), _monotonic, self._clock)
        made = there.allowances[key] = Allowance(there, key, limit, _monotonic())
        self._allowances[key] = account, made
        there.fit()
        return made

    def drop(self, key: ProviderKey) -> None:
        """A provider object is gone, or speaks of another account: who waits there looks again."""
        account, dropped = self._allowances.pop(key, (None, None))
        if dropped is None:
            return
        for turn in dropped.everybody():
            turn.give_back()
            self._wake(turn.key)
        del dropped.account.allowances[key]
        if dropped.account.allowances:
            dropped.account.fit()
        else:
            dropped.account.close()
            del self._accounts[account]

    def begin_pass(self, key: TurnKey, tenant: Hashable, *, hurried: bool) -> Turn:
        """The turn of an object whose pass begins; each is ended by `end_pass`."""
        turn = self._turns.get(key)
        if turn is None:
            turn = self._turns[key] = Turn(key, tenant, _monotonic, self._waited)
        turn.hurried = hurried
        TURN.set(turn)
        return turn

    def end_pass(self, turn: Turn) -> None:
        TURN.set(None)
        turn.end_pass()
        if turn.idle:
            self._turns.pop(turn.key, None)

    def forget(self, key: TurnKey) -> None:
        """This one does not call any more, nor wait."""
        turn = self._turns.pop(key, None)
        if turn is not None:
            turn.give_back()

    def clear(self) -> None:
        """Nobody waits any more. What was asked of the providers stays counted."""
        for key in list(self._turns):
            self.forget(key)


def _monotonic() -> float:
    return asyncio.get_running_loop().time()
