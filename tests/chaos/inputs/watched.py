"""What all objects of Keyturn's own kinds look like now, from watches: cheaper than asking for each again and again."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Final, Self, TypeVar

import httpx

from sandbox.controlplane.endpoint import Endpoint

T = TypeVar("T")
_KINDS: Final = ("clientsecretrotations", "rotationproviders", "clusterrotationproviders")


class Watched:
    """A context manager. Objects are known by the path at which they can be had."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._http = httpx.Client(
            base_url=endpoint.server, headers=endpoint.headers(), verify=endpoint.ssl_context(), timeout=600
        )
        self._changed = threading.Condition()
        self._objects: dict[str, dict[str, Any]] = {}

    def __enter__(self) -> Self:
        for plural in _KINDS:
            threading.Thread(target=self._follow, args=(plural,), name=f"watch {plural}", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._http.close()

    def _follow(self, plural: str) -> None:
        path = f"/apis/keyturn.dev/v1alpha1/{plural}"
        try:
            with self._http.stream("GET", path, params={"watch": "true"}) as answer:
                for line in answer.iter_lines():
                    self._take(plural, json.loads(line))
        except (httpx.HTTPError, httpx.StreamError, OSError, ValueError):
            return  # the run has ended

    def _take(self, plural: str, event: dict[str, Any]) -> None:
        meta = event["object"]["metadata"]
        place = f"namespaces/{meta['namespace']}/" if "namespace" in meta else ""
        path = f"/apis/keyturn.dev/v1alpha1/{place}{plural}/{meta['name']}"
        with self._changed:
            if event["type"] == "DELETED":
                self._objects.pop(path, None)
            else:
                self._objects[path] = event["object"]
            self._changed.notify_all()

    def get(self, path: str) -> dict[str, Any] | None:
        with self._changed:
            return self._objects.get(path)

    def wait(self, path: str, found: Callable[[dict[str, Any] | None], T | None], seconds: float) -> T | None:
        """Until `found` says something of the object; None when it has not in time."""
        deadline = time.monotonic() + seconds
        with self._changed:
            while True:
                answer = found(self._objects.get(path))
                left = deadline - time.monotonic()
                if answer or left <= 0:
                    return answer
                self._changed.wait(left)
