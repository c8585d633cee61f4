"""A tool that keeps something as it wants it, whatever others do to it, as Argo CD and Flux do."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

import httpx

from tests.e2e.acts import revert_value, take_stamp_off
from tests.e2e.scene import Scene, encode

_MOST_LOOKS: Final = 1200
Sync = Callable[[Scene], bool]
"""Puts back what the tool wants; whether it had to."""


class GitOps:
    """Looks ten times a second, from `start` until `stop`, and not for longer than a test lasts. `writes`: its own."""

    def __init__(self, sync: Sync) -> None:
        self._sync = sync
        self._stopping = threading.Event()
        self.writes = 0

    def start(self, scene: Scene) -> None:
        threading.Thread(target=self._run, args=(scene,), name=f"gitops {scene.namespace}", daemon=True).start()

    def stop(self) -> None:
        self._stopping.set()

    def _run(self, scene: Scene) -> None:
        for _ in range(_MOST_LOOKS):
            if self._stopping.wait(0.1):
                return
            try:
                self.writes += self._sync(scene)
            except httpx.HTTPStatusError as error:
                if error.response.status_code != 409:
                    return
            except (httpx.TransportError, RuntimeError):
                return  # the test session is over


def keep_the_first_value(scene: Scene) -> bool:
    """As a tool that has the Secret in Git."""
    found = scene.get(scene.secret_path)
    if found is None or found["data"]["CLIENT_SECRET"] == encode(scene.first_secret):
        return False
    revert_value(scene)
    return True


def keep_unstamped(name: str, plural: str = "deployments") -> Sync:
    """As a tool that replaces a workload by what it has in Git, without what others have added."""
    return lambda scene: take_stamp_off(scene, name, plural)
