"""The demo, played once without a terminal: what it counts, what it says, and what it leaves behind."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import pytest
from rich.console import Console

from keyturn.api.base import parse_duration
from keyturn.api.rotation import Phase
from sandbox.demo.acts import ACTS, Client, Scene
from sandbox.demo.facts import (
    CallFact,
    DemoReport,
    OverlapFact,
    PhaseFact,
    PodWindow,
    PutBackFact,
    RotationFact,
    faults,
    window,
)
from sandbox.demo.observed import Observed, Passage, PodSeen, Told
from sandbox.demo.run import Played, play
from sandbox.demo.screen import COLUMN, WIDE, Playing, stage
from sandbox.demo.shows import PlainShow
from sandbox.stage import Stage
from sandbox.traffic.clients import Meter
from sandbox.traffic.consumption import Way
from sandbox.traffic.report import PodTraffic, fingerprint

SCENES = [scene for act in ACTS for scene in act.scenes]
COMPLETED = ["billing", "login", "trading"]
CANCELLED = "orders"


@dataclass
class Run:
    """A demo that has been played, and what it must not have shown: its clients' values, and those in the Secrets."""

    played: Played
    said: str
    clients: list[Client]
    seen: list[Observed]

    def rotation(self, name: str) -> RotationFact:
        (only,) = [one for one in self.played.report.rotations if one.name == name]
        return only


class _Watched(PlainShow):
    """Keeps what was shown of the rotations."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self.seen: list[Observed] = []

    @contextmanager
    def watching(self, playing: Playing) -> Iterator[Callable[[], None]]:
        self.seen += [observed for _, observed in playing]
        with super().watching(playing) as tick:
            yield tick


@pytest.fixture(scope="module")
def run() -> Run:
    """One demo in plain lines."""
    clients: list[Client] = []

    def watched(scene: Scene) -> Scene:
        def open_(stage: Stage, account: str) -> Client:
            clients.append(scene.open(stage, account))
            return clients[-1]

        return replace(scene, open=open_)

    text = io.StringIO()
    show = _Watched(Console(file=text, width=100))
    acts = [replace(act, scenes=tuple(watched(scene) for scene in act.scenes)) for act in ACTS]
    return Run(play(acts, show), text.getvalue(), clients, show.seen)


@pytest.mark.parametrize("name", COMPLETED)
def test_completes_and_is_judged_by_traffic(run: Run, name: str) -> None:
    """I3, I7: one restart, the old value dead afterwards; no call refused but where that was accepted."""
    rotation = run.rotation(name)
    assert run.played.faults == []
    assert rotation.result == "Completed"
    assert rotation.calls.accepted > 50
    assert rotation.old_value_refused
    assert rotation.restarts == {"Deployment/web": 1}
    assert (rotation.calls.refused == 0) == (rotation.semantics != "Immediate")


def test_a_rollout_that_fails_is_put_back(run: Run) -> None:
    """I3, I4, I7: pods ran on the new value, all are back on the old one, and no call was refused."""
    rotation, client, seen = run.rotation(CANCELLED), run.clients[-1], run.seen[-1]
    assert (rotation.result, rotation.calls.refused, rotation.left_behind) == ("Cancelled", 0, [])
    assert rotation.calls.accepted > 50
    assert rotation.restarts == {"Deployment/api": 2, "Deployment/worker": 2}
    assert rotation.put_back is not None
    assert rotation.put_back.model_dump(exclude={"reason"}) == {
        "secret_restored": True,
        "old_value_accepted": True,
        "new_value_refused": True,
    }
    assert "Deployment/worker" in rotation.put_back.reason
    old = fingerprint(client.first_value)
    cancelled = client.simulator.counters[client.client_id]["cancel"]["applied"].times[0]
    on_new = [pod for pod in seen.pods() if set(pod.values) - {old}]
    assert {pod.owner.split("-")[0] for pod in on_new if pod.owner} == {"ReplicaSet/api", "ReplicaSet/worker"}
    assert all(pod.stopped is not None and pod.stopped < cancelled for pod in on_new)


def test_tells_why_it_was_put_back(run: Run) -> None:
    told = [line for line in run.said.splitlines() if line.startswith("stytch-broken/orders")]
    story = list(dict.fromkeys(SCENES[-1].story.values()))
    at = [next(number for number, line in enumerate(told) if sentence in line) for sentence in story]
    assert at == sorted(at)
    for expected in (
        "event RotationCancelling: going back to the previous value: Deployment/worker",
        "Deployment/worker: 2/2 pods on the old value, Ready",
    ):
        assert any(expected in line for line in told)
    assert f"nothing broke: all {run.rotation(CANCELLED).calls.accepted} calls were accepted" in run.said


def test_the_window_is_measured_pod_by_pod(run: Run) -> None:
    """I3: every refused call is one of a pod of before, between the provider's switch and the end of that pod."""
    rotation = run.rotation("trading")
    assert rotation.window is not None
    assert sum(pod.refused for pod in rotation.window) == rotation.calls.refused
    assert len(rotation.window) == 3
    for pod in rotation.window:
        assert pod.restarted is not None
        assert 0 <= pod.first <= pod.last <= pod.restarted
        assert f"{pod.pod}: {pod.refused} calls refused" in run.said
    assert rotation.window_seconds == max(pod.last for pod in rotation.window)


def test_pods_call_on_after_the_end_of_the_overlap(run: Run) -> None:
    """I3: the old value works until then and not after it; the pods do not notice."""
    overlap = run.rotation("login").overlap
    assert overlap is not None
    assert (overlap.hours, overlap.accepted_within) == (24, True)
    assert overlap.calls_after.accepted > 10
    assert overlap.calls_after.refused == 0
    assert "janrain/login: the old value is still accepted, for 24 h; the provider's clock is moved" in run.said


def test_one_act_follows_the_other(run: Run) -> None:
    """Three rotations at the same time; then, when all of them have ended, the one that fails."""
    assert [rotation.name for rotation in run.played.report.rotations] == [*COMPLETED, CANCELLED]
    began = [client.switched() or 0.0 for client in run.clients]
    assert 0.0 not in began
    *first, second = began
    lasted = [run.rotation(name).seconds for name in COMPLETED]
    assert max(first) - min(first) < min(lasted)
    assert second > max(start + seconds for start, seconds in zip(first, lasted, strict=True))


@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.namespace)
def test_phases_add_up_to_the_whole(run: Run, scene: Scene) -> None:
    rotation = run.played.report.rotations[SCENES.index(scene)]
    phases = [phase.phase for phase in rotation.phases]
    assert phases == [phase for phase in scene.phases if phase in phases]
    assert "RollingOut" in phases
    assert ("Cancelling" in phases) == (scene.end is Phase.CANCELLED)
    assert sum(phase.seconds for phase in rotation.phases) == pytest.approx(rotation.seconds, abs=1.5)
    soaks = [phase.seconds for phase in rotation.phases if phase.phase == "Soaking"]
    assert soaks == ([pytest.approx(3.0, abs=1.5)] if Phase.SOAKING in scene.phases else [])


def test_report_has_the_promised_shape(run: Run) -> None:
    report = json.loads(run.played.report.to_json())
    assert list(report) == ["kubernetes", "keyturn", "rotations"]
    promised = ["name", "provider", "semantics", "result", "seconds", "phases", "calls", "oldValueRefused", "restarts"]
    promised += ["leftBehind"]
    more = {"Staged": [], "Timed": ["overlap"], "Immediate": ["windowSeconds", "window"]}
    *completed, cancelled = report["rotations"]
    assert [one["semantics"] for one in completed] == list(more)
    for rotation in completed:
        assert list(rotation) == [*promised, *more[rotation["semantics"]]]
        assert set(rotation["calls"]) == {"accepted", "refused"}
        assert set(rotation["phases"][0]) == {"phase", "seconds"}
    assert list(cancelled) == [*promised, "putBack"]
    assert list(cancelled["putBack"]) == ["reason", "secretRestored", "oldValueAccepted", "newValueRefused"]


def test_tells_the_story_in_plain_lines(run: Run) -> None:
    for expected in (
        "kind: ClientSecretRotation",
        "phase RollingOut",
        "event SecretRotated",
        "Deployment/web: 3/3 pods on the new value, Ready",
        "accepted, 0 refused",
        "What was counted",
        "old value refused",
    ):
        assert expected in run.said
    assert "\x1b" not in run.said


def test_shows_no_secret(run: Run) -> None:
    """I8: neither the provider's credential nor the old or the new value, in any encoding that a Secret has."""
    assert len(run.seen) == len(run.clients) == len(SCENES)
    for client, seen in zip(run.clients, run.seen, strict=True):
        values = {*seen.values, *(value for data in client.secrets.values() for value in data.values())}
        assert len(values) == 3
        for value in values:
            assert value not in run.said
            assert base64.b64encode(value.encode()).decode() not in run.said
            assert value not in run.played.report.to_json()


def _fact(**changes: object) -> RotationFact:
    good = {
        "name": "billing",
        "provider": "stytch",
        "semantics": "Staged",
        "result": "Completed",
        "seconds": 1.0,
        "phases": [PhaseFact(phase="Soaking", seconds=1.0)],
        "calls": CallFact(accepted=1, refused=0),
        "old_value_refused": True,
        "restarts": {"Deployment/web": 1},
        "left_behind": [],
    }
    return RotationFact.model_validate({**good, **changes})


def _window(**changes: object) -> dict[str, object]:
    """Refused calls as they may be; CallFact counts them too."""
    pod = {"pod": "web-1", "refused": 2, "first": 0.1, "last": 1.0, "restarted": 1.1, **changes}
    return {"calls": CallFact(accepted=5, refused=2), "window": [PodWindow.model_validate(pod)], "window_seconds": 1.0}


def _overlap(*, within: bool = True, accepted: int = 3) -> dict[str, object]:
    after = CallFact(accepted=accepted, refused=0)
    return {"overlap": OverlapFact(hours=24, accepted_within=within, calls_after=after)}


def _put_back(*, result: str = "Cancelled", restarts: int = 2, **changes: bool) -> dict[str, object]:
    """A rotation that was cancelled, as it is to be unless changed."""
    seen = {"secret_restored": True, "old_value_accepted": True, "new_value_refused": True, **changes}
    fact = PutBackFact.model_validate({"reason": "it did not start", **seen})
    return {"result": result, "restarts": {"a": 2, "b": restarts}, "old_value_refused": False, "put_back": fact}


@pytest.mark.parametrize(
    ("changes", "failed", "expected"),
    [
        ({}, 0, []),
        ({"result": "Cancelled"}, 0, ["it ended Cancelled, not Completed"]),
        ({"calls": CallFact(accepted=5, refused=2)}, 0, ["2 calls were refused"]),
        ({"calls": CallFact(accepted=0, refused=0)}, 0, ["no call was accepted, so nothing was proved"]),
        ({"old_value_refused": False}, 0, ["the provider still accepts the old value"]),
        ({}, 3, ["3 calls failed without an answer to whether the secret is accepted"]),
        (_window(), 0, []),
        (_window(first=-0.5), 0, ["pod web-1: a call was refused 0.50 s before the provider's switch"]),
        (_window(restarted=None), 0, ["pod web-1: 2 calls were refused, and it was not restarted"]),
        (_window(restarted=0.75), 0, ["pod web-1: a call was refused 0.25 s after its restart"]),
        (_overlap(), 0, []),
        (_overlap(within=False), 0, ["the provider refused the old value before the end of the overlap"]),
        (_overlap(accepted=0), 0, ["no call was accepted after the end of the overlap"]),
        ({"restarts": {"Deployment/web": 2}}, 0, ["Deployment/web: 2 restarts, not 1"]),
        ({"left_behind": ["Secret x"]}, 0, ["left behind: Secret x"]),
        (_put_back(), 0, []),
        (_put_back(result="Completed"), 0, ["it ended Completed, not Cancelled"]),
        (_put_back(restarts=1), 0, ["b: 1 restarts, not 2"]),
        (_put_back(secret_restored=False), 0, ["the Secret does not hold the old value again"]),
        (_put_back(old_value_accepted=False), 0, ["the provider no longer accepts the old value"]),
        (_put_back(new_value_refused=False), 0, ["the provider still accepts the new value"]),
        ({**_put_back(), "calls": CallFact(accepted=5, refused=1)}, 0, ["1 calls were refused"]),
    ],
)
def test_names_every_fault(changes: dict[str, object], failed: int, expected: list[str]) -> None:
    assert faults(_fact(**changes), failed) == expected


def test_window_knows_when_a_pod_ended() -> None:
    """A pod without a refused call is none of it; one that still runs was not restarted."""
    pods = [PodTraffic(namespace="n", pod=name, uid=name, client="c", way=Way.SNAPSHOT, started=0) for name in "abc"]
    for pod, moment in zip(pods, (12.0, 11.0, 13.0), strict=True):
        pod.calls.add(pod.pod == "c", moment)
    pods[0].stopped = 12.5
    found = window(pods, 10.0)
    assert [(one.pod, one.first, one.last, one.restarted) for one in found] == [("b", 1, 1, None), ("a", 2, 2, 2.5)]


@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.namespace)
@pytest.mark.parametrize(
    ("width", "height"), [(30, 24), (58, 24), (80, 24), (114, 20), (114, 30), (120, 38), (200, 50)]
)
def test_picture_fits_any_size(scene: Scene, width: int, height: int) -> None:
    """Also that of a rotation that goes wrong, and with more pods than there is room for."""
    observed = Observed("demo", "billing", "billing-m2m", Meter(), applied=1.0)
    observed.passages = [Passage(Phase.STARTING, 1.0), Passage(Phase.ROLLING_OUT, 2.0), Passage(Phase.CANCELLING, 3.0)]
    target = {"kind": "Deployment", "state": "Rolling", "desired": 3, "message": "m" * 99}
    observed.targets = [{**target, "name": "w" * 30}, {**target, "name": "v"}][: 2 if scene.story else 1]
    observed.events = [Told("10:20:30", True, f"Reason{number}", "m " * 99) for number in range(9)]
    observed.states = {f"{'p' * 30}-12345-{number}": "CrashLoopBackOff" for number in range(9)}
    text = io.StringIO()
    playing = [(scene, observed)] * (1 if scene.story else 3)
    Console(file=text, width=width).print(stage(playing, width, height))
    lines = text.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    assert len(lines) <= height
    assert "Cancelling" in text.getvalue()


def test_pods_are_told_apart_by_the_value_that_they_used() -> None:
    """One that crashed is one pod, whatever the number of its runs; one that is gone has no state."""
    observed = Observed("demo", "orders", "orders-m2m", Meter(), values=["first", "second"])
    for pod, value in (("api-1-a", "first"), ("worker-2-b", "second"), ("worker-2-b", "first")):
        run = PodTraffic(namespace="demo", pod=pod, uid=pod, client="c", way=Way.SNAPSHOT, started=0)
        observed.meter.pods.append(run)
        observed.meter.add(run, value, pod == "api-1-a")
    observed.states = {"worker-2-b": "Ready", "api-1-c": "Pending"}
    assert observed.pods_seen() == [
        PodSeen("api-1-a", None, "old", 1, 0),
        PodSeen("worker-2-b", "Ready", "old", 0, 2),
        PodSeen("api-1-c", "Pending", "", 0, 0),
    ]
    del observed.meter.pods[-1]
    assert [pod.value for pod in observed.pods_seen()] == ["old", "new", ""]


def test_overlap_is_that_of_the_manifest() -> None:
    """The clock is moved past what the rotation asks for."""
    for scene in SCENES:
        values = dict.fromkeys(("owner", "app", "url", "secret", "surge", "good"), "x")
        client = Client("c", "v", "x", values, {}, *([None] * 2))  # type: ignore[arg-type]
        rotation, text, others = scene.documents(client)
        asked = rotation["spec"].get("overlap")
        assert (parse_duration(asked) if asked else None) == scene.overlap
        assert {item["kind"] for item in others} == {"RotationProvider", "Deployment"}
        assert max(map(len, text.splitlines())) < (WIDE if scene.story else COLUMN)


def test_report_reads_back() -> None:
    facts = [_fact(), _fact(**_window()), _fact(**_overlap()), _fact(**_put_back())]
    report = DemoReport(kubernetes="1.20.2", keyturn="0.1.0", rotations=facts)
    assert DemoReport.model_validate_json(report.to_json()) == report
