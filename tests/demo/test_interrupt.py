"""Ctrl-C in the middle of the live picture: the demo ends, and nothing of it is left."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(("act", "moment"), [("1", "RolloutRestart"), ("2", "RotationCancelling")])
def test_interrupt_leaves_nothing(tmp_path: Path, act: str, moment: str) -> None:
    ours, theirs = pty.openpty()
    environment = {key: value for key, value in os.environ.items() if key != "CI"}
    demo = subprocess.Popen(
        [sys.executable, "-m", "sandbox.demo", "--act", act, "--report", str(tmp_path / "report.json")],
        cwd=ROOT,
        env={**environment, "TMPDIR": str(tmp_path), "TERM": "xterm-256color", "COLUMNS": "90", "LINES": "40"},
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    try:
        _read_until(ours, moment)
        assert _processes(tmp_path), "the test does not find the demo's processes"
        # A terminal sends it to all processes in the foreground.
        os.killpg(demo.pid, signal.SIGINT)
        said = _read_until(ours, "everything is stopped and removed")
        assert demo.wait(20) == 130, said
    finally:
        demo.kill()
        os.close(ours)
    assert "Traceback" not in said
    assert list(tmp_path.iterdir()) == []
    assert _processes(tmp_path) == []


def _read_until(terminal: int, expected: str, seconds: float = 100) -> str:
    """What the terminal shows until the expected text appears."""
    seen, deadline = "", time.monotonic() + seconds
    while expected not in seen:
        readable, _, _ = select.select([terminal], [], [], max(0.0, deadline - time.monotonic()))
        assert readable, f"{expected!r} did not appear within {seconds} seconds:\n{seen[-3000:]}"
        try:
            seen += os.read(terminal, 65536).decode(errors="replace")
        except OSError:  # the other end is closed
            raise AssertionError(f"{expected!r} did not appear before the end:\n{seen[-3000:]}") from None
    return seen


def _processes(directory: Path) -> list[str]:
    """Command lines of all processes that name a path in the directory."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if f"{directory}/keyturn-sandbox-" in command:
            found.append(command)
    return found
