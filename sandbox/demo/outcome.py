"""What the demo says at its end: a table of what was counted, and in words what the table has no room for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final

from rich import box
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from keyturn.api.rotation import Phase
from sandbox.demo.facts import PodWindow, RotationFact, faults


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


def sentences(rotations: Sequence[RotationFact]) -> Iterator[str]:
    """In words, pod by pod, which calls were refused by a provider that drops the old value at once; and why a

    rotation was cancelled.
    """
    for rotation in rotations:
        if rotation.window is not None and rotation.window_seconds is not None:
            yield f"{rotation.provider}/{rotation.name}: in seconds after the provider's switch, pod by pod"
            yield from (f"  {_told(pod)}" for pod in rotation.window)
        if rotation.put_back is not None:
            yield f"{rotation.provider}/{rotation.name}: {rotation.put_back.reason}"
            if not faults(rotation):
                yield f"  nothing broke: all {rotation.calls.accepted} calls were accepted, on the way there and back"


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
    if rotation.put_back is not None:
        return Text("no, in force", "bold green") if rotation.put_back.old_value_accepted else Text("yes", "bold red")
    if not rotation.old_value_refused:
        return Text("no", "bold red")
    return Text("yes" if rotation.overlap is None else f"yes, after {rotation.overlap.hours:g} h", "bold green")


def _new_value(rotation: RotationFact) -> Text:
    if rotation.put_back is None:
        return Text("-")
    return Text("yes", "bold green") if rotation.put_back.new_value_refused else Text("no", "bold red")


_ROWS: Final[dict[str, Callable[[RotationFact], RenderableType]]] = {
    "result": _result,
    "in": lambda rotation: f"{rotation.seconds:.2f} s",
    "calls accepted": lambda rotation: str(rotation.calls.accepted),
    "calls refused": _refused,
    "refused for": _refused_during,
    "after the overlap": _overlap,
    "restarts": lambda rotation: "\n".join(
        f"{name.rpartition('/')[2]}: {count}" for name, count in rotation.restarts.items()
    ),
    "old value refused": _old_value,
    "new value refused": _new_value,
}
