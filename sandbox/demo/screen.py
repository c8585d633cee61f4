"""How the demo looks: renderables made of what was observed. Nothing here waits or prints."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final

from rich import box
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from keyturn.api.rotation import Phase
from sandbox.demo.acts import ACTS, Act
from sandbox.demo.facts import PodWindow, RotationFact, faults
from sandbox.demo.observed import Observed

# Beside each other a rotation needs so many columns and the whole so many rows; else they are shown as strips.
COLUMN: Final = 38
TALL: Final = 24
EVENTS_SHOWN: Final = 4
_PHASES_AT_MOST: Final = max(len(act.phases) for act in ACTS)
_BARS: Final = "▁▂▃▄▅▆▇█"
_STATES: Final = {"Ready": "green", "Rolling": "yellow", "Pending": "dim", "Waiting": "yellow"}

Playing = Sequence[tuple[Act, Observed]]


def stage(playing: Playing, width: int, height: int) -> RenderableType:
    """The live picture: columns side by side where there is room for them, strips one below the other elsewhere."""
    each = width // len(playing)
    if each < COLUMN or height < TALL:
        return Group(*(strip(act, observed, width) for act, observed in playing))
    return beside([column(act, observed, each) for act, observed in playing])


def beside(parts: Sequence[RenderableType]) -> Table:
    """Parts of the same width, side by side."""
    table = Table.grid(expand=True)
    for _ in parts:
        table.add_column(ratio=1)
    table.add_row(*parts)
    return table


def column(act: Act, observed: Observed, width: int) -> Panel:
    """All of one rotation."""
    calls, events = _calls(observed, width), _events(observed)
    return _framed(
        act,
        observed,
        Group(Text(act.promise, "italic"), "", _phases(act, observed), "", _targets(observed), "", calls, "", events),
    )


def strip(act: Act, observed: Observed, width: int) -> Panel:
    """The same in few rows."""
    newest = Text(act.promise, "italic", no_wrap=True, overflow="ellipsis")
    if observed.events:
        event = observed.events[-1]
        newest = Text(event.reason, "red" if event.warning else "cyan", no_wrap=True, overflow="ellipsis")
        newest.append(f" {event.message}", "dim")
    return _framed(act, observed, Group(_targets(observed), _calls(observed, width), newest))


def _framed(act: Act, observed: Observed, inside: RenderableType) -> Panel:
    seconds = f"{observed.seconds:.1f} s" if observed.applied is not None else ""
    return Panel(
        inside,
        title=f"[bold]{act.namespace}/{observed.name}[/] · {act.semantics}",
        title_align="left",
        subtitle=f"{_colored(act, observed.phase)} {seconds}",
        subtitle_align="right",
        border_style="cyan",
        box=box.ROUNDED,
    )


def _colored(act: Act, phase: Phase) -> str:
    color = {Phase.COMPLETED: "green", Phase.IDLE: "dim"}.get(phase, "yellow" if phase in act.phases else "red")
    return f"[{color}]{phase}[/]"


def _phases(act: Act, observed: Observed) -> Table:
    """All phases of a rotation that goes well, and those seen of one that does not."""
    table = Table.grid(padding=(0, 1))
    table.add_column(width=1)
    table.add_column(width=12, no_wrap=True)
    table.add_column(width=8, justify="right", no_wrap=True)
    forward, seen = act.phases, dict(observed.durations())
    reached = max((forward.index(phase) for phase in [*seen, observed.phase] if phase in forward), default=-1)
    unforeseen = [phase for phase in [*seen, observed.phase] if phase not in forward and phase is not Phase.IDLE]
    for phase in [*forward, *dict.fromkeys(unforeseen)]:
        passed = phase in forward and forward.index(phase) < reached
        if phase is observed.phase and phase is not Phase.COMPLETED:
            mark, style = "●", "bold yellow"
        elif passed or phase is observed.phase:
            mark, style = "✔", "green"
        else:
            mark, style = "·", "dim"
        took = f"{seen[phase]:.1f} s" if phase in seen else "at once" if passed else ""
        table.add_row(Text(mark, style), Text(phase, style), Text(took, "" if phase in seen else "dim"))
    for _ in range(_PHASES_AT_MOST - table.row_count):
        table.add_row()
    return table


def _targets(observed: Observed) -> RenderableType:
    """The workloads, and how many of their pods run on the new value."""
    if not observed.targets:
        return Text("nothing is being restarted yet", "dim")
    table = Table.grid(padding=(0, 1))
    table.add_column(no_wrap=True, overflow="ellipsis")
    table.add_column(width=8)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True, overflow="ellipsis")
    for target in observed.targets:
        desired = target.get("desired", 0)
        updated, said = (desired, "Ready") if observed.rolled_out else (target.get("updated", 0), target["state"])
        bar = ProgressBar(total=max(desired, 1), completed=updated, complete_style="green", finished_style="green")
        state = Text(said, _STATES.get(said, ""))
        table.add_row(f"{target['kind']}/{target['name']}", bar, f"{updated}/{desired}", state)
    return table


def _calls(observed: Observed, width: int) -> Table:
    """Accepted and refused calls of the pods, second by second."""
    table = Table.grid(padding=(0, 1))
    shown = max(6, min(40, width - 26))
    table.add_column(no_wrap=True)
    table.add_column(width=shown, no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    total = observed.calls()
    highest = max((max(second) for second in observed.per_second), default=0)
    counts = (("accepted", total.accepted, "green"), ("refused", total.refused, "red"))
    for place, (name, count, color) in enumerate(counts):
        history = [second[place] for second in observed.per_second][-shown:]
        style = color if count else "dim"
        table.add_row(name, Text(_sparkline(history, highest), style), Text(f"{count} calls", f"bold {style}"))
    return table


def _sparkline(values: Sequence[int], highest: int) -> str:
    return "".join(" " if not value else _BARS[round(value / highest * (len(_BARS) - 1))] for value in values)


def _events(observed: Observed) -> Table:
    """The newest Events, in as many rows as there is room for."""
    table = Table.grid(padding=(0, 1))
    table.add_column(width=8, style="dim")
    table.add_column(no_wrap=True, overflow="ellipsis")
    for event in observed.events[-EVENTS_SHOWN:]:
        table.add_row(event.time, Text(event.reason, "red" if event.warning else "cyan"))
    for _ in range(EVENTS_SHOWN - table.row_count):
        table.add_row()
    return table


def outcome(rotations: Sequence[RotationFact]) -> Table:
    """The table at the end: a column for each rotation."""
    table = Table(box=box.SIMPLE_HEAD, title="What was counted", title_style="bold", title_justify="left")
    table.add_column("")
    for rotation in rotations:
        table.add_column(f"{rotation.name}\n{rotation.provider}\n{rotation.semantics}", justify="right")
    for phase in Phase:
        spent = [sum(one.seconds for one in rotation.phases if one.phase == phase) for rotation in rotations]
        if any(spent):
            table.add_row(phase, *(f"{seconds:.2f} s" if seconds else "-" for seconds in spent))
    table.add_section()
    for name, tell in _ROWS.items():
        table.add_row(name, *(tell(rotation) for rotation in rotations))
    return table


def windows(rotations: Sequence[RotationFact]) -> Iterator[str]:
    """In words, pod by pod, which calls were refused by a provider that drops the old value at once."""
    for rotation in rotations:
        if rotation.window is not None and rotation.window_seconds is not None:
            yield f"{rotation.provider}/{rotation.name}: in seconds after the provider's switch, pod by pod"
            yield from (f"  {_told(pod)}" for pod in rotation.window)


def _told(pod: PodWindow) -> str:
    ended = "still runs" if pod.restarted is None else f"restarted at {pod.restarted:.2f}"
    return f"{pod.pod}: {pod.refused} calls refused from {pod.first:.2f} to {pod.last:.2f}, {ended}"


def _result(rotation: RotationFact) -> Text:
    return Text(rotation.result, "bold red" if faults(rotation) else "bold green")


def _refused(rotation: RotationFact) -> Text:
    """Red only where none was to be refused."""
    expected = "bold yellow" if rotation.window is not None else "bold red"
    return Text(str(rotation.calls.refused), expected if rotation.calls.refused else "bold green")


def _refused_during(rotation: RotationFact) -> str:
    return "-" if rotation.window_seconds is None else f"{rotation.window_seconds:.2f} s"


def _overlap(rotation: RotationFact) -> str:
    if rotation.overlap is None:
        return "-"
    after = rotation.overlap.calls_after
    return f"{after.accepted}, {after.refused} refused"


def _old_value(rotation: RotationFact) -> Text:
    if not rotation.old_value_refused:
        return Text("no", "bold red")
    return Text("yes" if rotation.overlap is None else f"yes, after {rotation.overlap.hours:g} h", "bold green")


_ROWS: Final[dict[str, Callable[[RotationFact], RenderableType]]] = {
    "result": _result,
    "in": lambda rotation: f"{rotation.seconds:.2f} s",
    "calls accepted": lambda rotation: str(rotation.calls.accepted),
    "calls refused": _refused,
    "refused for": _refused_during,
    "after the overlap": _overlap,
    "restarts": lambda rotation: "\n".join(f"{name}: {count}" for name, count in rotation.restarts.items()),
    "old value refused": _old_value,
}
