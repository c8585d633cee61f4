"""Every version that the Deployments of a scene have had, from a watch: in the order in which the API server wrote."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import httpx

from tests.e2e.scene import Scene


@dataclass(frozen=True)
class Version:
    """A Deployment as it was from `time` on: seconds since the epoch, when it came."""

    time: float
    deployment: dict[str, Any]

    @property
    def name(self) -> str:
        return str(self.deployment["metadata"]["name"])

    @property
    def stamped(self) -> bool:
        """Whether Keyturn has restarted it."""
        return "keyturn.dev/rotation" in (self.deployment["spec"]["template"]["metadata"].get("annotations") or {})

    @property
    def complete(self) -> bool:
        """Whether its controller has rolled out the newest template, as `kubectl rollout status` judges it."""
        spec, status = self.deployment["spec"], self.deployment.get("status") or {}
        counts = {status.get(name, 0) for name in ("replicas", "updatedReplicas", "availableReplicas")}
        return bool(
            status.get("observedGeneration", 0) >= self.deployment["metadata"]["generation"]
            and counts == {spec["replicas"]}
        )


class Watched:
    """A context manager; `versions` grows until it is left."""

    def __init__(self, scene: Scene) -> None:
        endpoint = scene.stage.control_plane.endpoint
        self._http = httpx.Client(
            base_url=endpoint.server, headers=endpoint.headers(), verify=endpoint.ssl_context(), timeout=600
        )
        self._path = f"/apis/apps/v1/namespaces/{scene.namespace}/deployments"
        self.versions: list[Version] = []

    def __enter__(self) -> Self:
        started = threading.Event()
        self._thread = threading.Thread(target=self._follow, args=(started,), name="watched", daemon=True)
        self._thread.start()
        assert started.wait(10)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._http.close()

    def _follow(self, started: threading.Event) -> None:
        try:
            with self._http.stream("GET", self._path, params={"watch": "true"}) as answer:
                started.set()
                for line in answer.iter_lines():
                    self.versions.append(Version(time.time(), json.loads(line)["object"]))
        except (httpx.HTTPError, httpx.StreamError, OSError, ValueError):
            return  # the test has ended
        finally:
            started.set()

    def of(self, name: str) -> list[Version]:
        return [version for version in list(self.versions) if version.name == name]

    def stamped(self, name: str) -> float:
        """When Keyturn restarted this Deployment."""
        return next(version.time for version in self.of(name) if version.stamped)

    def complete(self, name: str) -> float:
        """When it was rolled out after that."""
        return next(version.time for version in self.of(name) if version.stamped and version.complete)

    def most_at_once(self) -> int:
        """How many Deployments were restarted and not complete at the same time, at most."""
        restarting: set[str] = set()
        most = 0
        for version in list(self.versions):
            (restarting.add if version.stamped and not version.complete else restarting.discard)(version.name)
            most = max(most, len(restarting))
        return most
