"""How the demo looks: renderables made of what was observed. Nothing here waits or prints."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from rich import box
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from keyturn.api.rotation import Phase
from sandbox.demo.acts import Act
from sandbox.demo.facts import RotationFact, faults
from sandbox.demo.observed import FORWARD, Observed

# Narrower than this, explanations are left out.
ROOMY: Final = 84
EVENTS_SHOWN: Final = 5
_BARS: Final = "▁▂▃▄▅▆▇█"
_ABOUT: Final = {
    Phase.STARTING: "the provider issues a second secret; the first stays valid",
    Phase.VERIFYING: "the new secret is tried at the provider",
    Phase.DISTRIBUTING: "the new secret is written where the pods read it",
    Phase.ROLLING_OUT: "the pods are replaced, a few at a time",
    Phase.SOAKING: "everything runs on the new secret; the old one is kept a while",
    Phase.FINALIZING: "the provider drops the old secret, last of all",
    Phase.COMPLETED: "only the new secret is accepted",
}
_STATES: Final = {"Ready": "green", "Rolling": "yellow", "Pending": "dim", "Waiting": "yellow"}


def panel(act: Act, observed: Observed, width: int) -> Panel:
    """The live picture of one rotation."""
    roomy = width >= ROOMY
    parts: list[RenderableType] = [_phases(observed, roomy), "", _targets(observed, roomy), "", _calls(observed, width)]
    if observed.events:
        parts += ["", _events(observed)]
    seconds = f"{observed.seconds:.1f} s" if observed.applied is not None else ""
    return Panel(
        Group(*parts),
        title=f"[bold]{act.namespace}/{observed.name}[/] · {act.provider} · {act.semantics}",
        title_align="left",
        subtitle=f"{_colored(observed.phase)} {seconds}",
        subtitle_align="right",
        border_style="cyan",
        box=box.ROUNDED,
    )


def _colored(phase: Phase) -> str:
    color = {Phase.COMPLETED: "green", Phase.IDLE: "dim"}.get(phase, "yellow" if phase in FORWARD else "red")
    return f"[{color}]{phase}[/]"


def _phases(observed: Observed, roomy: bool) -> Table:
    """All phases of a rotation that goes well, and those seen of one that does not."""
    table = Table.grid(padding=(0, 1))
    table.add_column(width=1)
    table.add_column(width=12, no_wrap=True)
    table.add_column(width=8, justify="right", no_wrap=True)
    if roomy:
        table.add_column(no_wrap=True, overflow="ellipsis", style="dim")
    seen = dict(observed.durations())
    reached = max((FORWARD.index(phase) for phase in [*seen, observed.phase] if phase in FORWARD), default=-1)
    unforeseen = [phase for phase in [*seen, observed.phase] if phase not in FORWARD and phase is not Phase.IDLE]
    for phase in [*FORWARD, *dict.fromkeys(unforeseen)]:
        passed = phase in FORWARD and FORWARD.index(phase) < reached
        if phase is observed.phase and phase is not Phase.COMPLETED:
            mark, style = "●", "bold yellow"
        elif passed or phase is observed.phase:
            mark, style = "✔", "green"
        else:
            mark, style = "·", "dim"
        took = f"{seen[phase]:.1f} s" if phase in seen else "at once" if passed else ""
        row = [Text(mark, style), Text(phase, style), Text(took, "" if phase in seen else "dim")]
        table.add_row(*row, *([Text(_ABOUT.get(phase, ""))] if roomy else []))
    return table


def _targets(observed: Observed, roomy: bool) -> RenderableType:
    """The workloads, and how many of their pods run on the new value."""
    if not observed.targets:
        return Text("no workload is being restarted yet", "dim")
    table = Table.grid(padding=(0, 1))
    table.add_column(no_wrap=True)
    table.add_column(width=20 if roomy else 10)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True, overflow="ellipsis")
    for target in observed.targets:
        updated, desired = target.get("updated", 0), target.get("desired", 0)
        bar = ProgressBar(total=max(desired, 1), completed=updated, complete_style="green", finished_style="green")
        words = Text(target["state"], _STATES.get(target["state"], ""))
        if roomy and target.get("message"):
            words.append(f": {target['message']}", "dim")
        table.add_row(f"{target['kind']}/{target['name']}", bar, f"{updated}/{desired}", words)
    return table


def _calls(observed: Observed, width: int) -> Table:
    """Accepted and refused calls of the pods, second by second."""
    table = Table.grid(padding=(0, 1))
    shown = max(10, min(40, width - 50))
    table.add_column(no_wrap=True)
    table.add_column(width=shown, no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    total = observed.calls()
    newest = observed.per_second[-1] if observed.per_second else (0, 0)
    highest = max((max(second) for second in observed.per_second), default=0)
    for column, (name, count, color) in enumerate(
        (("calls accepted", total.accepted, "green"), ("calls refused", total.refused, "red"))
    ):
        history = [second[column] for second in observed.per_second][-shown:]
        style = color if count else "dim"
        table.add_row(
            name,
            Text(_sparkline(history, highest), style),
            Text(f"{newest[column]}/s", style),
            Text(f"{count} in all", "bold " + ("green" if column == 0 or not count else "red")),
        )
    return table


def _sparkline(values: Sequence[int], highest: int) -> str:
    return "".join(" " if not value else _BARS[round(value / highest * (len(_BARS) - 1))] for value in values)


def _events(observed: Observed) -> Table:
    shown = observed.events[-EVENTS_SHOWN:]
    table = Table.grid(padding=(0, 1), expand=True)
    table.add_column(width=8, style="dim")
    table.add_column(width=max(len(event.reason) for event in shown), no_wrap=True)
    table.add_column(no_wrap=True, overflow="ellipsis", style="dim", ratio=1)
    for event in shown:
        table.add_row(event.time, Text(event.reason, "red" if event.warning else "cyan"), event.message)
    return table


def outcome(rotations: Sequence[RotationFact]) -> Table:
    """The table at the end: a column for each rotation."""
    table = Table(box=box.SIMPLE_HEAD, title="What was counted", title_style="bold", title_justify="left")
    table.add_column("")
    for rotation in rotations:
        table.add_column(f"{rotation.name}\n{rotation.provider} · {rotation.semantics}", justify="right")
    phases = list(dict.fromkeys(phase.phase for rotation in rotations for phase in rotation.phases))
    for name in phases:
        spent = [sum(one.seconds for one in rotation.phases if one.phase == name) for rotation in rotations]
        table.add_row(name, *(f"{seconds:.2f} s" if seconds else "-" for seconds in spent))
    table.add_section()
    good = [not faults(rotation) for rotation in rotations]
    table.add_row(
        "result",
        *(
            Text(f"{rotation.result} in {rotation.seconds:.2f} s", "bold green" if fine else "bold red")
            for rotation, fine in zip(rotations, good, strict=True)
        ),
    )
    table.add_row("calls accepted", *(str(rotation.calls.accepted) for rotation in rotations))
    table.add_row(
        "calls refused",
        *(Text(str(one.calls.refused), "bold red" if one.calls.refused else "bold green") for one in rotations),
    )
    table.add_row(
        "restarts", *("\n".join(f"{name}: {count}" for name, count in one.restarts.items()) for one in rotations)
    )
    table.add_row(
        "old value refused afterwards",
        *(
            Text("yes", "bold green") if rotation.old_value_refused else Text("no", "bold red")
            for rotation in rotations
        ),
    )
    return table
