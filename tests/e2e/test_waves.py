"""How many workloads restart at the same time, and in which order: by what the API server wrote, in its order."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any, Final

import pytest

from sandbox.stage import Stage
from tests.e2e.crash import calls
from tests.e2e.recorder import Recorder, conditions
from tests.e2e.scene import Scene
from tests.e2e.together import Together
from tests.e2e.watched import Watched

_SLOWLY: Final = {"sandbox.keyturn.dev/ready-after": "700ms"}
_NEVER_READY: Final = {"sandbox.keyturn.dev/behavior-when-stamped": "never-ready"}
_SOAK: Final = 3.0
_LAG: Final = 0.5
"""How much later than the operator, at most, the watch shows that something is ready."""


@pytest.fixture(scope="module")
def together(stage: Stage) -> Iterator[Together]:
    with Together.on(stage, "waves") as together:
        together.start_operator()
        yield together


def put(scene: Scene, annotations: dict[str, str], **waves: str | None) -> None:
    """Deployments with one replica; None is for one without the annotation."""
    for name, wave in waves.items():
        scene.put_deployment(name, replicas=1, annotations=annotations, wait=False)
        if wave is not None:
            put_wave(scene, name, wave)
    for name in waves:
        scene.wait_available(name, 1)


def put_wave(scene: Scene, name: str, wave: str) -> None:
    scene.patch(scene.deployment_path(name), {"metadata": {"annotations": {"keyturn.dev/wave": wave}}})


def assert_completed(scene: Scene, *names: str) -> None:
    scene.wait_ended()
    assert (scene.applied("start"), scene.applied("rotate"), scene.applied("cancel")) == (1, 1, 0)
    assert {name: scene.restarts(name) for name in names} == dict.fromkeys(names, 1)
    assert scene.calls()["refused"] == 0


def test_no_more_at_a_time_than_wanted(together: Together) -> None:
    """I7: five Deployments, two of which may be restarting at any time."""
    scene = together.scene("max concurrent")
    names = ["a", "b", "c", "d", "e"]
    put(scene, _SLOWLY, **dict.fromkeys(names))
    with Watched(scene) as watched:
        scene.put_rotation(rollout={"maxConcurrent": 2})
        assert_completed(scene, *names)
    assert watched.most_at_once() == 2


def test_wave_by_wave_with_a_soak_between_them(together: Together) -> None:
    """The canary soaks, then those without annotation all at once, then the last; kill -9 in the canary's soak."""
    scene = together.scene("waves")
    put(scene, _SLOWLY, last="5", canary="-1", one=None, two="0")
    with Watched(scene) as watched, Recorder(scene) as recorder:
        scene.put_rotation(rollout={"waveSoak": f"{_SOAK:g}s"})
        begun = scene.wait(lambda: (scene.status().get("rotation") or {}).get("waveReadyTime"), "the canary soaks")
        together.start_operator()
        assert_completed(scene, "canary", "one", "two", "last")
    records = [status.get("rotation") or {} for status in recorder.statuses()]
    canary = {record["waveReadyTime"] for record in records if record.get("wave") == 0 and "waveReadyTime" in record}
    assert canary == {begun}, "I9: the next process goes on with the soak of the one before it"
    assert any("have been ready for 3s" in said(status) for status in recorder.statuses())
    assert watched.stamped("one") >= watched.complete("canary") + _SOAK - _LAG
    assert watched.stamped("one") >= (datetime.fromisoformat(begun) + timedelta(seconds=_SOAK)).timestamp()
    assert watched.stamped("two") < watched.complete("one"), "a wave at once"
    assert watched.stamped("one") < watched.complete("two"), "a wave at once"
    assert watched.stamped("last") >= max(watched.complete("one"), watched.complete("two")) + _SOAK - _LAG


def test_a_canary_that_is_never_ready_keeps_the_rest_untouched(together: Together) -> None:
    """I3, I7: with the canary, everything goes back; the later waves were not so much as written to."""
    scene = together.scene("canary")
    put(scene, _NEVER_READY, canary="-1", rest=None)
    # The API server's times are whole seconds: a pod as young as the write would have to go back as well.
    available = int(time.time())
    scene.wait(lambda: int(time.time()) > available, "the second in which the pods started is over")
    scene.put_rotation(rollout={"timeout": "10s", "waveSoak": "1s"})
    scene.wait(lambda: scene.restarts("canary") == 1, "the canary is restarted")
    scene.wait(
        lambda: "wave 0 waits for Deployment/canary" in said(scene.status()), "it is said what the rest waits for"
    )
    states = {target["name"]: target["state"] for target in scene.status()["rotation"]["targets"]}
    assert states == {"canary": "Rolling", "rest": "Pending"}
    assert_cancelled_canary(scene)
    rest = (scene.get(scene.deployment_path("rest")) or {})["metadata"]
    assert "keyturn" not in {entry["manager"] for entry in rest["managedFields"]}
    assert (rest["generation"], scene.restarts("rest")) == (1, 0)


def said(status: dict[str, Any]) -> str:
    """What the rotation waits for."""
    return str(conditions(status).get("Reconciling", {}).get("message"))


def assert_cancelled_canary(scene: Scene) -> None:
    scene.wait_ended("Cancelled")
    assert (scene.applied("start"), scene.applied("rotate"), scene.applied("cancel")) == (1, 0, 1)
    assert scene.restarts("canary") == 2
    assert scene.secret()["CLIENT_SECRET"] == scene.first_secret
    assert scene.calls()["refused"] == 0


def test_a_wave_that_is_no_number_is_refused_before_anything_is_changed(together: Together) -> None:
    """I10: named with its field; corrected, the rotation begins by itself."""
    scene = together.scene("invalid wave")
    put(scene, {}, web="first")
    scene.put_rotation()
    message = scene.wait_stalled("InvalidWave")
    assert "Deployment/web" in message
    assert "keyturn.dev/wave must be a whole number" in message
    assert calls(scene, "start") == 0
    assert scene.journals() == []
    put_wave(scene, "web", "1")
    assert_completed(scene, "web")


def test_without_an_overlap_nobody_waits_for_a_wave(together: Together) -> None:
    """I3: SnapTrade refuses all that are not restarted, so all of them are, at once."""
    scene = together.scene("snaptrade", "snaptrade")
    put(scene, {"sandbox.keyturn.dev/ready-after": "2s"}, canary="-1", one=None, last="5")
    with Watched(scene) as watched:
        scene.put_rotation(acceptDowntime=True, rollout={"maxConcurrent": 1, "waveSoak": "5s"})
        scene.wait_ended()
    names = ("canary", "one", "last")
    assert max(map(watched.stamped, names)) < min(map(watched.complete, names))
    assert {scene.restarts(name) for name in names} == {1}
