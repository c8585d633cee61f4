"""Rotations side by side, each in a namespace of its own, under one operator: what all wait for passes only once."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from sandbox.stage import NAMESPACE, SERVICE_ACCOUNT, Operator, Stage
from tests.e2e.scene import Scene


class Together:
    """The scenes, and the one operator process that works for all of them."""

    def __init__(self, stage: Stage, stack: ExitStack, name: str) -> None:
        """Use `on`."""
        self._stage = stage
        self._stack = stack
        self._log = stage.control_plane.directory / f"{name}.log"
        self._operator: Operator | None = None

    @classmethod
    @contextmanager
    def on(cls, stage: Stage, name: str) -> Iterator[Together]:
        """`name` is that of the operator's log. No other operator may run meanwhile."""
        with ExitStack() as stack:
            found = cls(stage, stack, name)
            try:
                yield found
            finally:
                found.kill_operator()

    def scene(self, name: str, provider: str = "stytch") -> Scene:
        """A new scene; it ends with this context."""
        scene = self._stack.enter_context(Scene.in_new_namespace(self._stage, name, provider))
        scene.log = self._log
        return scene

    def start_operator(self, *, ahead: float = 0) -> None:
        """Start the operator; kill -9 for the one that runs. Its clock is so many seconds ahead."""
        self.kill_operator()
        plane = self._stage.control_plane
        kubeconfig = plane.service_account_kubeconfig(NAMESPACE, SERVICE_ACCOUNT)
        self._operator = _Ahead(ahead, kubeconfig, self._log, "--log-format", "text", "--debug").start()

    def kill_operator(self) -> None:
        """kill -9."""
        if self._operator is not None:
            self._operator.kill()

    def look_again(self, *scenes: Scene) -> None:
        """Return when the operator has looked at the rotations since this call, and found nothing to do but to wait."""
        offset = self._log.stat().st_size
        for scene in scenes:
            # Wakes it, where it watches the namespace.
            touch = {"metadata": {"annotations": {"example.com/touched": str(offset)}}}
            scene.patch(scene.deployment_path(), touch)
        for scene in scenes:
            decision = f"next: Wait  [object={scene.namespace}/billing"
            scene.wait(
                lambda decision=decision: decision in self._log.read_bytes()[offset:].decode(),  # type: ignore[misc]
                "the operator has looked again",
            )


class _Ahead(Operator):
    def __init__(self, seconds: float, kubeconfig: Path, log: Path, *options: str) -> None:
        super().__init__(kubeconfig, log, *options)
        if seconds:
            self._command = [sys.executable, "-m", "tests.e2e.ahead", str(seconds)]
