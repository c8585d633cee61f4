"""What a pod needs before its containers can start: the Secrets and ConfigMaps, and keys in them, that it refers to."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Reference:
    """One reference that is not optional. `key` is None where the whole object is meant."""

    kind: str  # Secret or ConfigMap
    name: str
    key: str | None
    volume: str | None
    """The volume that needs it; None for a container's environment."""


def required(pod: dict[str, Any]) -> list[Reference]:
    """All references of `pod` that are not optional. imagePullSecrets are not among them: a kubelet starts without."""
    spec = pod["spec"]
    found: list[Reference] = []
    for container in (*(spec.get("initContainers") or []), *spec["containers"]):
        found.extend(_of_environment(container))
    for volume in spec.get("volumes") or []:
        found.extend(_of_volume(volume))
    return list(dict.fromkeys(found))


def problem(reference: Reference, namespace: str, obj: dict[str, Any] | None) -> str | None:
    """Why the containers can't start, in a kubelet's words, given the object (None: there is none); None if they can.

    Wording: pkg/kubelet/kubelet_pods.go (environment) and pkg/volume/secret/secret.go (volumes, also used for CSI's) of
    Kubernetes.
    """
    if obj is None:
        text = f'{reference.kind.lower()} "{reference.name}" not found'
    elif (
        reference.key is None
        or reference.key in (obj.get("data") or {})
        or reference.key in (obj.get("binaryData") or {})
    ):
        return None
    elif reference.volume:
        text = f"references non-existent {reference.kind.lower()} key: {reference.key}"
    else:
        text = f"couldn't find key {reference.key} in {reference.kind} {namespace}/{reference.name}"
    return f'MountVolume.SetUp failed for volume "{reference.volume}" : {text}' if reference.volume else text


def _of_environment(container: dict[str, Any]) -> Iterator[Reference]:
    for variable in container.get("env") or []:
        source = variable.get("valueFrom") or {}
        yield from _reference("Secret", source.get("secretKeyRef"))
        yield from _reference("ConfigMap", source.get("configMapKeyRef"))
    for source in container.get("envFrom") or []:
        yield from _reference("Secret", source.get("secretRef"))
        yield from _reference("ConfigMap", source.get("configMapRef"))


def _reference(kind: str, selector: dict[str, Any] | None) -> Iterator[Reference]:
    if selector and not selector.get("optional"):
        yield Reference(kind, selector["name"], selector.get("key"), None)


def _of_volume(volume: dict[str, Any]) -> Iterator[Reference]:
    if publish := (volume.get("csi") or {}).get("nodePublishSecretRef"):
        yield Reference("Secret", publish["name"], None, volume["name"])
    sources = [volume, *((volume.get("projected") or {}).get("sources") or [])]
    for source in sources:
        for kind, field in (("Secret", "secret"), ("ConfigMap", "configMap")):
            projection = source.get(field)
            if not projection or projection.get("optional"):
                continue
            name = projection.get("secretName") or projection["name"]
            keys = [item["key"] for item in projection.get("items") or []]
            for key in keys or [None]:
                yield Reference(kind, name, key, volume["name"])
