"""A part of the hostile input that `make chaos` plays in full, from a seed of its own; see tests/chaos/inputs."""

from __future__ import annotations

import httpx
import pytest

from sandbox.simulators.faults import How
from sandbox.stage import Stage
from tests.chaos.inputs.agreement import judge, sample
from tests.chaos.inputs.plans import plans
from tests.chaos.inputs.run import InputsReport, run_inputs
from tests.chaos.inputs.semantic import ALL, SEMANTIC
from tests.e2e.scene import Scene

SEED = 20261122
INPUTS = 100
SPECS = 500


@pytest.fixture(scope="module")
def report(stage: Stage) -> InputsReport:
    return run_inputs(stage, SEED, INPUTS, 20, offline=0)


def test_no_input_ends_in_a_crash(report: InputsReport) -> None:
    """I10: neither of the process nor of one pass."""
    assert report.crashes == []
    assert report.total >= INPUTS


def test_every_answer_names_the_cause_and_a_revert_is_all_it_takes(report: InputsReport) -> None:
    """I8, I10, I11, I12; and the API server, the CEL rules and the operator come to one verdict."""
    assert report.violations == []
    assert 0 < report.refused < report.total / 2


def test_schema_rules_and_operator_come_to_the_same_verdict() -> None:
    found = judge(SEED, SPECS)
    assert found.violations == []
    assert min(found.refused_by_schema, found.refused_by_rules, found.accepted) > SPECS / 50


def inputs(seed: int, total: int) -> list[str]:
    return [f"{plan} {plan.names} {one}" for plan in plans(seed, total) for one in plan.inputs]


def test_a_seed_makes_the_same_plans_and_specs() -> None:
    assert inputs(1, 200) == inputs(1, 200)
    assert inputs(1, 200) != inputs(2, 200)
    assert [sample(1, number) for number in range(50)] == [sample(1, number) for number in range(50)]


def test_a_whole_run_plays_every_row_of_the_table() -> None:
    played = {(plan.names.provider, one.semantic) for plan in plans(1, 2000) for one in plan.inputs if one.semantic}
    assert {row for _, row in played} == set(SEMANTIC)
    assert {provider for provider, _ in played} == set(ALL)


def test_a_client_that_the_start_did_not_find_can_be_corrected(janrain_scene: Scene) -> None:
    """I10, I12: Janrain without readBack cannot be asked for a client before; nothing was changed, and it goes on.

    Until then it is tried now and then, and not whenever something wakes it.
    """
    scene = janrain_scene
    scene.put_rotation("a", clientId="nobody")
    scene.operator()
    scene.wait_stalled("ClientNotFound")
    looks, version = scene.log.read_text().count("next: Wait"), scene.rotation()["metadata"]["resourceVersion"]
    scene.patch(scene.rotation_path, {"metadata": {"annotations": {"somebody": "was here"}}})
    written = scene.rotation()["metadata"]["resourceVersion"]
    assert written != version
    scene.wait(lambda: scene.log.read_text().count("next: Wait") > looks, "it is looked at again")
    assert scene.rotation()["metadata"]["resourceVersion"] == written
    scene.put_rotation("a")
    scene.wait_ended()
    assert scene.applied("start") == 1


def test_a_client_that_is_corrected_while_the_provider_is_asked(janrain_scene: Scene) -> None:
    """I1, I5: that nothing was changed cannot be written at once, and must not pass for an answer that was lost."""
    scene = janrain_scene
    scene.account.simulator.add_fault("start", How.PROPER, delay=2, caller="keyturn")
    scene.put_rotation("a", clientId="nobody")
    scene.operator()
    scene.wait(lambda: scene.status().get("rotation", {}).get("startSent"), "the call is under way")
    scene.put_rotation("a")
    scene.wait_ended()
    assert scene.applied("start") == 1
    assert "read again: patch clientsecretrotations" in scene.log.read_text()


def test_a_client_that_is_corrected_to_one_that_is_taken(janrain_scene: Scene) -> None:
    """I5, I6, I10: said, and not mistaken for an answer that was lost; when the other has gone, it goes on."""
    scene = janrain_scene
    scene.put_secret("m3m", {"CLIENT_SECRET": scene.first_secret})
    scene.put_rotation(None, name="rival", secretRef={"name": "m3m", "key": "CLIENT_SECRET"})
    scene.put_rotation("a", clientId="nobody")
    scene.operator()
    scene.wait_stalled("ClientNotFound")
    scene.put_rotation("a")
    scene.wait_stalled("ClientConflict")
    assert scene.applied("start") == 0
    scene.delete(f"{scene.rotation_path.rpartition('/')[0]}/rival")
    scene.wait_ended()
    assert scene.applied("start") == 1


def test_a_client_that_vanishes_can_be_corrected_but_not_to_one_that_somebody_else_rotates(scene: Scene) -> None:
    """I5, I10: nothing was changed at either of them, so what is pending at the other one is not ours."""
    simulator = scene.account.simulator
    simulator.add_fault("start", How.STATUS, status=429, times=None, caller="keyturn")
    scene.put_rotation("a")
    scene.operator()
    scene.wait(lambda: simulator.counted(scene.client_id, "start", "received"), "the call was refused")
    simulator.clients.pop(scene.client_id)
    other = simulator.create({})["client_id"]
    simulator.clear_faults()
    url = f"{scene.account.url}/v1/m2m/clients/{other}/secrets/rotate/start"
    httpx.post(url, auth=(simulator.project_id, simulator.project_secret), trust_env=False).raise_for_status()
    scene.wait_stalled("ClientNotFound")
    scene.put_rotation("a", clientId=other)
    scene.wait_stalled("ForeignRotation")
    assert simulator.counted(other, "start", "applied") == 1, "that of somebody else"
    assert simulator.counted(other, "cancel", "applied") == 0
    scene.put_rotation("a", clientId=other, takeOver=True)
    scene.wait_ended()
    assert simulator.accepts(other, scene.secret()["CLIENT_SECRET"])


def test_a_spec_that_becomes_invalid_right_after_a_rotation_is_answered(scene: Scene) -> None:
    """I10, I11: its finalizer is still there then, and has to go although the spec names nothing that can be used."""
    scene.put_rotation("a")
    scene.operator()
    scene.wait_ended()
    scene.patch(scene.rotation_path, {"metadata": {"finalizers": ["keyturn.dev/rotation"]}, "spec": {"soak": "9999h"}})
    scene.wait_stalled("InvalidSpec")
    scene.wait(lambda: not scene.rotation()["metadata"].get("finalizers"), "the finalizer is gone")
