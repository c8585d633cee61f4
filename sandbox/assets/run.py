"""Runs the programs that fetch and build, and locks the cache while they do."""

import fcntl
import shutil
import subprocess
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from sandbox.assets.locate import AssetsError
from sandbox.assets.progress import Reporter


def run(
    argv: Sequence[str | Path],
    *,
    cwd: Path,
    env: Mapping[str, str] | None = None,
    on_line: Callable[[str], None] = lambda _line: None,
) -> None:
    """Run a program to its end; `on_line` gets each line of its output. AssetsError quotes the end of it on failure.

    The program doesn't outlive this process: setpriv(1) has the kernel kill it when the thread that started it ends.
    """
    process = subprocess.Popen(
        ["setpriv", "--pdeathsig", "KILL", *argv],
        cwd=cwd,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    last: deque[str] = deque(maxlen=15)
    try:
        for line in process.stdout or ():
            last.append(line.rstrip())
            on_line(line.rstrip())
        code = process.wait()
    finally:
        process.kill()
        process.wait()
        if process.stdout:
            process.stdout.close()
    if code != 0:
        command = " ".join(str(word) for word in argv)
        raise AssetsError(f"{command[:200]} ended with code {code}:\n" + "\n".join(last))


def once(target: Path, make: Callable[[Path], None]) -> None:
    """Unless `target` exists: let `make` fill a folder beside it, and rename that to `target`.

    So an interrupted step leaves no half of a result that a later run would take for the whole.
    """
    if target.exists():
        return
    partial = target.with_name(f".{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    make(partial)
    partial.rename(target)


@contextmanager
def locked(path: Path, reporter: Reporter) -> Iterator[None]:
    """Hold an exclusive lock on the file `path`; waits for the process that holds it, and says so."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            reporter.say(f"Waiting for another process that fills {path.parent} ...")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
