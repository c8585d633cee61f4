"""Rotations to which something happens while they are held in a phase, many at a time under one operator."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import pytest

from sandbox.stage import Operator, Stage, wait_until
from sandbox.traffic.report import PodTraffic
from tests.e2e.holds import held
from tests.e2e.scene import Scene

Change = Callable[[Scene], object]

_AT_ONCE: Final = 8
_PAUSE: Final = 0.2
_MINUTE: Final = 60.0


def nothing(scene: Scene) -> None:
    """Do nothing."""


@dataclass(frozen=True)
class Case:
    """Something that happens while a rotation is held in a phase, and the end that it must have.

    act: what somebody does. says: waits for what Keyturn says of it, while the phase is still held. mend: what the
    message asks for. end: judges, once nothing holds the rotation any more. before: prepares the scene, in which there
    is a Deployment `web`. spec: of the rotation. provider: `stytch`, `janrain` or `snaptrade`.
    """

    event: str
    phase: str
    act: Change
    end: Change
    says: Change = nothing
    mend: Change = nothing
    before: Change = nothing
    spec: dict[str, Any] = field(default_factory=dict)
    provider: str = "stytch"

    @property
    def name(self) -> str:
        place = "" if self.provider == "stytch" else f"{self.provider}: "
        return f"{place}{self.event} in {self.phase}"


def each(cases: Sequence[Case]) -> Any:
    """One test for each case."""
    return pytest.mark.parametrize("case", cases, ids=lambda case: case.name)


@dataclass
class OneOfMany(Scene):
    """A scene that shares its operator and the machine with others: it asks less often, and quotes only its own log."""

    def wait(self, condition: Callable[[], Any], what: str, seconds: float = _MINUTE) -> Any:
        try:
            return wait_until(condition, what, seconds=seconds, pause=_PAUSE)
        except TimeoutError as error:
            lines = [line for line in self.log.read_text().splitlines() if self.namespace in line]
            raise AssertionError("\n".join([str(error), str(self.get(self.rotation_path)), *lines[-40:]])) from None

    def traffic(self) -> list[PodTraffic]:
        """As for every scene, without a look at the pods of the others."""

        async def taken() -> list[PodTraffic]:
            known = self.stage.pods.meter.pods
            return [pod.model_copy(deep=True) for pod in known if pod.namespace == self.namespace]

        return self.stage.do(taken())


class Operators:
    """The operator that all cases share, and, where there is to be a crash, the next one.

    crash: as many cases as this are held when it is killed, and have seen something happen when the next one starts.
    """

    def __init__(self, stage: Stage, name: str, crash: int = 0) -> None:
        self.log = stage.control_plane.directory / f"{name}.log"
        self._stage = stage
        self._running = [self._start()]
        self._held = threading.Barrier(crash, self._running[0].kill) if crash else None
        self._happened = threading.Barrier(crash, lambda: self._running.append(self._start())) if crash else None

    def _start(self) -> Operator:
        return self._stage.operator("--log-format", "text", "--debug", log=self.log)

    @contextmanager
    def down(self) -> Iterator[None]:
        """Do something while none runs, where there is to be a crash."""
        if self._held is not None:
            self._held.wait(_MINUTE)
        yield
        if self._happened is not None:
            self._happened.wait(_MINUTE)

    def give_up(self) -> None:
        """One case has failed: let the others not wait for it."""
        for barrier in (self._held, self._happened):
            if barrier is not None:
                barrier.abort()

    def kill(self) -> None:
        for operator in self._running:
            operator.kill()


@contextmanager
def all_played(
    stage: Stage, request: pytest.FixtureRequest, cases: Sequence[Case], *, crash: bool = False
) -> Iterator[dict[str, Future[None]]]:
    """The cases that pytest has selected, in work at the same time under one operator: their ends by name.

    crash: whether kill -9 ends that operator while all are held, so that what happens is found by the next one.
    """
    asked = {item.name for item in request.session.items if item.nodeid.startswith(request.node.nodeid)}
    chosen = [case for case in cases if any(f"[{case.name}]" in name for name in asked)]
    operators = Operators(stage, request.node.name.rpartition("/")[2], len(chosen) if crash else 0)
    pool = ThreadPoolExecutor(len(chosen) if crash else _AT_ONCE, "case")
    try:
        yield {case.name: pool.submit(_play, stage, operators, case) for case in chosen}
    finally:
        pool.shutdown(cancel_futures=True)
        operators.kill()


def _play(stage: Stage, operators: Operators, case: Case) -> None:
    try:
        with OneOfMany.in_new_namespace(stage, case.name, case.provider) as scene:
            scene.log = operators.log
            scene.put_deployment(replicas=1)
            case.before(scene)
            with held(scene, case.phase, case.spec) as release:
                with operators.down():
                    case.act(scene)
                case.says(scene)
                case.mend(scene)
                release()
                case.end(scene)
    except BaseException:
        operators.give_up()
        raise
