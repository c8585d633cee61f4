"""Who may run by the concurrency of one RotationPolicy, as it is written in the policy's `status.running`.

An entry whose rotation has ended is taken out by the pass that saw it end. One that nobody began with, because its
process died, is taken out when a minute has passed and the API server says that the rotation does not run; a permit is
used within a few seconds or asked for anew.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum, auto
from typing import Final

from keyturn.api.base import format_time
from keyturn.api.policy import Concurrency, RotationPolicySpec
from keyturn.cluster.client import Kube
from keyturn.cluster.errors import ClusterError, Conflict, NotFound
from keyturn.cluster.resources import POLICIES, ROTATIONS
from keyturn.cluster.rotations import write_status
from keyturn.controller.budget import Line, Usage
from keyturn.controller.index import Index, Key
from keyturn.controller.source import Seen
from keyturn.rotation.policy import BUDGET_EXHAUSTED
from keyturn.rotation.world import Problem

STALE_SECONDS: Final = 60.0
"""So long an entry counts whose rotation does not run."""
SETTLE_SECONDS: Final = 2.0
"""A policy that has just been made or changed lets nobody begin: what other replicas begin is seen first."""
_FIRST_RETRY_SECONDS: Final = 1.0
_LONGEST_RETRY_SECONDS: Final = 10.0
_NO_LIMITS: Final = Concurrency()

_log = logging.getLogger(__name__)


class _State(Enum):
    GRANTED = auto()
    """By us, to a pass that is under way."""
    BEGUN = auto()
    """Its rotation was seen to run."""
    ENDED = auto()
    """It was, and does not any more: the pass that ended it gives the permit back, if its process lives."""
    UNKNOWN = auto()
    """Somebody else's, or its beginning was tried, and nobody knows how that went."""


_DOUBTFUL: Final = (_State.ENDED, _State.UNKNOWN)


@dataclass(slots=True)
class _Entry:
    """What we know of an entry. noted: when that was, by the loop's clock; written: as the status has it."""

    state: _State
    noted: float
    written: dict[str, str]


@dataclass(slots=True)
class _Request:
    account: str
    urgent: bool
    answer: asyncio.Future[Problem | None]


class Ledger:
    """The permits of one policy: who has one, who waits for one, and what is being written."""

    def __init__(self, name: str, kube: Kube, index: Index, wake: Callable[[Key], None], seen: Seen) -> None:
        self.name = name
        self.line = Line()
        self._kube = kube
        self._index = index
        self._wake = wake
        self._seen = seen
        self._entries: dict[Key, _Entry] = {}
        self._asked: dict[Key, _Request] = {}
        self._returned: set[Key] = set()
        self._offered: dict[Key, str] = {}
        self._limits = _NO_LIMITS
        self._settled_at = 0.0
        self._writing: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    @property
    def limits(self) -> bool:
        return self._limits != _NO_LIMITS

    def note(self, *, settle: bool) -> None:
        """Take in the policy as the index has it now. settle: where its limits are new, nobody begins for a while."""
        policy = self._index.coverage.policy(self.name)
        spec = policy.spec if policy is not None else None
        limits = spec.concurrency if isinstance(spec, RotationPolicySpec) else _NO_LIMITS
        if limits != self._limits:
            self._limits = limits
            if settle:
                self._settled_at = _now() + SETTLE_SECONDS
        written = {(one["namespace"], one["name"]): one for one in self._written()}
        for key in self._entries.keys() - written.keys():
            del self._entries[key]
        for key, one in written.items():
            known = self._entries.get(key)
            if known is None or known.written != one:
                self._entries[key] = _Entry(_State.UNKNOWN, _now(), one)
        self._see_running()
        self.serve()

    def room(self, key: Key, account: str, *, urgent: bool) -> Problem | None:
        """Why this rotation cannot begin for now, as far as is known without asking."""
        if urgent or key in self._offered or key in self._asked:
            return None
        return self._refusal(self._in_use(), key, account)

    def wait(self, key: Key, account: str) -> None:
        """Stand in line, to be woken when there is room."""
        self.line.put(key, account)
        self.serve()

    def decline(self, key: Key) -> None:
        """Let others have the place that is kept for this one."""
        if self._offered.pop(key, None) is not None:
            self.serve()

    async def take(self, key: Key, account: str, *, urgent: bool) -> Problem | None:
        """Ask for a permit; None when it is written down. Raises ClusterError."""
        request = _Request(account, urgent, asyncio.get_running_loop().create_future())
        self._asked[key] = request
        self._offered.pop(key, None)
        self.line.remove(key)
        self._write_soon()
        try:
            return await request.answer
        finally:
            if self._asked.get(key) is request:
                del self._asked[key]

    def end_pass(self, key: Key, *, waits: bool) -> None:
        """The pass of a rotation has ended. waits: for room here."""
        if not waits:
            self._offered.pop(key, None)
            self.line.remove(key)
        entry = self._entries.get(key)
        if entry is None and not self.line:
            return
        if entry is not None and not self._runs(key):
            if key in self._index.running():
                entry.state, entry.noted = _State.UNKNOWN, _now()
            elif entry.state is not _State.UNKNOWN:
                self._returned.add(key)
                self._write_soon()
        self._see_running()
        self.serve()

    def ran(self) -> None:
        """Some rotation was seen to run, or not to run any more."""
        self._see_running()
        self.serve()

    def serve(self) -> None:
        """Wake those for whom there is room now."""
        delay = self._settled_at - _now()
        if delay > 0:
            self._look_in(delay)
            return
        usage = self._in_use()
        while (found := self.line.take(usage.closed, usage.full)) is not None:
            key, account = found
            usage.add(key, account)
            self._offered[key] = account
            self._wake(key)
        # What is stale already is being looked up.
        ages = [_now() - entry.noted for entry in self._entries.values() if entry.state in _DOUBTFUL]
        fresh = [age for age in ages if age < STALE_SECONDS]
        if fresh:
            self._look_in(STALE_SECONDS - max(fresh))

    def close(self) -> None:
        """Nobody waits here any more."""
        if self._timer is not None:
            self._timer.cancel()
        if self._writing is not None:
            self._writing.cancel()
        for request in self._asked.values():
            request.answer.cancel()

    def _usage(self, entries: dict[Key, str]) -> Usage:
        """What counts beside these entries: whoever runs without one, and for whom a place is kept."""
        usage = Usage(self._limits)
        for key, account in entries.items():
            usage.add(key, account)
        for key, record in self._index.running().items():
            if self._index.covers(self.name, key):
                usage.add(key, record.get("account") or "")
        for key, account in self._offered.items():
            usage.add(key, account)
        return usage

    def _in_use(self) -> Usage:
        """All that counts, with what is about to be written."""
        usage = self._usage({key: entry.written["account"] for key, entry in self._entries.items()})
        for key, request in self._asked.items():
            usage.add(key, request.account)
        return usage

    def _refusal(self, usage: Usage, key: Key, account: str) -> Problem | None:
        if not self.limits or key in usage:
            return None
        limit = usage.full(key[0], account)
        if limit is not None:
            why = f"spec.concurrency.{limit} is reached; it begins when another one has ended"
        elif self._settled_at > _now():
            why = "spec.concurrency is new; it begins when what runs already is counted"
        else:
            return None
        return Problem(BUDGET_EXHAUSTED, f"RotationPolicy {self.name}: {why}", lasting=False)

    def _written(self) -> list[dict[str, str]]:
        raw = self._index.coverage.raw(self.name) or {}
        return (raw.get("status") or {}).get("running") or []

    def _runs(self, key: Key) -> bool:
        raw = self._index.rotation(key) or {}
        return bool((raw.get("status") or {}).get("rotation"))

    def _see_running(self) -> None:
        for key, entry in self._entries.items():
            if self._runs(key):
                entry.state = _State.BEGUN
            elif entry.state is _State.BEGUN and key not in self._index.running():
                entry.state, entry.noted = _State.ENDED, _now()

    def _look_in(self, delay: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(delay + 0.001, self._look)

    def _look(self) -> None:
        self._timer = None
        if self._stale():
            self._write_soon()
        self.serve()

    def _stale(self) -> list[Key]:
        before = _now() - STALE_SECONDS
        return [key for key, one in self._entries.items() if one.state in _DOUBTFUL and one.noted <= before]

    def _write_soon(self) -> None:
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write_all(), name=f"permits of {self.name}")

    async def _write_all(self) -> None:
        delay = _FIRST_RETRY_SECONDS
        while self._asked or self._returned or self._stale():
            try:
                await self._write()
                delay = _FIRST_RETRY_SECONDS
            except Conflict:
                await self._read_again()
            except NotFound:
                self._gone()
            except ClusterError as error:
                _log.warning("%s", error, extra={"object": self.name})
                for key in list(self._asked):
                    self._answer(key, error)
                await asyncio.sleep(delay)
                delay = min(2 * delay, _LONGEST_RETRY_SECONDS)
        self.serve()

    async def _read_again(self) -> None:
        try:
            self._seen(await self._kube.get(POLICIES, None, self.name), False)
        except NotFound:
            self._gone()
        except ClusterError as error:
            _log.warning("%s", error, extra={"object": self.name})
            await asyncio.sleep(_FIRST_RETRY_SECONDS)

    def _gone(self) -> None:
        """Without the policy there is no limit, and nothing to write."""
        self._entries.clear()
        self._returned.clear()
        for key in list(self._asked):
            self._answer(key, None)

    async def _write(self) -> None:
        """Write down who may begin, and who has ended; then tell those who have asked."""
        for key in self._stale():
            await self._look_up(key)
        raw = self._index.coverage.raw(self.name)
        if raw is None:
            raise NotFound(self.name)
        returned = set(self._returned)
        kept = {key: entry.written for key, entry in self._entries.items() if key not in returned}
        granted, refused = self._judged(kept)
        after = [*(kept | granted).values()]
        if after != self._written():
            status = {field: value for field, value in (raw.get("status") or {}).items() if field != "running"}
            written = await write_status(self._kube, raw, status | ({"running": after} if after else {}), POLICIES)
            for key in returned - granted.keys():
                self._entries.pop(key, None)
            self._entries |= {key: _Entry(_State.GRANTED, _now(), one) for key, one in granted.items()}
            self._seen(written, False)
        self._returned -= returned
        for key in granted:
            self._answer(key, None)
        for key, problem in refused.items():
            self._answer(key, problem)

    def _judged(self, kept: dict[Key, dict[str, str]]) -> tuple[dict[Key, dict[str, str]], dict[Key, Problem]]:
        """New entries for those who may begin, and why the others may not. kept: the entries that stay."""
        usage, since = self._usage({key: one["account"] for key, one in kept.items()}), format_time(datetime.now(UTC))
        granted, refused = dict[Key, dict[str, str]](), dict[Key, Problem]()
        for key, request in sorted(self._asked.items(), key=lambda one: not one[1].urgent):
            problem = None if request.urgent else self._refusal(usage, key, request.account)
            if problem is not None:
                refused[key] = problem
                continue
            usage.add(key, request.account)
            granted[key] = {"namespace": key[0], "name": key[1], "account": request.account, "since": since}
        return granted, refused

    async def _look_up(self, key: Key) -> None:
        """Whether an entry can be taken out of which nobody has heard for long: only the API server's word counts."""
        with contextlib.suppress(NotFound):
            self._seen(await self._kube.get(ROTATIONS, *key), False)
        if not self._runs(key):
            self._returned.add(key)
        self._see_running()

    def _answer(self, key: Key, answer: Problem | ClusterError | None) -> None:
        request = self._asked.pop(key, None)
        if request is None or request.answer.done():
            return
        if isinstance(answer, ClusterError):
            request.answer.set_exception(answer)
        else:
            request.answer.set_result(answer)


def _now() -> float:
    return asyncio.get_running_loop().time()
