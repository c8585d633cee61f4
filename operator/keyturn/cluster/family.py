"""Who belongs to whom in a namespace: from a pod up to the workload that made it, and down again."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Final

from keyturn.cluster import history
from keyturn.cluster.listing import Namespace
from keyturn.cluster.objects import Key, Raw, controller_of, name_of, uid_of
from keyturn.cluster.resources import (
    CRONJOBS,
    DAEMONSETS,
    DEPLOYMENTS,
    JOBS,
    PODS,
    REPLICASETS,
    ROLLOUTS,
    STATEFULSETS,
)

_GROUPS: Final = {
    resource.kind: resource.api_version.rpartition("/")[0]
    for resource in (DEPLOYMENTS, STATEFULSETS, DAEMONSETS, REPLICASETS, JOBS, CRONJOBS, ROLLOUTS)
}
_ENDED: Final = ("Succeeded", "Failed")


@dataclass(frozen=True, slots=True)
class Member:
    """A pod that may still run, and what it was made from. revision: as in keyturn.api.observed.Pod."""

    item: Raw
    owner: Key
    revision: int | None


class Family:
    """The relations within one listing."""

    def __init__(self, namespace: Namespace) -> None:
        self.namespace = namespace
        self._between = {uid_of(item): item for item in [*namespace.replicasets, *namespace.jobs]}
        self._made: defaultdict[str, list[Raw]] = defaultdict(list)
        for item in [*namespace.replicasets, *namespace.controllerrevisions]:
            if (owner := controller_of(item)) is not None:
                self._made[owner["uid"]].append(item)
        self._certain = {
            uid_of(item): history.certain_numbers(self.made_by(item))
            for item in [*namespace.statefulsets, *namespace.daemonsets]
        }
        self.members = [self._member(item) for item in namespace.pods if not _has_ended(item)]
        self._pods: defaultdict[Key, list[Raw]] = defaultdict(list)
        for member in self.members:
            self._pods[member.owner].append(member.item)

    def made_by(self, item: Raw) -> list[Raw]:
        """The ReplicaSets of a Deployment, the ControllerRevisions of a StatefulSet or DaemonSet."""
        return self._made[uid_of(item)]

    def pods_of(self, key: Key) -> list[Raw]:
        """The pods of a workload that may still run."""
        return self._pods[key]

    def _member(self, pod: Raw) -> Member:
        owner = controller_of(pod)
        if owner is None:
            return Member(pod, (PODS.kind, name_of(pod)), None)
        return Member(pod, self._top(owner), self._revision(pod, owner))

    def _top(self, owner: Raw) -> Key:
        """The last owner that is known. What makes Deployments and the like, an operator say, is not asked for."""
        while (between := self._between.get(owner["uid"])) and (above := controller_of(between)):
            owner = above
        return _kind(owner), owner["name"]

    def _revision(self, pod: Raw, owner: Raw) -> int | None:
        between = self._between.get(owner["uid"])
        if between is not None and _kind(owner) == REPLICASETS.kind:
            template = history.template_of_replicaset(between)
            return template.revision if template is not None else None
        revision = history.revision_of_pod(pod, self._made[owner["uid"]])
        return self._certain.get(owner["uid"], {}).get(name_of(revision)) if revision is not None else None


def _kind(owner: Raw) -> str:
    """The kind of an owner, with its group where that is not the one in which the kind is well known."""
    group = str(owner["apiVersion"]).rpartition("/")[0]
    kind = str(owner["kind"])
    return kind if _GROUPS.get(kind, group) == group else f"{kind}.{group}"


def _has_ended(pod: Raw) -> bool:
    return (pod.get("status") or {}).get("phase") in _ENDED
