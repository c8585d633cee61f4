"""The journal of last resort: a provider has answered, and the API server is gone. No value is lost (I2, I9).

Everything here is at SnapTrade, where a lost answer would be lost for good, and on a control plane of its own.
"""

from __future__ import annotations

import base64
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from cryptography.fernet import Fernet

from sandbox.assets import provide
from sandbox.controlplane import ControlPlane
from sandbox.simulators.faults import How
from sandbox.stage import Operator, Stage
from tests.e2e.crash import calls
from tests.e2e.scene import Scene

TWO_MINUTES = 120.0
ANSWER_DELAY = 2.0
"""Seconds between SnapTrade's switch and its answer: the API server is killed in between."""


@pytest.fixture(scope="module")
def own_stage() -> Iterator[Stage]:
    """A control plane that may be killed."""
    with ControlPlane.start(provide()) as plane, Stage(plane) as running:
        running.install()
        yield running


@pytest.fixture
def bare_scene(own_stage: Stage, request: pytest.FixtureRequest) -> Iterator[Scene]:
    """Without pods: after a long outage, Kubernetes' own controllers take half a minute until they replace any."""
    with Scene.in_new_namespace(own_stage, request.node.name, "snaptrade") as running:
        yield running


@pytest.fixture
def scene(bare_scene: Scene) -> Scene:
    """Two pods that read the Secret and call with it."""
    bare_scene.put_deployment(replicas=2)
    return bare_scene


@pytest.fixture
def spool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that operators are told to spool to, with a key beside it."""
    folder, keys = tmp_path / "spool", tmp_path / "keys"
    keys.write_bytes(Fernet.generate_key() + b"\n")
    monkeypatch.setenv("KEYTURN_SPOOL_DIR", str(folder))
    monkeypatch.setenv("KEYTURN_SPOOL_KEY_FILE", str(keys))
    return folder


def lose_the_api_server(scene: Scene, meanwhile: Callable[[], object] = lambda: None) -> Operator:
    """Let an operator reset the secret, and kill the API server before the answer is out; it holds the value then.

    meanwhile: what else is awaited of the operator before.
    """
    scene.account.simulator.add_fault("start", How.PROPER, delay=ANSWER_DELAY, caller="keyturn")
    operator = scene.operator()
    meanwhile()
    scene.put_rotation(acceptDowntime=True)
    scene.wait(lambda: scene.applied("start"), "SnapTrade has switched")
    scene.stage.control_plane.kill_apiserver()
    wait_for_log(scene, "in memory")
    return operator


def wait_for_log(scene: Scene, text: str, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while text not in scene.log.read_text():
        assert time.monotonic() < deadline, f"{text!r} is not in the log:\n{scene.log.read_text()[-3000:]}"
        time.sleep(0.05)


def issued(scene: Scene) -> str:
    return str(scene.account.simulator.users[scene.client_id].secret)


def pending(scene: Scene) -> str | None:
    """What the journal holds as the new value."""
    (journal,) = scene.journals()
    return scene.secret(journal).get("pending")


def assert_completed(scene: Scene, *, restarts: int = 1) -> None:
    """With the one value that SnapTrade has issued, and the one call that issued it."""
    scene.wait_ended(seconds=90)
    assert (scene.applied("start"), calls(scene, "start")) == (1, 1)
    assert scene.secret()["CLIENT_SECRET"] == issued(scene)
    if restarts:
        assert scene.restarts() == restarts
    assert issued(scene) not in scene.log.read_text(), "I8"


def test_sigterm_during_the_outage_waits_for_the_journal(scene: Scene) -> None:
    """The process ends by itself, with code 0, when the value is safe and not before; the next one finishes."""
    operator = lose_the_api_server(scene)
    os.kill(operator.pid, signal.SIGTERM)
    wait_for_log(scene, "stopping: 1 passes under way")
    tries = scene.log.read_text().count("in memory")
    while scene.log.read_text().count("in memory") < tries + 3:
        assert operator.alive(), "it has given the value up"
        time.sleep(0.1)
    scene.stage.control_plane.restart_apiserver()
    scene.wait(lambda: not operator.alive(), "the process ends")
    assert operator.stop() == 0
    assert pending(scene) == issued(scene)
    assert scene.secret()["CLIENT_SECRET"] == scene.first_secret
    scene.operator()
    assert_completed(scene)


def test_sigkill_during_the_outage_leaves_the_value_in_the_spool(scene: Scene, spool: Path) -> None:
    """I8: the file is encrypted and private; another key says so and keeps it; the right one brings the value back."""
    keys = Path(os.environ["KEYTURN_SPOOL_KEY_FILE"])
    right = keys.read_bytes()
    lose_the_api_server(scene).kill()
    scene.stage.control_plane.restart_apiserver()
    (file,) = spool.iterdir()
    assert file.stat().st_mode & 0o777 == 0o600
    assert spool.stat().st_mode & 0o777 == 0o700
    for canary in (issued(scene), scene.first_secret):
        assert canary.encode() not in file.read_bytes()
        assert base64.b64encode(canary.encode()) not in file.read_bytes()
    assert pending(scene) is None

    keys.write_bytes(Fernet.generate_key() + b"\n")
    blind = scene.operator()
    wait_for_log(scene, f"{file} cannot be decrypted: add the key")
    scene.wait_stalled("SecretLost")
    blind.kill()
    assert file.exists()

    keys.write_bytes(Fernet.generate_key() + b"\n" + right)
    scene.operator()
    assert_completed(scene)
    wait_for_log(scene, "a spooled value is in its journal now")
    assert list(spool.iterdir()) == []


def test_without_an_outage_nothing_stays_in_the_spool(scene: Scene, spool: Path) -> None:
    scene.operator()
    scene.put_rotation(acceptDowntime=True)
    assert_completed(scene)
    assert spool.is_dir()
    assert list(spool.iterdir()) == []


def start_up(**environment: str) -> subprocess.CompletedProcess[str]:
    """A process that must not start; no API server is needed for that."""
    known = {name: value for name, value in os.environ.items() if not name.startswith("KEYTURN_")}
    command = [sys.executable, "-m", "keyturn", "run", "--kubeconfig", "/nonexistent", "--health", ""]
    return subprocess.run(
        command, env={**known, **environment}, capture_output=True, text=True, check=False, timeout=60
    )


def test_a_spool_that_cannot_be_used_is_a_start_up_error(tmp_path: Path) -> None:
    """I10: said at the start, when somebody looks, and not when the value is there and nowhere to put it."""
    keys, empty, wrong, file = (tmp_path / name for name in ("keys", "empty", "wrong", "file"))
    keys.write_bytes(Fernet.generate_key())
    empty.touch()
    wrong.write_text("not a key")
    file.touch()
    cases = [
        (tmp_path / "spool", None, "KEYTURN_SPOOL_KEY_FILE"),
        (tmp_path / "spool", tmp_path / "absent", str(tmp_path / "absent")),
        (tmp_path / "spool", empty, "is empty"),
        (tmp_path / "spool", wrong, "Fernet"),
        (file / "spool", keys, "cannot be used"),
    ]
    for folder, key_file, said in cases:
        named = {"KEYTURN_SPOOL_KEY_FILE": str(key_file)} if key_file else {}
        ended = start_up(KEYTURN_SPOOL_DIR=str(folder), **named)
        assert ended.returncode == 2, (said, ended.stderr)
        assert said in ended.stderr
        assert "Traceback" not in ended.stderr
        assert "not a key" not in ended.stderr, "I8: it may be a key, all but right"


@pytest.mark.timeout(400)
def test_an_outage_of_two_minutes(own_stage: Stage, bare_scene: Scene) -> None:
    """I2, I3, I7, I9: the process outlives an outage that is longer than Kopf's own patience of 54 seconds.

    A value waits in memory, and its journal is tried without end; another rotation is in the middle of its rollout, and
    a third one begins afterwards. Last: Kubernetes' own controllers are slow for a while afterwards.
    """
    scene = bare_scene
    with Scene.in_new_namespace(own_stage, "rolling") as rolling, Scene.in_new_namespace(own_stage, "idle") as idle:
        rolling.put_deployment(replicas=2, annotations={"sandbox.keyturn.dev/ready-after": "5s"})
        rolling.put_rotation()
        operator = lose_the_api_server(scene, lambda: rolling.wait_phase("RollingOut"))
        pid, began = operator.pid, time.monotonic()
        while time.monotonic() < began + TWO_MINUTES:
            assert operator.alive(), operator.tail()
            assert httpx.get(f"http://{operator.health}/healthz").status_code == 200, "a restart would not help"
            time.sleep(1)
        own_stage.control_plane.restart_apiserver()
        assert_completed(scene, restarts=0)
        idle.put_rotation("after")
        idle.wait_ended(seconds=60)
        rolling.wait_ended(seconds=120)
        assert operator.alive()
        assert operator.pid == pid
        for other in (rolling, idle):
            assert (other.applied("start"), other.applied("rotate"), other.applied("cancel")) == (1, 1, 0)
            assert other.calls()["refused"] == 0
        assert rolling.restarts() == 1
        _, traceback, rest = scene.log.read_text().partition("Traceback")
        assert not traceback, rest[:3000]
