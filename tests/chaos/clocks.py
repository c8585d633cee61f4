"""Clocks that are wrong, or jump: the operator's, and the provider's."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final

from tests.chaos.bugs import PACKAGE
from tests.chaos.disturbances import Disturbance
from tests.e2e.scene import Scene

# Python imports a module of this name, where there is one, before anything else.
_SITE: Final = """\
import datetime, os, time

_file = os.path.join(os.path.dirname(__file__), "offset")
_time, _real = time.time, datetime.datetime


def _offset():
    with open(_file) as file:
        return float(file.read() or 0)


class _Kind(type(_real)):
    def __instancecheck__(cls, one):
        return isinstance(one, _real)

    def __subclasscheck__(cls, one):
        return issubclass(one, _real)


class datetime_(_real, metaclass=_Kind):
    @classmethod
    def now(cls, tz=None):
        return _real.fromtimestamp(_time() + _offset(), tz)


time.time = lambda: _time() + _offset()
datetime_.__name__ = datetime_.__qualname__ = "datetime"
datetime.datetime = datetime_
"""


def with_clock(folder: Path, code: Path | None) -> Path:
    """A copy of the package, in `folder`, that runs by a clock of its own; the file `offset` says how far it is off."""
    shutil.copytree(code or PACKAGE.parent, folder, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "sitecustomize.py").write_text(_SITE)
    set_clock(folder, 0)
    return folder


def set_clock(folder: Path, seconds: float) -> None:
    """Let the clock be so many seconds ahead."""
    fresh = folder / "offset.new"
    fresh.write_text(str(seconds))
    fresh.replace(folder / "offset")


def clock_folder(scene: Scene) -> Path:
    """Where the code of an operator with a clock of its own is."""
    return scene.log.with_suffix(".clock")


class OperatorClock(Disturbance):
    """The operator's clock is off by so many seconds; right again when it is over."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def started(self) -> None:
        set_clock(clock_folder(self.scene), self._seconds)
        self.acted()

    def over(self) -> None:
        set_clock(clock_folder(self.scene), 0)


class ProviderClock(Disturbance):
    """The provider's clock jumps, and stays so."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def started(self) -> None:
        self.scene.account.simulator.advance(self._seconds)
        self.acted()


class StrictClock(OperatorClock):
    """The operator's clock is off, and the provider's settings are such that it minds; until the clock is set."""

    def __init__(self, seconds: float, switches: dict[str, float]) -> None:
        super().__init__(seconds)
        self._switches = switches

    def started(self) -> None:
        for name, value in self._switches.items():
            setattr(self.scene.account.simulator.switches, name, value)
        super().started()
