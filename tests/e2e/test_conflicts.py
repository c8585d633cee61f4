"""Conflicts, seen from both sides, from their beginning to their end (I6)."""

from __future__ import annotations

from functools import partial
from typing import Any

from tests.e2e.many import One
from tests.e2e.scene import Scene

PROMPTLY = 5.0
"""Seconds in which a conflict that has ended is over for everybody, on a machine with other things to do."""


def condition(one: One, kind: str) -> dict[str, Any] | None:
    return next((item for item in one.status().get("conditions", []) if item["type"] == kind), None)


def wait_told(one: One, kind: str, reason: str, *words: str) -> None:
    """Until the condition has this reason, and names these."""

    def told() -> bool:
        found = condition(one, kind)
        return found is not None and found["reason"] == reason and all(word in found["message"] for word in words)

    one.scene.wait(told, f"{one.name}: {kind} {reason}, {words}")


def wait_free(*ones: One) -> None:
    for one in ones:
        one.scene.wait(partial(free, one), f"{one.name} is free", PROMPTLY)


def free(one: One) -> bool:
    return condition(one, "Contested") is None and condition(one, "Stalled") is None


def test_both_sides_of_a_conflict_say_so_and_are_free_when_it_ends(scene: Scene) -> None:
    """A rotation that runs is not stopped by it; afterwards neither begins, whichever was there first."""
    scene.operator()
    scene.put_rotation(soak="1h")
    billing = One(scene, "billing", scene.client_id, scene.first_secret)
    scene.wait_phase("Soaking")
    other = scene.account.simulator.create({})
    scene.put_secret("other", {"CLIENT_SECRET": other["client_secret"]})
    rival, writer = (One(scene, name, "", "") for name in ("a-rival", "writer"))
    scene.put_rotation(name="a-rival", secretRef={"name": "other", "key": "CLIENT_SECRET"})
    wait_told(rival, "Stalled", "ClientConflict", f"{scene.namespace}/billing")
    wait_told(billing, "Contested", "ClientConflict", f"{scene.namespace}/a-rival")
    scene.put_rotation(name="writer", clientId=other["client_id"])
    wait_told(writer, "Stalled", "SecretConflict", "billing", "Secret m2m, key CLIENT_SECRET")
    wait_told(billing, "Contested", "SecretConflict", "writer")
    assert condition(billing, "Stalled") is None
    assert billing.status()["phase"] == "Soaking"

    scene.patch(billing.path, {"spec": {"soak": "0s"}})
    scene.wait_ended()
    for one in (billing, rival, writer):
        wait_told(one, "Contested", "ClientConflict" if one is rival else "SecretConflict")
        wait_told(one, "Stalled", "ClientConflict" if one is rival else "SecretConflict")
    scene.patch(writer.path, {"spec": {"secretRef": {"key": "ANOTHER", "creationPolicy": "Owner"}}})
    wait_told(billing, "Stalled", "ClientConflict", f"{scene.namespace}/a-rival")
    scene.delete(rival.path)
    wait_free(billing)
    scene.wait(lambda: writer.status().get("phase") == "Completed", "the corrected one has rotated")
    wait_free(writer)

    scene.put_rotation(name="a-rival", secretRef={"name": "other", "key": "CLIENT_SECRET"})
    wait_told(billing, "Stalled", "ClientConflict", f"{scene.namespace}/a-rival")
    wait_told(rival, "Stalled", "ClientConflict", f"{scene.namespace}/billing")
    scene.delete(billing.path)
    scene.wait(lambda: rival.status().get("phase") == "Completed", "the one that is left rotates")
    wait_free(rival)
    assert (scene.applied("start"), scene.applied("rotate")) == (2, 2)
