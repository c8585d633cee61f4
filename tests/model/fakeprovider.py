"""A provider with Staged semantics, as a model: two values at most, and calls that go wrong when told to."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

from pydantic import SecretStr

from keyturn.api.semantics import (
    Capabilities,
    Effect,
    Failure,
    Inspection,
    Issued,
    Outcome,
    Overlap,
    Recovery,
    Standing,
    Verdict,
    Verification,
)
from keyturn.rotation.world import Operation

STAGED = Capabilities(
    semantics="Staged",
    overlap=Overlap.UNTIL_FINALIZED,
    cancel=True,
    finalize=True,
    recovery=Recovery.CANCEL_AND_RESTART,
)
OK = Outcome(Effect.NOT_APPLIED)
CANARY = "canary"
"""Part of every secret value, so that a value can be found wherever it leaks (I8)."""
ORIGINAL = f"{CANARY}-0"


class Fault(StrEnum):
    """What goes wrong with one changing call."""

    REFUSED = "refused"
    """Nothing happened, and the answer says so."""
    LOST = "lost"
    """It happened, the answer got lost."""
    VANISHED = "vanished"
    """Nothing happened, and no answer came: as unknown as LOST."""
    REJECTED = "rejected"
    """Understood and refused."""


@dataclass
class FakeProvider:
    """`propagation`: how long a new value takes until it is accepted. `rejects_new`: it never is.

    `obstacle`: why nothing gets through in an `outage`.
    `linger`: how long `verify` goes on accepting a value that was dropped; traffic has no such luck.
    """

    now: Callable[[], datetime]
    capabilities: Capabilities = STAGED
    current: str = ORIGINAL
    pending: str | None = None
    issued_at: datetime | None = None
    propagation: timedelta = timedelta()
    linger: timedelta = timedelta()
    rejects_new: bool = False
    outage: bool = False
    obstacle: Failure = Failure.UNREACHABLE
    issued: int = 0
    applied: list[Operation] = field(default_factory=list)
    dropped: dict[str | None, datetime] = field(default_factory=dict)
    faults: deque[Fault | None] = field(default_factory=deque)

    def accepts(self, value: str) -> bool:
        if value == self.current:
            return True
        if value != self.pending or self.rejects_new or self.issued_at is None:
            return False
        return self.now() >= self.issued_at + self.propagation

    def call(self, operation: Operation, current: SecretStr | None = None, overlap: timedelta = timedelta()) -> Issued:
        """Make a changing call, as well as the next fault lets it be made; neither value nor overlap matters here."""
        if self.outage:
            return Issued(Outcome(Effect.NOT_APPLIED, self.obstacle, "no connection"))
        fault = self.faults.popleft() if self.faults else None
        if fault is Fault.REFUSED:
            return Issued(Outcome(Effect.NOT_APPLIED, Failure.RATE_LIMITED, "slow down", timedelta(seconds=2)))
        if fault is Fault.REJECTED or (self.pending is None) is not (operation is Operation.START):
            return Issued(Outcome(Effect.NOT_APPLIED, Failure.REJECTED, f"{operation} is not possible now"))
        if fault is Fault.VANISHED:
            return Issued(Outcome(Effect.UNKNOWN, Failure.UNREACHABLE, "no answer"))
        self.apply(operation)
        if fault is Fault.LOST:
            return Issued(Outcome(Effect.UNKNOWN, Failure.UNREACHABLE, "the answer was cut off"))
        secret = SecretStr(self.pending) if operation is Operation.START and self.pending else None
        return Issued(Outcome(Effect.APPLIED), secret)

    def apply(self, operation: Operation, *, foreign: bool = False) -> None:
        """Change the state; what somebody else did is not counted as ours."""
        if not foreign:
            self.applied.append(operation)
        if operation is Operation.START:
            self.issued += 1
            self.pending, self.issued_at = f"{CANARY}-{self.issued}", self.now()
        elif operation is Operation.FINALIZE:
            assert self.pending is not None
            self.dropped[self.current] = self.now()
            self.current, self.pending = self.pending, None
        else:
            self.dropped[self.pending] = self.now()
            self.pending = None

    def inspect(self, pending: SecretStr | None, previous: SecretStr | None = None) -> Inspection:
        if self.outage:
            return Inspection(Outcome(Effect.NOT_APPLIED, self.obstacle, "no connection"))
        ours = pending.get_secret_value() if pending else None
        if self.pending is not None:
            return Inspection(OK, Standing.PENDING_OURS if self.pending == ours else Standing.PENDING_UNKNOWN)
        return Inspection(OK, Standing.FINISHED if self.current == ours else Standing.UNROTATED)

    def verify(self, value: SecretStr) -> Verification:
        if self.outage:
            failed = Outcome(Effect.NOT_APPLIED, self.obstacle, "no connection")
            return Verification(Verdict.INCONCLUSIVE, failed)
        dropped = self.dropped.get(value.get_secret_value())
        lingers = dropped is not None and self.now() < dropped + self.linger
        if lingers or self.accepts(value.get_secret_value()):
            return Verification(Verdict.ACCEPTED, OK)
        return Verification(Verdict.REJECTED, Outcome(Effect.NOT_APPLIED, Failure.REJECTED, "not a secret of it"))

    def count(self, operation: Operation) -> int:
        return self.applied.count(operation)
