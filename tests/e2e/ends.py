"""How a rotation must have ended, whatever happened in the middle: judged by provider, cluster, status and traffic."""

from __future__ import annotations

import time

from sandbox.traffic.report import PodTraffic, fingerprint
from tests.e2e.scene import Scene


def completed(scene: Scene, **restarts: int) -> None:
    """Completed: the new value is the only one, so many restarts, and nobody was refused in between."""
    _ended(scene, "Completed")
    _forward(scene, restarts)
    refused = scene.status()["lastRotation"].get("previousRefused")
    assert refused is (None if scene.provider == "janrain" else True)


def cancelled(scene: Scene, because: str, *, starts: int = 1, **restarts: int) -> None:
    """Cancelled for this reason: the first value is back and the only one, and nobody was refused."""
    _ended(scene, "Cancelled")
    assert because in scene.status()["lastRotation"]["message"]
    assert scene.secret() == {"CLIENT_SECRET": scene.first_secret, "OTHER": "untouched"}
    _back(scene, starts, restarts)


def gone(scene: Scene, *, forward: bool, starts: int = 1, **restarts: int) -> None:
    """The object is gone, with the new value in force or the first one, and no other, and nobody was refused."""
    wait_gone(scene)
    assert scene.journals() == []
    _forward(scene, restarts) if forward else _back(scene, starts, restarts)


def wait_gone(scene: Scene) -> None:
    """Until there is no rotation any more."""
    scene.wait(lambda: scene.get(scene.rotation_path) is None, "the rotation is gone")


def wait_not_stalled(scene: Scene, reason: str) -> None:
    """Until the condition Stalled does not have this reason any more."""
    scene.wait(lambda: (scene.condition("Stalled") or {}).get("reason") != reason, f"no more {reason}")


def _ended(scene: Scene, phase: str) -> None:
    scene.wait_ended(phase)
    status = scene.status()
    assert status.get("rotation") is None
    assert [past["result"] for past in status["history"]] == [phase]


def _forward(scene: Scene, restarts: dict[str, int]) -> None:
    value, simulator = scene.secret()["CLIENT_SECRET"], scene.account.simulator
    finalized = int(scene.provider == "stytch")
    assert (scene.applied("start"), scene.applied("rotate"), scene.applied("cancel")) == (1, finalized, 0)
    assert value != scene.first_secret
    assert simulator.accepts(scene.client_id, value)
    assert simulator.accepts(scene.client_id, scene.first_secret) is (scene.provider == "janrain")
    _served(scene, value, restarts)


def _back(scene: Scene, starts: int, restarts: dict[str, int]) -> None:
    assert (scene.applied("start"), scene.applied("rotate"), scene.applied("cancel")) == (starts, 0, starts)
    client = scene.account.simulator.clients[scene.client_id]
    assert (client.current.value, client.pending) == (scene.first_secret, None)
    assert scene.secret()["CLIENT_SECRET"] == scene.first_secret
    _served(scene, scene.first_secret, restarts)


def _served(scene: Scene, value: str, restarts: dict[str, int]) -> None:
    """Every pod that runs calls with this value, and calls on; none was refused; so many restarts (I3, I7)."""
    wanted = {"web": 1} | restarts
    assert {name: scene.restarts(name) for name in wanted} == wanted
    since, known = time.time(), fingerprint(value)

    def called(pod: PodTraffic) -> bool:
        return known in pod.values and (pod.values[known].accepted.last or 0.0) > since

    scene.wait(lambda: all(map(called, scene.running())), "every pod calls with the value in force")
    nobody_refused(scene)


def nobody_refused(scene: Scene) -> None:
    """At SnapTrade, but for pods that had read the old value before the provider dropped it."""
    excused = 0.0
    if scene.provider == "snaptrade":
        excused = float(scene.account.simulator.counters[scene.client_id]["start"]["applied"].times[0])
    assert [pod for pod in scene.traffic() if pod.calls.refused.count and pod.started > excused] == []
