"""I9: an API server that is away for longer than Kopf's own patience, on a control plane that nobody else uses."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Final

import httpx
import pytest

from sandbox.assets import provide
from sandbox.controlplane import ControlPlane
from sandbox.stage import Stage, wait_until
from tests.e2e.scene import Scene

OUTAGE_SECONDS: Final = 57.0
"""Until the API server is started again, which takes a few seconds more. Left alone, Kopf gives up after 54."""


@pytest.fixture
def mortal() -> Iterator[Stage]:
    """A stage of its own, whose API server may be killed."""
    with ControlPlane.start(provide()) as control_plane, Stage(control_plane) as stage:
        stage.install()
        yield stage


@pytest.mark.timeout(240)
def test_an_outage_is_waited_out(mortal: Stage) -> None:
    """I3, I7, I9: one rotation is in the middle of its rollout, another begins afterwards; the process is the same."""
    with Scene.in_new_namespace(mortal, "rolling") as rolling, Scene.in_new_namespace(mortal, "idle") as idle:
        rolling.put_deployment(annotations={"sandbox.keyturn.dev/ready-after": "3s"})
        idle.put_rotation(None)
        operator = rolling.operator()
        idle.log = rolling.log
        idle.wait(lambda: idle.condition("Ready"), "Ready")
        rolling.put_rotation()
        rolling.wait_phase("RollingOut")
        pid = operator.pid

        mortal.control_plane.kill_apiserver()
        begun = time.monotonic()
        wait_until(lambda: time.monotonic() - begun > OUTAGE_SECONDS / 2, "half of the outage", seconds=60)
        answer = httpx.get(f"http://{operator.health}/healthz")
        assert answer.status_code == 200, "a restart would not help"
        wait_until(lambda: time.monotonic() - begun > OUTAGE_SECONDS, "the outage", seconds=60)
        assert operator.alive(), operator.tail()
        mortal.control_plane.restart_apiserver()

        rolling.wait_ended(seconds=60)
        idle.put_rotation("after")
        idle.wait_ended(seconds=60)
        assert operator.alive()
        assert operator.pid == pid
        for scene, restarts in ((rolling, 1), (idle, None)):
            assert (scene.applied("start"), scene.applied("rotate"), scene.applied("cancel")) == (1, 1, 0)
            assert restarts is None or scene.restarts() == restarts
            assert scene.calls()["refused"] == 0
        _, traceback, rest = rolling.log.read_text().partition("Traceback")
        assert not traceback, rest[:3000]
