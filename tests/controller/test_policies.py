"""Which rotations a policy covers, who is woken by what, and what is written about it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any, Final, cast

import pytest

from keyturn.cluster.client import Kube, Listed, Resource
from keyturn.cluster.errors import Conflict, Forbidden
from keyturn.cluster.resources import NAMESPACES, POLICIES
from keyturn.controller.controller import Controller
from keyturn.controller.index import Index, Key
from keyturn.controller.policies import RECOUNT_SECONDS, PolicyReconciler
from keyturn.controller.sweep import Sweep
from tests.controller.test_controller import order, with_controller
from tests.controller.test_index import rotation
from tests.controller.virtual import virtually

MADE = "2026-03-01T12:00:00Z"
NOW = datetime(2026, 3, 2, tzinfo=UTC)
A, B = ("ns", "a"), ("other", "b")
GOLD: Final[dict[str, Any]] = {"rotationSelector": {"matchLabels": {"tier": "gold"}}}
TEAM: Final[dict[str, Any]] = {"namespaceSelector": {"matchLabels": {"team": "red"}}}
BY_NAME: Final[dict[str, Any]] = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "ns"}}}


def policy(
    name: str = "fleet", *, version: int = 1, status: dict[str, Any] | None = None, **spec: Any
) -> dict[str, Any]:
    meta = {
        "name": name,
        "uid": name,
        "resourceVersion": str(version),
        "generation": version,
        "creationTimestamp": MADE,
    }
    raw = {"apiVersion": "keyturn.dev/v1alpha1", "kind": "RotationPolicy", "metadata": meta, "spec": spec}
    return {**raw, "status": status} if status else raw


def namespace(name: str, version: int = 1, **labels: str) -> dict[str, Any]:
    meta = {"name": name, "uid": name, "resourceVersion": str(version), "labels": labels, "managedFields": ["much"]}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": meta, "spec": {"finalizers": ["kubernetes"]}}


def labelled(key: Key, version: int = 1, **labels: str) -> dict[str, Any]:
    raw = rotation(key[1], namespace=key[0], client=key[1], version=version)
    raw["metadata"] |= {"labels": labels, "creationTimestamp": MADE}
    return raw


def fleet(*policies: dict[str, Any]) -> Index:
    """Rotation `a`, of tier gold, in Namespace `ns` of team red; and `b` without labels, in another one."""
    index = Index()
    for raw in policies:
        index.put_policy(raw)
    index.put_namespace(namespace("ns", team="red"))
    index.put_namespace(namespace("other"))
    index.put_rotation(labelled(A, tier="gold"))
    index.put_rotation(labelled(B))
    return index


@pytest.mark.parametrize(
    ("spec", "covered"),
    [
        ({}, {A, B}),
        (GOLD, {A}),
        (TEAM, {A}),
        (BY_NAME, {A}),
        ({"namespaceSelector": {"matchExpressions": [{"key": "team", "operator": "DoesNotExist"}]}}, {B}),
        ({"namespaceSelector": {"matchExpressions": [{"key": "team", "operator": "DoesNotExist"}]}, **GOLD}, set()),
    ],
)
def test_what_is_covered(spec: dict[str, Any], covered: set[Key]) -> None:
    index = fleet(policy(**spec))
    assert index.covered("fleet") == covered
    for key in (A, B):
        assert [one.name for one in index.policies_of(key)] == (["fleet"] if key in covered else [])


def test_the_label_with_the_name_is_given_and_may_be_there() -> None:
    """API servers set it from 1.21 on."""
    index = fleet(policy(**BY_NAME))
    index.put_namespace(namespace("ns", 2, **{"kubernetes.io/metadata.name": "ns"}))
    assert index.covered("fleet") == {A}


def test_a_policy_that_is_not_valid_covers_what_it_selects_or_everything() -> None:
    """A mistake must not be a way out of a limit."""
    assert fleet(policy(minGap="soon", **GOLD)).covered("fleet") == {A}
    broken = fleet(policy(rotationSelector={"matchLabels": {"tier": "go ld"}}))
    assert broken.covered("fleet") == {A, B}
    (found,) = broken.policies_of(A)
    assert isinstance(found.spec, str)
    assert found.spec.startswith("spec.rotationSelector.matchLabels")


@pytest.mark.parametrize(
    ("windows", "words"),
    [
        ({"schedule": "0 25 * * *", "duration": "4h"}, "spec.windows[0].schedule: bad hour"),
        (
            {"kind": "deny", "schedule": "0 * * * *", "duration": "1h"},
            "spec.windows: they never leave room for a rotation",
        ),
        ({"schedule": "0 2 * * *", "duration": "4h", "timeZone": "Mars/Base"}, "spec.windows[0].timeZone"),
    ],
)
def test_what_a_calendar_says_of_a_policy_is_said_of_it(windows: dict[str, str], words: str) -> None:
    index = fleet(policy(windows=[{"kind": "allow", **windows}]))
    (found,) = index.policies_of(A)
    assert str(found.spec).startswith(words)


def test_a_policy_that_changes_concerns_what_it_covered_and_what_it_covers() -> None:
    index = fleet(policy(**GOLD))
    assert index.put_policy(policy(version=2, maxAge="1h", **GOLD)) == {A}
    assert index.put_policy(policy(version=2, freeze={"reason": "x"})) == set(), "not newer"
    assert index.put_policy(policy(version=3, maxAge="1h", **TEAM)) == {A}
    assert index.put_policy(policy(version=4, maxAge="1h")) == {A, B}
    assert index.put_policy(policy(version=5, maxAge="1h", status={"rotations": 2})) == set(), "our own word"
    assert index.drop_policy("fleet") == {A, B}
    assert index.policies_of(A) == []


def test_a_namespace_that_changes_concerns_its_rotations_if_policies_go_by_it() -> None:
    index = fleet(policy(**TEAM))
    assert index.put_namespace(namespace("ns", 2, team="red", more="x")) == set()
    assert index.put_namespace(namespace("ns", 3, team="blue")) == {A}
    assert index.put_namespace(namespace("ns", 2, team="red")) == set(), "an old event"
    assert index.put_namespace(namespace("other", 4, team="red")) == {B}
    assert "managedFields" not in index.coverage.namespaces()["ns"]["metadata"]


def test_labels_of_a_rotation_are_seen() -> None:
    index = fleet(policy(**GOLD))
    assert index.put_rotation(labelled(B, 2, tier="gold")) == {B}
    assert index.covered("fleet") == {A, B}


def test_a_namespace_that_is_not_known_yet_is_asked_for_where_it_matters() -> None:
    index = fleet(policy(**GOLD))
    assert not index.coverage.needs("new")
    index.put_policy(policy("team", **TEAM))
    assert index.coverage.needs("new")
    assert not index.coverage.needs("ns")


# --- what runs -------------------------------------------------------------------------------------------------------


def running(targets: list[dict[str, Any]] | None = None, rotation_id: str = "20260301-110000-abcdef") -> dict[str, Any]:
    subject = {field: labelled(A)["spec"][field] for field in ("providerRef", "clientId", "secretRef")}
    return {"rotation": {"id": rotation_id, "subject": subject, "targets": targets or []}}


def test_what_is_about_to_begin_counts_as_running_until_it_is_known_better() -> None:
    """Two that wait for one place: the second one sees the first before its intent is written."""
    index = fleet()
    index.expect_status(A, running())
    assert set(index.running()) == {A}
    index.expect_status(A, {"phase": "Completed"})
    assert set(index.running()) == {A}, "the end counts when it is written"
    index.settle(A)
    assert index.running() == {}, "it was refused"
    index.put_rotation({**labelled(A, 2), "status": running()})
    assert set(index.running()) == {A}
    index.put_rotation(labelled(A, 3))
    assert index.running() == {}
    index.expect_status(A, running())
    index.drop_rotation(A)
    assert index.running() == {}


def test_what_others_restart_in_the_same_namespace() -> None:
    index, other = fleet(), ("ns", "c")
    index.put_rotation(labelled(other))
    pending = {"kind": "Deployment", "name": "web", "state": "Pending"}
    waiting = {"kind": "Job", "name": "batch", "state": "Waiting"}
    index.expect_status(A, running([pending, waiting]))
    index.expect_status(B, running([{**pending, "name": "elsewhere"}], "20260301-113000-abcdef"))
    assert index.restarting(other) == {("Deployment", "web"): datetime(2026, 3, 1, 11, tzinfo=UTC)}
    assert index.restarting(A) == {}


# --- the controller --------------------------------------------------------------------------------------------------


def test_who_is_woken() -> None:
    async def test(controller: Controller) -> None:
        for raw in (namespace("ns", team="red"), namespace("other"), labelled(A, tier="gold"), labelled(B)):
            controller.seen(raw, False)
        controller._working = {0}
        controller.seen(policy(freeze={"reason": "x"}, **GOLD), False)
        assert await order(controller) == [A]
        controller.seen(policy(version=2, maxAge="1h", **GOLD), False)
        assert await order(controller) == [], "not before it is known since when that holds"
        controller.seen(namespace("ns", 2, team="blue"), False)
        assert await order(controller) == []
        controller.seen(policy("team", windows=[], **TEAM), False)
        controller.seen(namespace("other", 2, team="red"), False)
        assert await order(controller) == [B]
        controller.seen(policy(version=3, maxAge="1h", **GOLD), True)
        assert await order(controller) == [A]

    with_controller(test)


class FakeKube:
    """Takes statuses of policies, and counts them."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.written: list[dict[str, Any]] = []

    async def merge(
        self, resource: Resource, namespace: None, name: str, body: dict[str, Any], *, subresource: str
    ) -> dict[str, Any]:
        assert (resource, namespace, subresource) == (POLICIES, None, "status")
        if self.error is not None:
            raise self.error
        self.written.append(body["status"])
        after = policy(name, version=100 + len(self.written), status=body["status"], maxAge="720h")
        after["metadata"]["generation"] = 1
        return after


def reconciled(index: Index, kube: FakeKube, times: int = 1) -> list[set[Key]]:
    """Who was woken."""
    woken: list[set[Key]] = []

    async def scenario() -> None:
        subject = PolicyReconciler(cast(Kube, kube), index, woken.append, lambda: NOW)
        for _ in range(times):
            await subject.reconcile("fleet")

    virtually(scenario())
    return woken


def test_a_policy_comes_into_force_once() -> None:
    """I12: looked at again, nothing is written and nobody is woken."""
    index, kube = fleet(policy(maxAge="720h")), FakeKube()
    assert reconciled(index, kube, times=3) == [{A, B}]
    (status,) = kube.written
    assert status["rotations"] == 2
    assert status["maxAgeInForce"] == {"maxAge": "720h", "since": "2026-03-02T00:00:00Z"}
    (found,) = index.policies_of(A)
    assert (found.age_since, found.awaits_its_time) == (NOW, False)


@pytest.mark.parametrize("error", [Forbidden("no"), Conflict("changed")])
def test_it_is_in_force_also_where_that_cannot_be_written(error: Exception) -> None:
    """Or its rotations would be put off again and again."""
    index = fleet(policy(maxAge="720h"))
    assert reconciled(index, FakeKube(error), times=2) == [{A, B}]
    index.put_policy(policy(version=2, maxAge="720h", minGap="1h"))
    assert [one.age_since for one in index.policies_of(A)] == [NOW], (
        "an edit of something else changes nothing about it"
    )
    index.put_policy(policy(version=3, maxAge="240h"))
    assert [one.age_since for one in index.policies_of(A)] == [None]


def test_what_is_wrong_is_said_in_the_status_and_forgets_nothing() -> None:
    since = {"maxAge": "720h", "since": "2026-01-01T00:00:00Z"}
    index, kube = fleet(policy(maxAge="90d", status={"maxAgeInForce": since})), FakeKube()
    assert reconciled(index, kube) == []
    (status,) = kube.written
    (ready,) = status["conditions"]
    assert (ready["status"], ready["reason"]) == ("False", "InvalidSpec")
    assert ready["message"].startswith("spec.maxAge: must be a duration")
    assert "maxAgeInForce" not in status, "the patch leaves it as it was"


def test_a_fleet_that_grows_is_counted_now_and_then() -> None:
    """I12: the number of writes is that of half minutes, not that of rotations."""
    counted: list[int] = []

    async def test(controller: Controller) -> None:
        controller.seen(policy(minGap="1h"), False)
        controller._working = {0}
        queue, loop = controller._policies, asyncio.get_running_loop()
        for number in range(300):
            controller.seen(labelled(("ns", f"r{number}")), False)
        begun = loop.time()
        assert len(queue) == 0
        queue.done(await queue.get())
        assert loop.time() - begun >= RECOUNT_SECONDS
        counted.append(len(queue))

    with_controller(test)
    assert counted == [0]


def test_the_sweep_learns_of_namespaces_by_their_metadata() -> None:
    """Items of such lists name another kind than their own."""
    seen: list[dict[str, Any]] = []

    class Listing:
        async def pages(self, resource: Resource, *, metadata_only: bool = False) -> AsyncIterator[Listed]:
            assert metadata_only is (resource is NAMESPACES)
            found = [{**namespace("ns"), "kind": "PartialObjectMetadata"}] if resource is NAMESPACES else []
            yield Listed(found, "1")

    async def scenario() -> None:
        swept = asyncio.Event()
        sweep = Sweep(cast(Kube, Listing()), Index(), lambda raw, _: seen.append(raw), 600)
        task = asyncio.create_task(sweep.run(swept))
        await swept.wait()
        task.cancel()

    virtually(scenario())
    assert [(raw["kind"], raw["metadata"]["name"]) for raw in seen] == [("Namespace", "ns")]
