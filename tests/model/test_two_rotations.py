"""Two rotations that want the same workload restarted within one second, the finest that times can tell apart."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from keyturn.api.observed import Consumers, Pod, Template, Workload
from keyturn.api.rotation import Phase, RolloutSpec, RotationRecord
from keyturn.rotation.consumers import RolloutView, to_restart
from tests.model.scenarios import make_spec

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
EARLIER = datetime(2026, 3, 1, 11, tzinfo=UTC)


def record(name: str) -> RotationRecord:
    spec = make_spec()
    return RotationRecord.model_validate(
        {
            "id": name,
            "phase": Phase.ROLLING_OUT,
            "reason": "RotationRequest",
            "subject": {"providerRef": spec.provider_ref, "clientId": spec.client_id, "secretRef": spec.secret_ref},
            "startedTime": EARLIER,
            "phaseStartedTime": NOW,
            "distributedTime": NOW,
        }
    )


def view(consumers: Consumers, rotation: str) -> RolloutView:
    return RolloutView(consumers, record(rotation), RolloutSpec(), NOW)


def seen(templates: list[Template], pod_of: int) -> Consumers:
    """A Deployment with its newest template last, and one pod of the template of revision `pod_of`."""
    newest = templates[-1]
    web = Workload("Deployment", "web", restartable=True, stamp=newest.stamp, templates=tuple(templates))
    stamps = {template.revision: template.stamp for template in templates}
    pod = Pod("p", ("Deployment", "web"), stamps[pod_of], NOW, NOW, ready=True, terminating=False, revision=pod_of)
    return Consumers((web,), (pod,))


FIRST = Template(1, None, EARLIER)
OURS, THEIRS = Template(2, "a", NOW), Template(3, "b", NOW)


@pytest.mark.parametrize("pod_of", [1, 2, 3])
def test_a_restart_that_another_one_followed_is_not_made_again(pod_of: int) -> None:
    """I7: both rotations saw the other's stamp over their own, and would put theirs back for ever."""
    consumers = seen([FIRST, OURS, THEIRS], pod_of)
    assert to_restart(view(consumers, "a")) == ()
    assert to_restart(view(consumers, "b")) == ()


@pytest.mark.parametrize(("pod_of", "safe_for_a", "safe_for_b"), [(1, False, False), (2, True, False), (3, True, True)])
def test_what_came_after_our_restart_is_safe_for_us(pod_of: int, safe_for_a: bool, safe_for_b: bool) -> None:
    """I4: the order of the templates decides where times cannot."""
    consumers = seen([FIRST, OURS, THEIRS], pod_of)
    assert (not view(consumers, "a").unsafe_pods) is safe_for_a
    assert (not view(consumers, "b").unsafe_pods) is safe_for_b


def test_a_stamp_from_before_the_value_was_written_does_not_count() -> None:
    """I3: when a cancellation turns forward again, the value is written anew and the workload has to follow."""
    before = Template(2, "a", EARLIER)
    back = Template(3, "a-cancelled", NOW)
    consumers = seen([FIRST, before, back], 3)
    assert [one.name for one in to_restart(view(consumers, "a"))] == ["web"]
