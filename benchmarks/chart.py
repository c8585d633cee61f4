"""The results as a picture: how much of what each goal allows was used."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Final

from rich.bar import Bar
from rich.console import Console
from rich.table import Table

from benchmarks.results import GOALS, Results, flat

_WIDTH: Final = 40
_MOST: Final = 2.0
"""A bar ends at twice what is allowed."""


def draw(results: Results, path: Path, title: str) -> None:
    """Write an SVG with a bar for each result that has a goal; half of the width is the goal."""
    table = Table("result", "measured", "goal", f"used of what the goal allows: half of the bar is all, {title}")
    for name, value in flat(results):
        goal = GOALS.get(name)
        if goal is not None:
            used = min(goal.used(value), _MOST)
            colour = "green" if goal.met(value) else "red"
            bar = Bar(_MOST, 0, used, width=_WIDTH, color=colour, bgcolor="grey23")
            table.add_row(name, f"{value:g}", str(goal), bar)
    console = Console(record=True, width=130, file=io.StringIO())
    console.print(table)
    path.parent.mkdir(parents=True, exist_ok=True)
    console.save_svg(str(path), title="make bench")
