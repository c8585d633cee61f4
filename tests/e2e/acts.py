"""What people do to a rotation and around it while it runs."""

from __future__ import annotations

import itertools
from typing import Any, Final

from tests.e2e.scene import Scene

THEIRS: Final = "edited-by-hand"
"""A value that somebody makes up."""
_seconds = itertools.count(120)

# --- the rotation ----------------------------------------------------------------------------------------------------


def edit(scene: Scene, **spec: Any) -> None:
    """What a user does with kubectl edit; nothing when the rotation is gone."""
    if scene.get(scene.rotation_path) is not None:
        scene.patch(scene.rotation_path, {"spec": spec})


def hurry(scene: Scene) -> None:
    """Let Keyturn look again now, as after every edit, instead of when its back-off ends."""
    edit(scene, verify={"timeout": f"{next(_seconds)}s"})


def break_spec(scene: Scene) -> None:
    """Only an API server that does not evaluate CEL takes this."""
    edit(scene, overlap="999h")


def mend_spec(scene: Scene) -> None:
    edit(scene, overlap="24h")


def cancel(scene: Scene) -> None:
    """The user's word that the running rotation is to be taken back."""
    word = {"keyturn.dev/cancel": scene.status()["rotation"]["id"]}
    scene.patch(scene.rotation_path, {"metadata": {"annotations": word}})


def delete(scene: Scene) -> None:
    scene.delete(scene.rotation_path)


def delete_namespace(scene: Scene) -> None:
    scene.delete(f"/api/v1/namespaces/{scene.namespace}")


# --- the Secret ------------------------------------------------------------------------------------------------------


def edit_value(scene: Scene) -> None:
    """A value of somebody's own, which the provider does not know."""
    scene.put_secret("m2m", {"CLIENT_SECRET": THEIRS, "OTHER": "untouched"})


def revert_value(scene: Scene) -> None:
    """The value from before the rotation."""
    scene.put_secret("m2m", {"CLIENT_SECRET": scene.first_secret, "OTHER": "untouched"})


def remove_secret(scene: Scene) -> None:
    scene.delete(scene.secret_path)


def put_empty_secret(scene: Scene) -> None:
    """Without the key; whether or not the Secret exists."""
    scene.put_secret("m2m", {"OTHER": "untouched"})


# --- the provider object ---------------------------------------------------------------------------------------------


def remove_provider(scene: Scene) -> None:
    scene.delete(scene.rotation_path.replace("clientsecretrotations/billing", f"rotationproviders/{scene.provider}"))


def put_provider(scene: Scene) -> None:
    scene.put_provider()


def break_credentials(scene: Scene) -> None:
    scene.put_secret("project", {"secret": "wrong"})


def remove_credentials(scene: Scene) -> None:
    scene.delete(f"/api/v1/namespaces/{scene.namespace}/secrets/project")


def put_credentials(scene: Scene) -> None:
    scene.put_secret("project", {"secret": scene.credential})


# --- pods and workloads -----------------------------------------------------------------------------------------------


def reader(scene: Scene, annotations: dict[str, str] | None = None) -> dict[str, Any]:
    """A pod, without a name, that reads the Secret and calls with it."""
    client = {
        "client.sandbox.keyturn.dev/kind": scene.account.kind,
        "client.sandbox.keyturn.dev/secret": "m2m/CLIENT_SECRET",
        "client.sandbox.keyturn.dev/id": scene.client_id,
    }
    container = {"name": "app", "image": "app", "envFrom": [{"secretRef": {"name": "m2m"}}]}
    return {"metadata": {"annotations": {**client, **(annotations or {})}}, "spec": {"containers": [container]}}


def put_pod(scene: Scene, name: str) -> None:
    """A pod without a controller."""
    pod = reader(scene)
    pod["metadata"]["name"] = name
    scene.put({"apiVersion": "v1", "kind": "Pod", **pod})
    scene.wait(lambda: any(pod.pod == name for pod in scene.running()), f"pod {name} calls")


def delete_pod(scene: Scene, name: str) -> None:
    """Delete it, if it is there."""
    path = f"/api/v1/namespaces/{scene.namespace}/pods/{name}"
    if scene.get(path) is not None:
        scene.delete(path)


def put_ordered(scene: Scene, annotations: dict[str, str] | None = None) -> None:
    """A StatefulSet `ordered` with two pods, which run."""
    pod = reader(scene, annotations)
    pod["metadata"]["labels"] = {"app": "ordered"}
    spec = {"replicas": 2, "serviceName": "ordered", "selector": {"matchLabels": {"app": "ordered"}}, "template": pod}
    scene.put({"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "ordered"}, "spec": spec})
    path = workload_path(scene, "statefulsets", "ordered")
    scene.wait(lambda: ((scene.get(path) or {}).get("status") or {}).get("readyReplicas") == 2, "ordered is ready")


def workload_path(scene: Scene, plural: str, name: str) -> str:
    return f"/apis/apps/v1/namespaces/{scene.namespace}/{plural}/{name}"


def take_stamp_off(scene: Scene, name: str = "web", plural: str = "deployments") -> bool:
    """Replace a workload by itself without Keyturn's annotation, as from Git; whether there was one."""
    path = workload_path(scene, plural, name)
    found = scene.get(path)
    if found is None or found["spec"]["template"]["metadata"]["annotations"].pop("keyturn.dev/rotation", None) is None:
        return False
    scene.stage.api.http.put(path, json=found).raise_for_status()
    return True
