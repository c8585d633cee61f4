"""The end of a Timed provider's overlap: warned of long before it, said when it has come, and mended all the same."""

from __future__ import annotations

from datetime import timedelta

import pytest

from keyturn.api.rotation import Phase, RolloutSpec
from keyturn.rotation.steps import Rest, Wait
from tests.model.fakecluster import SECOND, FakePod
from tests.model.fakeprovider import Fault
from tests.model.fakesemantics import HOUR, TIMED, ResettingLab, make_resetting

_SHORT = RolloutSpec(timeout=30 * SECOND)


class OverrunLab(ResettingLab):
    """The user has accepted that the overlap may end before the rollout."""

    def excused(self, pod: FakePod) -> bool:
        return pod.held != self.provider.current and self.now >= self.provider.until.get(pod.held or "", self.now)


def stuck_lab(*, gives_up: bool = False) -> ResettingLab:
    """Pods on the new value do not become ready until `mend`."""
    lab = make_resetting(TIMED, overlap=HOUR, rollout=_SHORT)
    lab.__class__ = OverrunLab
    web = lab.namespace.deployments["web"]
    web.sick = lambda stamp: stamp is not None
    web.gives_up = gives_up
    return lab


def mend(lab: ResettingLab) -> None:
    web = lab.namespace.deployments["web"]
    web.sick, web.gives_up = (lambda _: False), False
    for pod in lab.namespace.pods:
        pod.sick = False


def reasons(lab: ResettingLab) -> list[str]:
    return [said.reason for said in lab.events if said.warning]


def stalled(lab: ResettingLab, limit: timedelta) -> Wait:
    step = lab.run(limit)
    assert isinstance(step, Wait), (step, lab.log)
    assert step.stalled
    return step


def skip(lab: ResettingLab, duration: timedelta) -> None:
    """Let time pass in which nothing happens, in one leap: the lab counts half seconds."""
    lab.now += duration
    lab.elapse(SECOND)


@pytest.mark.parametrize("gives_up", [False, True], ids=["overdue", "given up"])
def test_from_the_timeout_to_the_end_of_the_overlap(gives_up: bool) -> None:
    """I3: a rollout that is given up, or overdue, must not hide that the old value is about to die."""
    lab = stuck_lab(gives_up=gives_up)
    step = stalled(lab, 60 * SECOND)
    assert step.reason == ("RolloutFailed" if gives_up else "RolloutTimeout")
    assert "refuses the old one from" in step.message
    skip(lab, 42 * 60 * SECOND)
    assert stalled(lab, 10 * SECOND).reason != "OverlapEnding", "three quarters are not over"
    skip(lab, 3 * 60 * SECOND)
    step = stalled(lab, 10 * SECOND)
    assert step.reason == "OverlapEnding"
    assert "Deployment/web" in step.message
    skip(lab, 15 * 60 * SECOND)
    step = stalled(lab, 10 * SECOND)
    assert step.reason == "OverlapEnded"
    assert "since 20" in step.message
    assert [reason for reason in reasons(lab) if reason.startswith("Overlap")] == ["OverlapEnding", "OverlapEnded"]
    mend(lab)
    assert isinstance(lab.run(60 * SECOND), Rest)
    assert lab.resource.parsed().phase is Phase.COMPLETED
    assert len(lab.provider.calls) == 1


def test_a_value_that_is_not_accepted_while_the_old_one_dies() -> None:
    lab = make_resetting(TIMED, overlap=HOUR)
    lab.provider.propagation = 2 * HOUR
    lab.run(10 * SECOND)
    lab.provider.until = dict.fromkeys(lab.provider.until, lab.now + 3 * HOUR)
    skip(lab, 50 * 60 * SECOND)
    step = stalled(lab, 10 * SECOND)
    assert step.reason == "OverlapEnding"
    assert lab.resource.parsed().phase is Phase.VERIFYING


def test_no_warning_where_no_overlap_was_wanted() -> None:
    """With an overlap of nothing and consent, that the old value is dead is what was asked for."""
    lab = make_resetting(TIMED, overlap=timedelta(), rollout=_SHORT)
    lab.__class__ = OverrunLab
    lab.run(60 * SECOND)
    assert lab.resource.parsed().phase is not Phase.COMPLETED
    lab.edit_spec(accept_downtime=True)
    assert isinstance(lab.run(60 * SECOND), Rest)
    assert lab.resource.parsed().phase is Phase.COMPLETED
    assert not [reason for reason in reasons(lab) if reason.startswith("OverlapEnd")]


@pytest.mark.parametrize("fault", [Fault.REFUSED, Fault.VANISHED])
def test_the_end_is_counted_from_the_newest_intent(fault: Fault) -> None:
    """I3: a start that had to wait for the provider does not make the old value seem to live for a shorter time."""
    lab = stuck_lab()
    lab.provider.reads_back = True
    lab.provider.faults += [fault] * 200
    lab.run(3 * 60 * SECOND)
    lab.provider.faults.clear()
    lab.run(30 * SECOND)
    record = lab.resource.parsed().rotation
    assert record is not None
    assert record.phase is Phase.ROLLING_OUT
    assert record.previous_valid_until is not None
    (end,) = lab.provider.until.values()
    assert end - timedelta(minutes=1) <= record.previous_valid_until <= end
