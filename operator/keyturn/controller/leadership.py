"""Leadership: of all replicas, the one that holds the Lease works; the others stand by. With shards, each has its own.

The rules are those of client-go's leader election (tools/leaderelection). Clocks of two machines are never compared:
a lease has run out when this process has not seen it change for its whole duration, by a clock of its own. The holder
stops earlier, at the renew deadline, which it counts from before it asked for its last renewal.

A Lease is no fence: a process that is frozen between asking `Leadership.check` and acting acts late. So the question is
asked as late as possible, before each write and before the first byte of each request to a provider; and what is
written carries a precondition, or is the same whoever writes it.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
import socket
import time
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Final, Protocol

from keyturn.cluster.errors import ClusterError, Conflict, Forbidden, NotFound
from keyturn.cluster.leases import Lease, now

_log = logging.getLogger(__name__)

RELEASE_SECONDS: Final = 2.0
"""How long a process that ends tries to hand over."""
GRANT: Final = (
    "grant it to Keyturn's ServiceAccount, see the Role in manifests/rbac.yaml, and manifests/components/shards"
)
# Goes on while the machine sleeps, where the system has such a clock.
_CLOCK: Final = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class NotLeading(ClusterError):
    """This process may not act: another one may hold the lease by now."""

    def __init__(self) -> None:
        super().__init__("not done, because this process does not hold the lease")


@dataclass(frozen=True, slots=True)
class Timing:
    """How long a dead leader is waited for, in seconds. Raises ValueError when the three do not fit together.

    duration: silence after which another process takes the lease. renew_deadline: silence after which the holder has
    stopped its work. retry_period: the longest pause between two renewals, or two looks of those that stand by.
    """

    duration: int = 15
    renew_deadline: float = 10.0
    retry_period: float = 2.0

    def __post_init__(self) -> None:
        if not self.duration > self.renew_deadline > self.retry_period > 0:
            told = f"{self.duration:g}, {self.renew_deadline:g} and {self.retry_period:g} seconds"
            raise ValueError(f"lease duration, renew deadline, retry period: each must be longer than the next: {told}")

    def pause(self) -> float:
        """Seconds until the next try, jittered so that replicas do not keep step."""
        return self.retry_period * random.uniform(0.75, 1.0)  # noqa: S311 - jitter


class LeaseStore(Protocol):
    """Where the Lease is kept: see `LeaseObject`."""

    async def read(self) -> Lease | None: ...

    async def write(self, lease: Lease) -> Lease: ...


def new_identity() -> str:
    """A name that no other process has, nor this program at its next start."""
    return f"{socket.gethostname()}_{uuid.uuid4()}"


def boot_clock() -> float:
    """Seconds, by a clock that is never set."""
    return time.clock_gettime(_CLOCK)


class Leadership:
    """Holds the lease, or waits for it, for one process."""

    def __init__(
        self,
        store: LeaseStore,
        identity: str,
        timing: Timing,
        clock: Callable[[], float] = boot_clock,
        name: str = "the lease",
    ) -> None:
        """identity: no two processes may have it at the same time. One that starts with the identity of the holder

        takes the holder for a process of the past, and its lease at once. name: what the log calls the lease.
        """
        self._name = name
        self._store = store
        self._identity = identity
        self._timing = timing
        self._clock = clock
        self._valid_until = -math.inf
        self._claimed = ""
        """When our own term began, as the Lease says: tells it from that of an earlier process with our identity."""
        self._lease: Lease | None = None
        """What was seen of the Lease last."""
        self._seen_at = -math.inf
        """When it was first seen so."""
        self._newcomer = True
        self._complaint = ""

    @property
    def leads(self) -> bool:
        """Whether this process holds the lease, and has time left to act."""
        return self._clock() < self._valid_until

    def check(self) -> None:
        """Ask before every effect. Raises NotLeading."""
        if not self.leads:
            raise NotLeading

    async def campaign(self, lead: Callable[[], Awaitable[None]]) -> None:
        """Run `lead` whenever this process holds the lease, and cancel it when it is lost.

        Runs until cancelled, and gives the lease back then: nothing may be under way any more that needs it.
        """
        try:
            while True:
                await self._acquire()
                _log.info("holding %s, as %s", self._name, self._identity)
                await self._serve(lead)
        finally:
            await self._release()

    def saw(self, lease: Lease) -> None:
        """The Lease as somebody else in this process has just read it: silence is counted from the first look."""
        self._note(lease)

    async def _serve(self, lead: Callable[[], Awaitable[None]]) -> None:
        working = asyncio.ensure_future(lead())
        renewing = asyncio.create_task(self._renew(), name="renew")
        try:
            await asyncio.wait([working, renewing], return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (renewing, working):
                task.cancel()
            ends = await asyncio.gather(renewing, working, return_exceptions=True)
        self._valid_until = -math.inf
        for end in ends:
            if isinstance(end, Exception):
                _log.error("leading ended by an unexpected error, and is begun again", exc_info=end)
                await asyncio.sleep(self._timing.pause())

    # --- getting it ----------------------------------------------------------------------------------------------

    async def _acquire(self) -> None:
        """Return when this process holds the lease. Waits out everything else."""
        while True:
            asked = self._clock()
            try:
                async with asyncio.timeout(self._timing.renew_deadline):
                    if await self._try():
                        self._valid_until = asked + self._timing.renew_deadline
                        self._complaint = ""
                        return
            except Conflict:
                pass  # somebody else was faster
            except (ClusterError, TimeoutError) as error:
                self._complain(error)
            except Exception:  # noqa: BLE001
                # Whatever it is: without this, no replica might ever lead again, and nobody would know why.
                _log.exception("%s cannot be had, by an unexpected error", self._name)
            await asyncio.sleep(self._timing.pause())

    async def _try(self) -> bool:
        """Look at the Lease, and take it if it is free."""
        lease, newcomer = await self._read(), self._newcomer
        self._newcomer = False
        if lease is None:
            if self._held_by_another():
                return False  # it was deleted under a holder, who writes it anew
            fresh = self._term(Lease(None, 0, "", "", -1))
        elif self._ours(lease):
            fresh = self._renewed(lease)
        elif lease.holder is None or not self._held_by_another() or (newcomer and lease.holder == self._identity):
            fresh = self._term(lease)
        else:
            self._say(f"standing by: {lease.holder} holds {self._name}")
            return False
        await self._write(fresh)
        return True

    def _held_by_another(self) -> bool:
        """Whether the Lease, as it was last seen, may be in force for somebody else."""
        lease = self._lease
        if lease is None or lease.holder is None or self._ours(lease):
            return False
        return self._clock() < self._seen_at + lease.duration

    def _ours(self, lease: Lease) -> bool:
        """Whether nobody else has held the lease since our term began, whatever became of our writes and replies."""
        return lease.holder == self._identity and lease.acquired == self._claimed

    def _term(self, lease: Lease) -> Lease:
        """The Lease with a new term of ours. Remembered before it is written: the reply may be lost."""
        moment = now()
        self._claimed = moment
        changed = int(lease.holder != self._identity)
        return Lease(self._identity, self._timing.duration, moment, moment, lease.transitions + changed, lease.version)

    # --- keeping it ----------------------------------------------------------------------------------------------

    async def _renew(self) -> None:
        """Renew the lease until somebody else has it, or the renew deadline is over."""
        trouble = "it was not renewed in time"
        while (left := self._valid_until - self._clock()) > 0:
            await asyncio.sleep(min(self._timing.pause(), left))
            asked = self._clock()
            if asked >= self._valid_until:
                break
            try:
                async with asyncio.timeout(self._valid_until - asked):
                    if not await self._update(self._renewed):
                        trouble = "another process has it"
                        break
                self._valid_until = asked + self._timing.renew_deadline
            except (ClusterError, TimeoutError) as error:
                trouble = f"it was not renewed in time ({told(error)})"
        self._valid_until = -math.inf
        _log.warning("%s is lost: %s", self._name, trouble)

    async def _update(self, change: Callable[[Lease], Lease]) -> bool:
        """Change our own lease. False: it is somebody else's. Raises ClusterError: what became of it is not known."""
        known = self._lease
        if known is None or not self._ours(known):
            known = await self._read()
            if known is None or not self._ours(known):
                return False
        try:
            await self._write(change(known))
        except (Conflict, NotFound):
            # By a write of ours whose reply was lost, by a person, or by another process.
            lease = await self._read()
            if lease is not None and not self._ours(lease):
                return False
            await self._write(change(lease or replace(known, version="")))
        return True

    def _renewed(self, lease: Lease) -> Lease:
        return replace(lease, renewed=now(), duration=self._timing.duration)

    async def _release(self) -> None:
        """Let a successor begin at once, if the lease is still ours."""
        self._valid_until = -math.inf
        if not self._claimed:
            return
        try:
            async with asyncio.timeout(RELEASE_SECONDS):
                if await self._update(_released):
                    _log.info("%s is released", self._name)
        except (ClusterError, TimeoutError) as error:
            _log.warning("%s could not be released, and runs out by itself: %s", self._name, told(error))

    # --- reading and writing it ----------------------------------------------------------------------------------

    async def _read(self) -> Lease | None:
        lease = await self._store.read()
        if lease is not None:
            self._note(lease)
        return lease

    async def _write(self, lease: Lease) -> None:
        self._note(await self._store.write(lease))

    def _note(self, lease: Lease) -> None:
        if lease != self._lease:
            self._seen_at = self._clock()
        self._lease = lease

    def _complain(self, error: ClusterError | TimeoutError) -> None:
        remedy = ""
        if isinstance(error, Forbidden):
            remedy = f"; {GRANT}"
        elif isinstance(error, NotFound):
            remedy = "; create the namespace, or name another one by --lease-namespace"
        self._say(f"{self._name} cannot be had: {told(error)}{remedy}", logging.WARNING)

    def _say(self, text: str, level: int = logging.INFO) -> None:
        """Once, until there is something else to say."""
        if text != self._complaint:
            _log.log(level, "%s", text)
        self._complaint = text


class SharedLeadership(Leadership):
    """A lease that all processes with one identity hold together: each while it renews it itself.

    It excludes those with another identity, of whatever version they are. It runs out when the last of them is silent,
    or ends with `leave`.
    """

    async def leave(self, alone: Callable[[], Awaitable[bool]]) -> None:
        """Release the lease if nobody else holds it, for `alone` has the last word; only when this process is done.

        Sound where who joins makes itself known to `alone` before it renews the lease: then it is either found, or its
        renewal is what the release runs into.
        """
        try:
            async with asyncio.timeout(RELEASE_SECONDS):
                lease = await self._read()
                if lease is not None and self._ours(lease) and await alone():
                    await self._write(_released(lease))
                    _log.info("%s is released", self._name)
        except (ClusterError, TimeoutError) as error:
            _log.info("%s was not released, and runs out by itself: %s", self._name, told(error))

    async def _release(self) -> None:
        self._valid_until = -math.inf

    def _ours(self, lease: Lease) -> bool:
        return lease.holder == self._identity

    def _renewed(self, lease: Lease) -> Lease:
        # The others count on it for as long as they have written.
        return replace(super()._renewed(lease), duration=max(lease.duration, self._timing.duration))

    async def _update(self, change: Callable[[Lease], Lease]) -> bool:
        await self._read()  # the others have renewed it since
        return await super()._update(change)


def _released(lease: Lease) -> Lease:
    return replace(lease, holder=None, renewed=now(), duration=1)


def told(error: ClusterError | TimeoutError) -> str:
    """What an error says of itself; a time that is over says nothing."""
    return str(error) or "the API server did not answer in time"
