"""Pods that work with one value only: they break when their Secret holds another, and heal with the good one."""

from __future__ import annotations

from typing import Any

from sandbox.kubelet import Kind, unless
from sandbox.stage import wait_until
from tests.e2e.scene import Scene

QUICK = {"sandbox.keyturn.dev/run-for": "50ms", "sandbox.keyturn.dev/crash-backoff": "100ms"}
ENV = {"envFrom": [{"secretRef": {"name": "m2m"}}]}
MOUNT = {"volumeMounts": [{"name": "keys", "mountPath": "/keys"}]}
VOLUME = {"name": "keys", "secret": {"secretName": "m2m"}}


def put_pod(scene: Scene, name: str, otherwise: Kind, container: dict[str, Any]) -> None:
    """A pod that works with the first value, and does something else with any other."""
    annotations = QUICK | unless(otherwise, "m2m", "CLIENT_SECRET", scene.first_secret)
    spec = {"containers": [{"name": "app", "image": "app", **container}], "volumes": [VOLUME]}
    meta = {"name": name, "annotations": annotations}
    scene.put({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec})


def container(scene: Scene, name: str) -> dict[str, Any]:
    found = scene.get(f"/api/v1/namespaces/{scene.namespace}/pods/{name}") or {}
    status: dict[str, Any] = (found.get("status", {}).get("containerStatuses") or [{}])[0]
    return status


def is_ready(scene: Scene, *names: str) -> bool:
    return all(container(scene, name).get("ready") for name in names)


def crash_loops(scene: Scene, *names: str) -> bool:
    found = [container(scene, name) for name in names]
    reasons = [one.get("state", {}).get("waiting", {}).get("reason") for one in found]
    return all(reason == "CrashLoopBackOff" for reason in reasons) and all(one["restartCount"] >= 3 for one in found)


def test_the_other_value_breaks_who_sees_it_and_the_good_one_heals(scene: Scene) -> None:
    put_pod(scene, "env", Kind.CRASH_LOOP, ENV)
    put_pod(scene, "unready", Kind.NEVER_READY, MOUNT)
    put_pod(scene, "crashing", Kind.CRASH_LOOP, MOUNT)
    wait_until(lambda: is_ready(scene, "env", "unready", "crashing"), "all work with the first value", seconds=10)

    scene.put_secret("m2m", {"CLIENT_SECRET": "another", "OTHER": "untouched"})
    put_pod(scene, "late", Kind.CRASH_LOOP, ENV)
    wait_until(lambda: not is_ready(scene, "unready"), "the volume shows the other value", seconds=10)
    wait_until(lambda: crash_loops(scene, "crashing", "late"), "both crash again and again", seconds=10)
    assert is_ready(scene, "env"), "an environment stays what it was"
    assert container(scene, "unready")["restartCount"] == 0

    scene.put_secret("m2m", {"CLIENT_SECRET": scene.first_secret, "OTHER": "untouched"})
    wait_until(lambda: is_ready(scene, "unready", "crashing", "late"), "all work again", seconds=15)
    assert container(scene, "unready")["restartCount"] == 0
    assert container(scene, "late")["restartCount"] >= 3
