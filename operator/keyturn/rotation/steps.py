"""What can be done next. The reconciler carries out one step, adds what it learned to the world, and asks again."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from pydantic import SecretStr

from keyturn.api.observed import Workload
from keyturn.api.rotation import Result, RotationRecord
from keyturn.rotation.world import Aspect, Operation


@dataclass(frozen=True, slots=True)
class Observe:
    """Look at one thing; what is seen stays valid for this pass, unless a later step changes it."""

    what: Aspect


@dataclass(frozen=True, slots=True)
class Enter:
    """Go to the phase in `record` and write it down before anything else is done (I1)."""

    record: RotationRecord


@dataclass(frozen=True, slots=True)
class Advance:
    """Go to the phase in `record`; a phase that passes at once need not be written."""

    record: RotationRecord


@dataclass(frozen=True, slots=True)
class SetFinalizer:
    present: bool


@dataclass(frozen=True, slots=True)
class OpenJournal:
    """Create the journal with the value that is current now."""

    previous: SecretStr | None


@dataclass(frozen=True, slots=True)
class DropJournal:
    pass


@dataclass(frozen=True, slots=True)
class Rehearse:
    """Let the API server check, without effect, that the Secret and a workload can be written (I2)."""

    workload: Workload | None


@dataclass(frozen=True, slots=True)
class CallProvider:
    """Make a changing call. The answer of a start goes into the journal before anything else is done with it (I2)."""

    operation: Operation


@dataclass(frozen=True, slots=True)
class Verify:
    """Ask the provider whether it accepts this value."""

    value: SecretStr


@dataclass(frozen=True, slots=True)
class Publish:
    """Write the Secret that the workloads read. `value` None takes the key away; so does `previous` its own."""

    value: SecretStr | None
    previous: SecretStr | None


@dataclass(frozen=True, slots=True)
class Restart:
    """Stamp the pod templates, which makes their controllers replace the pods."""

    workloads: tuple[Workload, ...]
    stamp: str


@dataclass(frozen=True, slots=True)
class Finish:
    """End the rotation and write down how it ended."""

    result: Result
    message: str


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing can be done now: record why, and come back.

    stalled: a person must act. blocked: a person must decide. after: when to look again; None backs off.
    """

    reason: str
    message: str
    stalled: bool = False
    blocked: bool = False
    after: timedelta | None = None


@dataclass(frozen=True, slots=True)
class Rest:
    """Nothing is left to do until something changes."""


Step = (
    Observe
    | Enter
    | Advance
    | SetFinalizer
    | OpenJournal
    | DropJournal
    | Rehearse
    | CallProvider
    | Verify
    | Publish
    | Restart
    | Finish
    | Wait
    | Rest
)
