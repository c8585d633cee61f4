"""How the demo looks: renderables made of what was observed. Nothing here waits or prints."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Final

from rich import box
from rich.console import Group, JustifyMethod, RenderableType
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from keyturn.api.rotation import Phase
from sandbox.demo.acts import ACTS, Scene
from sandbox.demo.observed import Observed, PodSeen

# Beside each other a rotation needs so many columns and the whole so many rows; else they are shown as strips.
# One that has a story needs more columns.
COLUMN: Final = 38
WIDE: Final = 78
TALL: Final = 24
EVENTS_SHOWN: Final = 4
_PODS_SHOWN: Final = 6
_POD_COLUMNS: Final[tuple[tuple[int, JustifyMethod], ...]] = (
    (14, "left"),
    (5, "left"),
    (5, "right"),
    (7, "right"),
    (16, "left"),
)
_PHASES_AT_MOST: Final = max(len(scene.phases) for act in ACTS for scene in act.scenes)
_BARS: Final = "▁▂▃▄▅▆▇█"
_STATES: Final = {"Ready": "green", "Rolling": "yellow", "Pending": "dim", "Waiting": "yellow"}
_POD_STATES: Final = {"Ready": "green", "Terminating": "dim", "CrashLoopBackOff": "bold red"}
_EVENT: Final = {False: "cyan", True: "red"}
_VALUES: Final = {"old": "cyan", "new": "magenta"}

Playing = Sequence[tuple[Scene, Observed]]


def stage(playing: Playing, width: int, height: int) -> RenderableType:
    """The live picture: columns side by side where there is room for them, strips one below the other elsewhere."""
    each = width // len(playing)
    told = any(scene.story for scene, _ in playing)
    if each < (WIDE if told else COLUMN) or height < TALL:
        return Group(*(strip(scene, observed, width) for scene, observed in playing))
    draw = page if told else column
    return beside([draw(scene, observed, each) for scene, observed in playing])


def beside(parts: Sequence[RenderableType]) -> Table:
    """Parts of the same width, side by side."""
    table = Table.grid(expand=True)
    for _ in parts:
        table.add_column(ratio=1)
    table.add_row(*parts)
    return table


def column(scene: Scene, observed: Observed, width: int) -> Panel:
    """All of one rotation."""
    promise, calls, events = Text(scene.promise, "italic"), _calls(observed, width), _events(observed)
    inside = Group(promise, "", _phases(scene, observed), "", _targets(scene, observed), "", calls, "", events)
    return _framed(scene, observed, inside)


def page(scene: Scene, observed: Observed, width: int) -> Panel:
    """All of one rotation that has a story, pod by pod."""
    lines = textwrap.wrap(scene.story.get(observed.phase, scene.promise), width - 4)
    story = Text("\n".join([*lines, ""][:2]), "italic", no_wrap=True, overflow="ellipsis")
    middle = Table.grid(padding=(0, 2))
    middle.add_row(_phases(scene, observed), _pods(observed))
    calls, events = _calls(observed, width), _messages(observed, width - 13)
    return _framed(scene, observed, Group(story, "", middle, "", _targets(scene, observed), calls, "", events))


def strip(scene: Scene, observed: Observed, width: int) -> Panel:
    """The same in few rows."""
    newest = Text(scene.promise, "italic", no_wrap=True, overflow="ellipsis")
    if observed.events:
        event = observed.events[-1]
        newest = Text(event.reason, "red" if event.warning else "cyan", no_wrap=True, overflow="ellipsis")
        newest.append(f" {event.message}", "dim")
    told = [Text(scene.story[observed.phase], "italic")] if observed.phase in scene.story else []
    return _framed(scene, observed, Group(*told, _targets(scene, observed), _calls(observed, width), newest))


def _framed(scene: Scene, observed: Observed, inside: RenderableType) -> Panel:
    seconds = f"{observed.seconds:.1f} s" if observed.applied is not None else ""
    return Panel(
        inside,
        title=f"[bold]{scene.namespace}/{observed.name}[/] · {scene.semantics}",
        title_align="left",
        subtitle=f"{_colored(scene, observed.phase)} {seconds}",
        subtitle_align="right",
        border_style="cyan",
        box=box.ROUNDED,
    )


def _colored(scene: Scene, phase: Phase) -> str:
    color = {scene.end: "green", Phase.IDLE: "dim"}.get(phase, "yellow" if phase in scene.phases else "red")
    return f"[{color}]{phase}[/]"


def _phases(scene: Scene, observed: Observed) -> Table:
    """All phases of a rotation that goes as it is meant to, and those seen of one that does not."""
    table = Table.grid(padding=(0, 1))
    table.add_column(width=1)
    table.add_column(width=12, no_wrap=True)
    table.add_column(width=8, justify="right", no_wrap=True)
    forward, seen = scene.phases, dict(observed.durations())
    reached = max((forward.index(phase) for phase in [*seen, observed.phase] if phase in forward), default=-1)
    unforeseen = [phase for phase in [*seen, observed.phase] if phase not in forward and phase is not Phase.IDLE]
    for phase in [*forward, *dict.fromkeys(unforeseen)]:
        passed = phase in forward and forward.index(phase) < reached
        if phase is observed.phase and phase is not scene.end:
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


def _targets(scene: Scene, observed: Observed) -> RenderableType:
    """The workloads, and how many of their pods run on the value that they are brought to."""
    targets = observed.progress()
    if not targets:
        return Text("nothing is being restarted yet", "dim")
    table = Table.grid(padding=(0, 1))
    table.add_column(no_wrap=True, overflow="ellipsis")
    table.add_column(width=8)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True, overflow="ellipsis")
    for target in targets:
        bar = ProgressBar(
            total=max(target.desired, 1), completed=target.updated, complete_style="green", finished_style="green"
        )
        state = Text(target.state, _STATES.get(target.state, ""))
        state.append(f" ({target.value} value)" if scene.story else "", "dim")
        table.add_row(target.name, bar, f"{target.updated}/{target.desired}", state)
    return table


def _pods(observed: Observed) -> Table:
    """The pods that there are, as many as there is room for, and in one row all that have gone."""
    table = Table.grid(padding=(0, 1))
    for width, justify in _POD_COLUMNS:
        table.add_column(min_width=width, max_width=width, justify=justify, no_wrap=True, overflow="ellipsis")
    table.add_row("pod", "value", "calls", "refused", "", style="dim")
    seen = observed.pods_seen()
    for pod in [pod for pod in seen if pod.state is not None][-_PODS_SHOWN:]:
        deployment, _, suffix = pod.name.rsplit("-", 2)
        state = Text(str(pod.state), _POD_STATES.get(str(pod.state), "yellow"))
        table.add_row(f"{deployment}-…-{suffix}", Text(pod.value, _VALUES.get(pod.value, "")), *_counted([pod]), state)
    for _ in range(_PODS_SHOWN + 1 - table.row_count):
        table.add_row()
    gone = [pod for pod in seen if pod.state is None]
    if gone:
        table.add_row(Text(f"{len(gone)} more", "dim"), "", *_counted(gone), Text("ended", "dim"))
    else:
        table.add_row()
    return table


def _counted(pods: Sequence[PodSeen]) -> tuple[Text, Text]:
    """The calls of some pods, and those of them that were refused."""
    calls, refused = sum(pod.accepted + pod.refused for pod in pods), sum(pod.refused for pod in pods)
    return Text(str(calls), "green" if calls else "dim"), Text(str(refused), "bold red" if refused else "green")


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
    table = _event_rows()
    for event in observed.events[-EVENTS_SHOWN:]:
        table.add_row(event.time, Text(event.reason, _EVENT[event.warning]))
    for _ in range(EVENTS_SHOWN - table.row_count):
        table.add_row()
    return table


def _messages(observed: Observed, width: int) -> Table:
    """The same in as many rows with what the Events say, the newest in two of them. width: for the message."""
    table = _event_rows()
    shown, rows = observed.events[1 - EVENTS_SHOWN :], 0
    for number, event in enumerate(shown, 1):
        room = 2 if number == len(shown) else 1
        parts = textwrap.wrap(f"{event.reason}: {event.message}", width, max_lines=room, placeholder=" …")
        rows += len(parts)
        told = Text("\n".join(parts), "dim")
        told.highlight_words([event.reason], _EVENT[event.warning])
        table.add_row(event.time, told)
    for _ in range(EVENTS_SHOWN - rows):
        table.add_row()
    return table


def _event_rows() -> Table:
    table = Table.grid(padding=(0, 1), expand=True)
    table.add_column(width=8, style="dim")
    table.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
    return table
