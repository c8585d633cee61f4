"""The play: set the stage, apply what a user would apply, watch, count, clear up."""

from __future__ import annotations

import asyncio
import base64
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

import httpx

import keyturn
from keyturn.api.rotation import Phase
from keyturn.api.semantics import Overlap
from sandbox.assets import provide
from sandbox.controlplane import ControlPlane
from sandbox.demo.acts import Act, Client
from sandbox.demo.facts import CallFact, DemoReport, OverlapFact, PhaseFact, RotationFact, faults, window
from sandbox.demo.observed import Observed, Tally
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


@dataclass(frozen=True)
class _Part:
    """An act with what it became on the stage."""

    act: Act
    client: Client
    observed: Observed
    rotation: dict[str, Any]
    yaml: str
    workloads: list[dict[str, Any]]

    @property
    def name(self) -> str:
        return f"{self.act.namespace}/{self.observed.name}"


@dataclass(frozen=True)
class _OverlapEnd:
    """Whether the provider took the old value right before the end of its overlap, and the calls made until then."""

    accepted_within: bool
    before: Tally


def play(acts: Sequence[Act], show: Show) -> Played:
    """Play all acts at the same time and return what was counted. Everything is cleared away, also on errors.

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
        parts = [_prepare(stage, act) for act in acts]
        stack.enter_context(_eyes_on([part.observed for part in parts], stage))
        with show.step(f"starting the operator as ServiceAccount {NAMESPACE}/{SERVICE_ACCOUNT}"):
            wait_until(lambda: _healthy(operator), "the operator is ready")
        with show.step("waiting until all pods call the provider with their secret, over and over"):
            for part in parts:
                _wait_for_traffic(part)
        overlaps = _rotate(stage, parts, show)
        facts = [_count(stage, part, overlaps.get(part.name)) for part in parts]
        show.result(facts)
        found = _faults(parts, facts)
        for fault in found:
            show.say(fault, "bold red")
        if any(part.observed.phase is not Phase.COMPLETED for part in parts):
            show.say(f"The operator's log ends with:\n{operator.tail()}")
        with show.step("stopping and removing everything"):
            operator.stop()
            stack.close()
    return Played(DemoReport(kubernetes=assets.version, keyturn=keyturn.__version__, rotations=facts), found)


def _prepare(stage: Stage, act: Act) -> _Part:
    """Everything but the rotation."""
    client = act.open(stage, act.namespace)
    rotation, text, others = act.documents(client)
    stage.apply([{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": act.namespace}}])
    stage.apply(_secret(act.namespace, name, values) for name, values in client.secrets.items())
    stage.apply(others)
    observed = Observed(act.namespace, rotation["metadata"]["name"], stage.pods.meter)
    return _Part(act, client, observed, rotation, text, [item for item in others if item["kind"] == "Deployment"])


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


def _wait_for_traffic(part: _Part) -> None:
    """Until every replica has made a call that was accepted."""
    replicas: int = sum(workload["spec"]["replicas"] for workload in part.workloads)

    def calling() -> bool:
        if problems := part.observed.problems():
            raise DemoError("; ".join(problems))
        return part.observed.calls().accepted >= replicas and part.observed.calls().pods >= replicas

    wait_until(calling, "all pods call the provider")


def _rotate(stage: Stage, parts: Sequence[_Part], show: Show) -> dict[str, _OverlapEnd]:
    """Apply the rotations, and watch them until they have ended and a while longer, across the end of overlaps too."""
    show.manifests([part.yaml for part in parts])
    with show.watching([(part.act, part.observed) for part in parts]) as tick:
        clock = _Clock([part.observed for part in parts], tick)
        clock.run(_BEFORE)
        for part in parts:
            part.observed.applied = time.monotonic()
            stage.apply([part.rotation])
        clock.run(_PATIENCE, until=lambda: all(part.observed.over for part in parts))
        clock.run(_AFTERWARDS)
        overlaps = {part.name: _end_overlap(stage, part, show) for part in parts if part.act.overlap is not None}
        clock.run(_AFTERWARDS)
    return overlaps


def _end_overlap(stage: Stage, part: _Part, show: Show) -> _OverlapEnd:
    """Use the old value once more, then move the provider's clock to where its overlap is over."""
    assert part.act.overlap is not None
    accepted = stage.do(_verdict(part.client)) is True
    before = part.observed.calls()
    part.client.simulator.advance((part.act.overlap + _PAST_THE_END).total_seconds())
    hours = part.act.overlap.total_seconds() / 3600
    said = f"still accepted, for {hours:g} h" if accepted else f"not accepted, although its {hours:g} h have just begun"
    show.say(f"{part.name}: the old value is {said}; the provider's clock is moved past them now")
    return _OverlapEnd(accepted, before)


def _faults(parts: Sequence[_Part], facts: Sequence[RotationFact]) -> list[str]:
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


def _count(stage: Stage, part: _Part, end: _OverlapEnd | None) -> RotationFact:
    """The facts, asked of those who know them."""
    observed, client = part.observed, part.client
    seconds, calls, switched = observed.seconds, observed.calls(), client.switched()
    immediate = part.act.capabilities.overlap is Overlap.NONE
    refusals = window(observed.pods(), switched) if immediate and switched is not None else None
    return RotationFact(
        name=observed.name,
        provider=part.act.provider,
        semantics=part.act.semantics,
        result=observed.phase,
        seconds=round(seconds, 3),
        phases=[PhaseFact(phase=phase, seconds=round(spent, 3)) for phase, spent in observed.durations()],
        calls=CallFact(accepted=calls.accepted, refused=calls.refused),
        old_value_refused=stage.do(_verdict(client)) is False,
        restarts={f"Deployment/{name}": count for name, count in _restarts(stage, part).items()},
        window_seconds=None if refusals is None else max((pod.last for pod in refusals), default=0.0),
        window=refusals,
        overlap=_overlap(part, end, calls) if end is not None else None,
    )


def _overlap(part: _Part, end: _OverlapEnd, calls: Tally) -> OverlapFact:
    assert part.act.overlap is not None
    after = CallFact(accepted=calls.accepted - end.before.accepted, refused=calls.refused - end.before.refused)
    hours = part.act.overlap.total_seconds() / 3600
    return OverlapFact(hours=hours, accepted_within=end.accepted_within, calls_after=after)


async def _verdict(client: Client) -> bool | None:
    """Whether the provider accepts a call with the value that was current before; None when its answer is unclear."""
    async with client.probe() as probe:
        return await probe.call(client.client_id, client.first_value)


def _restarts(stage: Stage, part: _Part) -> dict[str, int]:
    """How many pod templates each Deployment has had after its first one: each has left a ReplicaSet."""
    path = f"/apis/apps/v1/namespaces/{part.act.namespace}/replicasets"
    owners = Counter(
        owner["name"]
        for item in stage.api.http.get(path).raise_for_status().json()["items"]
        for owner in item["metadata"].get("ownerReferences") or []
    )
    return {name: owners[name] - 1 for name in (workload["metadata"]["name"] for workload in part.workloads)}


def _secret(namespace: str, name: str, values: dict[str, str]) -> dict[str, Any]:
    data = {key: base64.b64encode(value.encode()).decode() for key, value in values.items()}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": namespace}, "data": data}


def _healthy(operator: Operator) -> bool:
    if not operator.alive():
        raise DemoError(f"the operator ended. Its log ends with:\n{operator.tail()}")
    try:
        answer = httpx.get(f"http://{operator.health}/healthz", timeout=2, trust_env=False)
    except httpx.TransportError:
        return False
    return answer.status_code == httpx.codes.OK
