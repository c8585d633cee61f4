"""Which pods read a Secret: every way in which a pod spec can name one.

Source: Kubernetes API reference, PodSpec, as of v1.36; the same walk as `visitPodSecretNames` in pkg/api/v1/pod.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

_CONTAINERS = ("initContainers", "containers", "ephemeralContainers")
_DIRECT_VOLUMES = ("azureFile", "cephfs", "cinder", "flexVolume", "iscsi", "rbd", "scaleIO", "storageos")


def reads_secret(pod_spec: dict[str, Any], name: str) -> bool:
    """Whether a pod of this spec reads the Secret of this name in its own namespace."""
    return any(found == name for found in secret_names(pod_spec))


def follows_secret(pod_spec: dict[str, Any], name: str) -> bool:
    """Whether a pod of this spec sees a new value without a restart, in every way in which it reads the Secret.

    Volumes of Secrets follow, unless mounted by subPath (kubernetes.io/docs/concepts/configuration/secret, "Mounted
    Secrets are updated automatically"). Images are pulled with what is in the Secret then. An init container has ended
    when the volume changes, and may have copied what it read.
    """
    volumes = pod_spec.get("volumes") or []
    others = [volume for volume in volumes if not _follows(volume)]
    if reads_secret({**pod_spec, "imagePullSecrets": None, "volumes": others}, name):
        return False
    following = {volume["name"] for volume in volumes if _follows(volume) and name in _volume(volume)}
    return not any(
        mount["name"] in following and (group == "initContainers" or mount.get("subPath") or mount.get("subPathExpr"))
        for group in _CONTAINERS
        for container in pod_spec.get(group) or []
        for mount in container.get("volumeMounts") or []
    )


def shows_secret(pod_spec: dict[str, Any], name: str) -> bool:
    """Whether a pod of this spec has the Secret in a volume that follows it, whatever else it reads it by."""
    return any(_follows(volume) and name in _volume(volume) for volume in pod_spec.get("volumes") or [])


def _follows(volume: dict[str, Any]) -> bool:
    """Whether a volume shows its Secrets as files, which the kubelet keeps up to date."""
    return "secret" in volume or "projected" in volume


def secret_names(pod_spec: dict[str, Any]) -> Iterator[str]:
    """The names of all Secrets that a pod of this spec reads, with repetitions."""
    for pull in pod_spec.get("imagePullSecrets") or []:
        yield pull.get("name", "")
    for group in _CONTAINERS:
        for container in pod_spec.get(group) or []:
            yield from _container(container)
    for volume in pod_spec.get("volumes") or []:
        yield from _volume(volume)


def _container(container: dict[str, Any]) -> Iterator[str]:
    for source in container.get("envFrom") or []:
        if "secretRef" in source:
            yield source["secretRef"].get("name", "")
    for variable in container.get("env") or []:
        reference = (variable.get("valueFrom") or {}).get("secretKeyRef")
        if reference:
            yield reference.get("name", "")


def _volume(volume: dict[str, Any]) -> Iterator[str]:
    if "secret" in volume:
        yield volume["secret"].get("secretName", "")
    for source in (volume.get("projected") or {}).get("sources") or []:
        if "secret" in source:
            yield source["secret"].get("name", "")
    csi = (volume.get("csi") or {}).get("nodePublishSecretRef")
    if csi:
        yield csi.get("name", "")
    for kind in _DIRECT_VOLUMES:
        if kind in volume:
            yield (volume[kind].get("secretRef") or {}).get("name", "") or volume[kind].get("secretName", "")
