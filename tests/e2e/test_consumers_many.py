"""Several rotations at once: each ends, and none makes another's workloads restart again (I7, I9)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from tests.e2e.scene import Scene


def add_secret(scene: Scene, name: str) -> str:
    """A Secret with a client of its own at the provider; the client's id."""
    client = scene.account.simulator.create({})
    scene.put_secret(name, {"CLIENT_SECRET": client["client_secret"]})
    return str(client["client_id"])


def put_rotation(scene: Scene, name: str, client: str) -> None:
    scene.put_rotation(name=name, clientId=client, secretRef={"name": name, "key": "CLIENT_SECRET"})


def reader(*secrets: str) -> dict[str, Any]:
    return {
        "containers": [{"name": "app", "image": "app", "envFrom": [{"secretRef": {"name": name}} for name in secrets]}]
    }


def calling_with(secret: str, client: str) -> dict[str, str]:
    return {
        "client.sandbox.keyturn.dev/secret": f"{secret}/CLIENT_SECRET",
        "client.sandbox.keyturn.dev/id": client,
    }


def wait_completed(scene: Scene, names: Iterable[str]) -> None:
    """Until all of these rotations are Completed and have let go of their objects."""
    root = scene.rotation_path.rpartition("/")[0]

    def ended(name: str) -> bool:
        found = scene.get(f"{root}/{name}") or {}
        done = found.get("status", {}).get("phase") == "Completed"
        return done and not found["metadata"].get("finalizers")

    for name in names:
        scene.wait(lambda name=name: ended(name), f"{name} Completed", 60)  # type: ignore[misc]
    assert scene.journals() == []


@pytest.mark.parametrize("replicas", [1, 3])
def test_two_secrets_read_by_one_deployment(scene: Scene, replicas: int) -> None:
    """I7: both rotations want the same workload restarted, at most once each."""
    other = add_secret(scene, "second")
    scene.put_deployment(
        replicas=replicas, pod_spec=reader("m2m", "second"), annotations={"sandbox.keyturn.dev/ready-after": "500ms"}
    )
    scene.operator()
    put_rotation(scene, "second", other)
    scene.put_rotation()
    wait_completed(scene, ["billing", "second"])
    assert scene.restarts() <= 2
    assert scene.calls()["refused"] == 0


def test_eight_rotations_in_one_namespace(scene: Scene) -> None:
    """I6, I9: each with a Secret and a Deployment of its own, all due at once."""
    names = [f"r{number}" for number in range(8)]
    clients = {name: add_secret(scene, name) for name in names}
    for name, client in clients.items():
        scene.put_deployment(
            name, replicas=1, pod_spec=reader(name), annotations=calling_with(name, client), wait=False
        )
    for name in names:
        scene.wait_available(name, 1)
    scene.operator()
    for name, client in clients.items():
        put_rotation(scene, name, client)
    wait_completed(scene, names)
    simulator = scene.account.simulator
    assert {simulator.counted(client, "start", "applied") for client in clients.values()} == {1}
    assert {simulator.counted(client, "rotate", "applied") for client in clients.values()} == {1}
    assert {scene.restarts(name) for name in names} == {1}
    assert scene.calls()["refused"] == 0
