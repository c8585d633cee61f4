"""Providers with Timed and Immediate semantics, as models, and the lab around them: one reset, which is final."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from pydantic import SecretStr

from keyturn.api.rotation import RotationSpec
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
)
from keyturn.rotation.world import Operation
from tests.model.fakecluster import SECOND, FakePod
from tests.model.fakeprovider import CANARY, OK, ORIGINAL, FakeProvider, Fault
from tests.model.lab import Lab
from tests.model.scenarios import make_spec

HOUR = timedelta(hours=1)
TIMED = Capabilities("Timed", Overlap.UNTIL_TIME, cancel=False, finalize=False, recovery=Recovery.READ_BACK)
IMMEDIATE = Capabilities(
    "Immediate", Overlap.NONE, cancel=False, finalize=False, recovery=Recovery.PROBE_PREVIOUS, needs_current=True
)


@dataclass
class FakeResetting(FakeProvider):
    """One value in force. `until`: when each value that was replaced ceases to be accepted. `calls`: all that came.

    reads_back: an administrator is shown the value in force.
    """

    reads_back: bool = False
    until: dict[str, datetime] = field(default_factory=dict)
    calls: list[datetime] = field(default_factory=list)

    @property
    def immediate(self) -> bool:
        return self.capabilities.overlap is Overlap.NONE

    def accepts(self, value: str) -> bool:
        if value == self.current:
            return self.issued_at is None or self.now() >= self.issued_at + self.propagation
        return value in self.until and self.now() < self.until[value]

    def call(self, operation: Operation, current: SecretStr | None = None, overlap: timedelta = timedelta()) -> Issued:
        assert operation is Operation.START, f"{operation} at a provider that does not offer it"
        self.calls.append(self.now())
        fault = self.faults.popleft() if self.faults else None
        if self.outage:
            return Issued(Outcome(Effect.NOT_APPLIED, self.obstacle, "no connection"))
        if fault is Fault.REFUSED:
            return Issued(Outcome(Effect.NOT_APPLIED, Failure.RATE_LIMITED, "slow down", timedelta(seconds=2)))
        if fault is Fault.VANISHED:
            return Issued(Outcome(Effect.UNKNOWN, Failure.UNREACHABLE, "no answer"))
        wrong = self.immediate and (current is None or current.get_secret_value() != self.current)
        if fault is Fault.REJECTED or wrong:
            return Issued(Outcome(Effect.NOT_APPLIED, Failure.REJECTED, "refused"))
        self.reset(overlap)
        if fault is Fault.LOST:
            return Issued(Outcome(Effect.UNKNOWN, Failure.UNREACHABLE, "the answer was cut off"))
        return Issued(Outcome(Effect.APPLIED), SecretStr(self.current))

    def reset(self, overlap: timedelta = timedelta()) -> None:
        """A second reset within the overlap ends the oldest value's life at once (PROVIDERS.md, finding 1)."""
        self.applied.append(Operation.START)
        self.issued += 1
        # The old one works until the new one does, but not at an Immediate provider.
        end = self.now() + (timedelta() if self.immediate else max(overlap, self.propagation))
        self.until = {self.current: end}
        self.current, self.issued_at = f"{CANARY}-{self.issued}", self.now()

    def inspect(self, pending: SecretStr | None, previous: SecretStr | None = None) -> Inspection:
        if self.outage:
            return Inspection(Outcome(Effect.NOT_APPLIED, self.obstacle, "no connection"))
        ours, old = (value.get_secret_value() if value else None for value in (pending, previous))
        if self.reads_back:
            if old is None and ours is None:
                return Inspection(OK, Standing.UNTOLD)
            if self.current in (ours, old):
                return Inspection(OK, Standing.FINISHED if self.current == ours else Standing.UNROTATED)
            return Inspection(OK, Standing.PENDING_UNKNOWN, SecretStr(self.current))
        if pending is not None:
            accepted = self.verify(pending).verdict is Verdict.ACCEPTED
            assert accepted, "nobody asks before the value is verified"
            return Inspection(OK, Standing.FINISHED)
        if not self.immediate or old is None:
            return Inspection(OK, Standing.UNTOLD)
        return Inspection(OK, Standing.UNROTATED if self.accepts(old) else Standing.LOST)


class ResettingLab(Lab):
    """A lab whose provider takes nothing back. At an Immediate one, the user has accepted that calls are refused."""

    def __init__(self, spec: RotationSpec, promise: Capabilities, *, reads_back: bool = False) -> None:
        super().__init__(spec)
        self.provider: FakeResetting = FakeResetting(lambda: self.now, promise, reads_back=reads_back)

    def excused(self, pod: FakePod) -> bool:
        """Between the provider's switch and the restart of a pod that had read the old value by then."""
        return self.provider.immediate and pod.held != self.provider.current

    @property
    def unknown(self) -> bool:
        """Whether a call's end was never told."""
        return len(self.provider.calls) > self.log.count("journal pending")


def make_resetting(
    promise: Capabilities, *, reads_back: bool = False, value: str | None = ORIGINAL, **changes: Any
) -> ResettingLab:
    """Two Deployments that run on the old value."""
    spec = make_spec(accept_downtime=promise is IMMEDIATE, **changes)
    lab = ResettingLab(spec, promise, reads_back=reads_back)
    lab.hold(value)
    lab.deploy("web", 2)
    lab.deploy("worker", 1, grace=3 * SECOND, start_delay=2 * SECOND)
    lab.elapse(6 * SECOND)
    return lab
