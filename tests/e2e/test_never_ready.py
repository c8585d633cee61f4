"""A rollout that never becomes ready, at each of the three providers: how it ends, what it costs, how long it takes."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pytest

from sandbox.stage import Stage
from sandbox.traffic.report import fingerprint
from tests.e2e.crash import assert_cancelled, calls
from tests.e2e.recorder import Recorder
from tests.e2e.scene import Scene
from tests.e2e.together import Together

HOUR: Final = 3600.0
_PREFIX: Final = "sandbox.keyturn.dev/"
_WHEN_STAMPED: Final = f"{_PREFIX}behavior-when-stamped"
_NEVER_READY: Final = {_WHEN_STAMPED: "never-ready"}
_CRASHES: Final = {_WHEN_STAMPED: "crash-loop", f"{_PREFIX}run-for": "100ms", f"{_PREFIX}crash-backoff": "200ms"}
_IN_TEN_SECONDS: Final = {"timeout": "10s"}


@dataclass(frozen=True)
class Cause:
    """Why it fails; what is said of it; how often each workload restarts; and within how many seconds it has ended."""

    words: str
    within: float
    restarts: int = 2
    behaviour: dict[str, str] = field(default_factory=lambda: _NEVER_READY)
    progress_deadline: int | None = None
    spec: dict[str, Any] = field(default_factory=dict)


CAUSES: Final = {
    "rollout.timeout": Cause("the rollout took too long", 30, spec={"rollout": _IN_TEN_SECONDS}),
    "ProgressDeadlineExceeded": Cause(
        "Deployment/web does not roll out",
        30,
        behaviour={**_NEVER_READY, f"{_PREFIX}terminate-after": "2s"},
        progress_deadline=1,
    ),
    "crash-looping pods": Cause("container app is in CrashLoopBackOff after", 20, behaviour=_CRASHES),
    "failed verification": Cause("did not accept the new value", 10, restarts=0, spec={"verify": {"timeout": "1s"}}),
}


@dataclass
class Broken:
    """The rotations of this file; all have begun."""

    together: Together
    stytch: dict[str, Scene]
    janrain: dict[str, Scene]
    snaptrade: Scene
    recorder: Recorder


@pytest.fixture(scope="module")
def broken(stage: Stage) -> Iterator[Broken]:
    with Together.on(stage, "never-ready") as together:
        stytch = {name: together.scene(name) for name in CAUSES}
        janrain = {overlap: together.scene(f"janrain-{overlap}", "janrain") for overlap in ("1h", "24h")}
        snaptrade = together.scene("snaptrade", "snaptrade")
        for name, cause in CAUSES.items():
            scene = stytch[name]
            scene.put_deployment(
                replicas=2, annotations=cause.behaviour, progress_deadline=cause.progress_deadline, wait=False
            )
            scene.put_deployment("healthy", replicas=1, wait=False)
        stytch["failed verification"].account.simulator.switches.propagation_delay = 600
        for scene in (*janrain.values(), snaptrade):
            scene.put_deployment(replicas=2, annotations=_NEVER_READY, wait=False)
        for scene in (*stytch.values(), *janrain.values(), snaptrade):
            scene.wait_available("web", 2)
        with Recorder(stytch["rollout.timeout"]) as recorder:
            together.start_operator()
            for name, cause in CAUSES.items():
                stytch[name].put_rotation(**cause.spec)
            for overlap, scene in janrain.items():
                scene.put_rotation(overlap=overlap, rollout=_IN_TEN_SECONDS)
            snaptrade.put_rotation(acceptDowntime=True, rollout=_IN_TEN_SECONDS)
            yield Broken(together, stytch, janrain, snaptrade, recorder)


def mend(scene: Scene) -> None:
    """The application becomes able to run with the new value."""
    mended = {"spec": {"template": {"metadata": {"annotations": {_WHEN_STAMPED: None}}}}}
    scene.patch(scene.deployment_path(), mended)


def took(scene: Scene) -> float:
    """How many seconds the rotation took."""
    last = scene.status()["lastRotation"]
    begin, end = (datetime.fromisoformat(last[name]) for name in ("startedTime", "finishedTime"))
    return (end - begin).total_seconds()


def of_calls(scene: Scene) -> str:
    calls = scene.calls()
    return f"{calls['refused']} of {sum(calls.values())} calls"


def tell(capsys: pytest.CaptureFixture[str], what: str) -> None:
    with capsys.disabled():
        sys.stdout.write(f"\n{what}\n")


def warned(scene: Scene) -> list[str]:
    """The reasons of the warnings, the oldest first."""
    warnings = [event for event in scene.events() if event["type"] == "Warning"]
    return [event["reason"] for event in sorted(warnings, key=lambda event: event["firstTimestamp"])]


@pytest.mark.parametrize("name", CAUSES)
def test_stytch_goes_back(broken: Broken, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """I3, I4, I7: the previous value is back in force, no call was refused, and the new value died last."""
    scene, cause = broken.stytch[name], CAUSES[name]
    assert_cancelled(scene, restarts=cause.restarts)
    assert scene.restarts("healthy") == cause.restarts
    last = scene.status()["lastRotation"]
    assert cause.words in last["message"]
    assert {"RotationCancelling", "RotationCancelled"} <= set(warned(scene))
    assert (scene.condition("Ready") or {})["status"] == "True"
    assert took(scene) < cause.within, "as soon as it was known, not at the end of what it may take"
    assert_withdrawn_last(scene)
    tell(capsys, f"Stytch, {name}: Cancelled after {took(scene):.1f} s, {of_calls(scene)} refused")


def test_a_value_that_is_never_accepted_reaches_nobody(broken: Broken) -> None:
    """I3: the Secret that the workloads read is not written at all."""
    scene = broken.stytch["failed verification"]
    scene.wait_ended("Cancelled")
    written_by = {entry["manager"] for entry in (scene.get(scene.secret_path) or {})["metadata"]["managedFields"]}
    assert not any("keyturn" in manager and manager != "keyturn-sandbox" for manager in written_by), written_by


def assert_withdrawn_last(scene: Scene) -> None:
    """I4: every pod that called with the new value had ended before the provider dropped it."""
    cancelled = scene.account.simulator.counters[scene.client_id]["cancel"]["applied"].times[0]
    ends = [pod.stopped for pod in scene.traffic() if set(pod.values) - {fingerprint(scene.first_secret)}]
    assert bool(ends) is (scene.restarts() > 0), "some pods ran on the new value"
    assert all(end is not None and end < cancelled for end in ends)


def test_each_step_of_the_way_back_is_told(broken: Broken) -> None:
    """Status and Events, of the rollout that was not ready in time."""
    scene = broken.stytch["rollout.timeout"]
    scene.wait_ended("Cancelled")
    seen = list(dict.fromkeys(status["phase"] for status in broken.recorder.statuses() if "phase" in status))
    order = ["RollingOut", "Cancelling", "Cancelled"]
    assert [phase for phase in seen if phase in order] == order
    back = [status for status in broken.recorder.statuses() if status.get("phase") == "Cancelling"]
    assert "took too long" in back[0]["rotation"]["cancelReason"]
    assert any(target["restarted"] for status in back for target in status["rotation"].get("targets", []))
    told = {event["reason"] for event in scene.events()}
    steps = {"RotationStarted", "RolloutRestartTriggered", "RotationCancelling", "PreviousValueRestored"}
    assert steps | {"RotationCancelled"} <= told


def test_snaptrade_goes_on_when_it_is_mended(broken: Broken, capsys: pytest.CaptureFixture[str]) -> None:
    """I3: the old value is dead at once, so calls are refused until the pods restart, and only those of old pods."""
    scene = broken.snaptrade
    message = scene.wait_stalled("RolloutTimeout")
    assert "Deployment/web" in message
    assert "the provider cannot take the new value back" in message
    assert "mend it, and the rotation goes on" in message
    assert scene.status()["phase"] == "RollingOut"
    assert warned(scene) == ["RolloutTimeout"]
    mend(scene)
    scene.wait_ended()
    assert (scene.applied("start"), calls(scene, "start")) == (1, 1)
    assert scene.restarts() == 2, "ours, and the one that mended it"
    assert_refused_only_from_old_pods(scene, scene.account.simulator.counters[scene.client_id]["start"]["applied"])
    tell(capsys, f"SnapTrade, mended: Completed after {took(scene):.1f} s, {of_calls(scene)} refused")


def assert_refused_only_from_old_pods(scene: Scene, series: Any) -> None:
    switch, new = float(series.times[0]), fingerprint(scene.secret()["CLIENT_SECRET"])
    for pod in scene.traffic():
        refused = pod.calls.refused
        assert refused.first is None or refused.first >= switch
        assert new not in pod.values or not refused.count, f"{pod.pod}: started with the new value"
    assert scene.calls()["refused"] > 0
    assert all(new in pod.values for pod in scene.running()), "the refused calls have ended"


def test_janrain_says_what_must_be_done_and_by_when(broken: Broken) -> None:
    """I3: nothing leads back; both values work, and the status tells how long."""
    for overlap, scene in broken.janrain.items():
        message = scene.wait_stalled("RolloutTimeout")
        until = scene.status()["rotation"]["previousValidUntil"]
        assert "mend it, and the rotation goes on" in message
        assert f"refuses the old one from {until[:19]}" in message
        left = datetime.fromisoformat(until) - datetime.now(UTC)
        hours = timedelta(hours=int(overlap[:-1]))
        assert hours - timedelta(minutes=2) < left <= hours
        assert scene.status()["phase"] == "RollingOut"
        assert scene.secret()["CLIENT_SECRET"] != scene.first_secret
        assert scene.calls()["refused"] == 0
        assert warned(scene) == ["RolloutTimeout"]


def test_janrain_warns_as_the_end_of_the_overlap_nears(broken: Broken, capsys: pytest.CaptureFixture[str]) -> None:
    """I3, I9: 23 hours later, of 24 and of 1; a warning each, and mended in time nothing was ever refused."""
    scenes = broken.janrain
    for scene in scenes.values():
        scene.wait_stalled("RolloutTimeout")
        scene.account.simulator.advance(23 * HOUR)
    broken.together.start_operator(ahead=23 * HOUR)
    ending, ended = scenes["24h"], scenes["1h"]
    for scene, reason, words in ((ending, "OverlapEnding", "from"), (ended, "OverlapEnded", "since")):
        message = scene.wait_stalled(reason)
        until = scene.status()["rotation"]["previousValidUntil"]
        assert f"the provider refuses the old value {words} {until[:19]}" in message
        assert "mend it" in message
        scene.wait(lambda scene=scene, reason=reason: warned(scene)[-1] == reason, f"a warning {reason}")  # type: ignore[misc]
        assert warned(scene).count(reason) == 1
    assert ending.calls()["refused"] == 0
    ended.wait(lambda: ended.calls()["refused"], "the old value is refused now")
    for scene in scenes.values():
        mend(scene)
        scene.wait_ended()
        assert (scene.applied("start"), calls(scene, "start")) == (1, 1)
        assert scene.restarts() == 2, "ours, and the one that mended it"
        assert scene.condition("Stalled") is None
        when = "in time" if scene is ending else "too late"
        hours = took(scene) / HOUR
        tell(capsys, f"Janrain, mended {when}: Completed after {hours:.1f} hours, {of_calls(scene)} refused")
    assert ending.calls()["refused"] == 0
    new = fingerprint(ended.secret()["CLIENT_SECRET"])
    assert all(new not in pod.values or not pod.calls.refused.count for pod in ended.traffic())
