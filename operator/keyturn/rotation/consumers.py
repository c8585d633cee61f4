"""Who may still hold which value, judged from what the cluster shows (I3, I4, I7).

A container reads the Secret when it starts. So a pod holds the new value when its template carries this rotation's
stamp, or when it was created after the new value was written. Times come from the API server and have a resolution of
one second; within the same second a pod counts as holding the value that would be unsafe.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from functools import cached_property

from keyturn.api.observed import Consumers, Pod, Workload
from keyturn.api.rotation import Phase, RestartPolicy, RolloutSpec, RotationRecord

Key = tuple[str, str]
"""Kind and name of a workload."""


def cancel_stamp(record: RotationRecord) -> str:
    """The stamp that a workload gets when it is rolled back to the previous value."""
    return f"{record.id}-cancelled"


@dataclass(frozen=True)
class RolloutView:
    """The consumers, seen from where a rotation stands: on its way to the new value, or back to the previous one."""

    consumers: Consumers
    record: RotationRecord
    spec: RolloutSpec
    now: datetime

    @property
    def cancelling(self) -> bool:
        return self.record.phase is Phase.CANCELLING

    @property
    def stamp(self) -> str:
        """The stamp of the workloads that were restarted in this direction."""
        return cancel_stamp(self.record) if self.cancelling else self.record.id

    @property
    def written(self) -> datetime | None:
        """When the value was written that everything is to run on."""
        return self.record.restored_time if self.cancelling else self.record.distributed_time

    @property
    def volumes_followed(self) -> datetime | None:
        """From when on every volume shows that value."""
        return None if self.written is None else self.written + self.spec.volume_refresh

    def unsafe(self, pod: Pod) -> bool:
        """Whether the pod may hold the value that is about to die."""
        return pod in self.unsafe_pods

    @cached_property
    def unsafe_pods(self) -> frozenset[Pod]:
        """The pods that may hold the value which is about to die."""
        restarted = {key_of(workload): restart_revision(self, workload) for workload in self.consumers.workloads}
        holds = self._holds_pending if self.cancelling else self._holds_previous
        return frozenset(
            pod for pod in self.consumers.pods if holds(pod) and not _younger(pod, restarted.get(pod.owner))
        )

    def by_itself(self, pod: Pod) -> bool:
        """Whether the pod comes to the wanted value without a restart, when its volumes follow.

        Going back, this is true whatever the policy of a pod that began with the previous value: only its volumes have
        changed since.
        """
        if pod.live and self.spec.restart is RestartPolicy.ENV_ONLY:
            return True
        return pod.volume and self.cancelling and not self._began_with_pending(pod)

    def _holds_previous(self, pod: Pod) -> bool:
        """Whether the pod may have started on the value that was current before this rotation."""
        written = self.record.distributed_time
        if pod.stamp == self.record.id:
            return False
        if written is None:
            return True
        return pod.created <= written and not (self.by_itself(pod) and self._followed())

    def _holds_pending(self, pod: Pod) -> bool:
        """Whether the pod may have got the new value, as far as it must not once that value is withdrawn."""
        record = self.record
        if record.distributed_time is None or pod.stamp == cancel_stamp(record):
            return False
        if record.restored_time is not None and pod.created > record.restored_time:
            return False
        if pod.volume and not self._followed():
            return True
        if pod.live and self.spec.restart is RestartPolicy.ENV_ONLY:
            return False
        return self._began_with_pending(pod)

    def _began_with_pending(self, pod: Pod) -> bool:
        """Whether a container of the pod may have found the new value when it started."""
        written = self.record.distributed_time
        if written is None or pod.stamp == cancel_stamp(self.record):
            return False
        if pod.stamp == self.record.id or pod.created >= written:
            return True
        return pod.started is not None and pod.started >= written

    def _followed(self) -> bool:
        return self.volumes_followed is not None and self.now >= self.volumes_followed


def restart_revision(rollout: RolloutView, workload: Workload) -> int | None:
    """The revision that this rotation's restart of the workload made, whatever its template became since; or None."""
    written = rollout.written
    revisions = [
        template.revision
        for template in workload.templates
        if template.stamp == rollout.stamp and written is not None and template.created >= written
    ]
    return min(revisions, default=None)


def _younger(pod: Pod, restarted: int | None) -> bool:
    """Whether the pod's template is that of our restart, or came after it: unlike times, revisions are never equal."""
    return restarted is not None and pod.revision is not None and pod.revision >= restarted


def was_restarted(rollout: RolloutView, workload: Workload) -> bool:
    """Whether Keyturn has restarted the workload in this direction, whatever others did to it since."""
    return (
        workload.stamp == rollout.stamp
        or restart_revision(rollout, workload) is not None
        or any(target.restarted and (target.kind, target.name) == key_of(workload) for target in rollout.record.targets)
    )


def replaced_since(rollout: RolloutView, workload: Workload) -> bool:
    """Whether its template is newer than the value: its controller replaces the pods already, whoever changed it.

    That is the user, or the rotation of another Secret that it reads.
    """
    written = rollout.written
    return workload.template_time is not None and written is not None and workload.template_time > written


def to_restart(rollout: RolloutView) -> tuple[Workload, ...]:
    """The workloads that must be restarted and were not yet: each at most once in each direction (I7).

    That our stamp is no longer on a workload which had it means that somebody has taken it off or put another one over
    it: restarting it again would only add a restart, or fight.
    """
    if rollout.spec.restart is RestartPolicy.NEVER:
        return ()
    owners = {pod.owner for pod in rollout.unsafe_pods if not rollout.by_itself(pod)}
    return tuple(
        workload
        for workload in rollout.consumers.workloads
        if workload.restartable
        and workload.observed
        and workload.paused is None
        and not was_restarted(rollout, workload)
        and not replaced_since(rollout, workload)
        and (key_of(workload) in owners or (rollout.cancelling and workload.stamp == rollout.record.id))
    )


def stuck_pods(rollout: RolloutView) -> tuple[Pod, ...]:
    """Pods that never came up on the new value, and that keep their controllers from going back to the previous one.

    A StatefulSet waits until they are ready, a Rollout that is restarted does not evict them: they have to be deleted.
    Source: kubernetes.io/docs/concepts/workloads/controllers/statefulset, "Forced rollback".
    """
    if not rollout.cancelling:
        return ()
    going_back = {
        key_of(workload)
        for workload in rollout.consumers.workloads
        if workload.ordered and workload.observed and workload.stamp == rollout.stamp
    }
    stuck = [pod for pod in rollout.unsafe_pods if pod.owner in going_back and not pod.ready and not pod.terminating]
    return tuple(sorted(stuck, key=lambda pod: pod.name))


def key_of(workload: Workload) -> Key:
    return workload.kind, workload.name
