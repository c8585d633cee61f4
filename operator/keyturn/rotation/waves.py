"""Which restarts may be made now: wave by wave, and no more at a time than the user wants."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from keyturn.api.base import format_duration
from keyturn.api.observed import Workload
from keyturn.api.rotation import TargetState
from keyturn.rotation.consumers import RolloutView, key_of, to_restart, was_restarted
from keyturn.rotation.targets import targets


@dataclass(frozen=True, slots=True)
class Turn:
    """What may be restarted now, and what the others wait for.

    wave, ready_time: for the record: the wave that is next, and since when those before it have been ready.
    """

    restart: tuple[Workload, ...] = ()
    waiting_for: str | None = None
    wave: int | None = None
    ready_time: datetime | None = None


def next_turn(rollout: RolloutView, *, at_once: bool = False) -> Turn:
    """Choose among the workloads that must be restarted. `at_once`: every one that waits has its calls refused."""
    due = to_restart(rollout)
    if at_once or not due:
        return Turn(due)
    if rollout.cancelling:
        return _with_room(rollout, due)
    wave = min(_wave(workload) for workload in due)
    ready = {(target.kind, target.name) for target in targets(rollout) if target.state is TargetState.READY}
    earlier = [workload for workload in rollout.consumers.workloads if workload.restartable and _wave(workload) < wave]
    behind = [workload for workload in earlier if key_of(workload) not in ready]
    if behind:
        first = behind[0]
        return Turn(waiting_for=f"wave {wave} waits for {first.kind}/{first.name} of wave {_wave(first)}", wave=wave)
    in_wave = tuple(workload for workload in due if _wave(workload) == wave)
    if not earlier or not rollout.spec.wave_soak or _under_way(rollout, wave):
        return _with_room(rollout, in_wave)
    record = rollout.record
    since = record.wave_ready_time if record.wave == wave and record.wave_ready_time else rollout.now
    since = min(since, rollout.now)  # a clock that was set back: the soak begins anew
    if rollout.now < since + rollout.spec.wave_soak:
        soak = format_duration(rollout.spec.wave_soak)
        return Turn(
            waiting_for=f"wave {wave} begins when those before it have been ready for {soak}",
            wave=wave,
            ready_time=since,
        )
    return _with_room(rollout, in_wave)


def _under_way(rollout: RolloutView, wave: int) -> bool:
    """Whether a workload of the wave was restarted already: the others follow without another soak."""
    return any(_wave(workload) == wave and was_restarted(rollout, workload) for workload in rollout.consumers.workloads)


def _with_room(rollout: RolloutView, due: tuple[Workload, ...]) -> Turn:
    most = rollout.spec.max_concurrent
    if most is None:
        return Turn(due)
    # What only others can end must not keep the rest waiting.
    busy = sum(target.restarted and target.state is TargetState.ROLLING for target in targets(rollout))
    chosen = due[: max(0, most - busy)]
    return Turn(chosen, f"spec.rollout.maxConcurrent: {busy} workload(s) are restarting")


def _wave(workload: Workload) -> int:
    """One whose annotation became no number in the middle of a rotation counts as without."""
    return workload.wave or 0
