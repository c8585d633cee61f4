"""Answers that get lost, at each provider: what PROVIDERS.md part B prescribes, and never a blind call (I5)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from sandbox.controlplane.processes import free_port
from sandbox.simulators.faults import How
from sandbox.stage import Stage
from tests.e2e.crash import assert_completed, calls, restart_operator
from tests.e2e.scene import Scene


@pytest.fixture(params=["stytch", "janrain", "snaptrade"])
def any_scene(stage: Stage, request: pytest.FixtureRequest) -> Iterator[Scene]:
    """A scene at each of the providers."""
    with Scene.in_new_namespace(stage, request.node.name, request.param) as running:
        yield running


def lose(scene: Scene, *, applied: bool) -> None:
    """Let the answer to the operator's next start be lost, with or without the call's effect."""
    scene.account.simulator.add_fault("start", How.DROP, apply=applied, caller="keyturn")


def read_back(scene: Scene) -> dict[str, Any]:
    return {"readBack": {"baseUrl": scene.account.url, "appId": scene.account.simulator.app_id}}


def rotate(scene: Scene) -> None:
    scene.put_rotation(acceptDowntime=scene.provider == "snaptrade")


def assert_taken_up(scene: Scene, *, starts: int = 1) -> None:
    """Completed on the value in force, with so many start calls and one of them carried out; restarted once."""
    scene.wait_ended()
    assert (scene.applied("start"), calls(scene, "start")) == (1, starts)
    assert scene.account.simulator.accepts(scene.client_id, scene.secret()["CLIENT_SECRET"])
    assert scene.secret()["CLIENT_SECRET"] != scene.first_secret
    assert scene.restarts() == 1
    assert all(pod.calls.refused.count == 0 for pod in scene.running())
    ready = scene.condition("Ready")
    assert ready is not None
    assert ready["status"] == "True"


def assert_stays_blocked(scene: Scene) -> None:
    """A person must decide; the values are kept, and another operator finds the same and calls nothing either."""
    assert scene.status()["phase"] == "Blocked"
    assert scene.secret()["CLIENT_SECRET"] == scene.first_secret
    assert len(scene.journals()) == 1
    assert scene.rotation()["metadata"]["finalizers"]
    called = calls(scene, "start")
    scene.log.unlink()
    restart_operator(scene, scene.operators[-1])
    probe = {"stytch": "get", "janrain": "count", "snaptrade": "authorizations"}[scene.provider]
    asked = calls(scene, probe)
    scene.wait(lambda: calls(scene, probe) > asked, "the next operator looks at the provider")
    scene.wait(lambda: "next: Wait" in scene.log.read_text(), "the next operator waits")
    assert scene.status()["phase"] == "Blocked"
    assert calls(scene, "start") == called
    assert scene.restarts() == 0


def test_not_sent(any_scene: Scene) -> None:
    """No connection, then no TLS: nothing was sent, so nothing happened; corrected, it just goes on."""
    scene = any_scene
    scene.put_deployment(replicas=1)
    scene.put_provider(baseUrl=f"http://127.0.0.1:{free_port()}")
    scene.operator()
    rotate(scene)
    waiting = scene.wait(lambda: scene.condition("Reconciling"), "Reconciling")
    assert waiting["reason"] == "ProviderUnreachable"
    scene.put_provider(baseUrl=scene.account.url.replace("http://", "https://"))
    ready = f"/apis/keyturn.dev/v1alpha1/namespaces/{scene.namespace}/rotationproviders/{scene.provider}"
    generation = (scene.get(ready) or {})["metadata"]["generation"]
    scene.wait(lambda: (scene.get(ready) or {})["status"]["observedGeneration"] == generation, "TLS is tried")
    assert calls(scene, "start") == 0
    assert scene.journals() == []
    scene.put_provider()
    scene.wait_ended()
    assert (scene.applied("start"), calls(scene, "start")) == (1, 1)


def test_stytch_applied(scene: Scene) -> None:
    """The pending value is unknown and the old one in force: withdrawn, and started again."""
    scene.put_deployment(replicas=2)
    lose(scene, applied=True)
    scene.operator()
    scene.put_rotation()
    assert_completed(scene, starts=2, cancels=1)


def test_stytch_not_applied(scene: Scene) -> None:
    """Stytch shows that nothing is pending, so the call is made again."""
    scene.put_deployment(replicas=2)
    lose(scene, applied=False)
    scene.operator()
    scene.put_rotation()
    assert_completed(scene)
    assert calls(scene, "start") == 2


@pytest.mark.parametrize("applied", [True, False], ids=["applied", "not applied"])
def test_janrain_reads_back(janrain_scene: Scene, applied: bool) -> None:
    """Recovered without a second reset, which would kill the value that the pods run on; made again where none was."""
    scene = janrain_scene
    scene.put_provider(**read_back(scene))
    scene.put_deployment(replicas=2)
    lose(scene, applied=applied)
    scene.operator()
    rotate(scene)
    assert_taken_up(scene, starts=1 if applied else 2)
    assert scene.calls()["refused"] == 0


def test_janrain_blind_and_applied(janrain_scene: Scene) -> None:
    """Nothing tells whether the secret was reset: a person is asked, and what they put into the Secret is taken up."""
    scene = janrain_scene
    scene.put_deployment(replicas=2)
    lose(scene, applied=True)
    scene.operator()
    rotate(scene)
    message = scene.wait_stalled("AnswerLost")
    for part in ("Janrain console", "readBack", "m2m", "CLIENT_SECRET"):
        assert part in message
    assert_stays_blocked(scene)
    found = scene.account.simulator.clients[scene.client_id].current.value
    scene.put_secret("m2m", {"CLIENT_SECRET": found, "OTHER": "untouched"})
    assert_taken_up(scene)
    assert scene.calls()["refused"] == 0


def test_janrain_blind_and_not_applied(janrain_scene: Scene) -> None:
    """The same from outside; the configuration API, once it is set up, shows that nothing had happened."""
    scene = janrain_scene
    scene.put_deployment(replicas=2)
    lose(scene, applied=False)
    scene.operator()
    rotate(scene)
    scene.wait_stalled("AnswerLost")
    assert calls(scene, "start") == 1
    scene.put_provider(**read_back(scene))
    assert_taken_up(scene, starts=2)
    assert scene.calls()["refused"] == 0


def test_snaptrade_applied(snaptrade_scene: Scene) -> None:
    """The old secret is dead and the new one lost for good: said with the vendor's way out, and never called again."""
    scene = snaptrade_scene
    scene.put_deployment(replicas=2)
    lose(scene, applied=True)
    scene.operator()
    rotate(scene)
    message = scene.wait_stalled("SecretLost")
    for part in ("deleteUser", "registerUser", "reconnect", "m2m", "CLIENT_SECRET"):
        assert part in message
    ready = scene.condition("Ready")
    assert ready is not None
    assert (ready["status"], ready["reason"]) == ("False", "SecretLost")

    def said() -> list[tuple[str, bool]]:
        found = [event for event in scene.events() if event["reason"] == "SecretLost"]
        return [(event["type"], "deleteUser" in event["message"]) for event in found]

    scene.wait(said, "it is said in an Event, too")
    assert said() == [("Warning", True)]
    assert_stays_blocked(scene)

    users = scene.account.simulator.users
    del users[scene.client_id]
    registered = scene.account.simulator.create({"client_id": scene.client_id})["client_secret"]
    scene.put_secret("m2m", {"CLIENT_SECRET": registered, "OTHER": "untouched"})
    assert_taken_up(scene)
    assert scene.secret()["CLIENT_SECRET"] == registered


def test_snaptrade_not_applied(snaptrade_scene: Scene) -> None:
    """The old secret is proven alive, so the reset cannot have happened: made once more."""
    scene = snaptrade_scene
    scene.put_deployment(replicas=2)
    lose(scene, applied=False)
    scene.operator()
    rotate(scene)
    assert_taken_up(scene, starts=2)


def test_somebody_elses_rotation_is_taken_over_only_with_consent(scene: Scene) -> None:
    """I6, I10: a value pending at Stytch that is not ours is left alone until spec.takeOver says otherwise."""
    url = f"{scene.account.url}/v1/m2m/clients/{scene.client_id}/secrets/rotate/start"
    login = (scene.account.simulator.project_id, scene.account.simulator.project_secret)
    httpx.post(url, auth=login, trust_env=False).raise_for_status()
    scene.put_deployment(replicas=1)
    scene.operator()
    scene.put_rotation()
    message = scene.wait_stalled("ForeignRotation")
    assert "spec.takeOver" in message
    assert scene.status()["phase"] == "Blocked"
    assert (calls(scene, "start"), calls(scene, "cancel")) == (0, 0)
    assert scene.journals() == []
    scene.put_rotation(takeOver=True)
    assert_completed(scene, starts=2, cancels=1)
    assert calls(scene, "start") == 1
