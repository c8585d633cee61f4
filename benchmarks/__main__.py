"""`python -m benchmarks`: measure, print, and write build/bench.json."""

from __future__ import annotations

import json
import statistics
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from benchmarks.rotation import AT_ONCE, Measured, measure
from sandbox.assets import provide
from sandbox.controlplane import ControlPlane
from sandbox.stage import ROOT, Stage

# DESIGN.md, section 8.
_GOALS = {"rotationOverheadRatio": 1.5, "apiWritesPerRotation": 12, "eventsPerRotation": 4}

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(
    pairs: Annotated[int, typer.Option(min=1, help="Rotations by Keyturn, and as many by the script.")] = 15,
    counted: Annotated[int, typer.Option(min=1, help="Rotations whose writes are counted.")] = 5,
    output: Annotated[Path, typer.Option(help="Where the results go.")] = ROOT / "build" / "bench.json",
) -> None:
    """Measure what exists today. It takes no part in the tests: the numbers depend on the machine and its load."""
    console = Console()
    with ControlPlane.start(provide()) as control_plane, Stage(control_plane, AT_ONCE) as stage:
        stage.install()
        measured = measure(stage, pairs, counted, lambda text: console.print(text, style="dim"))
    results = {
        "rotationOverheadRatio": round(measured.ratio, 3),
        "apiWritesPerRotation": measured.api_writes,
        "eventsPerRotation": measured.events,
    }
    _show(console, measured, results)
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(results, indent=2) + "\n")
    console.print(f"written to {output}", soft_wrap=True)


def _show(console: Console, measured: Measured, results: dict[str, float]) -> None:
    times = Table("one rotation", "median", "fastest", "slowest")
    for name, seconds in (("Keyturn", measured.keyturn), ("straight script", measured.script)):
        times.add_row(name, *(f"{value:.3f} s" for value in _spread(seconds)))
    console.print(times)
    for title, counts in (("written in one rotation", measured.writes), ("read in one rotation", measured.reads)):
        table = Table(title, "times")
        for name, count in sorted(Counter(counts[-1]).items()):
            table.add_row(name, str(count))
        console.print(table)
    goals = Table("result", "measured", "goal")
    for name, value in results.items():
        met = value <= _GOALS[name]
        goals.add_row(name, f"[{'green' if met else 'red'}]{value:g}[/]", f"≤ {_GOALS[name]:g}")
    console.print(goals)


def _spread(seconds: Sequence[float]) -> tuple[float, float, float]:
    return statistics.median(seconds), min(seconds), max(seconds)


if __name__ == "__main__":
    app(prog_name="python -m benchmarks")
