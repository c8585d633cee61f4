"""Programs that judge from an environment of their own, because their requirements exclude ours."""

from __future__ import annotations

import fcntl
import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Self

ROOT = Path(__file__).parents[2]
LOCK = ROOT / "requirements/oracle.txt"
ENVIRONMENT = ROOT / "build/oracle"


def oracle_python() -> Path:
    """The interpreter of an environment with requirements/oracle.txt, made when it is missing or out of date.

    Takes some ten seconds then, and needs the package index, as `make venv` does.
    """
    python, stamp = ENVIRONMENT / "bin/python", ENVIRONMENT / "stamp"
    digest = hashlib.sha256(LOCK.read_bytes()).hexdigest()
    ENVIRONMENT.parent.mkdir(exist_ok=True)
    with ENVIRONMENT.with_suffix(".lock").open("w") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)  # another run of the tests may be making it
        if not stamp.exists() or stamp.read_text() != digest:
            shutil.rmtree(ENVIRONMENT, ignore_errors=True)
            pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
            _run(sys.executable, "-m", "venv", str(ENVIRONMENT))
            _run(*pip, "--require-hashes", "-r", str(LOCK))
            stamp.write_text(digest)
    return python


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed: install what {LOCK.name} needs\n{done.stderr}")


class SnapTradeSDK:
    """The official SDK, running. A context manager."""

    def __enter__(self) -> Self:
        script = Path(__file__).with_name("snaptrade_sdk.py")
        self._process = subprocess.Popen(
            [oracle_python(), script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with self._process:
            if self._process.stdin:
                self._process.stdin.close()

    def call(self, operation: str, arguments: dict[str, Any], **account: Any) -> dict[str, Any]:
        """Make one call; see `snaptrade_sdk` for the account's fields and the answer."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps({"operation": operation, "arguments": arguments, **account}) + "\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer
