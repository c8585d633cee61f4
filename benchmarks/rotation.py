"""One rotation, with a provider and pods that answer at once: its time against a script, and what it writes."""

from __future__ import annotations

import base64
import json
import statistics
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import httpx

from benchmarks.counting import CountingProxy
from benchmarks.floors.straight import StraightScript
from sandbox.controlplane.endpoint import Endpoint
from sandbox.kubelet import Behaviour
from sandbox.simulators.stytch import StytchSimulator
from sandbox.stage import NAMESPACE, SERVICE_ACCOUNT, Account, Operator, Stage, wait_until

AT_ONCE: Final = Behaviour(start_after=0.0, ready_after=0.0, terminate_after=0.0)
_SECRET: Final = ("m2m", "CLIENT_SECRET")
_DEPLOYMENT: Final = "web"
_REPLICAS: Final = 3


@dataclass
class Measured:
    """Seconds of each rotation; and of one rotation, what was written to the API server (dry runs left out)."""

    keyturn: list[float] = field(default_factory=list)
    script: list[float] = field(default_factory=list)
    writes: list[Counter[str]] = field(default_factory=list)
    reads: list[Counter[str]] = field(default_factory=list)

    @property
    def ratio(self) -> float:
        """The median of Keyturn's times over that of the script's."""
        return statistics.median(self.keyturn) / statistics.median(self.script)

    @property
    def api_writes(self) -> float:
        """Writes of a rotation to everything but Events, at the median."""
        return statistics.median(sum(_split(writes)[0].values()) for writes in self.writes)

    @property
    def events(self) -> float:
        """Events of a rotation, at the median."""
        return statistics.median(sum(_split(writes)[1].values()) for writes in self.writes)


def _of_rotation(writes: Counter[str]) -> Counter[str]:
    """Without what the operator writes at any time, whatever rotates: its lease."""
    return Counter({name: count for name, count in writes.items() if name.split()[1] != "leases"})


def _split(writes: Counter[str]) -> tuple[Counter[str], Counter[str]]:
    events = Counter({name: count for name, count in writes.items() if name.split()[1] == "events"})
    return writes - events, events


def measure(stage: Stage, pairs: int, counted: int, say: Callable[[str], None]) -> Measured:
    """Rotate `pairs` times by Keyturn and by the script, in turn, then `counted` times through a counting proxy."""
    account = stage.stytch("benchmark")
    ours, theirs = _Client(stage, account, "keyturn"), _Client(stage, account, "script")
    simulator = account.simulator
    script = StraightScript(stage.control_plane.endpoint, account.url, simulator.project_id, simulator.project_secret)
    measured = Measured()
    operator = _ready(stage.operator())
    by_keyturn, by_script = ours.by_keyturn, lambda: theirs.by_script(script)
    for rotate in (by_keyturn, by_script):
        rotate()  # warm: connections, caches, compiled code
    for number in range(pairs):
        turns = [(by_keyturn, measured.keyturn), (by_script, measured.script)]
        for rotate, times in turns if number % 2 == 0 else reversed(turns):
            started = time.perf_counter()
            rotate()
            times.append(time.perf_counter() - started)
        say(f"pair {number + 1}: Keyturn {measured.keyturn[-1]:.3f} s, script {measured.script[-1]:.3f} s")
        ours.settle()
    script.close()
    operator.stop()
    _count(stage, ours, counted, measured)
    return measured


def _count(stage: Stage, client: _Client, times: int, measured: Measured) -> None:
    endpoint = stage.control_plane.service_account_endpoint(NAMESPACE, SERVICE_ACCOUNT)
    proxy = CountingProxy(endpoint)
    serving = proxy.running()
    url = stage.do(serving.__aenter__())
    try:
        through = Endpoint(url, endpoint.ca_file, endpoint.token)
        path = stage.control_plane.directory / "kubeconfig-counted"
        operator = _ready(stage.operator(kubeconfig=through.write_kubeconfig(path, "counted")))
        client.by_keyturn()
        client.settle()
        for _ in range(times):
            proxy.writes.clear()
            proxy.reads.clear()
            client.by_keyturn()
            client.settle()
            measured.writes.append(_of_rotation(proxy.writes))
            measured.reads.append(Counter(proxy.reads))
        operator.stop()
    finally:
        stage.do(serving.__aexit__(None, None, None))


class _Client:
    """A client at the provider, the Secret with its value, and a Deployment that reads it, in their own namespace."""

    def __init__(self, stage: Stage, account: Account[StytchSimulator], namespace: str) -> None:
        created = account.simulator.create({})
        self._http = stage.api.http
        self._namespace = namespace
        self._id: str = created["client_id"]
        self._requests = 0
        stage.apply(_objects(namespace, account, self._id, created["client_secret"]))
        self._path = f"/apis/keyturn.dev/v1alpha1/namespaces/{namespace}/clientsecretrotations"
        wait_until(self._available, "the pods are available")

    def by_keyturn(self) -> None:
        """Request a rotation, and return when the status says that it is completed."""
        self._requests += 1
        request = f"{time.time()}-{self._requests}"
        body = json.dumps({"spec": {"rotationRequest": request}})
        headers = {"Content-Type": "application/merge-patch+json"}
        patched = self._http.patch(f"{self._path}/client", content=body, headers=headers).raise_for_status().json()
        query = {"watch": "true", "resourceVersion": patched["metadata"]["resourceVersion"]}
        with self._http.stream("GET", self._path, params=query, timeout=60) as stream:
            for line in stream.iter_lines():
                status = json.loads(line)["object"].get("status") or {}
                last = status.get("lastRotation") or {}
                if last.get("request") == request:
                    if last["result"] != "Completed":
                        raise RuntimeError(f"the rotation ended {last['result']}: {last['message']}")
                    return

    def by_script(self, script: StraightScript) -> None:
        """The same, by the script."""
        self._requests += 1
        script.rotate(self._id, self._namespace, _SECRET, _DEPLOYMENT, str(self._requests))

    def settle(self) -> None:
        """Wait until Keyturn has cleaned up after the rotation, and has written everything."""

        def clean() -> bool:
            found = self._http.get(f"{self._path}/client").raise_for_status().json()
            return not found["metadata"].get("finalizers")

        wait_until(clean, "the finalizer is gone")
        time.sleep(0.5)

    def _available(self) -> bool:
        path = f"/apis/apps/v1/namespaces/{self._namespace}/deployments/{_DEPLOYMENT}"
        status = self._http.get(path).raise_for_status().json().get("status") or {}
        return bool(status.get("availableReplicas") == _REPLICAS)


def _ready(operator: Operator) -> Operator:
    def healthy() -> bool:
        try:
            return httpx.get(f"http://{operator.health}/readyz", timeout=2, trust_env=False).is_success
        except httpx.TransportError:
            return False

    wait_until(healthy, "the operator is ready")
    return operator


def _objects(namespace: str, account: Account[StytchSimulator], client: str, value: str) -> list[dict[str, Any]]:
    ours = "keyturn.dev/v1alpha1"
    provider = {
        "projectId": account.simulator.project_id,
        "secretRef": {"name": "project", "key": "secret"},
        "baseUrl": account.url,
    }
    rotation = {
        "providerRef": {"name": "stytch"},
        "clientId": client,
        "secretRef": {"name": _SECRET[0], "key": _SECRET[1]},
        "soak": "0s",
    }
    pods = {
        "metadata": {"labels": {"app": _DEPLOYMENT}},
        "spec": {"containers": [{"name": "app", "image": "app", "envFrom": [{"secretRef": {"name": _SECRET[0]}}]}]},
    }
    workload = {"replicas": _REPLICAS, "selector": {"matchLabels": {"app": _DEPLOYMENT}}, "template": pods}
    objects: list[dict[str, Any]] = [
        _secret("project", "secret", account.simulator.project_secret),
        _secret(*_SECRET, value),
        {"apiVersion": ours, "kind": "RotationProvider", "metadata": {"name": "stytch"}, "spec": {"stytch": provider}},
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": _DEPLOYMENT}, "spec": workload},
    ]
    if namespace == "keyturn":
        objects.append(
            {"apiVersion": ours, "kind": "ClientSecretRotation", "metadata": {"name": "client"}, "spec": rotation}
        )
    for item in objects:
        item["metadata"]["namespace"] = namespace
    return [{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}, *objects]


def _secret(name: str, key: str, value: str) -> dict[str, Any]:
    data = {key: base64.b64encode(value.encode()).decode()}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "data": data}
