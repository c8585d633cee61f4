"""The objects of a plan before anything is spoiled: a rotation, its account, both Secrets, and a workload."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

API: Final = "keyturn.dev/v1alpha1"
ROLES: Final = ("credential", "secret", "workload", "provider", "rotation", "rival")
"""In the order in which they are created, and put right again but for the rotations, which come first then."""

Cast = Mapping[str, dict[str, Any] | None]
"""The objects by role; None for one that is not there."""

LONG_NAME: Final = "a" * 63 + "." + "b" * 63 + "." + "c" * 63 + "." + "d" * 61


@dataclass(frozen=True, slots=True)
class Names:
    """What a plan calls its objects; `kind` is that of the provider object."""

    provider: str
    kind: str
    rotation: str
    account: str
    secret: str
    key: str

    @property
    def clusterwide(self) -> bool:
        return self.kind == "ClusterRotationProvider"


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known only where a plan is played: the namespace, the simulated account and its client."""

    namespace: str
    url: str
    account_field: str
    account_id: str
    credential: str
    client_id: str
    value: str


def base64_of(content: str | bytes) -> str:
    return base64.b64encode(content.encode() if isinstance(content, str) else content).decode()


def cast(names: Names, facts: Facts) -> dict[str, dict[str, Any] | None]:
    """Objects with which everything is well: idle, verified, ready."""
    reference = {"name": f"{names.secret[:100]}-project", "key": "secret"}
    block = {
        facts.account_field: facts.account_id,
        "secretRef": {**reference, **({"namespace": facts.namespace} if names.clusterwide else {})},
        "baseUrl": facts.url,
    }
    # Short, so that an address that swallows everything is given up soon.
    around: dict[str, Any] = {"timeouts": {"connect": "2s", "read": "4s"}}
    if names.clusterwide:
        around["namespaces"] = [facts.namespace]
    rotation = {
        "providerRef": {"kind": names.kind, "name": names.account},
        "clientId": facts.client_id,
        "secretRef": {"name": names.secret, "key": names.key},
        "soak": "0s",
    }
    place = {"namespace": facts.namespace}
    return {
        "credential": _object("v1", "Secret", reference["name"], place, data={"secret": base64_of(facts.credential)}),
        "secret": _object(
            *("v1", "Secret", names.secret, place),
            data={names.key: base64_of(facts.value), "OTHER": base64_of("untouched")},
        ),
        "workload": None,
        "provider": _object(
            *(API, names.kind, names.account, {} if names.clusterwide else place),
            spec={names.provider: block, **around},
        ),
        "rotation": _object(API, "ClientSecretRotation", names.rotation, place, spec=rotation),
        "rival": None,
    }


def workload(names: Names, facts: Facts, annotations: dict[str, str]) -> dict[str, Any]:
    """A Deployment without pods that reads the Secret."""
    container = {"name": "app", "image": "app", "envFrom": [{"secretRef": {"name": names.secret}}]}
    return _deployment("web", facts.namespace, container, annotations)


def bystander(namespace: str) -> dict[str, Any]:
    """A Deployment that reads nothing, without which Keyturn asks the namespace for Deployments only now and then."""
    return _deployment("bystander", namespace, {"name": "app", "image": "app"}, {})


def _deployment(name: str, namespace: str, container: dict[str, Any], annotations: dict[str, str]) -> dict[str, Any]:
    template = {"metadata": {"labels": {"app": name}}, "spec": {"containers": [container]}}
    spec = {"replicas": 0, "selector": {"matchLabels": {"app": name}}, "template": template}
    found = _object("apps/v1", "Deployment", name, {"namespace": namespace}, spec=spec)
    found["metadata"]["annotations"] = annotations
    return found


def _object(version: str, kind: str, name: str, place: dict[str, str], **content: Any) -> dict[str, Any]:
    return {"apiVersion": version, "kind": kind, "metadata": {"name": name, **place}, **content}


_COLLECTIONS: Final = {
    "Secret": "/api/v1/namespaces/{}/secrets",
    "Deployment": "/apis/apps/v1/namespaces/{}/deployments",
    "ClientSecretRotation": f"/apis/{API}/namespaces/{{}}/clientsecretrotations",
    "RotationProvider": f"/apis/{API}/namespaces/{{}}/rotationproviders",
    "ClusterRotationProvider": f"/apis/{API}/clusterrotationproviders",
}


def collection_of(obj: Mapping[str, Any]) -> str:
    """The URL path to which such an object is posted."""
    return _COLLECTIONS[obj["kind"]].format(obj["metadata"].get("namespace"))


def path_of(obj: Mapping[str, Any]) -> str:
    return f"{collection_of(obj)}/{obj['metadata']['name']}"
