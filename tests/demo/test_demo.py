"""The demo, played once without a terminal: what it counts, what it says, and what it leaves behind."""

from __future__ import annotations

import base64
import io
import json
from dataclasses import dataclass, replace

import pytest
from rich.console import Console

from keyturn.api.rotation import Phase
from sandbox.demo.acts import ACTS, Act, Client
from sandbox.demo.facts import CallFact, DemoReport, PhaseFact, RotationFact, faults
from sandbox.demo.observed import Observed, Passage
from sandbox.demo.run import Played, play
from sandbox.demo.screen import panel
from sandbox.demo.shows import PlainShow
from sandbox.stage import Stage
from sandbox.traffic.clients import Meter


@dataclass
class Run:
    """A demo that has been played, and the values that it must not have shown."""

    played: Played
    said: str
    clients: list[Client]

    @property
    def rotation(self) -> RotationFact:
        (only,) = self.played.report.rotations
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


def test_completes_and_is_judged_by_traffic(run: Run) -> None:
    """I3, I7: nothing refused, one restart, the old value dead afterwards."""
    assert run.played.faults == []
    assert run.rotation.result == "Completed"
    assert run.rotation.calls.accepted > 50
    assert run.rotation.calls.refused == 0
    assert run.rotation.old_value_refused
    assert run.rotation.restarts == {"Deployment/web": 1}


def test_phases_add_up_to_the_whole(run: Run) -> None:
    phases = [phase.phase for phase in run.rotation.phases]
    assert set(phases) <= set(Phase)
    assert phases == [phase for phase in Phase if phase in phases]
    assert {"RollingOut", "Soaking"} <= set(phases)
    assert sum(phase.seconds for phase in run.rotation.phases) == pytest.approx(run.rotation.seconds, abs=1.0)
    (soak,) = [phase.seconds for phase in run.rotation.phases if phase.phase == "Soaking"]
    assert soak == pytest.approx(3.0, abs=1.5)


def test_report_has_the_promised_shape(run: Run) -> None:
    report = json.loads(run.played.report.to_json())
    assert list(report) == ["kubernetes", "keyturn", "rotations"]
    (rotation,) = report["rotations"]
    assert list(rotation) == [
        "name",
        "provider",
        "semantics",
        "result",
        "seconds",
        "phases",
        "calls",
        "oldValueRefused",
        "restarts",
    ]
    assert (rotation["provider"], rotation["semantics"]) == ("stytch", "Staged")
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
        "old value refused afterwards",
    ):
        assert expected in run.said
    assert "\x1b" not in run.said


def test_shows_no_secret(run: Run) -> None:
    """I8: neither the provider's credential nor the old or the new value, in any encoding that a Secret has."""
    (client,) = run.clients
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


@pytest.mark.parametrize(
    ("changes", "failed", "expected"),
    [
        ({}, 0, []),
        ({"result": "Cancelled"}, 0, ["it ended Cancelled, not Completed"]),
        ({"calls": CallFact(accepted=5, refused=2)}, 0, ["2 calls were refused"]),
        ({"calls": CallFact(accepted=0, refused=0)}, 0, ["no call was accepted, so nothing was proved"]),
        ({"old_value_refused": False}, 0, ["the provider still accepts the old value"]),
        ({}, 3, ["3 calls failed without an answer to whether the secret is accepted"]),
    ],
)
def test_names_every_fault(changes: dict[str, object], failed: int, expected: list[str]) -> None:
    assert faults(_fact(**changes), failed) == expected


@pytest.mark.parametrize("width", [30, 58, 100, 200])
def test_picture_fits_any_width(width: int) -> None:
    """Also that of a rotation that goes wrong."""
    observed = Observed("demo", "billing", Meter(), applied=1.0)
    observed.passages = [Passage(Phase.STARTING, 1.0), Passage(Phase.ROLLING_OUT, 2.0), Passage(Phase.CANCELLING, 3.0)]
    observed.targets = [{"kind": "Deployment", "name": "w" * 30, "state": "Rolling", "desired": 3, "message": "m" * 99}]
    text = io.StringIO()
    Console(file=text, width=width).print(panel(ACTS[0], observed, width))
    assert max(map(len, text.getvalue().splitlines())) <= width
    assert "Cancelling" in text.getvalue()


def test_report_of_several_rotations_reads_back() -> None:
    report = DemoReport(kubernetes="1.20.2", keyturn="0.1.0", rotations=[_fact(), _fact(name="other")])
    assert DemoReport.model_validate_json(report.to_json()) == report
