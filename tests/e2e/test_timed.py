"""Timed rotations from end to end: Janrain lets the old value live on for a time chosen before, and takes none back."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any
from urllib.parse import parse_qs

import pytest

from tests.e2e.crash import calls
from tests.e2e.scene import Scene

HOUR = 3600.0
_WHEN_STAMPED = "sandbox.keyturn.dev/behavior-when-stamped"


def assert_completed(scene: Scene) -> None:
    """Nothing refused, one reset, one restart, the new value in force."""
    scene.wait_ended()
    assert (scene.applied("start"), calls(scene, "start")) == (1, 1)
    assert scene.restarts() == 1
    assert scene.calls()["refused"] == 0
    assert scene.calls()["accepted"] > 0
    assert scene.secret()["CLIENT_SECRET"] != scene.first_secret
    assert scene.account.simulator.accepts(scene.client_id, scene.secret()["CLIENT_SECRET"])


def old_dies(scene: Scene) -> float:
    """When the old value dies, by the simulator."""
    return float(scene.account.simulator.clients[scene.client_id].held[-2].valid_until)


def sent(scene: Scene) -> dict[str, Any]:
    """The form of the reset."""
    form = parse_qs(scene.account.simulator.calls["start"][0].body.decode())
    return {name: values[0] for name, values in form.items()}


@pytest.mark.parametrize("auth", ["Basic", "Signed"])
def test_not_refused_during_the_overlap_nor_after_its_end(janrain_scene: Scene, auth: str) -> None:
    """I2, I3, I7: zero refused calls across the real end of the overlap; no call but the one reset changes anything."""
    scene = janrain_scene
    scene.put_provider(auth=auth)
    scene.put_deployment()
    scene.operator()
    scene.put_rotation(overlap="24h", soak="1s")
    scene.wait_phase("Soaking")
    record = scene.status()["rotation"]
    assert_completed(scene)
    phases = scene.log.read_text()
    assert "phase Finalizing" not in phases
    assert sent(scene) == {"for_client_id": scene.client_id, "hours_to_live": "24"}
    scheme = scene.account.simulator.calls["start"][0].header("Authorization")
    assert scheme is not None
    assert scheme.startswith("Basic " if auth == "Basic" else "Signature ")

    # Counted from before the request: never later than the provider's own end, and not much earlier.
    told = datetime.fromisoformat(record["previousValidUntil"]).timestamp()
    assert old_dies(scene) - 30 < told <= old_dies(scene)
    assert f"refused from {record['previousValidUntil'][:13]}" in scene.status()["lastRotation"]["message"]

    assert scene.account.simulator.accepts(scene.client_id, scene.first_secret)
    accepted = scene.calls()["accepted"]
    scene.account.simulator.advance(24 * HOUR + 60)
    assert not scene.account.simulator.accepts(scene.client_id, scene.first_secret)
    scene.wait(lambda: scene.calls()["accepted"] > accepted + 10, "the pods call on after the end of the overlap")
    assert scene.calls()["refused"] == 0


def test_fractions_of_an_hour_are_rounded_up(janrain_scene: Scene) -> None:
    """Janrain counts hours: the old value lives at least as long as was asked for."""
    janrain_scene.operator()
    janrain_scene.put_rotation(overlap="90m")
    janrain_scene.wait_ended()
    assert sent(janrain_scene)["hours_to_live"] == "2"


def test_an_overlap_that_is_too_short_needs_consent(janrain_scene: Scene) -> None:
    """I10: shorter than verify, rollout and a margin may take: said before anything is called; then consented to."""
    scene = janrain_scene
    scene.operator()
    rollout = {"timeout": "58m"}
    scene.put_rotation(overlap="1h", rollout=rollout)
    message = scene.wait_stalled("OverlapTooShort")
    assert "spec.overlap" in message
    assert "spec.acceptDowntime" in message
    assert calls(scene, "start") == 0
    assert scene.journals() == []
    scene.put_rotation(overlap="1h", rollout=rollout, acceptDowntime=True)
    scene.wait_ended()
    assert sent(scene)["hours_to_live"] == "1"


def test_an_overlap_out_of_range_is_refused_before_any_call(janrain_scene: Scene) -> None:
    """A1: 0 to 168 hours."""
    scene = janrain_scene
    scene.operator()
    scene.put_rotation(overlap="169h")
    scene.wait(lambda: scene.condition("Stalled"), "Stalled")
    assert "168h" in json.dumps(scene.status())
    assert calls(scene, "start") == 0
    assert scene.journals() == []


def test_a_rollout_that_gets_stuck_waits_to_be_mended(janrain_scene: Scene) -> None:
    """I3: nothing leads back, so nothing is undone: both values work, a person is asked, and mended it goes on."""
    scene = janrain_scene
    scene.put_deployment(replicas=2, annotations={_WHEN_STAMPED: "never-ready"})
    scene.operator()
    scene.put_rotation(overlap="24h", rollout={"timeout": "10s"}, onFailure="Cancel")
    message = scene.wait_stalled("RolloutTimeout")
    assert "mend it" in message
    assert "refuses the old one from" in message
    assert scene.secret()["CLIENT_SECRET"] != scene.first_secret
    assert scene.status()["phase"] == "RollingOut"

    mended = {"spec": {"template": {"metadata": {"annotations": {_WHEN_STAMPED: None}}}}}
    scene.patch(scene.deployment_path(), mended)
    scene.wait_ended()
    assert calls(scene, "start") == 1
    assert scene.stamps() == {scene.status()["lastRotation"]["id"]}, "I7: restarted once"
    assert scene.calls()["refused"] == 0


def test_deleted_in_the_middle_it_goes_forward(janrain_scene: Scene) -> None:
    """I11: a reset cannot be taken back, whatever deletionPolicy says; the object goes when the rotation is over."""
    scene = janrain_scene
    scene.put_deployment(annotations={"sandbox.keyturn.dev/ready-after": "2s"}, replicas=2)
    scene.operator()
    scene.put_rotation(overlap="24h", deletionPolicy="Cancel")
    scene.wait_phase("RollingOut")
    scene.delete(scene.rotation_path)
    scene.wait(lambda: scene.get(scene.rotation_path) is None, "the rotation is gone")
    assert scene.journals() == []
    assert scene.applied("start") == 1
    assert scene.restarts() == 1
    assert scene.calls()["refused"] == 0
    assert scene.account.simulator.clients[scene.client_id].current.value == scene.secret()["CLIENT_SECRET"]
    scene.account.simulator.advance(25 * HOUR)
    accepted = scene.calls()["accepted"]
    scene.wait(lambda: scene.calls()["accepted"] > accepted + 5, "the pods call on")
    assert scene.calls()["refused"] == 0


def test_a_new_value_that_spreads_slowly_is_waited_for(janrain_scene: Scene) -> None:
    """I3: no consumer gets the value before Janrain accepts it."""
    scene = janrain_scene
    scene.account.simulator.switches.propagation_delay = 3
    scene.put_deployment(replicas=2)
    scene.operator()
    scene.put_rotation(overlap="24h")
    scene.wait_phase("Verifying")
    assert scene.secret()["CLIENT_SECRET"] == scene.first_secret
    assert_completed(scene)
