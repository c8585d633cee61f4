"""A rollout that has failed restarts nothing more: neither before the way back, nor while a person decides (I7)."""

from __future__ import annotations

from keyturn.api.rotation import FailurePolicy, Phase, RolloutSpec, RotationSpec
from keyturn.rotation.steps import Rest, Wait
from tests.model.fakecluster import SECOND
from tests.model.lab import Lab
from tests.model.scenarios import make_lab, make_spec

LIMIT = RolloutSpec(max_concurrent=2, timeout=12 * SECOND)


def crashing(spec: RotationSpec) -> Lab:
    """Of three Deployments two may restart at a time: one of them crashes, and the other one is ready only later."""
    lab = make_lab(spec)
    lab.deploy("zeta", 1)
    web, worker = lab.namespace.deployments["web"], lab.namespace.deployments["worker"]
    web.sick = lambda stamp: stamp is not None and not stamp.endswith("cancelled")
    worker.grace = 8 * SECOND
    lab.elapse(3 * SECOND)

    def crash() -> None:
        for pod in lab.namespace.pods:
            pod.crashing = pod.sick

    lab.after(8 * SECOND, crash)
    return lab


def test_nothing_is_restarted_while_a_person_decides() -> None:
    lab = crashing(make_spec(on_failure=FailurePolicy.HOLD, rollout=LIMIT))
    step = lab.run(60 * SECOND)
    assert isinstance(step, Wait)
    assert step.blocked
    assert [len(lab.namespace.deployments[name].stamps) for name in ("web", "worker", "zeta")] == [1, 1, 0]


def test_nothing_is_restarted_only_to_go_back() -> None:
    lab = crashing(make_spec(rollout=LIMIT))
    lab.run(1 * SECOND)
    lab.elapse(30 * SECOND)  # nobody looks, as when the operator does not run
    assert isinstance(lab.run(), Rest)
    assert lab.resource.parsed().phase is Phase.CANCELLED
    assert [len(lab.namespace.deployments[name].stamps) for name in ("web", "worker", "zeta")] == [2, 2, 0]
