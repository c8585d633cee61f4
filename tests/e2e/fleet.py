"""Several replicas that share the work by shards, and rotations in namespaces of every shard."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import httpx

from keyturn.controller.sharding import shard_of
from sandbox.stage import NAMESPACE, Operator
from tests.e2e.scene import Scene, encode

COMPONENT: Final = Path(__file__).parents[2] / "manifests" / "components" / "shards"
LEASES: Final = f"/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases"
DURATION: Final = 6
RETRY: Final = 0.5
SHORT: Final = ("--lease-duration", str(DURATION), "--renew-deadline", "5", "--retry-period", str(RETRY))
TAKEN_OVER: Final = DURATION + 3 * RETRY + 3.0
"""Seconds in which the shards of a replica that says nothing are taken over, on a machine with other things to do."""


class Fleet:
    """Replicas `one`, `two` and so on; and a namespace in each shard, with a client of one account of the cluster."""

    def __init__(self, scene: Scene, count: int) -> None:
        self.scene = scene
        self.count = count
        self.replicas: dict[str, Operator] = {}
        self.clients: dict[str, str] = {}
        """By namespace."""

    # --- replicas ------------------------------------------------------------------------------------------------

    def start(self, *names: str, count: int | None = None) -> None:
        for name in names:
            log = self.scene.stage.control_plane.directory / f"{self.scene.namespace}-{name}.log"
            self.scene.log = log  # what is shown when a test fails
            options = ("--log-format", "text", "--debug", "--identity", name, *SHORT)
            shards = ("--shards", str(count or self.count))
            self.replicas[name] = self.scene.stage.operator(*options, *shards, log=log)

    def shards(self, name: str) -> set[int]:
        """The shards that this replica says it owns; none while it cannot be asked."""
        try:
            answer = httpx.get(f"http://{self.replicas[name].health}/healthz", timeout=2)
        except httpx.HTTPError:
            return set()
        return set(answer.json()["keyturn"]["shards"])

    def wait_shared(self, *names: str, seconds: float = 60, count: int | None = None) -> dict[str, set[int]]:
        """Until these replicas own all shards, each its fair share; who owns which."""
        whole = count or self.count

        def shared() -> dict[str, set[int]] | None:
            found = {name: self.shards(name) for name in names}
            sizes = [len(shards) for shards in found.values()]
            even = sum(sizes) == whole and max(sizes) - min(sizes) <= 1
            return found if even and len(set().union(*found.values())) == whole else None

        found: dict[str, set[int]] = self.scene.wait(shared, f"{names} share {whole} shards", seconds)
        return found

    def freeze(self, name: str) -> None:
        os.kill(self.replicas[name].pid, signal.SIGSTOP)

    def thaw(self, name: str) -> None:
        os.kill(self.replicas[name].pid, signal.SIGCONT)

    def log(self, name: str) -> str:
        return self.replicas[name].log.read_text()

    def wait_log(self, name: str, text: str) -> None:
        self.scene.wait(lambda: text in self.log(name), f"{text!r} in the log of {name}:\n{self.replicas[name].tail()}")

    def leases(self) -> dict[str, str | None]:
        """The Leases of Keyturn, with who holds them."""
        items = (self.scene.get(LEASES) or {}).get("items", [])
        return {item["metadata"]["name"]: item["spec"].get("holderIdentity") for item in items}

    # --- rotations -----------------------------------------------------------------------------------------------

    def prepare(self) -> None:
        """A namespace in each shard, with a Secret, and the account that all may use."""
        self.scene.put_provider(kind="ClusterRotationProvider", around={"namespaces": [f"{self.scene.namespace}*"]})
        for shard in range(self.count):
            self._add(self._name(shard))

    def _name(self, shard: int) -> str:
        names = (f"{self.scene.namespace}-{number}" for number in range(10_000))
        return next(name for name in names if shard_of(name, self.count) == shard and name not in self.clients)

    def _add(self, namespace: str) -> None:
        client = self.scene.account.simulator.create({})
        self.clients[namespace] = client["client_id"]
        data = {"CLIENT_SECRET": encode(client["client_secret"])}
        meta = {"name": "m2m", "namespace": namespace}
        self.scene.stage.apply(
            [
                {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}},
                {"apiVersion": "v1", "kind": "Secret", "metadata": meta, "data": data},
            ]
        )

    def rotate(self, request: str, **spec: Any) -> None:
        """Ask for a rotation in every namespace."""
        for namespace, client in self.clients.items():
            whole = {
                "providerRef": {"kind": "ClusterRotationProvider", "name": self.scene.namespace},
                "clientId": client,
                "secretRef": {"name": "m2m", "key": "CLIENT_SECRET"},
                "soak": "0s",
                "rotationRequest": request,
                **spec,
            }
            meta = {"name": "billing", "namespace": namespace}
            kind = {"apiVersion": "keyturn.dev/v1alpha1", "kind": "ClientSecretRotation"}
            self.scene.stage.apply([{**kind, "metadata": meta, "spec": whole}])

    def rotation(self, namespace: str) -> dict[str, Any]:
        path = f"/apis/keyturn.dev/v1alpha1/namespaces/{namespace}/clientsecretrotations/billing"
        return self.scene.get(path) or {}

    def objects(self) -> list[dict[str, Any] | None]:
        """All that a rotation writes to."""
        secrets = [self.scene.get(f"/api/v1/namespaces/{namespace}/secrets/m2m") for namespace in self.clients]
        return [*map(self.rotation, self.clients), *secrets]

    def phases(self) -> set[str]:
        return {self.rotation(namespace).get("status", {}).get("phase") for namespace in self.clients}

    def wait_ended(self, request: str) -> None:
        """Until all rotations with this request are completed and nothing of them is left."""

        def ended(namespace: str) -> bool:
            found = self.rotation(namespace)
            status = found.get("status", {})
            last = status.get("lastRotation", {})
            done = (last.get("request"), last.get("result")) == (request, "Completed")
            return done and "rotation" not in status and not found["metadata"].get("finalizers")

        for namespace in self.clients:
            self.scene.wait(lambda namespace=namespace: ended(namespace), f"{namespace} rotated for {request}")  # type: ignore[misc]

    def applied(self, operation: str) -> list[int]:
        """How often the provider has carried this out, for each client."""
        counted = self.scene.account.simulator.counted
        return [int(counted(client, operation, "applied")) for client in self.clients.values()]

    def received(self) -> dict[tuple[str, str], int]:
        """All calls about our clients, by client and operation; to check the account takes none of them."""
        simulator = self.scene.account.simulator
        return {
            (client, operation): int(simulator.counted(client, operation, "received"))
            for client in self.clients.values()
            for operation in list(simulator.calls)
        }

    def clear(self) -> None:
        """End the replicas, and delete what a test has made."""
        for operator in self.replicas.values():
            if operator.alive():
                os.kill(operator.pid, signal.SIGCONT)
            operator.kill()
        self._delete(f"{LEASES}/{name}" for name in self.leases())
        self._delete([f"/apis/keyturn.dev/v1alpha1/clusterrotationproviders/{self.scene.namespace}"])
        for namespace in self.clients:
            path = f"/apis/keyturn.dev/v1alpha1/namespaces/{namespace}/clientsecretrotations/billing"
            if self.scene.get(path) is not None:
                self.scene.patch(path, {"metadata": {"finalizers": None}})
        self._delete(f"/api/v1/namespaces/{namespace}" for namespace in self.clients)

    def _delete(self, paths: Iterable[str]) -> None:
        for path in paths:
            if self.scene.get(path) is not None:
                self.scene.delete(path)


@contextmanager
def fleet(scene: Scene, count: int) -> Iterator[Fleet]:
    """A fleet of no replicas yet, with the rights that the component grants."""
    scene.stage.apply_files(COMPONENT / "role.yaml")
    found = Fleet(scene, count)
    found.clear()  # what other tests have left of Leases
    found.prepare()
    try:
        yield found
    finally:
        found.clear()
