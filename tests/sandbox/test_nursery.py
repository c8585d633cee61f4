"""Operators that are forked: processes like any other, with their own arguments, environment, output and end."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox.controlplane.endpoint import Endpoint
from sandbox.nursery import Nursery

_NOWHERE = ["run", "--kubeconfig", "/nonexistent", "--health", ""]


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    with Nursery() as running:
        yield running


def test_a_child_answers_as_the_command_does(nursery: Nursery, tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("before\n")
    child = nursery.start(_NOWHERE, dict(os.environ), log)
    assert child.wait(20) == 1
    command = [sys.executable, "-m", "keyturn", *_NOWHERE]
    spawned = subprocess.run(command, capture_output=True, text=True, check=False)
    assert spawned.returncode == 1
    assert log.read_text() == f"before\n{spawned.stderr}"
    assert child.poll() == 1


def test_a_child_has_the_environment_that_it_is_given(nursery: Nursery, tmp_path: Path) -> None:
    log = tmp_path / "log"
    spool = {"KEYTURN_SPOOL_DIR": str(tmp_path / "spool")}
    assert nursery.start(_NOWHERE, {**os.environ, **spool}, log).wait(20) == 2
    assert "KEYTURN_SPOOL_KEY_FILE" in log.read_text()


def test_children_are_stopped_one_by_one_and_end_with_the_nursery(tmp_path: Path) -> None:
    with Nursery() as nursery, socket.create_server(("127.0.0.1", 0)) as silent:
        # It takes connections, and never answers: they wait for it.
        kubeconfig = tmp_path / "kubeconfig"
        Endpoint(f"http://127.0.0.1:{silent.getsockname()[1]}", Path(), "").write_kubeconfig(kubeconfig, "silent")
        arguments = ["run", "--kubeconfig", str(kubeconfig), "--health", ""]
        children = [nursery.start(arguments, dict(os.environ), tmp_path / f"log-{number}") for number in range(3)]
        killed, ended, left = children
        assert [child.poll() for child in children] == [None, None, None]
        with pytest.raises(subprocess.TimeoutExpired):
            killed.wait(0.1)
        killed.kill()
        assert killed.wait(10) == -signal.SIGKILL
        ended.send_signal(signal.SIGTERM)
        ended.wait(20)
        assert left.poll() is None
    assert left.poll() == -signal.SIGKILL
    with pytest.raises(ProcessLookupError):
        os.kill(left.pid, 0)
