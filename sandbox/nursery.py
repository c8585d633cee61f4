"""Operators that are forked from a process which has imported everything: half of what a start costs is imports.

`Nursery` is for tests that start hundreds. What runs is the same command in a process of its own, as that of
`python -m keyturn` would be. The mother has one thread and opens nothing, so that a fork of it is as good as new.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import selectors
import signal
import socket
import struct
import subprocess
import sys
import traceback
from pathlib import Path
from typing import Any, Final, Self

from sandbox import tether

_ROOT: Final = Path(__file__).resolve().parent.parent
_STATUS: Final = struct.Struct("!i")
_LONGEST: Final = 64 * 1024


class Child:
    """A process that the nursery forked, with the methods of subprocess.Popen that are used here."""

    def __init__(self, pid: int, end: socket.socket) -> None:
        """end: where the nursery tells how it has ended."""
        self.pid = pid
        self.returncode: int | None = None
        self._end = end

    def poll(self) -> int | None:
        """The exit code, negative after a signal; None while it runs."""
        return self._look(0)

    def wait(self, timeout: float | None = None) -> int:
        """Until it has ended: the exit code. Raises subprocess.TimeoutExpired."""
        code = self._look(timeout)
        if code is None:
            raise subprocess.TimeoutExpired(str(self.pid), timeout or 0)
        return code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def _look(self, seconds: float | None) -> int | None:
        if self.returncode is not None:
            return self.returncode
        self._end.settimeout(seconds)
        try:
            answer = self._end.recv(_STATUS.size)
        except (TimeoutError, BlockingIOError):
            return None
        # Without an answer the nursery has gone, and the kernel has killed its children.
        self.returncode = os.waitstatus_to_exitcode(_STATUS.unpack(answer)[0]) if answer else -signal.SIGKILL
        self._end.close()
        return self.returncode


class Nursery:
    """A context manager: the process that forks. Everything that it started ends with it."""

    def __enter__(self) -> Self:
        self._asked, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            run = [sys.executable, "-m", "sandbox.nursery", str(theirs.fileno())]
            tethered = [sys.executable, "-I", str(_ROOT / "sandbox" / "tether.py"), str(os.getpid()), *run]
            self._process = subprocess.Popen(tethered, pass_fds=[theirs.fileno()], cwd=_ROOT, stdin=subprocess.DEVNULL)
        return self

    def __exit__(self, *error: object) -> None:
        self._asked.close()
        self._process.wait(10)

    def start(self, arguments: list[str], environment: dict[str, str], log: Path) -> Child:
        """Run `keyturn` with these arguments, in this environment. Its output is added to `log`. From any thread."""
        log.touch(mode=0o600)  # it can be read from now on
        here, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        with theirs:
            wanted = {"arguments": arguments, "environment": environment, "log": str(log)}
            socket.send_fds(self._asked, [json.dumps(wanted).encode()], [theirs.fileno()])
        (pid,) = _STATUS.unpack(here.recv(_STATUS.size))
        return Child(pid, here)


def main(asked: socket.socket) -> None:
    """Fork for each request, and tell its sender the process id, and in the end the wait status."""
    importlib.import_module("keyturn.cli.main")
    gc.collect()
    gc.freeze()  # what is shared is not copied by the collector's marks
    children: dict[int, socket.socket] = {}
    wake, woken = socket.socketpair()
    for end in (wake, woken):
        end.setblocking(False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake.fileno())
    with selectors.DefaultSelector() as selector:
        selector.register(asked, selectors.EVENT_READ)
        selector.register(woken, selectors.EVENT_READ)
        while True:
            for ready, _ in selector.select():
                if ready.fileobj is woken:
                    woken.recv(_LONGEST)
                    _reap(children)
                elif not _serve(asked, children):
                    _end(children)
                    return


def _serve(asked: socket.socket, children: dict[int, socket.socket]) -> bool:
    """Whether there may be more requests."""
    message, descriptors, _, _ = socket.recv_fds(asked, _LONGEST, 1)
    if not message:
        return False
    end = socket.socket(fileno=descriptors[0])
    mother, pid = os.getpid(), os.fork()
    if not pid:
        _become(mother, **json.loads(message))
    children[pid] = end
    end.sendall(_STATUS.pack(pid))
    return True


def _reap(children: dict[int, socket.socket]) -> None:
    for pid in list(children):
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            with children.pop(pid) as end:
                end.sendall(_STATUS.pack(status))


def _end(children: dict[int, socket.socket]) -> None:
    for pid in children:
        os.kill(pid, signal.SIGKILL)
    for pid in children:
        os.waitpid(pid, 0)


def _become(mother: int, arguments: list[str], environment: dict[str, str], log: str) -> None:
    """Be the operator, and never return."""
    code = 1
    try:
        if not tether.bind(mother):
            return
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        output = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.closerange(3, 256)
        os.environ.clear()
        os.environ.update(environment)
        sys.argv = ["keyturn", *arguments]
        code = _exit_code(sys.modules["keyturn.cli.main"])
    except BaseException:  # noqa: BLE001
        traceback.print_exc()
    finally:
        os._exit(code)


def _exit_code(command: Any) -> int:
    try:
        command.app()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1
    return 0


if __name__ == "__main__":
    main(socket.socket(fileno=int(sys.argv[1])))
