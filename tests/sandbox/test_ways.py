"""Every way in which a pod can read a Secret, on the real API server: when does its traffic show the new value?"""

from __future__ import annotations

from typing import Any

import pytest

from sandbox.controlplane import ApplyError
from sandbox.simulators.stytch import IssuedSecret, new_secret
from sandbox.stage import wait_until
from sandbox.traffic.consumption import Way
from sandbox.traffic.report import fingerprint
from tests.e2e.scene import Scene

KEY_REF = {"secretKeyRef": {"name": "m2m", "key": "CLIENT_SECRET"}}
ENV = {"env": [{"name": "SECRET", "valueFrom": KEY_REF}]}
VOLUME = {"name": "keys", "secret": {"secretName": "m2m"}}
CSI = {"driver": "secrets-store.csi.k8s.io", "nodePublishSecretRef": {"name": "m2m"}}
MOUNT = {"name": "keys", "mountPath": "/keys"}


def reads(container: dict[str, Any], *volumes: dict[str, Any], **spec: Any) -> dict[str, Any]:
    return {"containers": [{"name": "app", "image": "app", **container}], "volumes": list(volumes), **spec}


SNAPSHOTS = {
    "env": reads(ENV),
    "envfrom": reads({"envFrom": [{"secretRef": {"name": "m2m"}}]}),
    "subpath": reads({"volumeMounts": [{**MOUNT, "subPath": "CLIENT_SECRET"}]}, VOLUME),
    "init": reads({}, initContainers=[{"name": "init", "image": "init", **ENV}]),
    "csi": reads({"volumeMounts": [MOUNT]}, {"name": "keys", "csi": CSI}),
    "pull": reads({}, imagePullSecrets=[{"name": "m2m"}]),
    "account": reads({}, serviceAccountName="puller"),
}
LIVE = {
    "volume": reads({"volumeMounts": [MOUNT]}, VOLUME),
    "projected": reads(
        {"volumeMounts": [MOUNT]}, {"name": "keys", "projected": {"sources": [{"secret": {"name": "m2m"}}]}}
    ),
}


def put_pod(scene: Scene, name: str, spec: dict[str, Any], *, reads_the_secret: bool = True) -> None:
    client = {
        "client.sandbox.keyturn.dev/kind": scene.account.kind,
        "client.sandbox.keyturn.dev/secret": "m2m/CLIENT_SECRET",
        "client.sandbox.keyturn.dev/id": scene.client_id,
    }
    meta = {"name": name, "annotations": client if reads_the_secret else {}}
    scene.put({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec})


def status(scene: Scene, name: str) -> dict[str, Any]:
    found = scene.get(f"/api/v1/namespaces/{scene.namespace}/pods/{name}") or {}
    shown: dict[str, Any] = found.get("status", {})
    return shown


def is_ready(scene: Scene, name: str) -> bool:
    return any(each["ready"] for each in status(scene, name).get("containerStatuses") or [])


def values(scene: Scene) -> dict[str, set[str]]:
    """The fingerprints of the values with which each pod has called."""
    return {pod.pod: set(pod.values) for pod in scene.traffic()}


def wait_for_more_calls(scene: Scene) -> None:
    """Two of each client."""
    enough = {pod.uid: pod.calls.accepted.count + 2 for pod in scene.traffic()}
    wait_until(lambda: all(pod.calls.accepted.count >= enough[pod.uid] for pod in scene.traffic()), "more calls")


def test_each_way_of_reading_shows_the_new_value_when_it_should(scene: Scene) -> None:
    account = {"metadata": {"name": "puller"}, "imagePullSecrets": [{"name": "m2m"}]}
    scene.put({"apiVersion": "v1", "kind": "ServiceAccount", **account})
    for name, spec in {**SNAPSHOTS, **LIVE}.items():
        put_pod(scene, name, spec)
    put_pod(scene, "debugged", reads({}), reads_the_secret=False)
    names = {*SNAPSHOTS, *LIVE, "debugged"}
    wait_until(lambda: all(is_ready(scene, name) for name in names), "all pods are ready")

    put_pod(scene, "debugged", reads({}))  # its annotations: it has a client from now on
    scene.stage.api.attach(scene.namespace, "debugged", {"name": "debug", "image": "busybox", **ENV})
    wait_until(lambda: values(scene).keys() == names, "all call")
    (shown,) = status(scene, "debugged")["ephemeralContainerStatuses"]
    assert (shown["name"], "running" in shown["state"]) == ("debug", True)

    first, second = fingerprint(scene.first_secret), new_secret()
    scene.account.simulator.clients[scene.client_id].pending = IssuedSecret(second, 0)
    scene.put_secret("m2m", {"CLIENT_SECRET": second, "OTHER": "untouched"})
    expected = {name: {first} if name not in LIVE else {first, fingerprint(second)} for name in names}
    wait_until(lambda: all(values(scene)[name] == expected[name] for name in LIVE), "volumes follow")
    wait_for_more_calls(scene)
    assert values(scene) == expected, "and nothing else does"
    traffic = scene.traffic()
    assert {pod.pod: pod.way for pod in traffic} == {name: Way.LIVE if name in LIVE else Way.SNAPSHOT for name in names}
    assert [pod.calls.refused.count for pod in traffic] == [0] * len(names)
    assert not [problem for problem in scene.stage.traffic().problems if scene.namespace in problem]

    scene.delete(f"/api/v1/namespaces/{scene.namespace}/pods/debugged")
    wait_until(lambda: all(pod.stopped for pod in scene.traffic() if pod.pod == "debugged"), "it ends with its pod")


def test_a_csi_volume_waits_for_its_secret(scene: Scene) -> None:
    volume = {"name": "keys", "csi": CSI | {"nodePublishSecretRef": {"name": "late"}}}
    put_pod(scene, "csi", reads({"volumeMounts": [MOUNT]}, volume), reads_the_secret=False)
    wait_until(lambda: status(scene, "csi").get("containerStatuses"), "the stand-in has seen it")
    text = 'MountVolume.SetUp failed for volume "keys" : secret "late" not found'
    waiting = {"reason": "ContainerCreating", "message": text}
    wait_until(lambda: status(scene, "csi")["containerStatuses"][0]["state"].get("waiting") == waiting, "it waits")
    scene.put_secret("late", {"CLIENT_SECRET": "x"})
    wait_until(lambda: is_ready(scene, "csi"), "it is ready")


def test_an_ephemeral_container_needs_a_pod(scene: Scene) -> None:
    with pytest.raises(ApplyError, match=r"no ephemeral container for Pod .*/nobody: 404"):
        scene.stage.api.attach(scene.namespace, "nobody", {"name": "debug", "image": "busybox"})
