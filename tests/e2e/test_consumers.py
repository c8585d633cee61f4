"""Who reads the Secret is found, restarted once and waited for; who does not is left alone (I3, I4, I7)."""

from __future__ import annotations

from typing import Any, Final

import pytest

from sandbox.traffic.report import fingerprint
from tests.e2e.crash import assert_completed, begin_and_hold_verifying, let_the_second_of_the_write_pass, let_verify
from tests.e2e.scene import Scene

_NO_CLIENT: Final = {"client.sandbox.keyturn.dev/kind": ""}
_MOUNT: Final = {"name": "credentials", "mountPath": "/credentials"}
_FROM_KEY: Final = [{"name": "SECRET", "valueFrom": {"secretKeyRef": {"name": "m2m", "key": "CLIENT_SECRET"}}}]
_FROM_ALL: Final = [{"secretRef": {"name": "m2m"}}]
_PROJECTED: Final = {"sources": [{"secret": {"name": "m2m"}}]}


def app(**container: Any) -> dict[str, Any]:
    return {"name": "app", "image": "app", **container}


def mounted(volume: dict[str, Any], **mount: Any) -> dict[str, Any]:
    """A pod spec whose only container mounts this volume."""
    return {
        "containers": [app(volumeMounts=[{**_MOUNT, **mount}])],
        "volumes": [{"name": "credentials", **volume}],
    }


READERS: Final[dict[str, dict[str, Any]]] = {
    "env": {"containers": [app(env=_FROM_KEY)]},
    "env-from": {"containers": [app(envFrom=_FROM_ALL)]},
    "volume": mounted({"secret": {"secretName": "m2m"}}),
    "projected": mounted({"projected": _PROJECTED}),
    "sub-path": mounted({"secret": {"secretName": "m2m"}}, subPath="CLIENT_SECRET"),
    "init": {"initContainers": [{**app(env=_FROM_KEY), "name": "init"}], "containers": [app()]},
    "pull": {"containers": [app()], "imagePullSecrets": [{"name": "m2m"}]},
}


def test_every_way_of_reading_is_found_and_restarted_once(scene: Scene) -> None:
    """I3, I7: seven ways to read a Secret, and two Deployments that do not read it."""
    for name, spec in READERS.items():
        scene.put_deployment(name, replicas=1, pod_spec=spec, wait=False)
    scene.put_secret("other", {"CLIENT_SECRET": "unrelated"})
    unrelated = {"containers": [app(envFrom=[{"secretRef": {"name": "other"}}])]}
    scene.put_deployment("stranger", replicas=1, pod_spec=unrelated, annotations=_NO_CLIENT, wait=False)
    scene.put_deployment("asleep", replicas=0, wait=False)
    for name in (*READERS, "stranger"):
        scene.wait_available(name, 1)
    scene.operator()
    scene.put_rotation(soak="1s")
    scene.wait_phase("Soaking")
    targets = scene.status()["rotation"]["targets"]
    assert {target["name"]: target["state"] for target in targets} == dict.fromkeys([*READERS, "asleep"], "Ready")
    scene.wait_ended()
    assert {name: scene.restarts(name) for name in READERS} == dict.fromkeys(READERS, 1)
    assert scene.restarts("stranger") == 0
    assert scene.restarts("asleep") == 0, "nothing runs there, and what will run begins with the new value"
    assert scene.calls()["refused"] == 0
    new = fingerprint(scene.secret()["CLIENT_SECRET"])
    scene.wait(lambda: all(new in pod.values for pod in scene.running()), "every pod calls with the new value")
    assert len(scene.running()) == len(READERS)


def test_restart_never_waits_for_somebody_else(scene: Scene) -> None:
    """I4, I7: with rollout.restart Never no workload is touched; it completes once a user has replaced the pods."""
    scene.put_deployment(replicas=2)
    scene.operator()
    scene.put_rotation(rollout={"restart": "Never"})
    scene.wait_phase("RollingOut")
    scene.wait(lambda: scene.status()["rotation"]["targets"], "the targets are listed")
    assert [target["state"] for target in scene.status()["rotation"]["targets"]] == ["Waiting"]
    assert scene.restarts() == 0
    let_the_second_of_the_write_pass(scene)
    scene.restart_by_user()
    assert_completed(scene)
    assert scene.stamps() == set()


def test_pods_that_terminate_slowly_keep_the_old_value_alive(scene: Scene) -> None:
    """I4: everything is updated and available, and the old pods still work off their last requests."""
    scene.put_deployment(replicas=2, annotations={"sandbox.keyturn.dev/terminate-after": "3s"})
    scene.operator()
    scene.put_rotation()
    assert_completed(scene)
    counters = scene.account.simulator.counters[scene.client_id]
    old = [pod for pod in scene.traffic() if fingerprint(scene.first_secret) in pod.values]
    ended = [pod.stopped for pod in old]
    assert len(ended) == 2
    assert None not in ended
    assert max(end for end in ended if end) < counters["rotate"]["applied"].times[0]


def test_progress_of_every_target_is_shown(scene: Scene) -> None:
    """Who looks at the status while the workload rolls sees how far it is."""
    scene.put_deployment(annotations={"sandbox.keyturn.dev/ready-after": "1500ms"})
    scene.operator()
    scene.put_rotation()
    seen: set[tuple[str, int, int]] = set()

    def rolled() -> bool:
        status = scene.status()
        for target in (status.get("rotation") or {}).get("targets", []):
            seen.add((target["state"], target.get("updated", 0), target.get("desired", 0)))
        return bool(status.get("phase") == "Completed")

    scene.wait(rolled, "phase Completed")
    assert {desired for _, _, desired in seen} == {3}
    assert {updated for state, updated, _ in seen if state == "Rolling"} & {1, 2}, seen
    assert scene.restarts() == 1


@pytest.mark.parametrize("moment", ["before the write", "after the restart"])
def test_a_rollout_of_the_users_own_at_the_same_time(scene: Scene, moment: str) -> None:
    """I7: a user's own rollout in the middle leads to no second restart of ours."""
    scene.put_deployment(replicas=2, annotations={"sandbox.keyturn.dev/ready-after": "1s"})
    begin_and_hold_verifying(scene)
    if moment == "before the write":
        scene.restart_by_user()
        scene.wait(lambda: scene.restarts() == 1, "the user's rollout")
        let_verify(scene)
    else:
        let_verify(scene)
        scene.wait(lambda: scene.restarts() == 1, "the rotation's rollout")
        scene.restart_by_user()
    scene.wait_ended()
    assert scene.calls()["refused"] == 0
    assert scene.restarts() == 2
    assert len(scene.stamps()) == 1
