"""Progress for people: a bar where standard error is a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

_PLAIN_INTERVAL = 15.0


class Reporter(Protocol):
    """Where long work tells how far it is."""

    def say(self, text: str) -> None:
        """One line about what begins or what was found."""

    def track(self, text: str, total: float | None) -> AbstractContextManager[Callable[[float], None]]:
        """Work of `total` units (None: not known); within the context, call the value with the units done so far."""


class SilentReporter:
    """Says nothing."""

    def say(self, text: str) -> None:
        """Nothing."""

    @contextmanager
    def track(self, text: str, total: float | None) -> Iterator[Callable[[float], None]]:
        """Nothing."""
        yield lambda _done: None


class PlainReporter:
    """Lines on standard error; long work says a line when it begins, and then one every 15 seconds."""

    def say(self, text: str) -> None:
        """Print `text`."""
        print(text, file=sys.stderr, flush=True)

    @contextmanager
    def track(self, text: str, total: float | None) -> Iterator[Callable[[float], None]]:
        """Print `text`, then percentages."""
        self.say(f"{text} ...")
        said = time.monotonic()

        def update(done: float) -> None:
            nonlocal said
            if total and time.monotonic() - said >= _PLAIN_INTERVAL:
                said = time.monotonic()
                self.say(f"{text}: {min(done / total, 1):.0%}")

        yield update


class TerminalReporter:
    """A bar on standard error that is replaced by a line when the work is done."""

    def __init__(self) -> None:
        self._console = Console(stderr=True)

    def say(self, text: str) -> None:
        """Print `text`."""
        self._console.print(text, highlight=False, markup=False)

    @contextmanager
    def track(self, text: str, total: float | None) -> Iterator[Callable[[float], None]]:
        """Show a bar, or a pulse when `total` is not known."""
        columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
        started = time.monotonic()
        with Progress(*columns, console=self._console, transient=True) as progress:
            task = progress.add_task(text, total=total)
            yield lambda done: progress.update(task, completed=done)
        self.say(f"{text}: {time.monotonic() - started:.0f} s")


def default_reporter() -> Reporter:
    """A bar where standard error is a terminal, plain lines elsewhere."""
    return TerminalReporter() if sys.stderr.isatty() else PlainReporter()
