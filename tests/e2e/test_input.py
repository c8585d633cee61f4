"""I10: bad input is an answer. All cases are on stage at once, so that waiting for one is waiting for all."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from sandbox.controlplane.components import minor
from sandbox.stage import Stage
from tests.e2e.badinput import CASES, Bad
from tests.e2e.scene import Scene

QUIET_SECONDS = 5.0
EVERY_CASE = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
Scenes = dict[str, Scene]


@pytest.fixture(scope="module")
def broken(stage: Stage) -> Iterator[Scenes]:
    """A scene for each case, in which the rotation is requested, and one operator."""
    enforced = minor(stage.control_plane.version) >= 25
    with ExitStack() as stack:
        scenes: Scenes = {}
        for case in CASES:
            if case.by_rule and enforced:
                continue
            scene = stack.enter_context(Scene.in_new_namespace(stage, f"bad-{case.name}"))
            case.spoil(scene)
            scene.put_rotation(**case.spec)
            scenes[case.name] = scene
        log = stage.control_plane.directory / "bad-input.log"
        for scene in scenes.values():
            scene.log = log
        next(iter(scenes.values())).operator()
        yield scenes


@pytest.fixture(scope="module")
def corrected(broken: Scenes) -> Scenes:
    """The same scenes after everything was put right."""
    for case in CASES:
        if case.name in broken:
            case.correct(broken[case.name])
    return broken


def of(scenes: Scenes, case: Bad) -> Scene:
    if case.name not in scenes:
        pytest.skip("this API server enforces the rule itself")
    return scenes[case.name]


def complaint(case: Bad, status: dict[str, Any]) -> str | None:
    """The message of the condition that this case leads to."""
    wanted = "Stalled" if case.stalled else "Reconciling"
    for condition in status.get("conditions", []):
        if (condition["type"], condition["status"], condition["reason"]) == (wanted, "True", case.reason):
            return str(condition["message"])
    return None


def starts(scene: Scene) -> int:
    """How many start calls came for any client, carried out or not."""
    return len(scene.account.simulator.calls["start"])


@EVERY_CASE
def test_names_what_is_wrong_and_rotates_nothing(broken: Scenes, case: Bad) -> None:
    """I10, I11"""
    scene = of(broken, case)
    message = scene.wait(lambda: complaint(case, scene.status()), f"a condition with reason {case.reason}")
    for part in case.says:
        assert part in message
    rotation = scene.rotation()
    status = rotation["status"]
    assert status["phase"] == case.phase
    assert status.get("rotation") is None
    assert status["observedGeneration"] == rotation["metadata"]["generation"]
    states = {condition["type"]: condition["status"] for condition in status["conditions"]}
    assert states["Rotating"] == "False"
    assert states["Ready"] != "True"
    assert starts(scene) == 0
    assert not rotation["metadata"].get("finalizers")
    assert scene.journals() == []


@pytest.mark.parametrize("case", [case for case in CASES if case.name.startswith("two")], ids=lambda case: case.name)
def test_both_report_a_conflict(broken: Scenes, case: Bad) -> None:
    """I6"""
    scene = of(broken, case)
    path = (
        scene.rotation_path.replace("/billing", "/other")
        if "namespaces" not in case.name
        else scene.rotation_path.replace(scene.namespace, f"{scene.namespace}-2")
    )

    def other() -> str | None:
        return complaint(case, (scene.get(path) or {}).get("status") or {})

    message = scene.wait(other, "the other reports it too")
    assert "ClientSecretRotation" in message
    assert "billing" in message


ACCOUNTS = (
    "missing credentials",
    "missing credential key",
    "wrong credentials",
    "unreachable provider",
    "provider limits",
)


def account_ready(scene: Scene) -> tuple[str, str]:
    """Status and message of the provider object's own condition."""
    provider = scene.get(scene.rotation_path.replace("clientsecretrotations/billing", "rotationproviders/stytch")) or {}
    found = [item for item in (provider.get("status") or {}).get("conditions", []) if item["type"] == "Ready"]
    return (found[0]["status"], found[0]["message"]) if found else ("", "")


@pytest.mark.parametrize("case", [case for case in CASES if case.name in ACCOUNTS], ids=lambda case: case.name)
def test_the_account_says_it_too(broken: Scenes, case: Bad) -> None:
    """I10: whoever answers for the provider object sees it there."""
    scene = of(broken, case)
    scene.wait(lambda: account_ready(scene)[0] in ("False", "Unknown"), "the account is not Ready")
    assert any(part in account_ready(scene)[1] for part in case.says)


def test_says_it_once(broken: Scenes) -> None:
    """I12: nobody is told the same again with every attempt, neither by the status nor by Events."""

    def versions() -> dict[str, str]:
        return {name: scene.rotation()["metadata"]["resourceVersion"] for name, scene in broken.items()}

    def events() -> dict[str, list[str]]:
        return {name: sorted(event["reason"] for event in scene.events()) for name, scene in broken.items()}

    time.sleep(0.5)  # an attempt may be under way
    before = versions(), events()
    time.sleep(QUIET_SECONDS)
    assert (versions(), events()) == before
    for case in CASES:
        if case.name in broken:
            billing = [event for event in broken[case.name].events() if event["involvedObject"]["name"] == "billing"]
            assert [event["reason"] for event in billing] == ([case.reason] if case.stalled else []), case.name
            assert all(event["type"] == "Warning" for event in billing)


def test_a_limit_is_respected(broken: Scenes) -> None:
    """What the provider asks for with Retry-After is kept to, by rotation and account alike."""
    scene = broken["provider limits"]
    calls = scene.account.simulator.calls["get"]

    def times(*, mine: bool) -> list[float]:
        return [call.time for call in list(calls) if (call.params["client_id"] == scene.client_id) is mine]

    for mine in (True, False):
        scene.wait(lambda mine=mine: len(times(mine=mine)) >= 3, "three calls")  # type: ignore[misc]
        pauses = [later - earlier for earlier, later in itertools.pairwise(times(mine=mine))]
        assert all(pause > 1.9 for pause in pauses), pauses


@EVERY_CASE
def test_recovers_by_itself(corrected: Scenes, case: Bad) -> None:
    """I10: nothing but the correction is needed, and nothing else is touched."""
    scene = of(corrected, case)
    scene.wait_ended(seconds=70)
    value = scene.secret()
    assert value["CLIENT_SECRET"] != scene.first_secret
    assert scene.account.simulator.accepts(scene.client_id, value["CLIENT_SECRET"])
    assert value["OTHER"] == "untouched"
    assert (starts(scene), scene.applied("rotate"), scene.applied("cancel")) == (1, 1, 0)
    states = {condition["type"]: condition["status"] for condition in scene.status()["conditions"]}
    assert states["Ready"] == "True"
    assert {"Stalled", "Reconciling"}.isdisjoint(states)
    scene.wait(lambda: account_ready(scene)[0] == "True", "the account is Ready")
