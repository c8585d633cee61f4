"""Which workloads count: what is found, what `targets` names, what `selector` matches."""

from __future__ import annotations

from typing import Any

import pytest

from keyturn.api.rotation import LabelSelector, RolloutSpec
from keyturn.cluster.selection import matches
from tests.cluster.objects import STRANGER, meta, owned, pod, seen, template, workload_of

LABELS = {"app": "web", "tier": "front"}


def requirement(operator: str, *values: str, key: str = "app") -> dict[str, Any]:
    return {"matchExpressions": [{"key": key, "operator": operator, "values": list(values)}]}


@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        ({}, True),
        ({"matchLabels": {"app": "web"}}, True),
        ({"matchLabels": {"app": "web", "tier": "back"}}, False),
        ({"matchLabels": {"other": "web"}}, False),
        (requirement("In", "web", "api"), True),
        (requirement("In", "api"), False),
        (requirement("In", "web", key="other"), False),
        (requirement("NotIn", "api"), True),
        (requirement("NotIn", "web"), False),
        (requirement("NotIn", "web", key="other"), True),  # what has no such label is not in either
        (requirement("Exists"), True),
        (requirement("Exists", key="other"), False),
        (requirement("DoesNotExist"), False),
        (requirement("DoesNotExist", key="other"), True),
        ({"matchLabels": {"app": "web"}, **requirement("In", "back", key="tier")}, False),
        ({"matchLabels": {"app": "web"}, **requirement("In", "front", key="tier")}, True),
    ],
    ids=str,
)
def test_selectors_are_those_of_kubernetes(selector: dict[str, Any], expected: bool) -> None:
    assert matches(LabelSelector.model_validate(selector), LABELS) is expected


def stranger(name: str, **labels: str) -> dict[str, Any]:
    """A workload whose pods do not read the Secret in a way that could be seen."""
    return workload_of({"template": template(STRANGER)}, name=name, labels=labels)


def namespace() -> dict[str, list[dict[str, Any]]]:
    """Workloads of all kinds, of which one Deployment reads the Secret, and so does a bare pod."""
    return {
        "deployments": [workload_of({}, name="reader", labels={"app": "reader"}), stranger("web", app="web")],
        "statefulsets": [stranger("db", app="db")],
        "daemonsets": [stranger("agent", app="agent", tier="back")],
        "rollouts": [stranger("canary", tier="back")],
        "jobs": [stranger("job", tier="back")],
        "pods": [
            pod("reader-1-a", owner=("ReplicaSet", "reader-1")),
            pod("db-0", STRANGER, owner=("StatefulSet", "db")),
            pod("agent-a", STRANGER, owner=("DaemonSet", "agent")),
            pod("alone"),
            pod("stranger", STRANGER),
        ],
        "replicasets": [
            {"metadata": meta("reader-1", ownerReferences=owned("Deployment", "reader")), "spec": READER_SPEC}
        ],
    }


READER_SPEC = {"template": template()}
FOUND = {"Deployment/reader"}


@pytest.mark.parametrize(
    ("spec", "workloads", "pods"),
    [
        ({}, FOUND, {"reader-1-a", "alone"}),
        ({"discover": False}, set(), set()),
        ({"targets": [("StatefulSet", "db")]}, FOUND | {"StatefulSet/db"}, {"reader-1-a", "alone", "db-0"}),
        ({"targets": [("StatefulSet", "db")], "discover": False}, {"StatefulSet/db"}, {"db-0"}),
        (
            {"selector": {"matchLabels": {"tier": "back"}}, "discover": False},
            {"DaemonSet/agent", "Rollout/canary"},
            {"agent-a"},
        ),
        (
            {"selector": {}, "discover": False},
            {"Deployment/reader", "Deployment/web", "StatefulSet/db", "DaemonSet/agent", "Rollout/canary"},
            {"reader-1-a", "db-0", "agent-a"},
        ),
        (
            {
                "selector": {"matchLabels": {"app": "web"}},
                "targets": [("DaemonSet", "agent"), ("Deployment", "reader")],
            },
            FOUND | {"Deployment/web", "DaemonSet/agent"},
            {"reader-1-a", "alone", "agent-a"},
        ),
    ],
    ids=lambda part: repr(part) if isinstance(part, dict) else len(part),
)
def test_what_counts(spec: dict[str, Any], workloads: set[str], pods: set[str]) -> None:
    """I4, I7: all pods of what is chosen count, and nothing else of what is not asked for."""
    named = [{"kind": kind, "name": name} for kind, name in spec.pop("targets", [])]
    found = seen(RolloutSpec.model_validate({**spec, "targets": named}), **namespace())
    assert {f"{one.kind}/{one.name}" for one in found.workloads} == workloads
    assert {one.name for one in found.pods} == pods
    assert found.missing == ()


def test_what_is_named_and_does_not_exist_is_told() -> None:
    """I10"""
    named = [
        {"kind": "Deployment", "name": "db"},
        {"kind": "StatefulSet", "name": "db"},
        {"kind": "Rollout", "name": "x"},
    ]
    found = seen(RolloutSpec.model_validate({"targets": named}), **namespace())
    assert found.missing == (("Deployment", "db"), ("Rollout", "x"))


def test_a_target_uses_the_value_in_ways_that_no_volume_can_show() -> None:
    """What is named by the user is restarted also with `restart: EnvOnly`."""
    mount = {"containers": [{"name": "app", "volumeMounts": [{"name": "v", "mountPath": "/v"}]}]}
    live = {**mount, "volumes": [{"name": "v", "secret": {"secretName": "app"}}]}
    objects = {"pods": [pod("db-0", live, owner=("StatefulSet", "db"))], "statefulsets": [stranger("db")]}
    named = RolloutSpec.model_validate({"targets": [{"kind": "StatefulSet", "name": "db"}]})
    assert [(one.live, one.volume) for one in seen(**objects).pods] == [(True, True)]
    assert [(one.live, one.volume) for one in seen(named, **objects).pods] == [(False, True)]
