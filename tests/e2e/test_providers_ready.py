"""The `Ready` condition of provider objects: whether the credentials work, said without a change (I10, I12)."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from sandbox.controlplane.processes import free_port
from sandbox.stage import Stage
from tests.e2e.scene import Scene

OFTEN = ("--provider-interval", "1")


@pytest.fixture(params=["stytch", "janrain", "snaptrade"])
def any_scene(stage: Stage, request: pytest.FixtureRequest) -> Iterator[Scene]:
    """A scene at each of the providers."""
    with Scene.in_new_namespace(stage, request.node.name, request.param) as running:
        yield running


def provider(scene: Scene, kind: str = "RotationProvider") -> dict[str, Any]:
    place = f"namespaces/{scene.namespace}/rotationproviders/{scene.provider}"
    if kind != "RotationProvider":
        place = f"clusterrotationproviders/{scene.namespace}"
    found = scene.get(f"/apis/keyturn.dev/v1alpha1/{place}")
    assert found is not None
    return found


def wait_ready(scene: Scene, status: str, reason: str, kind: str = "RotationProvider") -> str:
    """Until Ready has this status and reason, for the spec as it is; its message."""

    def found() -> str | None:
        raw = provider(scene, kind)
        said = raw.get("status") or {}
        for one in said.get("conditions", []):
            current = said["observedGeneration"] == raw["metadata"]["generation"]
            if current and (one["type"], one["status"], one["reason"]) == ("Ready", status, reason):
                return str(one["message"])
        return None

    return str(scene.wait(found, f"Ready={status} {reason}: {provider(scene, kind).get('status')}"))


def asked(scene: Scene) -> int:
    """How many calls have come from operators."""
    known = [call for calls in list(scene.account.simulator.calls.values()) for call in list(calls)]
    return sum((call.header("User-Agent") or "").startswith("keyturn") for call in known)


def test_refused_credentials_are_said_and_their_correction_is_noticed(any_scene: Scene) -> None:
    """I8, I10: Secret and key are named, no value is; corrected, the rotation that waited for it goes on by itself."""
    scene = any_scene
    scene.operator(*OFTEN)
    wait_ready(scene, "True", "CredentialsAccepted")

    scene.put_secret("project", {"secret": "canary-of-a-wrong-credential"})
    message = wait_ready(scene, "False", "CredentialsRefused")
    assert "project" in message
    assert '"secret"' in message
    scene.put_rotation(acceptDowntime=True)
    scene.wait_stalled("ProviderUnauthorized")
    assert scene.account.simulator.counted(scene.client_id, "start", "received") == 0

    scene.put_secret("project", {"secret": scene.credential})
    wait_ready(scene, "True", "CredentialsAccepted")
    scene.wait_ended()
    assert scene.applied("start") == 1
    assert "canary" not in scene.log.read_text()


def test_credentials_that_are_not_there(scene: Scene) -> None:
    """I10: no Secret, a Secret without the key, one with something too long, each said; then it is there."""
    path = f"/api/v1/namespaces/{scene.namespace}/secrets/project"
    scene.delete(path)
    scene.operator(*OFTEN)
    message = wait_ready(scene, "False", "CredentialsNotFound")
    assert "Secret project" in message
    assert "does not exist" in message
    scene.put_rotation()
    scene.wait_stalled("CredentialsNotFound")
    scene.put_secret("project", {"other": "value"})
    scene.wait(lambda: "no key secret" in wait_ready(scene, "False", "CredentialsNotFound"), "the missing key")
    scene.put_secret("project", {"secret": "x" * 4097})
    assert 'key "secret" of Secret "project" holds 4097 bytes' in wait_ready(scene, "False", "CredentialsInvalid")
    assert asked(scene) == 0
    scene.put_secret("project", {"secret": scene.credential})
    wait_ready(scene, "True", "CredentialsAccepted")
    scene.wait_ended()


def test_an_object_that_makes_no_sense(scene: Scene) -> None:
    scene.put_provider(around={"caBundle": base64.b64encode(b"no certificate").decode()})
    scene.operator(*OFTEN)
    assert "spec.caBundle" in wait_ready(scene, "False", "ProviderInvalid")
    assert asked(scene) == 0
    whole = {**provider(scene)["spec"], "caBundle": None}
    path = f"/apis/keyturn.dev/v1alpha1/namespaces/{scene.namespace}/rotationproviders/stytch"
    scene.patch(path, {"spec": whole})
    wait_ready(scene, "True", "CredentialsAccepted")


def test_a_provider_that_cannot_be_reached_is_unknown(any_scene: Scene) -> None:
    """Nothing is said of the credentials: they were good before, and may be still."""
    scene = any_scene
    scene.operator(*OFTEN)
    wait_ready(scene, "True", "CredentialsAccepted")
    scene.put_provider(baseUrl=f"http://127.0.0.1:{free_port()}")
    wait_ready(scene, "Unknown", "ProviderUnreachable")
    scene.put_provider()
    wait_ready(scene, "True", "CredentialsAccepted")


@pytest.mark.parametrize("credential", ["right", "wrong"])
def test_checks_that_find_nothing_new_write_nothing(scene: Scene, credential: str) -> None:
    """I12: asked again and again, and the object stays as it is, for good credentials and for bad ones."""
    good = credential == "right"
    if not good:
        scene.put_secret("project", {"secret": "wrong"})
    scene.operator(*OFTEN)
    wait_ready(scene, str(good), "CredentialsAccepted" if good else "CredentialsRefused")
    version, before = provider(scene)["metadata"]["resourceVersion"], asked(scene)
    scene.wait(lambda: asked(scene) >= before + 3, "three more checks")
    assert provider(scene)["metadata"]["resourceVersion"] == version


def test_refused_credentials_are_not_tried_again_all_the_time(scene: Scene) -> None:
    """Once an interval, or when the Secret has changed: trying more often may lock the account."""
    scene.put_secret("project", {"secret": "wrong"})
    scene.operator("--provider-interval", "600")
    wait_ready(scene, "False", "CredentialsRefused")
    before, later = asked(scene), datetime.now(UTC) + timedelta(seconds=4)
    scene.wait(lambda: datetime.now(UTC) > later, "a back-off would have asked several times")
    assert asked(scene) == before
    scene.put_provider(around={"rateLimit": {"requestsPerSecond": 5}})
    scene.wait(lambda: asked(scene) > before, "a changed object is looked at at once")


def test_an_account_of_the_cluster(scene: Scene) -> None:
    """The same for platform teams: the credential is in another namespace, and a rotation refers to it by kind."""
    kind = "ClusterRotationProvider"
    around = {"namespaces": [scene.namespace]}
    scene.put_provider(kind=kind, around=around)
    try:
        scene.operator(*OFTEN)
        wait_ready(scene, "True", "CredentialsAccepted", kind)
        scene.put_secret("project", {"secret": "wrong"})
        assert "project" in wait_ready(scene, "False", "CredentialsRefused", kind)
        scene.put_rotation(providerRef={"kind": kind, "name": scene.namespace})
        scene.wait_stalled("ProviderUnauthorized")
        scene.put_secret("project", {"secret": scene.credential})
        wait_ready(scene, "True", "CredentialsAccepted", kind)
        scene.wait_ended()
    finally:
        scene.delete(f"/apis/keyturn.dev/v1alpha1/clusterrotationproviders/{scene.namespace}")
