"""How far each workload is, what keeps the rollout from being complete, and when it has failed."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from keyturn.api.base import format_time
from keyturn.api.observed import Pod, Workload
from keyturn.api.rotation import RestartPolicy, Target, TargetState, UnrestartablePolicy
from keyturn.rotation.consumers import RolloutView, key_of, replaced_since, was_restarted
from keyturn.rotation.world import Problem

POD: Final = "Pod"
IN_PROGRESS: Final = "RolloutInProgress"
HELD: Final = "RolloutHeld"
PAUSED: Final = "WorkloadPaused"
REVERTED: Final = "TargetReverted"
_NAMED: Final = 5
HOLDS: Final = frozenset({HELD, PAUSED})
"""Reasons to wait that `spec.rollout.timeout` does not end: only others can."""


@dataclass(frozen=True, slots=True)
class _Standing:
    """Where one workload stands. reason: for the condition, while it keeps the rollout from being complete."""

    target: Target
    reason: str = IN_PROGRESS


def targets(rollout: RolloutView) -> list[Target]:
    """The progress of every workload, for status, in a stable order."""
    return [standing.target for standing in _standings(rollout)]


def rollout_gate(rollout: RolloutView) -> Problem | None:
    """What keeps the other value from being dropped, or None when nothing does (I4)."""
    behind = [standing for standing in _standings(rollout) if standing.target.state is not TargetState.READY]
    if not behind:
        return None
    # What waits for nobody comes first: as long as there is such, the rollout is on its way. What is not restarted yet
    # waits for the others.
    begun = [standing for standing in behind if standing.target.state is not TargetState.PENDING]
    first = min(begun or behind, key=lambda standing: _ORDER.index(standing.reason))
    message = _behind([standing.target for standing in behind], first.target)
    return Problem(first.reason, message, lasting=first.reason in (PAUSED, REVERTED))


def behind_message(listed: list[Target]) -> str | None:
    """What the rollout waits for, by the targets in status; None when all of them are ready."""
    behind = [target for target in listed if target.state is not TargetState.READY]
    return _behind(behind, behind[0]) if behind else None


def _behind(behind: list[Target], first: Target) -> str:
    others = f", and {len(behind) - 1} more" if len(behind) > 1 else ""
    detail = first.message or f"{first.updated} of {first.desired} pods updated"
    return f"waiting for {first.kind}/{first.name}: {detail}{others}"


def rollout_failure(rollout: RolloutView) -> Problem | None:
    """A workload that will not come up on the new value: its controller has given up, or its pods crash on and on."""
    for workload in rollout.consumers.workloads:
        if was_restarted(rollout, workload) and workload.failure is not None:
            return Problem("RolloutFailed", f"{workload.kind}/{workload.name} does not roll out: {workload.failure}")
    restartable = {key_of(workload) for workload in rollout.consumers.workloads if workload.restartable}
    for pod in sorted(rollout.consumers.pods, key=lambda pod: pod.name):
        if pod.failing is not None and not pod.terminating and pod.owner in restartable and not rollout.unsafe(pod):
            kind, name = pod.owner
            message = f"{kind}/{name} does not run on the new value: pod {pod.name}: {pod.failing}"
            return Problem("RolloutFailed", message)
    return None


def _standings(rollout: RolloutView) -> list[_Standing]:
    unsafe: defaultdict[tuple[str, str], list[Pod]] = defaultdict(list)
    for pod in sorted(rollout.unsafe_pods, key=lambda pod: pod.name):
        unsafe[pod.owner].append(pod)
    good = Counter(
        pod.owner
        for pod in rollout.consumers.pods
        if pod.ready and not pod.terminating and pod not in rollout.unsafe_pods
    )
    known = {key_of(workload): workload for workload in rollout.consumers.workloads}
    standings = [_standing(rollout, workload, unsafe[key], good[key]) for key, workload in known.items()]
    standings += _of_unknown(rollout, {key: pods for key, pods in unsafe.items() if key not in known})
    return sorted(standings, key=lambda standing: (standing.target.kind, standing.target.name))


def _standing(rollout: RolloutView, workload: Workload, unsafe: list[Pod], good: int) -> _Standing:
    held = _held(rollout, unsafe)
    message: str | None = workload.failure or held or "not all pods are available"
    if not unsafe and workload.settled:
        state, reason, message = TargetState.READY, IN_PROGRESS, workload.failure
    elif workload.paused is not None:
        state, reason, message = TargetState.HELD, PAUSED, f"{workload.paused}; {message}"
    elif workload.manual is not None and not all(map(rollout.by_itself, unsafe)):
        state, reason = _unrestartable(rollout)
        message = f"{held} ({_names(unsafe)}); {workload.manual}" if unsafe else f"{message}; {workload.manual}"
    elif workload.stamp == rollout.stamp or not workload.observed:
        state, reason = TargetState.ROLLING, IN_PROGRESS
        broken = _broken(rollout, workload)
        message = f"{message}; not ready: {_names(broken)}" if broken else message
    elif unsafe and was_restarted(rollout, workload) and not replaced_since(rollout, workload):
        state, reason = TargetState.WAITING, REVERTED
        message = f"another tool took keyturn.dev/rotation off its template; {held}: restart it"
    else:
        state, reason = _not_restarted(rollout, workload, unsafe), IN_PROGRESS
        if state is TargetState.WAITING and unsafe and rollout.spec.restart is RestartPolicy.NEVER:
            message = f"{message}; spec.rollout.restart is Never: restart it"
    target = Target(
        kind=workload.kind,
        name=workload.name,
        state=state,
        updated=min(good, workload.desired),
        desired=workload.desired,
        restarted=was_restarted(rollout, workload),
        message=message,
    )
    return _Standing(target, reason)


def _broken(rollout: RolloutView, workload: Workload) -> list[Pod]:
    """The pods on the wanted value that are not ready, or not yet."""
    return [
        pod
        for pod in rollout.consumers.pods
        if pod.owner == key_of(workload) and not (pod.ready or pod.terminating or pod in rollout.unsafe_pods)
    ]


def _names(pods: list[Pod]) -> str:
    """Their names, not too many."""
    names = sorted(pod.name for pod in pods)
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def _not_restarted(rollout: RolloutView, workload: Workload, unsafe: list[Pod]) -> TargetState:
    """Whether its turn will come, or its pods have to come to the value without Keyturn."""
    needs = not all(map(rollout.by_itself, unsafe)) and workload.restartable
    ours = rollout.spec.restart is not RestartPolicy.NEVER and not was_restarted(rollout, workload)
    return TargetState.PENDING if needs and ours else TargetState.WAITING


def _of_unknown(rollout: RolloutView, unsafe: dict[tuple[str, str], list[Pod]]) -> Iterator[_Standing]:
    """Pods by themselves, or of a controller that Keyturn does not know: nobody but their owner can end them."""
    for (kind, name), pods in unsafe.items():
        state, reason = _unrestartable(rollout)
        message = _held(rollout, pods)
        if all(map(rollout.by_itself, pods)):
            state, reason = TargetState.WAITING, IN_PROGRESS
        else:
            message = f"{message}; {'it' if kind == POD else 'they'} must end or be deleted"
        yield _Standing(Target(kind=kind, name=name, state=state, desired=len(pods), message=message), reason)


def _unrestartable(rollout: RolloutView) -> tuple[TargetState, str]:
    if rollout.spec.unrestartable is UnrestartablePolicy.FAIL:
        return TargetState.WAITING, IN_PROGRESS
    return TargetState.HELD, HELD


def _held(rollout: RolloutView, unsafe: list[Pod]) -> str | None:
    """What the pods may hold that they must not, in words; None when there are none."""
    if not unsafe:
        return None
    which = "new" if rollout.cancelling else "old"
    if all(map(rollout.by_itself, unsafe)):
        end = rollout.volumes_followed
        until = f" until {format_time(end)}" if end is not None else ""
        return f"{len(unsafe)} pod(s) may see the {which} value in their volumes{until}"
    return f"{len(unsafe)} pod(s) may still run on the {which} value"


_ORDER: Final = (IN_PROGRESS, REVERTED, PAUSED, HELD)
