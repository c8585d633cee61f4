"""The two ways to show a demo: a live picture in a terminal, plain lines everywhere else."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.syntax import Syntax
from rich.text import Text

from sandbox.demo.acts import Scene
from sandbox.demo.facts import RotationFact
from sandbox.demo.observed import Observed, Told
from sandbox.demo.outcome import outcome, sentences
from sandbox.demo.recording import COLUMNS, ROWS, Recording
from sandbox.demo.screen import COLUMN, Playing, beside, stage


class Show(Protocol):
    """Where the demo appears."""

    def step(self, text: str) -> AbstractContextManager[None]:
        """Something that takes a while; said with its time when it is done."""
        ...

    def manifests(self, texts: Sequence[str]) -> None:
        """YAML that is about to be applied."""
        ...

    def watching(self, playing: Playing) -> AbstractContextManager[Callable[[], None]]:
        """The rotations as they go; call the value several times a second."""
        ...

    def result(self, rotations: Sequence[RotationFact]) -> None:
        """The table at the end."""
        ...

    def say(self, text: str, style: str = "") -> None:
        """A line."""
        ...


def show_for(console: Console, recording: Recording | None) -> Show:
    """Live where a person looks at a terminal, plain otherwise."""
    live = console.is_terminal and not console.is_dumb_terminal and not os.environ.get("CI")
    return LiveShow(console, recording) if live or recording else PlainShow(console)


class LiveShow:
    """A picture that changes in place."""

    def __init__(self, console: Console, recording: Recording | None) -> None:
        self._console = console
        self._recording = recording
        self._printed: list[RenderableType] = [Text("$ make demo", "bold")]

    @contextmanager
    def step(self, text: str) -> Iterator[None]:
        started = time.monotonic()
        with self._console.status(Text(text)):
            yield
        self._print(Text.assemble(("✔ ", "green"), text, (f"  {time.monotonic() - started:.1f} s", "dim")))

    def manifests(self, texts: Sequence[str]) -> None:
        shown = [Syntax(text, "yaml", theme="ansi_dark", background_color="default", word_wrap=True) for text in texts]
        together = beside(shown)
        wide = self._console.width // len(shown) >= COLUMN
        self._console.print("", together if wide else Group(*shown), "", sep="\n")
        self._printed += ["", together, ""]

    @contextmanager
    def watching(self, playing: Playing) -> Iterator[Callable[[], None]]:
        with Live(console=self._console, auto_refresh=False) as live:
            # The recording begins here: nobody wants to watch a control plane start twice.
            def tick(*, always: bool = False) -> None:
                live.update(stage(playing, self._console.width, self._console.height), refresh=True)
                if self._recording:
                    self._recording.take(Group(*self._printed, stage(playing, COLUMNS, ROWS)), always=always)

            yield tick
            tick(always=True)
        self._printed.append(stage(playing, COLUMNS, ROWS))

    def result(self, rotations: Sequence[RotationFact]) -> None:
        self._print(outcome(rotations))
        for line in sentences(rotations):
            self.say(line)
        if self._recording:
            self._recording.take(Group(*self._printed), always=True)

    def say(self, text: str, style: str = "") -> None:
        self._print(Text(text, style))

    def _print(self, what: RenderableType) -> None:
        self._console.print(what)
        self._printed.append(what)


class PlainShow:
    """One line for everything that changes."""

    def __init__(self, console: Console) -> None:
        self._console = console

    @contextmanager
    def step(self, text: str) -> Iterator[None]:
        started = time.monotonic()
        yield
        self.say(f"{text}: {time.monotonic() - started:.1f} s")

    def manifests(self, texts: Sequence[str]) -> None:
        for text in texts:
            self.say("\n" + text + "\n")

    @contextmanager
    def watching(self, playing: Playing) -> Iterator[Callable[[], None]]:
        tellers = [_Teller(scene, observed, self.say) for scene, observed in playing]

        def tick() -> None:
            for teller in tellers:
                teller.tell()

        yield tick
        tick()

    def result(self, rotations: Sequence[RotationFact]) -> None:
        self._console.print(outcome(rotations))
        for line in sentences(rotations):
            self.say(line)

    def say(self, text: str, style: str = "") -> None:
        self._console.print(Text(text), soft_wrap=True)


class _Teller:
    """Says what is new about a rotation."""

    def __init__(self, scene: Scene, observed: Observed, say: Callable[[str], None]) -> None:
        self._story = scene.story
        self._observed = observed
        self._told = ""
        self._say = say
        self._phases = 0
        self._events: list[Told] = []
        self._targets: dict[str, str] = {}
        self._seconds = 0

    def tell(self) -> None:
        seen = self._observed
        for passage in seen.passages[self._phases :]:
            self._phases += 1
            self._line(f"phase {passage.phase}", passage.entered - (seen.applied or passage.entered))
        story = self._story.get(seen.phase, self._told)
        if story != self._told:
            self._told = story
            self._line(story)
        for event in seen.events[len(self._events) :]:
            self._events.append(event)
            self._line(f"event {event.reason}: {event.message}")
        for target in seen.progress():
            said = f"{target.updated}/{target.desired} pods on the {target.value} value, {target.state}"
            if self._targets.get(target.name) != said:
                self._targets[target.name] = said
                self._line(f"{target.name}: {said}")
        for accepted, refused in seen.per_second[self._seconds :]:
            self._seconds += 1
            self._line(f"calls in the last second: {accepted} accepted, {refused} refused")

    def _line(self, text: str, seconds: float | None = None) -> None:
        began = self._observed.applied or time.monotonic()
        at = time.monotonic() - began if seconds is None else seconds
        self._say(f"{self._observed.namespace}/{self._observed.name} {at:5.1f} s  {text}")
