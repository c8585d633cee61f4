"""Run a program that the kernel kills when the thread that started it ends, however it does: kill -9 included.

`python -I tether.py <pid of the parent> <program> <arguments>` becomes that program, under the same process id.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1  # prctl(2); it outlives execve(2)


def bind(parent: int) -> bool:
    """Let the kernel kill this process when its parent ends; whether that is still there."""
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    if prctl is not None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    return os.getppid() == parent


def main(parent: int, argv: list[str]) -> None:
    """Become `argv`, unless the parent has gone already."""
    if bind(parent):
        os.execv(argv[0], argv)  # noqa: S606  # no shell is what is wanted


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
