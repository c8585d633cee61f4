"""Deleting the rotation, what it needs, or everything: orderly, and never stuck (I11)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from tests.e2e.crash import HOLD, hold
from tests.e2e.scene import Scene


@contextmanager
def held_in(scene: Scene, phase: str) -> Iterator[None]:
    """Let no rotation get beyond this phase; the phases without a call last for a few seconds anyway."""
    with ExitStack() as stack:
        broken = {"Starting": "start", "Finalizing": "rotate"}.get(phase)
        if broken:
            scene.account.simulator.add_fault(broken, times=None, caller="keyturn")
            stack.callback(scene.account.simulator.clear_faults)
        yield


def put_rotation(scene: Scene, policy: str = "Cancel", phase: str = "RollingOut") -> None:
    scene.put_rotation(deletionPolicy=policy, soak="3s" if phase == "Soaking" else "0s")


def wait_gone(scene: Scene, path: str | None = None, seconds: float = 30) -> None:
    scene.wait(lambda: scene.get(path or scene.rotation_path) is None, f"{path or 'the rotation'} is gone", seconds)


@pytest.fixture
def scene(scene: Scene) -> Scene:
    """Pods that take a moment to become ready, so that a rollout lasts."""
    scene.put_deployment(replicas=2, annotations={"sandbox.keyturn.dev/ready-after": "500ms"})
    return scene


@pytest.mark.parametrize("policy", ["Cancel", "Finalize"])
@pytest.mark.parametrize("phase", ["Starting", "RollingOut", "Soaking", "Finalizing"])
def test_deleted_in(scene: Scene, phase: str, policy: str) -> None:
    """I3, I11: withdrawn or finished as deletionPolicy says, for as long as the provider holds both values."""
    with held_in(scene, phase):
        scene.operator()
        put_rotation(scene, policy, phase)
        scene.wait_phase(phase)
        scene.wait(lambda: scene.rotation()["metadata"].get("finalizers"), "the finalizer")
        scene.delete(scene.rotation_path)
        if phase in ("Starting", "Finalizing") and policy == "Cancel":
            wait_gone(scene)  # before the provider lets the call through after all
    wait_gone(scene)
    assert scene.journals() == []
    value = scene.secret()["CLIENT_SECRET"]
    client = scene.account.simulator.clients[scene.client_id]
    assert client.pending is None
    assert client.current.value == value
    if policy == "Cancel":
        assert value == scene.first_secret
        assert scene.applied("rotate") == 0
        assert scene.restarts() == (0 if phase == "Starting" else 2)
    else:
        assert value != scene.first_secret
        assert (scene.applied("rotate"), scene.applied("cancel")) == (1, 0)
        assert scene.restarts() == 1
    assert scene.calls()["refused"] == 0


def test_deleted_while_the_operator_was_down_with_an_answer_lost(scene: Scene) -> None:
    """I5, I11: what the provider started for us is withdrawn, although nobody knows the value."""
    hold(scene, "start")
    operator = scene.operator()
    put_rotation(scene)
    scene.wait(lambda: scene.applied("start"), "the provider has started")
    operator.kill()
    scene.account.simulator.clear_faults()
    scene.delete(scene.rotation_path)
    assert scene.get(scene.rotation_path) is not None
    scene.operator()
    wait_gone(scene)
    assert (scene.applied("start"), scene.applied("cancel")) == (1, 1)
    assert scene.secret()["CLIENT_SECRET"] == scene.first_secret
    assert scene.restarts() == 0


@pytest.mark.parametrize("request_", [None, "a"], ids=["never rotated", "completed"])
def test_idle_objects_delete_without_an_operator(scene: Scene, request_: str | None) -> None:
    """I11: no finalizer is left on what does not rotate."""
    operator = scene.operator()
    scene.put_rotation(request_)
    scene.wait(lambda: (scene.condition("Ready") or {}).get("status") == "True", "Ready")
    if request_:
        scene.wait_ended()
    operator.kill()
    scene.delete(scene.rotation_path)
    assert scene.get(scene.rotation_path) is None
    assert scene.get(scene.secret_path) is not None


@pytest.mark.parametrize(("policy", "phase"), [("Cancel", "RollingOut"), ("Finalize", "Verifying")])
def test_the_whole_namespace_is_deleted(scene: Scene, policy: str, phase: str) -> None:
    """I11: the Secret, the provider object and the pods vanish in any order; the namespace must not get stuck."""
    if phase == "Verifying":
        scene.account.simulator.switches.propagation_delay = HOLD
    scene.operator()
    put_rotation(scene, policy)
    scene.wait_phase(phase)
    namespace = f"/api/v1/namespaces/{scene.namespace}"
    scene.delete(namespace)
    wait_gone(scene, namespace, 60)


@pytest.mark.parametrize("policy", ["Cancel", "Finalize"])
def test_the_provider_object_is_deleted_with_it(scene: Scene, policy: str) -> None:
    """I3, I11: nobody can be asked any more, so the previous value, which stays valid, is put back, and that is all."""
    scene.operator()
    put_rotation(scene, policy)
    scene.wait_phase("RollingOut")
    root = f"/apis/keyturn.dev/v1alpha1/namespaces/{scene.namespace}"
    scene.delete(f"{root}/rotationproviders/stytch")
    scene.delete(scene.rotation_path)
    wait_gone(scene)
    assert scene.secret()["CLIENT_SECRET"] == scene.first_secret
    assert scene.restarts() == 2
    assert scene.journals() == []
    assert scene.calls()["refused"] == 0
    warnings = [event["message"] for event in scene.events() if event["type"] == "Warning"]
    assert any(scene.client_id in message for message in warnings), "the client that was left with two values is named"
