"""The owner's side of the supervisor: start and end components, see how they do, read their logs."""

import json
import random
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from sandbox.controlplane import supervisor


class ComponentError(Exception):
    """A component ended or did not become healthy in time; the message quotes the end of its log."""


class Processes:
    """A private directory, and the components that run in it until `stop` is called or this process ends."""

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="keyturn-sandbox-"))
        self._supervisor = subprocess.Popen(
            # By path, so that none of this package is imported in it.
            [sys.executable, "-I", supervisor.__file__, str(self.directory)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
            text=True,
        )

    def start(self, name: str, argv: list[str]) -> None:
        """Run `argv` as component `name`, in place of the one that runs under that name."""
        (self.directory / f"{name}.exit").unlink(missing_ok=True)
        self._order(name, argv)

    def kill(self, name: str) -> None:
        """End component `name` with SIGKILL."""
        self._order(name, None)

    def wait(self, name: str, healthy: Callable[[], bool], seconds: float) -> None:
        """Return when `healthy()` is true; ComponentError when the component ends before, or the time is over."""
        deadline = time.monotonic() + seconds
        while not healthy():
            exited = self.directory / f"{name}.exit"
            if exited.exists():
                raise ComponentError(f"{name} ended with code {exited.read_text()}. {self._quote(name)}")
            if time.monotonic() > deadline:
                raise ComponentError(f"{name} was not healthy within {seconds:.0f} s. {self._quote(name)}")
            time.sleep(0.03)

    def log(self, name: str, lines: int = 20) -> str:
        """The last lines of a component's log."""
        path = self.directory / f"{name}.log"
        return "\n".join(path.read_text(errors="replace").splitlines()[-lines:]) if path.exists() else ""

    def stop(self) -> None:
        """End all components and remove the directory. It is no error to call it twice."""
        if self._supervisor.stdin is not None:
            self._supervisor.stdin.close()
        self._supervisor.wait(timeout=30)

    def _order(self, name: str, argv: list[str] | None) -> None:
        if self._supervisor.stdin is None or self._supervisor.poll() is not None:
            raise ComponentError(f"cannot start {name}: the sandbox's supervisor is gone; start the sandbox again")
        self._supervisor.stdin.write(json.dumps({"name": name, "argv": argv}) + "\n")
        self._supervisor.stdin.flush()

    def _quote(self, name: str) -> str:
        return f"Its log ends with:\n{self.log(name) or '(nothing was logged)'}"


def free_port() -> int:
    """A loopback port that is free now.

    Below 32768, where Linux begins to give out ports to clients, so that it is unlikely to be taken in the meantime.
    """
    for _ in range(200):
        port = random.randrange(20000, 32768)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise ComponentError("no free port between 20000 and 32767 on 127.0.0.1; end what occupies them")
