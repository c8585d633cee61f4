"""The demo, played once without a terminal: what it counts, what it says, and what it leaves behind."""

from __future__ import annotations

import base64
import io
import json
from dataclasses import dataclass, replace

import pytest
from rich.console import Console

from keyturn.api.base import parse_duration
from keyturn.api.rotation import Phase
from sandbox.demo.acts import ACTS, Act, Client
from sandbox.demo.facts import CallFact, DemoReport, OverlapFact, PhaseFact, PodWindow, RotationFact, faults, window
from sandbox.demo.observed import Observed, Passage, Told
from sandbox.demo.run import Played, play
from sandbox.demo.screen import COLUMN, stage
from sandbox.demo.shows import PlainShow
from sandbox.stage import Stage
from sandbox.traffic.clients import Meter
from sandbox.traffic.consumption import Way
from sandbox.traffic.report import PodTraffic

PROVIDERS = ["stytch", "janrain", "snaptrade"]


@dataclass
class Run:
    """A demo that has been played, and the values that it must not have shown."""

    played: Played
    said: str
    clients: list[Client]

    def rotation(self, provider: str) -> RotationFact:
        (only,) = [one for one in self.played.report.rotations if one.provider == provider]
        return only


@pytest.fixture(scope="module")
def run() -> Run:
    """One demo in plain lines."""
    clients: list[Client] = []

    def watched(act: Act) -> Act:
        def open_(stage: Stage, account: str) -> Client:
            clients.append(act.open(stage, account))
            return clients[-1]

        return replace(act, open=open_)

    text = io.StringIO()
    played = play([watched(act) for act in ACTS], PlainShow(Console(file=text, width=100)))
    return Run(played, text.getvalue(), clients)


@pytest.mark.parametrize("provider", PROVIDERS)
def test_completes_and_is_judged_by_traffic(run: Run, provider: str) -> None:
    """I3, I7: one restart, the old value dead afterwards; no call refused but where that was accepted."""
    rotation = run.rotation(provider)
    assert run.played.faults == []
    assert rotation.result == "Completed"
    assert rotation.calls.accepted > 50
    assert rotation.old_value_refused
    assert rotation.restarts == {"Deployment/web": 1}
    assert (rotation.calls.refused == 0) == (rotation.semantics != "Immediate")


def test_the_window_is_measured_pod_by_pod(run: Run) -> None:
    """I3: every refused call is one of a pod of before, between the provider's switch and the end of that pod."""
    rotation = run.rotation("snaptrade")
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
    overlap = run.rotation("janrain").overlap
    assert overlap is not None
    assert (overlap.hours, overlap.accepted_within) == (24, True)
    assert overlap.calls_after.accepted > 10
    assert overlap.calls_after.refused == 0
    assert "janrain/login: the old value is still accepted, for 24 h; the provider's clock is moved" in run.said


def test_all_are_rotated_at_the_same_time(run: Run) -> None:
    assert [rotation.provider for rotation in run.played.report.rotations] == PROVIDERS
    began = [client.switched() for client in run.clients]
    assert None not in began
    known = [moment for moment in began if moment is not None]
    assert max(known) - min(known) < min(rotation.seconds for rotation in run.played.report.rotations)


@pytest.mark.parametrize("act", ACTS, ids=lambda act: act.provider)
def test_phases_add_up_to_the_whole(run: Run, act: Act) -> None:
    rotation = run.rotation(act.provider)
    phases = [phase.phase for phase in rotation.phases]
    assert phases == [phase for phase in act.phases if phase in phases]
    assert "RollingOut" in phases
    assert sum(phase.seconds for phase in rotation.phases) == pytest.approx(rotation.seconds, abs=1.5)
    soaks = [phase.seconds for phase in rotation.phases if phase.phase == "Soaking"]
    assert soaks == ([] if act.semantics == "Immediate" else [pytest.approx(3.0, abs=1.5)])


def test_report_has_the_promised_shape(run: Run) -> None:
    report = json.loads(run.played.report.to_json())
    assert list(report) == ["kubernetes", "keyturn", "rotations"]
    promised = ["name", "provider", "semantics", "result", "seconds", "phases", "calls", "oldValueRefused", "restarts"]
    more = {"Staged": [], "Timed": ["overlap"], "Immediate": ["windowSeconds", "window"]}
    assert [one["semantics"] for one in report["rotations"]] == list(more)
    for rotation in report["rotations"]:
        assert list(rotation) == [*promised, *more[rotation["semantics"]]]
        assert set(rotation["calls"]) == {"accepted", "refused"}
        assert set(rotation["phases"][0]) == {"phase", "seconds"}


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
    for client in run.clients:
        values = [
            client.first_value,
            client.newest_value(),
            *(v for data in client.secrets.values() for v in data.values()),
        ]
        assert len(set(values)) == 3
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
    }
    return RotationFact.model_validate({**good, **changes})


def _window(**changes: object) -> dict[str, object]:
    """Refused calls as they may be; CallFact counts them too."""
    pod = {"pod": "web-1", "refused": 2, "first": 0.1, "last": 1.0, "restarted": 1.1, **changes}
    return {"calls": CallFact(accepted=5, refused=2), "window": [PodWindow.model_validate(pod)], "window_seconds": 1.0}


def _overlap(*, within: bool = True, accepted: int = 3) -> dict[str, object]:
    after = CallFact(accepted=accepted, refused=0)
    return {"overlap": OverlapFact(hours=24, accepted_within=within, calls_after=after)}


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


@pytest.mark.parametrize("act", ACTS, ids=lambda act: act.provider)
@pytest.mark.parametrize(("width", "height"), [(30, 24), (58, 24), (114, 20), (114, 30), (120, 38), (200, 50)])
def test_picture_fits_any_size(act: Act, width: int, height: int) -> None:
    """Also that of a rotation that goes wrong."""
    observed = Observed("demo", "billing", Meter(), applied=1.0)
    observed.passages = [Passage(Phase.STARTING, 1.0), Passage(Phase.ROLLING_OUT, 2.0), Passage(Phase.CANCELLING, 3.0)]
    observed.targets = [{"kind": "Deployment", "name": "w" * 30, "state": "Rolling", "desired": 3, "message": "m" * 99}]
    observed.events = [Told("10:20:30", True, f"Reason{number}", "m" * 99) for number in range(9)]
    text = io.StringIO()
    Console(file=text, width=width).print(stage([(act, observed)] * 3, width, height))
    lines = text.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    assert len(lines) <= height
    assert "Cancelling" in text.getvalue()


def test_overlap_is_that_of_the_manifest() -> None:
    """The clock is moved past what the rotation asks for."""
    for act in ACTS:
        client = Client("c", "v", dict.fromkeys(("owner", "app", "url", "secret", "surge"), "x"), {}, *([None] * 3))  # type: ignore[arg-type]
        rotation, text, others = act.documents(client)
        asked = rotation["spec"].get("overlap")
        assert (parse_duration(asked) if asked else None) == act.overlap
        assert [item["kind"] for item in others] == ["RotationProvider", "Deployment"]
        assert max(map(len, text.splitlines())) < COLUMN


def test_report_reads_back() -> None:
    report = DemoReport(
        kubernetes="1.20.2", keyturn="0.1.0", rotations=[_fact(), _fact(**_window()), _fact(**_overlap())]
    )
    assert DemoReport.model_validate_json(report.to_json()) == report
