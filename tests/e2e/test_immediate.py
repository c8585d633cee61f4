"""Immediate rotations from end to end: SnapTrade drops the old value with the call, so every moment after it counts."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from sandbox.simulators.base import Call
from sandbox.stage import Stage
from sandbox.traffic.report import PodTraffic, fingerprint
from tests.e2e import apilog
from tests.e2e.apilog import Request
from tests.e2e.crash import calls
from tests.e2e.scene import Scene

USER = "usér-1/ü ß"


def assert_refused_only_in_the_window(scene: Scene) -> float:
    """No call is refused before the provider's switch, none of a pod that started after it; the window in seconds."""
    switch = float(scene.account.simulator.counters[scene.client_id]["start"]["applied"].times[0])
    new = fingerprint(scene.secret()["CLIENT_SECRET"])
    pods = scene.traffic()
    for pod in pods:
        refused = pod.calls.refused
        assert refused.first is None or refused.first >= switch, f"{pod.pod}: refused before the switch"
        assert pod.values.get(new) is None or pod.values[new].refused.count == 0, f"{pod.pod}: the new value refused"
        if pod.started > restarted(pods, switch):
            assert refused.count == 0, f"{pod.pod}: refused after its start"
    assert scene.calls()["failed"] == 0
    return max((pod.calls.refused.last or switch for pod in pods), default=switch) - switch


def restarted(pods: list[PodTraffic], switch: float) -> float:
    """When the first pod with the new value started."""
    return min(pod.started for pod in pods if pod.started > switch)


def test_refused_calls_lie_between_the_switch_and_each_restart(
    snaptrade_scene: Scene, capsys: pytest.CaptureFixture[str]
) -> None:
    """I3, I7: judged by traffic, pod by pod; one reset, one restart, the old value dead, the new one in force."""
    scene = snaptrade_scene
    scene.put_deployment()
    scene.operator()
    scene.put_rotation(acceptDowntime=True)
    scene.wait_ended()

    window = assert_refused_only_in_the_window(scene)
    with capsys.disabled():
        sys.stdout.write(f"\nSnapTrade: calls were refused for {window:.2f} s with 3 replicas\n")
    assert (scene.applied("start"), calls(scene, "start")) == (1, 1)
    assert scene.restarts() == 1
    assert scene.account.simulator.accepts(scene.client_id, scene.secret()["CLIENT_SECRET"])
    assert not scene.account.simulator.accepts(scene.client_id, scene.first_secret)
    assert scene.secret()["OTHER"] == "untouched"
    assert all(pod.calls.refused.count == 0 for pod in scene.running())
    ready = scene.condition("Ready")
    assert ready is not None
    assert ready["status"] == "True"


def test_the_order_and_the_fast_path(snaptrade_scene: Scene, capsys: pytest.CaptureFixture[str]) -> None:
    """I1, I2: before the call intent, journal and dry runs; after it journal, Secret, restarts, and only then the rest.

    The way from SnapTrade's answer to the written workload Secret is at most three requests long.
    """
    scene = snaptrade_scene
    scene.put_deployment()
    with apilog.recorded(scene) as log:
        scene.operator(kubeconfig=log.kubeconfig)
        scene.wait(lambda: log.requests, "the operator is at work")
        scene.put_rotation(acceptDowntime=True)
        scene.wait_ended()
        switch = scene.account.simulator.counters[scene.client_id]["start"]["applied"].times[0]
        requests = log.about(scene)
    before = [one for one in requests if one.time < switch]
    after = [one for one in requests if one.time >= switch]

    written = [one for one in before if one.method != "GET" and not one.dry_run and "events" not in one.path]
    assert [name(one) for one in written if "billing" in one.path or "secrets" in one.path] == [
        "PATCH billing/status",
        "PATCH clientsecretrotations/billing",
        "POST journal",
    ], "I1, I2: intent, finalizer, journal"
    rehearsed = {name(one) for one in before if one.dry_run}
    assert rehearsed == {"PATCH secrets/m2m", "POST journal", "PATCH deployments/web"}

    fast = [name(one) for one in after]
    assert fast[0] == "PATCH journal", f"I2: {fast}"
    published = fast.index("PATCH secrets/m2m")
    with capsys.disabled():
        sys.stdout.write(
            f"\nSnapTrade: from the answer to the Secret in {published + 1} requests: {fast[: published + 1]}\n"
        )
    assert published + 1 <= 3, fast
    assert "PATCH deployments/web" in fast[published : published + 5], "restarted after one look at the pods"
    assert fast.index("PATCH deployments/web") < fast.index("PATCH billing/status")
    verified = [call.time for call in scene.account.simulator.calls["authorizations"] if by_operator(call)]
    stamped = next(one.time for one in after if name(one) == "PATCH deployments/web")
    assert all(moment < switch or moment > stamped for moment in verified), "verified only when all are restarted"
    assert any(moment > stamped for moment in verified)


def by_operator(call: Call) -> bool:
    return (call.header("User-Agent") or "").startswith("keyturn")


def name(request: Request) -> str:
    """Method and object; a journal is called just so."""
    journal = "secrets/keyturn-journal" in request.path or (request.method, request.what[-8:]) == ("POST", "/secrets")
    return f"{request.method} {'journal' if journal else request.what}"


def test_without_consent_nothing_is_called(snaptrade_scene: Scene) -> None:
    """I10: refused before anything is asked of the provider for this user; said with the field that gives consent."""
    scene = snaptrade_scene
    scene.operator()
    scene.put_rotation()
    message = scene.wait_stalled("DowntimeNotAccepted")
    assert "spec.acceptDowntime" in message
    assert calls(scene, "start") == 0
    assert scene.journals() == []
    assert "finalizers" not in scene.rotation()["metadata"]
    scene.put_rotation(acceptDowntime=True)
    scene.wait_ended()
    assert scene.applied("start") == 1


def test_a_wrong_current_value_is_found_before_the_call(snaptrade_scene: Scene) -> None:
    """I10: the reset is authorised by the value in the Secret, so that is tried first; mended, it goes on by itself."""
    scene = snaptrade_scene
    scene.put_secret("m2m", {"CLIENT_SECRET": "not-the-secret", "OTHER": "untouched"})
    scene.operator()
    scene.put_rotation(acceptDowntime=True)
    message = scene.wait_stalled("CredentialRejected")
    assert "m2m" in message
    assert "CLIENT_SECRET" in message
    ready = scene.condition("Ready")
    assert ready is not None
    assert (ready["status"], ready["reason"]) == ("False", "CredentialRejected")
    assert calls(scene, "start") == 0
    assert scene.journals() == []
    scene.put_secret("m2m", {"CLIENT_SECRET": scene.first_secret, "OTHER": "untouched"})
    scene.wait_ended(seconds=60)
    assert scene.applied("start") == 1


def test_a_user_id_that_is_not_ascii_and_the_legacy_prefix(stage: Stage) -> None:
    """A2: what is signed is what goes out, whatever the user is called and wherever the API is served."""
    with Scene.in_new_namespace(stage, "legacy", "snaptrade", {"client_id": USER}) as scene:
        scene.put_provider(baseUrl=f"{scene.account.url}/api/v1")
        scene.put_deployment(replicas=1)
        scene.operator()
        scene.put_rotation(acceptDowntime=True)
        scene.wait_ended()
        assert scene.applied("start") == 1
        assert scene.account.simulator.accepts(USER, scene.secret()["CLIENT_SECRET"])
        assert all("/api/v1/" in call.target for call in scene.account.simulator.calls["start"])
        assert_refused_only_in_the_window(scene)
        assert_nothing_leaks(scene, scene.log)


def assert_nothing_leaks(scene: Scene, log: Path) -> None:
    """I8: SnapTrade's secrets go out in query strings."""
    text = log.read_text()
    for value in (scene.first_secret, scene.secret()["CLIENT_SECRET"], scene.credential, "userSecret="):
        assert value not in text
