"""Reading Secrets as a kubelet does: at once for a container's start, late for a volume's content."""

from __future__ import annotations

import asyncio
import base64
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

log = logging.getLogger(__name__)


class Reader(Protocol):
    """What is needed of `sandbox.kubelet.api.API`."""

    async def get(self, path: str) -> Any | None:
        """The object at this path of the API, or None."""
        ...


@dataclass(frozen=True, slots=True)
class _Seen:
    values: Mapping[str, str]
    at: float


class Secrets:
    """The Secrets of a cluster, read with one shared session."""

    def __init__(self, api: Reader, *, volume_delay: float) -> None:
        """`volume_delay`: for how many seconds a volume goes on showing the old value."""
        self._api = api
        self._delay = volume_delay
        self._seen: dict[tuple[str, str], _Seen] = {}
        self._refreshing: dict[tuple[str, str], asyncio.Task[Mapping[str, str]]] = {}

    async def read(self, namespace: str, name: str) -> Mapping[str, str]:
        """The values as they are now, empty when there is no such Secret; waits out an outage of the API server."""
        found = await self._api.get(f"/api/v1/namespaces/{namespace}/secrets/{name}")
        if found is None:
            return {}  # a volume goes on showing what it had
        data = found.get("data") or {}
        values = {key: base64.b64decode(value).decode(errors="replace") for key, value in data.items()}
        self._seen[namespace, name] = _Seen(values, time.monotonic())
        return values

    def delayed(self, namespace: str, name: str) -> Mapping[str, str]:
        """The values as a volume shows them. What was never read is empty: `read` comes first, at the pod's start."""
        key = (namespace, name)
        seen = self._seen.get(key)
        if (seen is None or time.monotonic() - seen.at >= self._delay) and key not in self._refreshing:
            task = asyncio.create_task(self.read(namespace, name))
            self._refreshing[key] = task
            task.add_done_callback(lambda done: self._refreshed(key, done))
        return seen.values if seen else {}

    async def aclose(self) -> None:
        """Give up what is being read."""
        tasks = list(self._refreshing.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _refreshed(self, key: tuple[str, str], task: asyncio.Task[Mapping[str, str]]) -> None:
        del self._refreshing[key]
        if not task.cancelled() and (error := task.exception()):
            log.warning("Secret %s/%s could not be read again: %s", *key, error)
