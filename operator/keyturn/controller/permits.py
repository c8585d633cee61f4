"""Permits to run, by the concurrency of RotationPolicies: never more than they allow, whatever crashes.

A rotation begins only with an entry of its own in `status.running` of every policy that limits it. The entries are
written with a resourceVersion precondition, so that replicas cannot both take the last place; one writer for each
policy takes requests and returns together. What runs without an entry, because the policy came later, counts as well.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from keyturn.cluster.client import Kube
from keyturn.controller.index import Index, Key
from keyturn.controller.ledger import Ledger
from keyturn.controller.source import Seen
from keyturn.rotation.world import Problem

FRESH_SECONDS: Final = 15.0
"""No rotation begins on a permit that was asked for longer ago: others may think by then that it never will."""


class Permits:
    """The permits of all policies that limit how many rotations run. For one event loop."""

    def __init__(self, kube: Kube, index: Index, wake: Callable[[Key], None], seen: Seen) -> None:
        """wake: told of rotations for which there may be room now. seen: takes in what was read on the way."""
        self._kube = kube
        self._index = index
        self._wake = wake
        self._seen = seen
        self._ledgers: dict[str, Ledger] = {}
        self._told: set[Key] = set()
        """Who was told to wait, in a pass that has not ended yet."""

    def begin(self) -> None:
        """Know all policies as they are now. What was written by others may still be about to begin."""
        for name in self._index.coverage.policies():
            self._note(name, settle=False)

    def changed(self, name: str) -> None:
        """A policy was seen."""
        self._note(name, settle=True)

    def ran(self) -> None:
        """A rotation was seen to run, or not to run any more."""
        for ledger in self._ledgers.values():
            ledger.ran()

    def limits(self, key: Key) -> bool:
        """Whether this rotation needs a permit."""
        return bool(self._limiting(key))

    def room(self, key: Key, *, urgent: bool) -> Problem | None:
        """Why this rotation cannot begin for now, as far as is known without asking. What is urgent can."""
        account = self._index.account_of(key)
        problems = (ledger.room(key, account, urgent=urgent) for ledger in self._limiting(key))
        return next((problem for problem in problems if problem is not None), None)

    async def take(self, key: Key, account: str | None, *, urgent: bool) -> Problem | None:
        """Ask for what it takes to begin now; None when it is written down. Raises ClusterError.

        What is urgent is never refused, and counts. Use it at once, and call `end_pass` in any case.
        """
        account = account or self._index.account_of(key)
        while True:
            begun = _now()
            for ledger in self._limiting(key):
                refusal = await ledger.take(key, account, urgent=urgent)
                if refusal is not None:
                    return refusal
            if _now() - begun <= FRESH_SECONDS:
                return None

    def wait(self, key: Key) -> None:
        """Stand in line where there is no room, and keep nobody out where there is: they may wait for each other."""
        account = self._index.account_of(key)
        self._told.add(key)
        for ledger in self._limiting(key):
            if ledger.room(key, account, urgent=False) is not None:
                ledger.wait(key, account)
            else:
                ledger.decline(key)

    def end_pass(self, key: Key) -> None:
        """A pass of this rotation has ended: what it does not use is given back, and it waits no longer for nothing."""
        waits = key in self._told
        self._told.discard(key)
        for ledger in list(self._ledgers.values()):
            ledger.end_pass(key, waits=waits)

    def waiting(self) -> int:
        """How many rotations wait for room."""
        return len({key for ledger in self._ledgers.values() for key in ledger.line.everybody()})

    def clear(self) -> None:
        """Nobody works here any more."""
        for ledger in self._ledgers.values():
            ledger.close()
        self._ledgers.clear()
        self._told.clear()

    def _limiting(self, key: Key) -> list[Ledger]:
        if not self._ledgers:
            return []
        names = sorted(policy.name for policy in self._index.policies_of(key))
        return [self._ledgers[name] for name in names if name in self._ledgers and self._ledgers[name].limits]

    def _note(self, name: str, *, settle: bool) -> None:
        policy, known = self._index.coverage.policy(name), self._ledgers.get(name)
        if known is None and policy is not None and self._speaks(name):
            known = self._ledgers[name] = Ledger(name, self._kube, self._index, self._wake, self._seen)
        if known is None:
            return
        known.note(settle=settle)
        if policy is None or not self._speaks(name):
            for key in known.line.everybody():
                self._wake(key)
            known.close()
            del self._ledgers[name]

    def _speaks(self, name: str) -> bool:
        """Whether this policy limits anything, or has entries from a time when it did."""
        raw = self._index.coverage.raw(name) or {}
        return bool((raw.get("spec") or {}).get("concurrency") or (raw.get("status") or {}).get("running"))


def _now() -> float:
    return asyncio.get_running_loop().time()
