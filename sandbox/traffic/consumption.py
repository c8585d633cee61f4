"""How a pod comes by its credential: what its annotations name, found again in its spec."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

CLIENT = "client.sandbox.keyturn.dev/kind"
"""Annotation of pods that get a client: the kind of provider, such as `stytch`."""
CLIENT_SECRET = "client.sandbox.keyturn.dev/secret"
"""Annotation: `<Secret>/<key>` with the value to call with."""
CLIENT_ID = "client.sandbox.keyturn.dev/id"
"""Annotation: the client's id; or else CLIENT_ID_KEY."""
CLIENT_ID_KEY = "client.sandbox.keyturn.dev/id-key"
"""Annotation: the key of the same Secret that holds the client's id."""


class Way(StrEnum):
    """When a container gets to see a new value."""

    SNAPSHOT = "snapshot"
    """With its next start: environment, subPath mounts, what init containers copied, image pulls, CSI."""
    LIVE = "live"
    """Some time after the Secret changed: volumes."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a pod's annotations ask for. Exactly one of `client_id` and `client_id_key` is set."""

    kind: str
    secret: str
    key: str
    client_id: str | None
    client_id_key: str | None


def wanted(pod: dict[str, Any]) -> Wanted | None:
    """Read a pod's annotations: None when it is to have no client, ValueError when they are not complete."""
    annotations = pod["metadata"].get("annotations") or {}
    kind = annotations.get(CLIENT)
    if not kind:
        return None
    secret, _, key = annotations.get(CLIENT_SECRET, "").partition("/")
    if not secret or not key:
        raise ValueError(f"annotation {CLIENT_SECRET} must be <Secret>/<key>")
    client_id, client_id_key = annotations.get(CLIENT_ID), annotations.get(CLIENT_ID_KEY)
    if bool(client_id) == bool(client_id_key):
        raise ValueError(f"exactly one of the annotations {CLIENT_ID} and {CLIENT_ID_KEY} must be set")
    return Wanted(kind, secret, key, client_id, client_id_key)


def ways(pod: dict[str, Any], secret: str, key: str) -> frozenset[Way]:
    """In which ways a pod reads this key of a Secret with its start; empty when it does not."""
    return frozenset(_ways(pod["spec"], secret, key))


def ways_of_ephemeral(pod: dict[str, Any], container: str, secret: str, key: str) -> frozenset[Way]:
    """The same for an ephemeral container of this name, which comes later."""
    spec = pod["spec"]
    found = [each for each in spec.get("ephemeralContainers") or [] if each["name"] == container]
    return frozenset(way for each in found for way in _container(spec, each, secret, key))


def _ways(spec: dict[str, Any], secret: str, key: str) -> Iterator[Way]:
    if any(reference.get("name") == secret for reference in spec.get("imagePullSecrets") or []):
        yield Way.SNAPSHOT
    for container in spec.get("initContainers") or []:
        if any(_container(spec, container, secret, key)):
            yield Way.SNAPSHOT
    for container in spec.get("containers") or []:
        yield from _container(spec, container, secret, key)
    for volume in spec.get("volumes") or []:
        if ((volume.get("csi") or {}).get("nodePublishSecretRef") or {}).get("name") == secret:
            yield Way.SNAPSHOT


def _container(spec: dict[str, Any], container: dict[str, Any], secret: str, key: str) -> Iterator[Way]:
    volumes = {volume["name"] for volume in spec.get("volumes") or [] if _volume_holds(volume, secret, key)}
    if _environment_holds(container, secret, key):
        yield Way.SNAPSHOT
    for mount in container.get("volumeMounts") or []:
        if mount["name"] in volumes:
            # Mounts of a subPath are not updated (kubernetes.io/docs/concepts/configuration/secret).
            yield Way.SNAPSHOT if mount.get("subPath") else Way.LIVE


def _environment_holds(container: dict[str, Any], secret: str, key: str) -> bool:
    from_all = [(source.get("secretRef") or {}).get("name") for source in container.get("envFrom") or []]
    from_key = [(variable.get("valueFrom") or {}).get("secretKeyRef") or {} for variable in container.get("env") or []]
    return secret in from_all or any((one.get("name"), one.get("key")) == (secret, key) for one in from_key)


def _volume_holds(volume: dict[str, Any], secret: str, key: str) -> bool:
    sources = [volume.get("secret") or {}]
    sources += [source.get("secret") or {} for source in (volume.get("projected") or {}).get("sources") or []]
    return any(
        secret in (source.get("secretName"), source.get("name"))
        and (not source.get("items") or any(item["key"] == key for item in source["items"]))
        for source in sources
    )
