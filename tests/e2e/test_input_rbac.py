"""I10: a permission that was taken away is named, nothing rotates, and giving it back is all that is needed.

One operator for all cases: its ServiceAccount may read Keyturn's own kinds and Namespaces everywhere, and in the
namespace of a case everything that the shipped ClusterRole grants, but for one verb.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Final

import pytest

from sandbox.controlplane import documents
from sandbox.stage import NAMESPACE, ROOT, Stage
from tests.e2e.scene import Scene

ACCOUNT: Final = "keyturn-limited"
RBAC: Final = "rbac.authorization.k8s.io/v1"


@dataclass(frozen=True)
class Missing:
    """A verb that is not granted."""

    verb: str
    resource: str

    def __str__(self) -> str:
        return f"{self.verb} {self.resource}"


# Without these nothing may begin, and the condition can say so.
REPORTED: Final = (
    Missing("get", "secrets"),
    Missing("patch", "secrets"),
    Missing("create", "secrets"),
    Missing("list", "deployments"),
    Missing("patch", "deployments"),
    Missing("list", "pods"),
    Missing("list", "replicasets"),
    Missing("list", "statefulsets"),
    Missing("list", "controllerrevisions"),
    Missing("list", "cronjobs"),
)
UNREPORTABLE: Final = Missing("patch", "clientsecretrotations/status")
EVENTS: Final = Missing("create", "events")
Scenes = dict[Missing, Scene]


def rules_without(missing: Missing) -> list[dict[str, Any]]:
    """The rules of the shipped ClusterRole without one verb on one resource."""
    shipped = next(item for item in documents([ROOT / "manifests" / "rbac.yaml"]) if item["kind"] == "ClusterRole")
    kept, found = [], False
    for rule in deepcopy(shipped["rules"]):
        if missing.resource in rule["resources"] and missing.verb in rule["verbs"]:
            found = True
            others = [name for name in rule["resources"] if name != missing.resource]
            kept.append({**rule, "resources": others})
            kept.append(
                {**rule, "resources": [missing.resource], "verbs": [v for v in rule["verbs"] if v != missing.verb]}
            )
        else:
            kept.append(rule)
    assert found, f"the shipped role does not grant {missing}"
    return [rule for rule in kept if rule["resources"] and rule["verbs"]]


def grant(scene: Scene, rules: list[dict[str, Any]]) -> None:
    """Let the operator do this in the scene's namespace."""
    name = {"name": "keyturn", "namespace": scene.namespace}
    subject = {"kind": "ServiceAccount", "name": ACCOUNT, "namespace": NAMESPACE}
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "keyturn"}
    scene.stage.apply(
        [
            {"apiVersion": RBAC, "kind": "Role", "metadata": name, "rules": rules},
            {"apiVersion": RBAC, "kind": "RoleBinding", "metadata": name, "roleRef": reference, "subjects": [subject]},
        ]
    )


def create_account(stage: Stage) -> None:
    """A ServiceAccount that may lead, and look at Keyturn's own kinds."""
    kinds = ["clientsecretrotations", "rotationproviders", "clusterrotationproviders", "rotationpolicies"]
    read = {"verbs": ["get", "list", "watch"]}
    rules = [
        {"apiGroups": ["keyturn.dev"], "resources": kinds, **read},
        {"apiGroups": [""], "resources": ["namespaces"], **read},
    ]
    subject = {"kind": "ServiceAccount", "name": ACCOUNT, "namespace": NAMESPACE}
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": ACCOUNT}
    name = {"name": ACCOUNT}
    stage.apply(
        [
            {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": ACCOUNT, "namespace": NAMESPACE}},
            {"apiVersion": RBAC, "kind": "ClusterRole", "metadata": name, "rules": rules},
            {
                "apiVersion": RBAC,
                "kind": "ClusterRoleBinding",
                "metadata": name,
                "roleRef": reference,
                "subjects": [subject],
            },
            # The shipped Role: one Lease.
            {
                "apiVersion": RBAC,
                "kind": "RoleBinding",
                "metadata": {"name": ACCOUNT, "namespace": NAMESPACE},
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "keyturn"},
                "subjects": [subject],
            },
        ]
    )


@pytest.fixture(scope="module")
def limited(stage: Stage) -> Iterator[Scenes]:
    """A scene for each missing verb, with a workload and a requested rotation, and one operator."""
    create_account(stage)
    with ExitStack() as stack:
        scenes: Scenes = {}
        for missing in (*REPORTED, UNREPORTABLE, EVENTS):
            scene = stack.enter_context(Scene.in_new_namespace(stage, f"without-{missing}"))
            grant(scene, rules_without(missing))
            scene.put_deployment(replicas=1, wait=False)
            scene.log = stage.control_plane.directory / "rbac.log"
            scenes[missing] = scene
        for scene in scenes.values():
            scene.wait_available("web", 1)
            scene.put_rotation()
        kubeconfig = stage.control_plane.service_account_kubeconfig(NAMESPACE, ACCOUNT)
        next(iter(scenes.values())).operator(kubeconfig=kubeconfig)
        yield scenes


@pytest.fixture(scope="module")
def restored(limited: Scenes) -> Scenes:
    """The same scenes after every permission was given back."""
    shipped = next(item for item in documents([ROOT / "manifests" / "rbac.yaml"]) if item["kind"] == "ClusterRole")
    for scene in limited.values():
        grant(scene, shipped["rules"])
    return limited


def assert_untouched(scene: Scene) -> None:
    assert scene.account.simulator.counted(scene.client_id, "start", "received") == 0
    assert scene.secret() == {"CLIENT_SECRET": scene.first_secret, "OTHER": "untouched"}
    assert scene.restarts() == 0
    assert scene.journals() == []
    assert not scene.rotation()["metadata"].get("finalizers")


@pytest.mark.parametrize("missing", REPORTED, ids=str)
def test_names_the_permission_and_rotates_nothing(limited: Scenes, missing: Missing) -> None:
    """I10"""
    scene = limited[missing]
    message = scene.wait_stalled("Forbidden")
    for part in (missing.verb, missing.resource, scene.namespace, "manifests/rbac.yaml"):
        assert part in message
    assert scene.status().get("rotation") is None
    assert_untouched(scene)


def test_without_the_status_the_log_has_to_say_it(limited: Scenes) -> None:
    """I1, I10: what cannot be written down is not begun."""
    scene = limited[UNREPORTABLE]

    def said() -> bool:
        lines = [line for line in scene.log.read_text().splitlines() if scene.namespace in line]
        return any("WARNING" in line and "clientsecretrotations/status" in line and "403" in line for line in lines)

    scene.wait(said, "a warning in the log")
    assert scene.status() == {}
    assert_untouched(scene)


def test_without_events_it_rotates_all_the_same(limited: Scenes) -> None:
    scene = limited[EVENTS]
    scene.wait_ended()
    assert scene.restarts() == 1
    assert scene.events() == []
    lines = [line for line in scene.log.read_text().splitlines() if scene.namespace in line]
    assert any("the Event was not written" in line and "403" in line for line in lines)


@pytest.mark.parametrize("missing", [*REPORTED, UNREPORTABLE], ids=str)
def test_recovers_by_itself(restored: Scenes, missing: Missing) -> None:
    """I10, I7"""
    scene = restored[missing]
    scene.wait_ended(seconds=70)
    assert (scene.applied("start"), scene.applied("rotate"), scene.applied("cancel")) == (1, 1, 0)
    assert scene.restarts() == 1
    assert scene.calls()["refused"] == 0
    assert scene.secret()["OTHER"] == "untouched"
