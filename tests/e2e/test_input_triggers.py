"""When a rotation begins, and that nothing happens when none is due."""

from __future__ import annotations

import time
from typing import Any, Final

from tests.e2e.crash import begin_and_hold_verifying, let_verify
from tests.e2e.scene import Scene

QUIET_SECONDS: Final = 3.0
WRITTEN: Final = (
    "/apis/keyturn.dev/v1alpha1/namespaces/{}/clientsecretrotations",
    "/apis/keyturn.dev/v1alpha1/namespaces/{}/rotationproviders",
    "/api/v1/namespaces/{}/secrets",
    "/api/v1/namespaces/{}/events",
    "/apis/apps/v1/namespaces/{}/deployments",
    "/api/v1/namespaces/{}/pods",
)


def versions(scene: Scene) -> dict[str, str]:
    """The version of every object that an operator could have written to."""
    found: dict[str, str] = {}
    for path in WRITTEN:
        listed = scene.get(path.format(scene.namespace))
        assert listed is not None
        found |= {f"{path}/{item['metadata']['name']}": item["metadata"]["resourceVersion"] for item in listed["items"]}
    return found


def provider_calls(scene: Scene) -> dict[str, int]:
    """How many calls about the scene's client came from operators, by operation."""
    calls = scene.account.simulator.calls

    def ours(call: Any) -> bool:
        about = call.params.get("client_id", scene.client_id)
        return about == scene.client_id and (call.header("User-Agent") or "").startswith("keyturn")

    return {operation: sum(map(ours, list(calls[operation]))) for operation in list(calls)}


def assert_quiet(scene: Scene) -> None:
    """I12: no write and no provider call in a while in which nobody changes anything."""
    before = versions(scene), provider_calls(scene)
    time.sleep(QUIET_SECONDS)
    assert (versions(scene), provider_calls(scene)) == before


def wait_settled(scene: Scene) -> None:
    """Until the operator has said Ready of the spec as it is now."""

    def settled() -> bool:
        rotation = scene.rotation()
        status = rotation.get("status") or {}
        if status.get("observedGeneration") != rotation["metadata"]["generation"]:
            return False
        states = {condition["type"]: condition["status"] for condition in status["conditions"]}
        return states["Ready"] == "True" and {"Stalled", "Reconciling"}.isdisjoint(states)

    scene.wait(settled, "Ready for this generation")


def wait_working(scene: Scene, times: int) -> None:
    """Until the operator has been started so often, and has looked through all rotations."""
    scene.wait(lambda: scene.log.read_text().count("ready: ") == times, f"start number {times}")


def wait_handled(scene: Scene, request: str) -> None:
    scene.wait(lambda: scene.status().get("lastHandledRotationRequest") == request, f"request {request} is taken up")


def test_a_request_is_acted_on_exactly_once(scene: Scene) -> None:
    """A value that was handled does not rotate again: applied once more, after others, or after a restart."""
    operator = scene.operator()
    for request in ("a", "b"):
        scene.put_rotation(request)
        wait_handled(scene, request)
        scene.wait_ended()
    value = scene.secret()
    scene.put_rotation("a")
    wait_settled(scene)
    operator.stop()
    scene.operator()
    wait_working(scene, times=2)
    assert_quiet(scene)
    assert (scene.applied("start"), scene.secret()) == (2, value)
    assert [past["request"] for past in scene.status()["history"]] == ["b", "a"]
    scene.put_rotation("c")
    scene.wait(lambda: scene.applied("rotate") == 3, "a value that was not handled before")


def test_without_a_request_it_verifies_once_and_then_costs_nothing(scene: Scene) -> None:
    """I12: idle objects are neither written nor asked about, and a restart of the operator writes nothing."""
    scene.put_rotation(None)
    operator = scene.operator()
    wait_settled(scene)
    status = scene.status()
    assert status["phase"] == "Idle"
    ready = scene.condition("Ready")
    assert ready is not None
    assert ready["reason"] == "CredentialVerified"
    scene.wait(lambda: "Ready=True" in scene.log.read_text(), "the account is checked")
    calls = provider_calls(scene)
    assert calls["token"] == 1
    assert calls.get("start", 0) == 0
    assert_quiet(scene)

    before = versions(scene)
    operator.stop()
    scene.operator()
    wait_working(scene, times=2)
    assert_quiet(scene)
    assert versions(scene) == before
    assert provider_calls(scene) == calls
    assert scene.events() == []


def test_suspended_starts_nothing_until_it_is_not(scene: Scene) -> None:
    scene.put_rotation("a", suspend=True)
    scene.operator()
    wait_settled(scene)
    rotating = scene.condition("Rotating")
    assert rotating is not None
    assert (rotating["status"], rotating["reason"]) == ("False", "Suspended")
    assert "spec.suspend" in rotating["message"]
    assert_quiet(scene)
    assert (scene.applied("start"), scene.secret()["CLIENT_SECRET"]) == (0, scene.first_secret)
    scene.put_rotation("a")
    scene.wait_ended()
    assert scene.applied("start") == 1


def test_suspending_does_not_stop_a_rotation_that_runs(scene: Scene) -> None:
    scene.put_deployment(replicas=1)
    begin_and_hold_verifying(scene)
    scene.put_rotation("a", suspend=True)
    scene.put_rotation("b", suspend=True)
    let_verify(scene)
    scene.wait_ended()
    wait_settled(scene)
    assert (scene.applied("start"), scene.restarts(), scene.calls()["refused"]) == (1, 1, 0)
    scene.put_rotation("b")
    scene.wait(lambda: scene.applied("rotate") == 2, "the request that was made meanwhile")


def test_an_owner_creates_the_secret_that_is_missing(scene: Scene) -> None:
    """creationPolicy Owner: the Secret is created with the first rotation, and belongs to it."""
    reference = {"name": "fresh", "key": "CLIENT_SECRET", "clientIdKey": "CLIENT_ID", "creationPolicy": "Owner"}
    scene.put_rotation(secretRef=reference)
    scene.operator()
    scene.wait_ended()
    created = scene.get(scene.secret_path.replace("/m2m", "/fresh"))
    assert created is not None
    owners = [(owner["kind"], owner["name"]) for owner in created["metadata"]["ownerReferences"]]
    assert owners == [("ClientSecretRotation", "billing")]
    values = scene.secret("fresh")
    assert values["CLIENT_ID"] == scene.client_id
    assert scene.account.simulator.accepts(scene.client_id, values["CLIENT_SECRET"])
