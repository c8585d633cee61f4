"""The play: set the stage, apply what a user would apply, watch, count, clear up."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

import httpx

import keyturn
from sandbox.assets import provide
from sandbox.controlplane import ControlPlane
from sandbox.demo.acts import Act, Scene
from sandbox.demo.counting import OverlapEnd, Part, count, verdict
from sandbox.demo.facts import DemoReport, RotationFact, faults
from sandbox.demo.observed import Observed
from sandbox.demo.shows import Show
from sandbox.kubelet import Behaviour
from sandbox.kubelet.api import API
from sandbox.stage import NAMESPACE, SERVICE_ACCOUNT, Operator, Stage, wait_until

# Slow enough to be seen.
_PODS: Final = Behaviour(start_after=0.5, ready_after=0.8, terminate_after=0.5)
_CALLS_PER_SECOND: Final = 6.0
_PATIENCE: Final = 60.0
_BEFORE: Final = 2.0
_AFTERWARDS: Final = 2.0
_FRAME: Final = 0.15
_PAST_THE_END: Final = timedelta(minutes=1)


@dataclass(frozen=True)
class Played:
    """What was counted, and what is wrong with it: nothing, if all is as promised."""

    report: DemoReport
    faults: list[str]


class DemoError(Exception):
    """The demo could not be played to its end; the message says why."""


def play(acts: Sequence[Act], show: Show) -> Played:
    """Play one act after the other and return what was counted. Everything is cleared away, also on errors.

    Raises DemoError, AssetsError, ControlPlaneError, ApplyError, OperatorError, or TimeoutError naming what did not
    happen.
    """
    assets = provide()
    with ExitStack() as stack:
        with show.step(f"starting Kubernetes {assets.version}: etcd, API server, controllers"):
            control_plane = stack.enter_context(ControlPlane.start(assets))
            stage = stack.enter_context(Stage(control_plane, _PODS, _CALLS_PER_SECOND))
        with show.step("installing Keyturn's CRDs and RBAC"):
            stage.install()
        operator = stage.operator("--log-format", "text")
        prepared = [[_prepare(stage, scene) for scene in act.scenes] for act in acts]
        parts = [part for ours in prepared for part in ours]
        stack.enter_context(_eyes_on([part.observed for part in parts], stage))
        with show.step(f"starting the operator as ServiceAccount {NAMESPACE}/{SERVICE_ACCOUNT}"):
            wait_until(lambda: _healthy(operator), "the operator is ready")
        with show.step("waiting until all pods call the provider with their secret, over and over"):
            for part in parts:
                _wait_for_traffic(part)
        facts: list[RotationFact] = []
        for act, ours in zip(acts, prepared, strict=True):
            show.say(f"\n{act.title}", "bold")
            overlaps = _rotate(stage, ours, show)
            facts += [count(stage, part, overlaps.get(part.name)) for part in ours]
        show.result(facts)
        found = _faults(parts, facts)
        for fault in found:
            show.say(fault, "bold red")
        if any(part.observed.phase is not part.scene.end for part in parts):
            show.say(f"The operator's log ends with:\n{operator.tail()}")
        with show.step("stopping and removing everything"):
            operator.stop()
            stack.close()
    return Played(DemoReport(kubernetes=assets.version, keyturn=keyturn.__version__, rotations=facts), found)


def _prepare(stage: Stage, scene: Scene) -> Part:
    """Everything but the rotation."""
    client = scene.open(stage, scene.namespace)
    rotation, text, others = scene.documents(client)
    stage.apply([{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": scene.namespace}}])
    stage.apply(_secret(scene.namespace, name, values) for name, values in client.secrets.items())
    stage.apply(others)
    observed = Observed(scene.namespace, rotation["metadata"]["name"], client.secret, stage.pods.meter)
    return Part(scene, client, observed, rotation, text, [item for item in others if item["kind"] == "Deployment"])


@contextmanager
def _eyes_on(seen: Sequence[Observed], stage: Stage) -> Iterator[None]:
    """Watch until the context ends; what ended a watch before that is raised then."""

    async def begin() -> list[asyncio.Task[None]]:
        await api.__aenter__()
        return [task for observed in seen for task in observed.follow(api)]

    async def end() -> None:
        for task in tasks:
            task.cancel()
        ends = await asyncio.gather(*tasks, return_exceptions=True)
        await api.__aexit__(None, None, None)
        for error in ends:
            if isinstance(error, Exception):
                raise error

    api = API(stage.control_plane.endpoint)
    tasks = stage.do(begin())
    try:
        yield
    finally:
        stage.do(end())


def _wait_for_traffic(part: Part) -> None:
    """Until every replica has made a call that was accepted."""
    replicas: int = sum(workload["spec"]["replicas"] for workload in part.workloads)

    def calling() -> bool:
        if problems := part.observed.problems():
            raise DemoError("; ".join(problems))
        return part.observed.calls().accepted >= replicas and part.observed.calls().pods >= replicas

    wait_until(calling, "all pods call the provider")


def _rotate(stage: Stage, parts: Sequence[Part], show: Show) -> dict[str, OverlapEnd]:
    """Apply the rotations, and watch them until they have ended and a while longer, across the end of overlaps too."""
    show.manifests([part.yaml for part in parts])
    with show.watching([(part.scene, part.observed) for part in parts]) as tick:
        clock = _Clock([part.observed for part in parts], tick)
        clock.run(_BEFORE)
        for part in parts:
            part.observed.applied = time.monotonic()
            stage.apply([part.rotation])
        clock.run(_PATIENCE, until=lambda: all(part.observed.over for part in parts))
        clock.run(_AFTERWARDS)
        overlaps = {part.name: _end_overlap(stage, part, show) for part in parts if part.scene.overlap is not None}
        if overlaps:
            clock.run(_AFTERWARDS)
    return overlaps


def _end_overlap(stage: Stage, part: Part, show: Show) -> OverlapEnd:
    """Use the old value once more, then move the provider's clock to where its overlap is over."""
    assert part.scene.overlap is not None
    accepted = stage.do(verdict(part.client, part.client.first_value)) is True
    before = part.observed.calls()
    part.client.simulator.advance((part.scene.overlap + _PAST_THE_END).total_seconds())
    hours = part.scene.overlap.total_seconds() / 3600
    said = f"still accepted, for {hours:g} h" if accepted else f"not accepted, although its {hours:g} h have just begun"
    show.say(f"{part.name}: the old value is {said}; the provider's clock is moved past them now")
    return OverlapEnd(accepted, before)


def _faults(parts: Sequence[Part], facts: Sequence[RotationFact]) -> list[str]:
    return [
        f"{part.name}: {fault}"
        for part, fact in zip(parts, facts, strict=True)
        for fault in faults(fact, part.observed.calls().failed, part.observed.problems())
    ]


class _Clock:
    """Shows a frame several times a second, and counts calls by the second."""

    def __init__(self, seen: Sequence[Observed], tick: Callable[[], None]) -> None:
        self._seen = seen
        self._tick = tick
        self._tallies = [observed.calls() for observed in seen]
        self._second = time.monotonic() + 1

    def run(self, seconds: float, until: Callable[[], bool] = lambda: False) -> None:
        """Go on for so long, or until the condition holds."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and not until():
            if time.monotonic() >= self._second:
                self._second += 1
                pairs = zip(self._seen, self._tallies, strict=True)
                self._tallies = [observed.sample(before) for observed, before in pairs]
            self._tick()
            time.sleep(_FRAME)


def _secret(namespace: str, name: str, values: dict[str, str]) -> dict[str, Any]:
    data = {key: base64.b64encode(value.encode()).decode() for key, value in values.items()}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": namespace}, "data": data}


def _healthy(operator: Operator) -> bool:
    if not operator.alive():
        raise DemoError(f"the operator ended. Its log ends with:\n{operator.tail()}")
    try:
        answer = httpx.get(f"http://{operator.health}/readyz", timeout=2, trust_env=False)
    except httpx.TransportError:
        return False
    return answer.status_code == httpx.codes.OK
