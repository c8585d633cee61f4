"""`python -m sandbox.demo`: rotate client secrets on a real control plane, take one rotation back, and show it."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from sandbox.assets import AssetsError
from sandbox.controlplane import ApplyError, ControlPlaneError
from sandbox.demo.acts import ACTS
from sandbox.demo.recording import Recording
from sandbox.demo.run import DemoError, play
from sandbox.demo.shows import show_for
from sandbox.stage import ROOT, OperatorError

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_INTERRUPTED = 130


@app.command()
def main(
    report: Annotated[Path, typer.Option(help="Where the counted facts go.")] = ROOT / "build" / "demo-report.json",
    record: Annotated[Path | None, typer.Option(help="Also write what is shown to this SVG file.")] = None,
    act: Annotated[int | None, typer.Option(min=1, max=len(ACTS), help="Play this act only.")] = None,
) -> None:
    """Rotate client secrets while pods use them, and show it live: at three providers, then with a rollout that fails.

    Exit code 0: the first three completed, the last one was cancelled and left everything as it was before, no call was
    refused outside of the downtime that one of them accepted, and no value is accepted that should not be.
    """
    console = Console()
    recording = Recording("Keyturn rotates three client secrets, and takes a fourth rotation back") if record else None
    report.unlink(missing_ok=True)
    try:
        with _interruptible():
            done = play(ACTS if act is None else ACTS[act - 1 : act], show_for(console, recording))
    except KeyboardInterrupt:
        console.print("Interrupted; everything is stopped and removed.")
        raise typer.Exit(_INTERRUPTED) from None
    except (DemoError, AssetsError, ControlPlaneError, ApplyError, OperatorError, TimeoutError) as error:
        typer.echo(f"Error: {error}", err=True)
        raise typer.Exit(1) from error
    report.parent.mkdir(parents=True, exist_ok=True)
    report.write_text(done.report.to_json())
    console.print(f"The report is in {report}", soft_wrap=True)
    if record and recording:
        record.write_text(recording.svg())
    raise typer.Exit(1 if done.faults else 0)


@contextmanager
def _interruptible() -> Iterator[None]:
    """The first signal ends the demo in order; more of them do not disturb the clearing up."""

    def interrupt(*_: object) -> None:
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    before = [signal.signal(number, interrupt) for number in _SIGNALS]
    try:
        yield
    finally:
        for number, handler in zip(_SIGNALS, before, strict=True):
            signal.signal(number, handler)


if __name__ == "__main__":
    app(prog_name="python -m sandbox.demo")
