"""The one sandbox that `python -m sandbox up` keeps running for a user.

Its process holds a lock on a file in the cache for as long as it lives, and writes into it how to reach the sandbox. So
a state left by a dead process, or a process id that was given to another program, is never taken for a running sandbox.
"""

import asyncio
import fcntl
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TextIO

from sandbox.assets import provide
from sandbox.assets.locate import cache_directory
from sandbox.controlplane import ControlPlane
from sandbox.kubelet import KubeletStandIn

_PATIENCE = 30.0
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class SessionError(Exception):
    """The sandbox could not be started or ended; the message says what to do."""


@dataclass(frozen=True)
class State:
    """How to reach a running sandbox."""

    pid: int
    version: str
    server: str
    kubeconfig: str
    directory: str


def running() -> State | None:
    """The sandbox that runs and is ready, or None."""
    path = _state_file()
    if not path.exists():
        return None
    with path.open() as file:
        text = file.read()
        return State(**json.loads(text)) if text and _held(file) else None


def serve(manifests: list[Path], ready: Callable[[State], None]) -> None:
    """Run a sandbox until SIGINT or SIGTERM; `ready` is called when it can be used, with `manifests` applied.

    Raises AssetsError, ControlPlaneError, ApplyError, or SessionError when another one is running.
    """
    assets = provide()
    with _recorded() as record:
        for number in _SIGNALS:
            signal.signal(number, _interrupt)
        try:
            with ControlPlane.start(assets) as control_plane:
                control_plane.install_manifests(manifests)
                state = State(
                    os.getpid(),
                    control_plane.version,
                    control_plane.server,
                    str(control_plane.kubeconfig),
                    str(control_plane.directory),
                )
                record(state)
                asyncio.run(_run_pods(control_plane, lambda: ready(state)))
        except (KeyboardInterrupt, asyncio.CancelledError):
            return


def detach(manifests: list[Path]) -> State:
    """Start `serve` in a process of its own and return when it is ready; SessionError quotes its output on failure."""
    # The binaries may take minutes: that is shown here, where somebody is looking.
    provide()
    argv = [sys.executable, "-m", "sandbox", "up", *(f"--apply={path}" for path in manifests)]
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=said, stderr=said, start_new_session=True, cwd=_project()
        )
        while process.poll() is None:
            state = running()
            if state and state.pid == process.pid:
                return state
            time.sleep(0.05)
        said.seek(0)
        raise SessionError(f"the sandbox did not start:\n{said.read()}")


def stop() -> bool:
    """End the running sandbox and wait until it is gone; False when there was none. Raises SessionError."""
    state = running()
    if state is None:
        return False
    os.kill(state.pid, signal.SIGTERM)
    deadline = time.monotonic() + _PATIENCE
    while Path(state.directory).exists() or running():
        if time.monotonic() > deadline:
            raise SessionError(f"process {state.pid} has not ended within {_PATIENCE:.0f} s; end it with kill -9")
        time.sleep(0.05)
    return True


async def _run_pods(control_plane: ControlPlane, ready: Callable[[], None]) -> None:
    """Run the stand-in until a signal cancels it."""
    task = asyncio.current_task()
    for number in _SIGNALS:
        asyncio.get_running_loop().add_signal_handler(number, lambda: task and task.cancel())
    async with KubeletStandIn(control_plane.endpoint):
        ready()
        await asyncio.Event().wait()


@contextmanager
def _recorded() -> Iterator[Callable[[State], None]]:
    """Hold the lock; the value writes the state beside it."""
    path = _state_file()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as file:
        deadline = time.monotonic() + 1  # for another process that just looks whether the lock is held
        while not (mine := _lock(file)) and time.monotonic() < deadline:
            time.sleep(0.05)
        if not mine:
            raise SessionError("another sandbox is running or starting; end it with: python -m sandbox down")
        file.truncate(0)

        def record(state: State) -> None:
            file.write(json.dumps(asdict(state)))
            file.flush()

        try:
            yield record
        finally:
            file.truncate(0)


def _held(file: TextIO) -> bool:
    if _lock(file):
        fcntl.flock(file, fcntl.LOCK_UN)
        return False
    return True


def _lock(file: TextIO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _state_file() -> Path:
    return cache_directory() / "sandbox.json"


def _project() -> Path:
    return Path(__file__).parent.parent


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt
