"""The supervisor alone, with a component that only sleeps."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from sandbox.controlplane import supervisor


def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


class Supervised:
    """A supervisor whose components write their process ids into the directory."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir()
        self.directory = directory
        self.process = subprocess.Popen(
            [sys.executable, "-I", supervisor.__file__, str(directory)], stdin=subprocess.PIPE, text=True
        )

    def order(self, name: str, script: str | None) -> None:
        assert self.process.stdin is not None
        argv = script and ["sh", "-c", script]
        self.process.stdin.write(json.dumps({"name": name, "argv": argv}) + "\n")
        self.process.stdin.flush()

    def sleeper(self, name: str) -> int:
        """Start a component that sleeps, and return its process id."""
        file = self.directory / f"{name}.pid"
        file.unlink(missing_ok=True)
        self.order(name, f"echo $$ > {file}; exec sleep 600")
        eventually(lambda: file.exists() and file.read_text().endswith("\n"))
        return int(file.read_text())


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


@pytest.fixture
def supervised(tmp_path: Path) -> Supervised:
    return Supervised(tmp_path / "directory")


def test_components_and_directory_go_when_the_owner_does(supervised: Supervised) -> None:
    pids = [supervised.sleeper("one"), supervised.sleeper("two")]
    supervised.process.communicate()
    assert supervised.process.returncode == 0
    assert not any(alive(pid) for pid in pids)
    assert not supervised.directory.exists()


def test_components_go_when_the_supervisor_is_killed(supervised: Supervised) -> None:
    pid = supervised.sleeper("one")
    supervised.process.kill()
    supervised.process.communicate()
    eventually(lambda: not alive(pid))


def test_a_component_can_be_ended_and_replaced(supervised: Supervised) -> None:
    first = supervised.sleeper("one")
    second = supervised.sleeper("one")
    assert not alive(first)
    supervised.order("one", None)
    eventually(lambda: not alive(second))
    assert not (supervised.directory / "one.exit").exists()
    supervised.process.communicate()


def test_a_component_that_ends_by_itself_leaves_its_code_and_log(supervised: Supervised) -> None:
    supervised.order("one", "echo it broke; exit 7")
    eventually((supervised.directory / "one.exit").exists)
    assert (supervised.directory / "one.exit").read_text() == "7"
    assert (supervised.directory / "one.log").read_text() == "it broke\n"
    supervised.process.communicate()
