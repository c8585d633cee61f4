"""Budgets of a RotationPolicy on the real control plane: judged by every write of a status, and by the provider."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import httpx
import pytest

from sandbox.stage import Stage
from tests.e2e.many import One, put_many, wait_completed
from tests.e2e.scene import Scene
from tests.e2e.together import Together

EACH: Final = 10
LIMITS: Final = {"cluster": 3, "perNamespace": 2, "perProvider": 2}
SOAK: Final = "1s"
"""So long a rotation lasts at least: more than it takes to hand a place to the next one, so that all places fill."""


class Most:
    """The most rotations that ever ran at once in some namespaces, by the order of writes that the API server keeps."""

    def __init__(self, scenes: dict[str, str]) -> None:
        """scenes: the account by namespace."""
        self.seen: Counter[str] = Counter()
        self._accounts = scenes
        self._running: set[tuple[str, str]] = set()

    def take(self, raw: dict[str, Any]) -> None:
        namespace, name = raw["metadata"]["namespace"], raw["metadata"]["name"]
        if namespace not in self._accounts:
            return
        if (raw.get("status") or {}).get("rotation"):
            self._running.add((namespace, name))
        else:
            self._running.discard((namespace, name))
        self.seen["cluster"] = max(self.seen["cluster"], len(self._running))
        for limit, counted in (
            ("perNamespace", Counter(one[0] for one in self._running)),
            ("perProvider", Counter(self._accounts[one[0]] for one in self._running)),
        ):
            self.seen[limit] = max([self.seen[limit], *counted.values()])


@contextmanager
def watching(stage: Stage, most: Most) -> Iterator[None]:
    """Follow all rotations of the cluster for as long as the context lasts."""
    endpoint, started = stage.control_plane.endpoint, threading.Event()
    path = "/apis/keyturn.dev/v1alpha1/clientsecretrotations"
    http = httpx.Client(
        base_url=endpoint.server, headers=endpoint.headers(), verify=endpoint.ssl_context(), timeout=600
    )

    def follow() -> None:
        try:
            with http.stream("GET", path, params={"watch": "true"}) as answer:
                started.set()
                for line in answer.iter_lines():
                    most.take(json.loads(line)["object"])
        except (httpx.HTTPError, httpx.StreamError, OSError, ValueError):
            return  # the test has ended

    threading.Thread(target=follow, daemon=True).start()
    assert started.wait(10)
    try:
        yield
    finally:
        http.close()


@pytest.fixture
def scenes(stage: Stage) -> Iterator[tuple[Together, list[Scene]]]:
    """Three namespaces; the rotations of the last one are at the account of the second one."""
    with Together.on(stage, "budgets") as together:
        first, second, third = (together.scene(f"budget {number}") for number in range(3))
        third.account = second.account
        third.put_secret("project", {"secret": third.credential})
        third.put_provider()
        yield together, [first, second, third]


def overlapping(ones: list[One]) -> int:
    """The most rotations that the provider has seen under way at once: started, and not rotated yet."""
    moments = [(when, 1) for one in ones for when in one.applied("start")]
    moments += [(when, -1) for one in ones for when in one.applied("rotate")]
    most = count = 0
    for _, change in sorted(moments):
        count += change
        most = max(most, count)
    return most


@pytest.mark.timeout(900)
def test_thirty_that_are_due_together_never_exceed_a_budget(scenes: tuple[Together, list[Scene]]) -> None:
    """Nor when the operator is killed in the middle. Who waits says so; in the end nobody has a permit any more."""
    together, (first, *others) = scenes
    place = {scene.namespace: scene.account.url for scene in (first, *others)}
    policy = f"budget-{first.namespace}"
    names = [scene.namespace for scene in (first, *others)]
    selector = {"matchExpressions": [{"key": "kubernetes.io/metadata.name", "operator": "In", "values": names}]}
    spec = {"namespaceSelector": selector, "concurrency": LIMITS}
    meta = {"name": policy}
    stage = first.stage
    stage.apply([{"apiVersion": "keyturn.dev/v1alpha1", "kind": "RotationPolicy", "metadata": meta, "spec": spec}])
    path = f"/apis/keyturn.dev/v1alpha1/rotationpolicies/{policy}"
    ones = [one for scene in (first, *others) for one in put_many(scene, EACH, soak=SOAK)]
    most = Most(place)

    def permits() -> list[dict[str, str]]:
        return list(((first.get(path) or {}).get("status") or {}).get("running") or [])

    try:
        with watching(stage, most):
            together.start_operator()
            first.wait(lambda: any("BudgetExhausted" in one.reasons() for one in ones), "somebody waits", 200)
            waiting = next(one for one in ones if "BudgetExhausted" in one.reasons())
            told = {item["type"]: item for item in waiting.status()["conditions"]}["Rotating"]
            assert f"RotationPolicy {policy}: spec.concurrency." in told["message"]
            first.wait(lambda: sum(bool(one.applied("rotate")) for one in ones) >= EACH, "a third is through", 180)
            together.start_operator()
            wait_completed(ones, 300)
            first.wait(lambda: not permits(), "all permits are given back", 90)
            # Namespaces take turns: only one that is alone has two places.
            wait_completed(put_many(first, 4, "alone", soak=SOAK), 60)
        assert most.seen == LIMITS, "never more, and never less than there was room for"
        assert overlapping(ones) <= LIMITS["cluster"]
        assert overlapping([one for one in ones if one.scene is not first]) <= LIMITS["perProvider"]
    finally:
        stage.api.http.delete(path)
