"""Every version that an object has had while a test ran, from a watch."""

from __future__ import annotations

import json
import threading
from types import TracebackType
from typing import Any, Self

import httpx

from tests.e2e.scene import Scene


class Recorder:
    """A context manager; `versions` holds the rotation `billing` as it was at each change, the oldest first."""

    def __init__(self, scene: Scene) -> None:
        endpoint = scene.stage.control_plane.endpoint
        self._http = httpx.Client(
            base_url=endpoint.server, headers=endpoint.headers(), verify=endpoint.ssl_context(), timeout=600
        )
        self._path = scene.rotation_path.rpartition("/")[0]
        self.versions: list[dict[str, Any]] = []

    def __enter__(self) -> Self:
        started = threading.Event()
        self._thread = threading.Thread(target=self._follow, args=(started,), name="recorder", daemon=True)
        self._thread.start()
        started.wait(10)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._http.close()

    def _follow(self, started: threading.Event) -> None:
        query = {"watch": "true", "fieldSelector": "metadata.name=billing"}
        try:
            with self._http.stream("GET", self._path, params=query) as answer:
                started.set()
                for line in answer.iter_lines():
                    self.versions.append(json.loads(line)["object"])
        except (httpx.HTTPError, httpx.StreamError, OSError, ValueError):
            return  # the test has ended
        finally:
            started.set()

    def statuses(self) -> list[dict[str, Any]]:
        """Every status that was written, without repetitions."""
        found: list[dict[str, Any]] = []
        for version in list(self.versions):
            status = version.get("status")
            if status and (not found or status != found[-1]):
                found.append(status)
        return found


def conditions(status: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {condition["type"]: condition for condition in status.get("conditions", [])}


def kstatus(rotation: dict[str, Any]) -> str:
    """What sigs.k8s.io/cli-utils/pkg/kstatus says of an object, as Flux and Argo CD read it."""
    metadata, status = rotation["metadata"], rotation.get("status") or {}
    states = {kind: condition["status"] for kind, condition in conditions(status).items()}
    if "deletionTimestamp" in metadata:
        return "Terminating"
    if status.get("observedGeneration", metadata["generation"]) != metadata["generation"]:
        return "InProgress"
    if states.get("Stalled") == "True":
        return "Failed"
    if states.get("Reconciling") == "True" or states.get("Ready", "True") != "True":
        return "InProgress"
    return "Current"
