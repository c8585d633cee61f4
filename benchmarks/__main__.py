"""`python -m benchmarks`: measure, print, and write build/bench.json, with a chart beside it."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from benchmarks.chart import draw
from benchmarks.due import Together, measure_due
from benchmarks.fleet import Fleet
from benchmarks.immediate import Immediate, measure_immediate
from benchmarks.results import GOALS, Results, flat, met, ratio, spread
from benchmarks.rotation import AT_ONCE, Measured, measure
from benchmarks.starts import Fleets, measure_customary, measure_starts
from sandbox.assets import provide
from sandbox.controlplane import ControlPlane
from sandbox.stage import ROOT, Stage

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(
    pairs: Annotated[int, typer.Option(min=1, help="Rotations by Keyturn, and as many by the script.")] = 15,
    counted: Annotated[int, typer.Option(min=1, help="Rotations whose writes are counted.")] = 5,
    immediate: Annotated[int, typer.Option(min=1, help="Rotations at an Immediate provider.")] = 30,
    objects: Annotated[int, typer.Option(min=1, help="Rotations of the fleet.")] = 10_000,
    due: Annotated[int, typer.Option(min=1, help="Rotations of the fleet that fall due together.")] = 500,
    starts: Annotated[int, typer.Option(min=1, help="Starts over the fleet.")] = 3,
    rest: Annotated[float, typer.Option(min=0, help="Seconds for which the fleet is watched at rest.")] = 300.0,
    output: Annotated[Path, typer.Option(help="Where the results go.")] = ROOT / "build" / "bench.json",
) -> None:
    """Measure side by side, in one run. It is no test: the numbers depend on the machine and its load."""
    console = Console()

    def say(text: str) -> None:
        console.print(text, style="dim", soft_wrap=True)

    with _stage() as stage:
        single = measure(stage, pairs, counted, say)
        at_once = measure_immediate(stage, immediate, say)
    with _stage() as stage:
        fleet = Fleet(stage, objects, due)
        fleet.make()
        fleets = measure_starts(stage, fleet, starts, rest, say)
        together = measure_due(stage, fleet, say)
        measure_customary(stage, fleet, fleets, starts, say)
    results = _results(single, at_once, fleets, together)
    _show(console, single, fleets, results)
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(results, indent=2) + "\n")
    draw(results, output.with_suffix(".svg"), f"{os.cpu_count()} cores")
    console.print(f"written to {output} and {output.with_suffix('.svg').name}", soft_wrap=True)


@contextmanager
def _stage() -> Iterator[Stage]:
    """A control plane of its own."""
    with ControlPlane.start(provide()) as control_plane, Stage(control_plane, AT_ONCE) as stage:
        stage.install()
        yield stage


def _results(single: Measured, immediate: Immediate, fleets: Fleets, together: Together) -> Results:
    keyturn, floor, customary = fleets.keyturn, fleets.floor, fleets.customary
    return {
        "rotationOverheadRatio": round(single.ratio, 3),
        "apiWritesPerRotation": single.api_writes,
        "eventsPerRotation": single.events,
        "throughputRatio": round(together.throughput, 3),
        "resyncRatioToListWatch": ratio(keyturn.seconds, floor.seconds),
        "rssMiB10k": spread(keyturn.mebibytes)[0],
        "writesOnRestart10k": fleets.written_on_restart.total(),
        "vsCustomaryKopf": {
            "timeRatio": ratio(customary.seconds, keyturn.seconds),
            "rssRatio": ratio(customary.mebibytes, keyturn.mebibytes),
        },
        "immediateWriteRoundTrips": {
            "p50": round(immediate.quantile(0.5), 2),
            "p99": round(immediate.quantile(0.99), 2),
        },
        "writesAtRest10k": fleets.written_at_rest.total(),
        "dueTogether": {
            "rotations": together.rotations,
            "lost": together.lost,
            "twice": together.twice,
            "mostAtOnce": together.most,
            "mostAtOnceInANamespace": together.most_in_namespace,
        },
    }


def _show(console: Console, single: Measured, fleets: Fleets, results: Results) -> None:
    times = Table("seconds", "median", "least", "most")
    for name, seconds in (
        ("one rotation: Keyturn", single.keyturn),
        ("one rotation: straight script", single.script),
        ("start over the fleet: Keyturn", fleets.keyturn.seconds),
        ("start over the fleet: bare loop", fleets.floor.seconds),
        ("start over the fleet: customary operator", fleets.customary.seconds),
    ):
        times.add_row(name, *(f"{value:.3f}" for value in spread(seconds)))
    console.print(times)
    memory = Table("MiB of memory over the fleet", "median", "least", "most")
    for name, starts in (
        ("Keyturn", fleets.keyturn),
        ("bare loop", fleets.floor),
        ("customary operator", fleets.customary),
    ):
        memory.add_row(name, *(f"{value:.1f}" for value in spread(starts.mebibytes)))
    console.print(memory)
    for title, counts in (("written in one rotation", single.writes), ("read in one rotation", single.reads)):
        table = Table(title, "times")
        for name, count in sorted(Counter(counts[-1]).items()):
            table.add_row(name, str(count))
        console.print(table)
    goals = Table("result", "measured", "goal")
    for name, value in flat(results):
        colour = {True: "green", False: "red", None: "default"}[met(name, value)]
        goals.add_row(name, f"[{colour}]{value:g}[/]", str(GOALS.get(name, "")))
    console.print(goals)


if __name__ == "__main__":
    app(prog_name="python -m benchmarks")
