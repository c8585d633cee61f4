"""Who may still hold which value, judged from what the cluster shows (I3, I4, I7).

A container reads the Secret when it starts. So a pod holds the new value when its template carries this rotation's
stamp, or when it was created after the new value was written. Times come from the API server and have a resolution of
one second; within the same second a pod counts as holding the value that would be unsafe.
"""

from __future__ import annotations

from collections import Counter
from datetime import datetime

from keyturn.api.observed import Consumers, Pod, Workload
from keyturn.api.rotation import RestartPolicy, RotationRecord, Target, TargetState
from keyturn.rotation.world import Problem

POD = "Pod"


def cancel_stamp(record: RotationRecord) -> str:
    """The stamp that a workload gets when it is rolled back to the previous value."""
    return f"{record.id}-cancelled"


def holds_previous(pod: Pod, record: RotationRecord) -> bool:
    """Whether the pod may have started on the value that was current before this rotation."""
    if pod.stamp == record.id:
        return False
    return record.distributed_time is None or pod.created <= record.distributed_time


def holds_pending(pod: Pod, record: RotationRecord) -> bool:
    """Whether the pod may have started on the new value, as far as it must not once that value is withdrawn."""
    if record.distributed_time is None or pod.stamp == cancel_stamp(record):
        return False
    if record.restored_time is not None and pod.created > record.restored_time:
        return False
    if pod.stamp == record.id or pod.created >= record.distributed_time:
        return True
    return pod.started is not None and pod.started >= record.distributed_time


def unsafe_pods(consumers: Consumers, record: RotationRecord, *, cancelling: bool) -> list[Pod]:
    """The pods that may hold the value which is about to die."""
    holds = holds_pending if cancelling else holds_previous
    restarted = {
        (workload.kind, workload.name): _restarted(workload, record, cancelling=cancelling)
        for workload in consumers.workloads
    }
    return [pod for pod in consumers.pods if holds(pod, record) and not _younger(pod, restarted.get(pod.owner))]


def _restarted(workload: Workload, record: RotationRecord, *, cancelling: bool) -> int | None:
    """The revision that this rotation's restart of the workload made, whatever its template became since; or None."""
    stamp = cancel_stamp(record) if cancelling else record.id
    written = record.restored_time if cancelling else record.distributed_time
    revisions = [
        template.revision
        for template in workload.templates
        if template.stamp == stamp and written is not None and template.created >= written
    ]
    return min(revisions, default=None)


def _younger(pod: Pod, restarted: int | None) -> bool:
    """Whether the pod's template is that of our restart, or came after it: unlike times, revisions are never equal."""
    return restarted is not None and pod.revision is not None and pod.revision >= restarted


def to_restart(
    consumers: Consumers, record: RotationRecord, policy: RestartPolicy, *, cancelling: bool
) -> tuple[Workload, ...]:
    """The workloads that must be restarted and were not yet: each at most once in each direction (I7).

    A workload whose template is newer than the written value replaces its pods already, whoever changed it: the user,
    or the rotation of another Secret that it reads. Restarting it again would only add a restart. That our stamp is no
    longer on a template which had it means the same: somebody has put another one over it.
    """
    if policy is RestartPolicy.NEVER:
        return ()
    stamp = cancel_stamp(record) if cancelling else record.id
    written = record.restored_time if cancelling else record.distributed_time
    owners = {pod.owner for pod in unsafe_pods(consumers, record, cancelling=cancelling)}
    return tuple(
        workload
        for workload in consumers.workloads
        if workload.restartable
        and workload.stamp != stamp
        and workload.observed
        and _restarted(workload, record, cancelling=cancelling) is None
        and not _newer(workload.template_time, written)
        and ((workload.kind, workload.name) in owners or (cancelling and workload.stamp == record.id))
    )


def _newer(time: datetime | None, than: datetime | None) -> bool:
    return time is not None and than is not None and time > than


def targets(
    consumers: Consumers, record: RotationRecord, *, cancelling: bool, policy: RestartPolicy = RestartPolicy.ALWAYS
) -> list[Target]:
    """The progress of every workload, for status, in a stable order."""
    stamp = cancel_stamp(record) if cancelling else record.id
    doomed = f"may still run on the {'new' if cancelling else 'old'} value"
    unsafe = frozenset(unsafe_pods(consumers, record, cancelling=cancelling))
    waiting = Counter(pod.owner for pod in unsafe)
    there = Counter(pod.owner for pod in consumers.pods if pod.ready and not pod.terminating and pod not in unsafe)
    known = {(workload.kind, workload.name): workload for workload in consumers.workloads}
    listed = []
    for key, workload in known.items():
        held = f"{waiting[key]} pod(s) {doomed}" if waiting[key] else None
        listed.append(_target(workload, stamp, policy, there[key], held))
    for (kind, name), count in waiting.items():
        if (kind, name) not in known:
            message = f"{count} pod(s) {doomed}" if kind != POD else doomed
            listed.append(Target(kind=kind, name=name, state=TargetState.WAITING, desired=count, message=message))
    return sorted(listed, key=lambda target: (target.kind, target.name))


def _target(workload: Workload, stamp: str, policy: RestartPolicy, updated: int, held: str | None) -> Target:
    """`held`: what its pods may hold that they must not, or None."""
    message = workload.failure or (workload.paused if held else None)
    if not held and workload.settled:
        state = TargetState.READY
    elif workload.stamp == stamp or not workload.observed:
        state, message = TargetState.ROLLING, message or held or "not all pods are available"
    elif held and workload.restartable and policy is not RestartPolicy.NEVER:
        state = TargetState.PENDING
    else:
        if held and workload.restartable:
            held += "; spec.rollout.restart is Never: restart it"
        state, message = TargetState.WAITING, message or held or "not all pods are available"
    return Target(
        kind=workload.kind,
        name=workload.name,
        state=state,
        updated=min(updated, workload.desired),
        desired=workload.desired,
        message=message,
    )


def rollout_gate(listed: list[Target]) -> Problem | None:
    """What keeps the old value from being dropped, or None when nothing does (I4)."""
    behind = [target for target in listed if target.state is not TargetState.READY]
    if not behind:
        return None
    first = behind[0]
    others = f", and {len(behind) - 1} more" if len(behind) > 1 else ""
    detail = first.message or f"{first.updated} of {first.desired} pods updated"
    return Problem("RolloutInProgress", f"waiting for {first.kind}/{first.name}: {detail}{others}", lasting=False)


def rollout_failure(consumers: Consumers, record: RotationRecord) -> Problem | None:
    """A workload of this rotation whose own controller has given up, or None."""
    for workload in consumers.workloads:
        if workload.stamp == record.id and workload.failure is not None:
            message = f"{workload.kind}/{workload.name} does not roll out: {workload.failure}"
            return Problem("RolloutFailed", message)
    return None
