"""onFailure: Hold: a rotation that fails stops with both values alive, until a person says how it goes on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

import pytest

from sandbox.stage import Stage
from sandbox.traffic.report import fingerprint
from tests.e2e.crash import assert_cancelled
from tests.e2e.scene import Scene
from tests.e2e.together import Together

_WHEN_STAMPED: Final = "sandbox.keyturn.dev/behavior-when-stamped"
_NAMES: Final = ("resumed", "more time", "cancelled by word", "cancelled by field", "mended")
_VERIFYING: Final = ("verification, more time", "verification, resumed")


class Held:
    """The rotations of this file. All have failed, or are about to."""

    def __init__(self, together: Together) -> None:
        self.together = together
        self.rollouts = {name: together.scene(f"held {name}") for name in _NAMES}
        self.verifications = {name: together.scene(f"held {name}") for name in _VERIFYING}

    def rollout(self, name: str) -> Scene:
        """One whose rollout was not ready in time."""
        return blocked(self.rollouts[name])

    def verification(self, name: str) -> Scene:
        """One whose new value the provider does not accept yet."""
        return blocked(self.verifications[name])


@pytest.fixture(scope="module")
def held(stage: Stage) -> Iterator[Held]:
    with Together.on(stage, "hold") as together:
        held = Held(together)
        scenes = [*held.rollouts.values(), *held.verifications.values()]
        for scene in scenes:
            scene.put_deployment(replicas=2, annotations={_WHEN_STAMPED: "never-ready"}, wait=False)
        for scene in held.verifications.values():
            scene.account.simulator.switches.propagation_delay = 600
        for scene in scenes:
            scene.wait_available("web", 2)
        together.start_operator()
        for scene in scenes:
            scene.put_rotation(onFailure="Hold", rollout={"timeout": "10s"}, verify={"timeout": "1s"})
        yield held


def blocked(scene: Scene) -> Scene:
    scene.wait_phase("Blocked")
    return scene


def change(scene: Scene, **spec: Any) -> None:
    """What a user does with kubectl edit."""
    scene.patch(scene.rotation_path, {"spec": spec})


def say(scene: Scene, word: str, of: Callable[[str], str] = str) -> None:
    """What a user does with kubectl annotate. of: makes the annotation from the id of the rotation."""
    running = scene.status()["rotation"]["id"]
    scene.patch(scene.rotation_path, {"metadata": {"annotations": {f"keyturn.dev/{word}": of(running)}}})


def mend(scene: Scene) -> None:
    mended = {"spec": {"template": {"metadata": {"annotations": {_WHEN_STAMPED: None}}}}}
    scene.patch(scene.deployment_path(), mended)


def pending(scene: Scene) -> str:
    found = scene.account.simulator.clients[scene.client_id].pending
    assert found is not None
    return str(found.value)


@pytest.mark.parametrize("name", _NAMES)
def test_both_values_stay_alive(held: Held, name: str) -> None:
    """I3: the provider accepts both, pods of both run, and none of their calls is refused."""
    scene = held.rollout(name)
    message = scene.wait_stalled("RolloutTimeout")
    running = scene.status()["rotation"]["id"]
    for remedy in (f"keyturn.dev/resume to {running}", f"keyturn.dev/cancel to {running}", "spec.onFailure to Cancel"):
        assert remedy in message
    values = {fingerprint(scene.first_secret), fingerprint(pending(scene))}
    assert scene.account.simulator.accepts(scene.client_id, scene.first_secret)
    assert scene.account.simulator.accepts(scene.client_id, pending(scene))
    assert {value for pod in scene.running() for value in pod.values} == values
    assert scene.calls()["refused"] == 0
    assert (scene.applied("rotate"), scene.applied("cancel")) == (0, 0)
    assert scene.restarts() == 1


def test_killed_while_held(held: Held) -> None:
    """I7, I9: kill -9, and the next process holds what it finds held: it writes nothing and restarts nothing."""
    scenes = [*map(held.rollout, _NAMES), *map(held.verification, _VERIFYING)]
    before = [scene.rotation()["metadata"]["resourceVersion"] for scene in scenes]
    held.together.start_operator()
    held.together.look_again(*scenes)
    assert [scene.rotation()["metadata"]["resourceVersion"] for scene in scenes] == before
    assert {scene.applied("start") for scene in scenes} == {1}
    assert {scene.restarts() for scene in scenes} == {0, 1}


def test_resumed_by_annotation_once_per_word(held: Held) -> None:
    """The rollout has its time again, and then it is held again: the word is used up, and another one counts."""
    scene = held.rollout("resumed")
    say(scene, "resume")
    scene.wait_phase("RollingOut")
    assert scene.condition("Stalled") is None
    blocked(scene)
    held.together.start_operator()
    held.together.look_again(scene)
    assert scene.status()["phase"] == "Blocked", "I9: the next process knows that the word is used up"
    say(scene, "resume", lambda running: f"{running}-again")
    scene.wait_phase("RollingOut")
    mend(scene)
    assert_ended_forward(scene)
    assert scene.restarts() == 2, "ours, and the one that mended it"


def test_more_time_resumes_and_less_holds_again(held: Held) -> None:
    scene = held.rollout("more time")
    change(scene, rollout={"timeout": "15m"})
    scene.wait_phase("RollingOut")
    assert scene.condition("Stalled") is None
    change(scene, rollout={"timeout": "10s"})
    blocked(scene)
    mend(scene)
    assert_ended_forward(scene)


def test_cancelled_by_annotation(held: Held) -> None:
    """Only by the id of the rotation that runs, so that a word from an earlier one does no harm."""
    scene = held.rollout("cancelled by word")
    say(scene, "cancel", lambda _: "20200101-000000-000000")
    held.together.look_again(scene)
    assert scene.status()["phase"] == "Blocked"
    say(scene, "cancel")
    assert_cancelled(scene, restarts=2)
    assert "keyturn.dev/cancel" in scene.status()["lastRotation"]["message"]


def test_cancelled_by_the_policy(held: Held) -> None:
    scene = held.rollout("cancelled by field")
    change(scene, onFailure="Cancel")
    assert_cancelled(scene, restarts=2)
    assert "took too long" in scene.status()["lastRotation"]["message"]


def test_mended_it_goes_on_by_itself(held: Held) -> None:
    scene = held.rollout("mended")
    mend(scene)
    assert_ended_forward(scene)
    assert scene.restarts() == 2, "ours, and the one that mended it"


def assert_ended_forward(scene: Scene) -> None:
    scene.wait_ended()
    assert (scene.applied("start"), scene.applied("rotate"), scene.applied("cancel")) == (1, 1, 0)
    assert len(scene.stamps()) == 1, "I7: Keyturn restarted it once"
    assert scene.calls()["refused"] == 0


@pytest.mark.parametrize("name", _VERIFYING)
def test_a_verification_goes_on_with_the_same_value(held: Held, name: str) -> None:
    """I9: nothing was handed out; with more time, or time anew, the provider is asked again."""
    scene = held.verification(name)
    assert scene.secret()["CLIENT_SECRET"] == scene.first_secret
    value = pending(scene)
    mend(scene)
    if name == "verification, more time":
        change(scene, verify={"timeout": "10m"})
    else:
        say(scene, "resume")
    scene.wait(lambda: scene.status()["phase"] != "Blocked", "it goes on")
    scene.account.simulator.advance(600)
    scene.wait_ended()
    assert scene.secret()["CLIENT_SECRET"] == value
    assert_ended_forward(scene)
