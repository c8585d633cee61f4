"""The workloads and pods of one namespace that use a Secret: found, and restarted."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from keyturn.api.observed import Consumers, Workload
from keyturn.api.rotation import RolloutSpec
from keyturn.cluster import rollouts
from keyturn.cluster.client import Kube
from keyturn.cluster.errors import NotFound
from keyturn.cluster.family import Family
from keyturn.cluster.kinds import all_workloads, describe
from keyturn.cluster.objects import STAMP
from keyturn.cluster.pods import pod_of
from keyturn.cluster.references import follows_secret, reads_secret, shows_secret
from keyturn.cluster.resources import DAEMONSETS, DEPLOYMENTS, ROLLOUTS, STATEFULSETS
from keyturn.cluster.selection import chosen

_RESTARTABLE: Final = {resource.kind: resource for resource in (DEPLOYMENTS, STATEFULSETS, DAEMONSETS, ROLLOUTS)}


async def restart(
    kube: Kube, namespace: str, workload: Workload, stamp: str, written: datetime, *, dry_run: bool = False
) -> None:
    """Have its controller replace the pods, by server-side apply of the stamp to the pod template.

    Applying the same stamp again changes nothing (I7). GitOps tools that do not name the annotation see no drift.
    `written`: when the value was written that the pods are to read; for Rollouts, which have no stamp in the template.
    """
    name = workload.name
    if workload.kind == ROLLOUTS.kind:
        await rollouts.restart(kube, namespace, name, stamp, written, dry_run=dry_run)
        return
    metadata = {"name": name, "namespace": namespace}
    body = {"metadata": metadata, "spec": {"template": {"metadata": {"annotations": {STAMP: stamp}}}}}
    await kube.apply(_RESTARTABLE[workload.kind], namespace, name, body, dry_run=dry_run)


async def exists(kube: Kube, namespace: str, workload: Workload) -> bool:
    """Whether a workload that can be restarted is still there."""
    try:
        await kube.get(_RESTARTABLE[workload.kind], namespace, workload.name)
    except NotFound:
        return False
    return True


def consumers_of(family: Family, secret: str, rollout: RolloutSpec) -> Consumers:
    """Everything in a namespace that uses the Secret.

    That is, with `discover`, what reads it: by its template, or because one of its pods does; and what is chosen by
    `targets` and `selector`, with all its pods.
    """
    by_word, missing = chosen(family.namespace, rollout)
    pods = []
    for member in family.members:
        spec = member.item["spec"]
        if member.owner in by_word:
            pods.append(pod_of(member, live=False, volume=True))
        elif rollout.discover and reads_secret(spec, secret):
            live, volume = follows_secret(spec, secret), shows_secret(spec, secret)
            pods.append(pod_of(member, live=live, volume=volume))
    keys = by_word.union(pod.owner for pod in pods)
    workloads = tuple(
        describe(found, family)
        for found in all_workloads(family.namespace)
        if found.key in keys or (rollout.discover and reads_secret(found.pod_spec, secret))
    )
    return Consumers(workloads=workloads, pods=tuple(pods), missing=missing)
