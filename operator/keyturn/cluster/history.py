"""The pod templates that a workload has had, as far as its controller remembers them.

A Deployment remembers in ReplicaSets, a StatefulSet or DaemonSet in ControllerRevisions. Each use of a template has the
next number. A ReplicaSet that is taken into use again keeps its earlier numbers in an annotation; a ControllerRevision
forgets them (Kubernetes, pkg/controller/deployment/util and pkg/controller/history).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from keyturn.api.observed import Template
from keyturn.cluster.objects import STAMP, Raw, annotation_of, created, name_of

DEPLOYMENT_REVISION: Final = "deployment.kubernetes.io/revision"
_EARLIER_REVISIONS: Final = "deployment.kubernetes.io/revision-history"
_HASH: Final = "controller-revision-hash"


def template_of_replicaset(replicaset: Raw) -> Template | None:
    """What a ReplicaSet tells of its Deployment's past; None where it belongs to none."""
    numbers = [
        annotation_of(replicaset, DEPLOYMENT_REVISION),
        *(annotation_of(replicaset, _EARLIER_REVISIONS) or "").split(","),
    ]
    known = [int(number) for number in numbers if number]
    stamp = annotation_of(replicaset["spec"]["template"], STAMP)
    return Template(min(known), stamp, created(replicaset)) if known else None


def template_of_revision(revision: Raw) -> Template:
    """What a ControllerRevision tells. Its number is that of its last use, which need not be the first."""
    return Template(revision["revision"], annotation_of(pod_template(revision), STAMP), created(revision))


def pod_template(revision: Raw) -> Raw:
    """The pod template in a ControllerRevision of a StatefulSet or DaemonSet."""
    found: Raw = revision["data"]["spec"]["template"]
    return found


def revision_of_pod(pod: Raw, revisions: Sequence[Raw]) -> Raw | None:
    """The ControllerRevision, among those of the pod's StatefulSet or DaemonSet, from which it was made."""
    mark = (pod["metadata"].get("labels") or {}).get(_HASH)
    if mark is None:
        return None
    # A StatefulSet labels its pods with the revision's name, a DaemonSet with the hash that the name ends in.
    return next((found for found in revisions if name_of(found) == mark or name_of(found).endswith(f"-{mark}")), None)


def certain_numbers(revisions: Sequence[Raw]) -> dict[str, int]:
    """The numbers, by the names of ControllerRevisions, that certainly tell which was used first before which.

    One that is taken into use again leaves a gap, unless all that were older are forgotten by now: then it has become
    the oldest but for others that came in the same second as it, or it is out of the order of times.
    """
    ordered = sorted(revisions, key=lambda revision: int(revision["revision"]))
    numbers = [revision["revision"] for revision in ordered]
    times = [created(revision) for revision in ordered]
    if numbers != list(range(numbers[0], numbers[0] + len(numbers)) if numbers else ()) or times != sorted(times):
        return {}
    return {
        name_of(revision): revision["revision"]
        for revision in ordered
        if numbers[0] == 1 or created(revision) > times[0]
    }
