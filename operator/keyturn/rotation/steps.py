"""What can be done next. The reconciler carries out one step, adds what it learned to the world, and asks again."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from pydantic import SecretStr

from keyturn.api.observed import Pod, Workload
from keyturn.api.rotation import Phase, Result, RotationRecord
from keyturn.rotation.world import UNOBSERVED, Aspect, Operation, World


@dataclass(frozen=True, slots=True)
class Observe:
    """Look at these; what is seen stays valid for this pass, unless a later step changes it."""

    what: tuple[Aspect, ...]


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
    """Let the API server check, without effect, that the Secret and a workload of each kind can be written (I2)."""

    workloads: tuple[Workload, ...]


@dataclass(frozen=True, slots=True)
class CallProvider:
    """Make a changing call. The answer of a start goes into the journal before anything else is done with it (I2).

    overlap: how long the old value is to live on, for a start at a provider that lets the caller choose.
    """

    operation: Operation
    overlap: timedelta = timedelta(0)


@dataclass(frozen=True, slots=True)
class KeepPending:
    """Put a new value that was found otherwise than in the answer of a start into the journal."""

    value: SecretStr


@dataclass(frozen=True, slots=True)
class Verify:
    """Ask the provider whether it accepts this value.

    dropped: this is not the new value, but the previous one, which it should refuse, or one of somebody else's making.
    """

    value: SecretStr
    dropped: bool = False


@dataclass(frozen=True, slots=True)
class Publish:
    """Write the Secret that the workloads read. `value` None takes the key away; so does `previous` its own."""

    value: SecretStr | None
    previous: SecretStr | None


@dataclass(frozen=True, slots=True)
class Restart:
    """Stamp the workloads, which makes their controllers replace the pods.

    written: when the value was written that they are to read, by the API server's clock.
    """

    workloads: tuple[Workload, ...]
    stamp: str
    written: datetime


@dataclass(frozen=True, slots=True)
class DeletePods:
    """Delete pods whose controllers would wait for them for ever before they replace them."""

    pods: tuple[Pod, ...]


@dataclass(frozen=True, slots=True)
class Finish:
    """End the rotation and write down how it ended. `previous_refused`: None where that could not be asked."""

    result: Result
    message: str
    previous_refused: bool | None = None


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
    """Nothing is left to do until something changes, or it is `until`."""

    until: datetime | None = None


Step = (
    Observe
    | Enter
    | Advance
    | SetFinalizer
    | OpenJournal
    | DropJournal
    | Rehearse
    | CallProvider
    | KeepPending
    | Verify
    | Publish
    | Restart
    | DeletePods
    | Finish
    | Wait
    | Rest
)


def after_recording(world: World, step: Enter | Finish) -> World:
    """What was seen before a phase was written down may be out of date after it.

    world: as it was before. Only what Preparing has just seen at the provider stays, for the same client: Starting acts
    on it, and would otherwise ask twice.
    """
    starting = isinstance(step, Enter) and step.record.phase is Phase.STARTING
    running = world.status.rotation
    same = running is None or (isinstance(step, Enter) and step.record.subject == running.subject)
    inspection = world.inspection if starting and same else UNOBSERVED
    return replace(
        world,
        consumers=UNOBSERVED,
        secret=UNOBSERVED,
        inspection=inspection,
        verification=None,
        call=None,
        armed=starting,
    )
