"""A small process between a control plane's owner and its components, so that nothing outlives the owner.

It is told what to run on standard input, one JSON object per line: `{"name": "etcd", "argv": [...]}` starts a
component (after ending the one of that name, if it runs), `{"name": "etcd", "argv": null}` ends it. When standard input
closes, as it does whichever way the owner ends, kill -9 included, it kills all components, removes the directory and
ends itself. Should it be killed itself, then the kernel kills the components, as its only thread is their parent.

Logs go to `NAME.log` in the directory; a component that ends by itself leaves its exit code in `NAME.exit`.
Only the standard library is imported: the supervisor is up in a few hundredths of a second.
"""

import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

_PR_SET_PDEATHSIG = 1  # prctl(2)


def main(directory: Path) -> None:
    """Supervise components in `directory` until standard input closes."""
    # Signals meant for the owner's process group or session are the owner's to handle.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    children: dict[str, subprocess.Popen[bytes]] = {}
    signal.signal(signal.SIGCHLD, lambda *_: _record_exits(directory, children))
    for line in sys.stdin:
        order = json.loads(line)
        _end(children.pop(order["name"], None))
        if order["argv"]:
            children[order["name"]] = _start(directory, order["name"], order["argv"])
            _record_exits(directory, children)  # it may have ended before it was in the table
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for child in list(children.values()):
        _end(child)
    shutil.rmtree(directory, ignore_errors=True)


def _start(directory: Path, name: str, argv: list[str]) -> subprocess.Popen[bytes]:
    with (directory / f"{name}.log").open("ab") as log:
        return subprocess.Popen(
            argv,
            cwd=directory,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            preexec_fn=_die_with_parent(),  # noqa: PLW1509  # there is one thread only
        )


def _die_with_parent() -> Callable[[], Any] | None:
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    return prctl and (lambda: prctl(_PR_SET_PDEATHSIG, signal.SIGKILL))


def _end(child: subprocess.Popen[bytes] | None) -> None:
    """Kill and reap: the data is thrown away with the directory, so there is nothing to shut down in order."""
    if child is not None:
        child.kill()
        child.wait()


def _record_exits(directory: Path, children: dict[str, subprocess.Popen[bytes]]) -> None:
    for name, child in list(children.items()):
        code = child.poll()
        if code is not None:
            children.pop(name, None)
            partial = directory / f".{name}.exit"
            partial.write_text(str(code))
            partial.rename(directory / f"{name}.exit")  # whoever sees the file finds the code in it


if __name__ == "__main__":
    os.umask(0o077)
    main(Path(sys.argv[1]))
