"""What is said of a rotation that has ended."""

from __future__ import annotations

from datetime import timedelta

from keyturn.api.rotation import Phase
from keyturn.rotation.steps import Rest
from tests.model.fakesemantics import TIMED, make_resetting


def test_workloads_that_had_nothing_to_restart_are_counted() -> None:
    """All are scaled to nothing, so that the rollout is complete before its progress was ever written down."""
    lab = make_resetting(TIMED, soak=timedelta(0))
    for deployment in lab.namespace.deployments.values():
        deployment.replicas = 0
    lab.namespace.pods.clear()
    assert isinstance(lab.run(), Rest)
    status = lab.resource.parsed()
    assert status.phase is Phase.COMPLETED
    assert status.last_rotation is not None
    assert "2 workloads run on it" in status.last_rotation.message
