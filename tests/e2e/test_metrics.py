"""What Prometheus finds after one rotation: exactly what happened, told by the leader alone, and no names."""

from __future__ import annotations

from collections import Counter, defaultdict

import httpx
from prometheus_client.parser import text_string_to_metric_families

from sandbox.stage import Operator
from tests.e2e import apilog
from tests.e2e.scene import Scene

Labels = dict[str, str]
_METHODS = {"create": "POST", "patch": "PATCH", "apply": "PATCH", "delete": "DELETE"}
_WRITTEN = ("secrets", "clientsecretrotations", "clientsecretrotations/status", "deployments", "events")


def page(operator: Operator) -> str:
    return httpx.get(f"http://{operator.health}/metrics").raise_for_status().text


def leads(operator: Operator) -> bool | None:
    """Whether it leads, once it is ready for that; None before."""
    try:
        ready = httpx.get(f"http://{operator.health}/readyz")
    except httpx.TransportError:
        return None
    return bool(ready.json()["keyturn"]["leading"]) if ready.is_success else None


class Told:
    """The samples of one scrape, by name."""

    def __init__(self, operator: Operator) -> None:
        self._samples = [
            sample for family in text_string_to_metric_families(page(operator)) for sample in family.samples
        ]

    def samples(self, name: str) -> list[tuple[Labels, float]]:
        return [(sample.labels, sample.value) for sample in self._samples if sample.name == name]

    def by(self, name: str, *labels: str) -> dict[tuple[str, ...], float]:
        """The values of all samples, added up over the other labels."""
        found: defaultdict[tuple[str, ...], float] = defaultdict(float)
        for values, value in self.samples(name):
            found[tuple(values[label] for label in labels)] += value
        return dict(found)

    def one(self, name: str) -> float:
        (found,) = self.samples(name)
        return found[1]

    def written(self) -> Counter[tuple[str, str]]:
        """How often the API server was asked to change something, by method and resource."""
        found: Counter[tuple[str, str]] = Counter()
        for (verb, resource), value in self.by("keyturn_api_requests_total", "verb", "resource").items():
            if verb in _METHODS and resource in _WRITTEN:
                found[_METHODS[verb], resource] += int(value)
        return found


def asked(log: apilog.ApiLog, scene: Scene) -> Counter[tuple[str, str]]:
    """The same, as the proxy has seen it."""
    found: Counter[tuple[str, str]] = Counter()
    for one in log.about(scene):
        _, _, rest = one.path.partition(f"/namespaces/{scene.namespace}/")
        resource, *more = rest.split("/")
        resource = "/".join([resource, *more[1:]])
        if one.method != "GET" and resource in _WRITTEN:
            found[one.method, resource] += 1
    return found


def test_one_rotation_is_counted_as_it_was(scene: Scene) -> None:
    scene.put_deployment(replicas=1)
    with apilog.recorded(scene) as log:
        leader = scene.operator(kubeconfig=log.kubeconfig)
        scene.wait(lambda: leads(leader), "the first one leads")
        standby = scene.operator("--identity", "another")
        scene.wait(lambda: leads(standby) is False, "the other one stands by")
        scene.put_rotation(soak="1s")
        scene.wait_ended()
        scene.wait(lambda: Told(leader).written() == asked(log, scene), "what was written is what was counted")
        told = Told(leader)

    rotated = {"provider": "stytch", "result": "Completed", "reason": "RotationRequest"}
    assert told.samples("keyturn_rotations_total") == [(rotated, 1)]
    phases = ["Starting", "Verifying", "Distributing", "RollingOut", "Soaking", "Finalizing"]
    assert told.by("keyturn_phase_duration_seconds_count", "phase") == {(phase,): 1 for phase in phases}
    spent = told.by("keyturn_phase_duration_seconds_sum", "phase")
    assert 1 <= spent[("Soaking",)] < 10
    last = scene.status()["lastRotation"]
    assert last["result"] == "Completed"

    calls = told.by("keyturn_provider_calls_total", "operation")
    received = scene.account.simulator.counted
    assert calls[("start",)] == received(scene.client_id, "start", "received") == 1
    assert calls[("finalize",)] == received(scene.client_id, "rotate", "received") == 1
    assert ("cancel",) not in calls
    assert told.by("keyturn_provider_calls_total", "operation", "outcome")["start", "OK"] == 1
    assert told.by("keyturn_provider_call_duration_seconds_count", "operation") == calls

    assert told.one("keyturn_leader") == 1
    assert told.by("keyturn_rotation_objects", "phase")[("Completed",)] == 1
    assert 0 <= told.one("keyturn_oldest_secret_age_seconds") < 60
    assert told.by("keyturn_queue_wait_seconds_count", "queue", "priority")["rotations", "urgent"] >= 1
    assert ("error",) not in told.by("keyturn_reconcile_duration_seconds_count", "outcome")

    other = Told(standby)
    assert other.one("keyturn_leader") == 0
    for name in ("rotations_total", "provider_calls_total", "rotation_objects", "reconcile_duration_seconds_count"):
        assert other.samples(f"keyturn_{name}") == []
    assert other.written() == Counter()
    for text in (page(leader), page(standby)):
        for name in (scene.namespace, scene.client_id, "billing", "web", *scene.secret().values()):
            assert f'"{name}"' not in text
