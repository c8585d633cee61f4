"""The pod clients see a credential as containers do, and count what becomes of it."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from sandbox.kubelet.api import APIError
from sandbox.simulators.base import running
from sandbox.simulators.stytch import IssuedSecret, StytchSimulator, new_secret
from sandbox.traffic.clients import PodClients
from sandbox.traffic.consumption import (
    CLIENT,
    CLIENT_ID,
    CLIENT_ID_KEY,
    CLIENT_SECRET,
    Way,
    wanted,
    ways,
    ways_of_ephemeral,
)
from sandbox.traffic.probe import StytchProbe
from sandbox.traffic.report import PodTraffic, TrafficReport, fingerprint

ENV = {"valueFrom": {"secretKeyRef": {"name": "m2m", "key": "SECRET"}}}
VOLUME = {"name": "v", "secret": {"secretName": "m2m"}}
MOUNT = {"name": "v", "mountPath": "/v"}


def projected(**source: Any) -> dict[str, Any]:
    """A projected volume of the Secret."""
    sources = [{"configMap": {"name": "m2m"}}, {"secret": {"name": "m2m", **source}}]
    return {"name": "v", "projected": {"sources": sources}}


def reads(container: dict[str, Any], *volumes: dict[str, Any], **spec: Any) -> dict[str, Any]:
    """A pod spec with one container."""
    return {"containers": [container], "volumes": list(volumes), **spec}


def mounts(volume: dict[str, Any], **mount: str) -> dict[str, Any]:
    """A pod spec whose container mounts a volume."""
    return reads({"volumeMounts": [{**MOUNT, **mount}]}, volume)


def env_from(**source: str) -> dict[str, Any]:
    """A pod spec whose container takes its whole environment from somewhere."""
    return reads({"envFrom": [{kind: {"name": name}} for kind, name in source.items()]})


OTHER_KEY = {"valueFrom": {"secretKeyRef": {"name": "m2m", "key": "ID"}}}
CSI = {"name": "c", "csi": {"nodePublishSecretRef": {"name": "m2m"}}}
SNAPSHOT, LIVE = {Way.SNAPSHOT}, {Way.LIVE}
SPECS: dict[str, tuple[dict[str, Any], set[Way]]] = {
    "env": (reads({"env": [{"name": "PLAIN", "value": "x"}, ENV]}), SNAPSHOT),
    "env of another key": (reads({"env": [OTHER_KEY]}), set()),
    "envFrom": (env_from(secretRef="m2m"), SNAPSHOT),
    "envFrom of another": (env_from(secretRef="x", configMapRef="m2m"), set()),
    "volume": (mounts(VOLUME), LIVE),
    "volume that nobody mounts": (reads({}, VOLUME), set()),
    "subPath": (mounts(VOLUME, subPath="SECRET"), SNAPSHOT),
    "projected": (mounts(projected()), LIVE),
    "projected key": (mounts(projected(items=[{"key": "SECRET", "path": "s"}])), LIVE),
    "projected other key": (mounts(projected(items=[{"key": "ID", "path": "s"}])), set()),
    "init env": (reads({}, initContainers=[{"env": [ENV]}]), SNAPSHOT),
    "init volume": (reads({}, VOLUME, initContainers=[{"volumeMounts": [MOUNT]}]), SNAPSHOT),
    "both": (reads({"env": [ENV], "volumeMounts": [MOUNT]}, VOLUME), SNAPSHOT | LIVE),
    "image pull": (reads({}, imagePullSecrets=[{"name": "m2m"}]), SNAPSHOT),
    "CSI": (reads({}, CSI), SNAPSHOT),
}


@pytest.mark.parametrize(("spec", "expected"), SPECS.values(), ids=SPECS.keys())
def test_how_a_pod_reads_its_credential(spec: dict[str, Any], expected: set[Way]) -> None:
    assert ways({"spec": spec}, "m2m", "SECRET") == expected


@pytest.mark.parametrize(
    ("container", "expected"),
    [({"env": [ENV]}, SNAPSHOT), ({"volumeMounts": [MOUNT]}, LIVE), ({"env": [OTHER_KEY]}, set())],
)
def test_an_ephemeral_container_reads_for_itself(container: dict[str, Any], expected: set[Way]) -> None:
    found = {"spec": reads({"env": [ENV]}, VOLUME, ephemeralContainers=[{"name": "other"}, {"name": "d", **container}])}
    assert ways_of_ephemeral(found, "d", "m2m", "SECRET") == expected
    assert ways(found, "m2m", "SECRET") == SNAPSHOT


def pod(name: str, spec: dict[str, Any], **annotations: str) -> dict[str, Any]:
    """A pod as the API shows it, annotated for a Stytch client."""
    chosen = {CLIENT: "stytch", CLIENT_SECRET: "m2m/SECRET", CLIENT_ID_KEY: "ID", **annotations}
    meta = {
        "namespace": "shop",
        "name": name,
        "uid": f"uid-{name}",
        "annotations": {key: value for key, value in chosen.items() if value},
        "ownerReferences": [{"kind": "ReplicaSet", "name": "web-1", "controller": True}],
    }
    return {"metadata": meta, "spec": spec}


@pytest.mark.parametrize(
    "annotations",
    [{CLIENT_SECRET: ""}, {CLIENT_SECRET: "m2m"}, {CLIENT_ID_KEY: ""}, {CLIENT_ID: "also"}],
)
def test_incomplete_annotations_are_told(annotations: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="annotation"):
        wanted(pod("p", {"containers": []}, **annotations))


def test_a_pod_without_annotation_is_left_alone() -> None:
    assert wanted({"metadata": {}}) is None


class Cluster:
    """An API server that knows one Secret."""

    def __init__(self, **values: str) -> None:
        self.values = values
        self.reads = 0
        self.forbidden = False
        self.deleted = False

    async def get(self, path: str) -> Any | None:
        """The Secret."""
        self.reads += 1
        await asyncio.sleep(0)
        if self.forbidden:
            raise APIError(403, "forbidden")
        if self.deleted or path != "/api/v1/namespaces/shop/secrets/m2m":
            return None
        return {"data": {key: base64.b64encode(value.encode()).decode() for key, value in self.values.items()}}


class Scene:
    """A cluster, a simulator, and the clients between them."""

    def __init__(self, simulator: StytchSimulator, cluster: Cluster, clients: PodClients) -> None:
        self.simulator = simulator
        self.cluster = cluster
        self.clients = clients
        self.first = cluster.values["SECRET"]

    def rotate(self) -> str:
        """Make the provider issue a second value, and put it into the Secret."""
        client = self.simulator.clients["c-1"]
        client.pending = IssuedSecret(new_secret(), 0)
        self.cluster.values["SECRET"] = client.pending.value
        return client.pending.value

    def finalize(self) -> None:
        """Drop the first value."""
        client = self.simulator.clients["c-1"]
        assert client.pending
        client.current, client.pending = client.pending, None

    async def until(self, met: Callable[[TrafficReport], bool]) -> TrafficReport:
        """The report as soon as it meets a condition."""
        async with asyncio.timeout(60):
            while not met(report := self.clients.meter.report()):  # noqa: ASYNC110 - they signal nothing
                await asyncio.sleep(0.02)
        return report


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    """Clients that call fifty times a second, with volumes that are 200 ms late."""
    simulator = StytchSimulator()
    created = simulator.create({"client_id": "c-1"})
    cluster = Cluster(SECRET=created["client_secret"], ID="c-1")
    async with running(simulator) as url, StytchProbe(url, simulator.project_id) as probe:
        clients = PodClients(cluster, {"stytch": probe}, rate=50, volume_delay=0.2)
        yield Scene(simulator, cluster, clients)
        await clients.aclose()


IN_ENV = {"containers": [{"env": [ENV]}]}
IN_VOLUME = {"containers": [{"volumeMounts": [MOUNT]}], "volumes": [VOLUME]}


def only(report: TrafficReport) -> PodTraffic:
    """The one pod's traffic."""
    (traffic,) = report.pods
    return traffic


async def test_an_environment_keeps_its_value_until_the_pod_ends(scene: Scene) -> None:
    running_pod = pod("web-1", IN_ENV)
    await scene.clients.started(running_pod)
    await scene.until(lambda report: report.accepted > 3)
    second = scene.rotate()
    scene.finalize()
    report = await scene.until(lambda report: report.refused > 25)  # longer than a volume would need
    await scene.clients.stopped(running_pod)
    final = scene.clients.meter.report()
    await asyncio.sleep(0.1)
    assert scene.clients.meter.report() == final, "nothing is called after the pod's end"
    traffic = only(final)
    assert set(traffic.values) == {fingerprint(scene.first)}
    assert fingerprint(second) not in report.model_dump_json()
    assert scene.first not in report.model_dump_json()
    assert traffic.owner == "ReplicaSet/web-1"
    assert traffic.stopped is not None
    assert traffic.calls.accepted.last is not None
    assert traffic.calls.refused.first is not None
    assert traffic.started <= traffic.calls.accepted.last <= traffic.calls.refused.first <= traffic.stopped
    assert sum(second.refused for second in final.seconds) == final.refused == traffic.calls.refused.count


async def test_a_volume_shows_the_new_value_late(scene: Scene) -> None:
    await scene.clients.started(pod("web-1", IN_VOLUME))
    await scene.until(lambda report: report.accepted > 3)
    second = scene.rotate()
    report = await scene.until(lambda report: fingerprint(second) in only(report).values)
    scene.finalize()
    assert report.refused == 0
    assert set(only(report).values) == {fingerprint(scene.first), fingerprint(second)}


@pytest.mark.parametrize("deleted", [True, False], ids=["deleted Secret", "refusing server"])
async def test_a_volume_goes_on_showing_what_it_had(scene: Scene, deleted: bool) -> None:
    await scene.clients.started(pod("web-1", IN_VOLUME))
    scene.cluster.deleted, scene.cluster.forbidden = deleted, not deleted
    reads = scene.cluster.reads
    await scene.until(lambda _: scene.cluster.reads > reads + 2)
    accepted = scene.clients.meter.report().accepted
    report = await scene.until(lambda report: report.accepted > accepted or bool(report.problems))
    assert (report.refused, report.problems) == (0, [])


async def test_a_new_pod_starts_with_the_new_value(scene: Scene) -> None:
    await scene.clients.started(pod("web-1", IN_VOLUME))
    second = scene.rotate()
    await scene.clients.started(pod("web-2", IN_ENV))
    report = await scene.until(lambda report: report.pods[-1].calls.accepted.count > 2)
    assert set(report.pods[-1].values) == {fingerprint(second)}


async def test_a_provider_that_fails_gives_no_verdict(scene: Scene) -> None:
    scene.simulator.add_fault("token", status=503, times=3)
    await scene.clients.started(pod("web-1", IN_ENV))
    report = await scene.until(lambda report: report.accepted > 0)
    assert (report.failed, report.refused) == (3, 0)


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (pod("p", {"containers": [{}]}), "does not read key SECRET of Secret m2m"),
        (pod("p", IN_ENV, **{CLIENT: "unknown"}), "no simulator for clients of kind unknown"),
        (pod("p", IN_ENV, **{CLIENT_ID_KEY: "GONE"}), "has no key GONE"),
    ],
)
async def test_a_pod_that_can_have_no_client_is_reported(scene: Scene, broken: dict[str, Any], said: str) -> None:
    await scene.clients.started(broken)
    (problem,) = scene.clients.meter.report().problems
    assert said in problem
    await scene.clients.stopped(broken)


async def test_a_hundred_pods_call_at_the_same_time(scene: Scene) -> None:
    scene.clients._rate = 5
    pods = [pod(f"web-{number}", IN_ENV) for number in range(100)]
    await asyncio.gather(*(scene.clients.started(one) for one in pods))
    await scene.until(lambda report: min(traffic.calls.accepted.count for traffic in report.pods) >= 5)
    await asyncio.gather(*(scene.clients.stopped(one) for one in pods))
    report = scene.clients.meter.report()
    assert (len(report.pods), report.refused, report.failed) == (100, 0, 0)
    assert max(traffic.calls.accepted.count for traffic in report.pods) < 4 * 5, "none gets far ahead of the others"
