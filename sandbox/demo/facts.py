"""The report of a demo: counted facts, and what is wrong with them if anything is."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel

from sandbox.traffic.report import PodTraffic


class _Fact(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)


class PhaseFact(_Fact):
    """A phase that the status showed, and for how long. One that passes at once is not written, so not seen."""

    phase: str
    seconds: float


class CallFact(_Fact):
    """The pods' calls to the provider, from the first pod until after the end of the rotation."""

    accepted: int
    refused: int


class PodWindow(_Fact):
    """The refused calls of one pod. Times are seconds after the provider's switch; restarted: when the pod ended."""

    pod: str
    refused: int
    first: float
    last: float
    restarted: float | None


class OverlapFact(_Fact):
    """What was seen across the end of the overlap, for which the provider's clock was moved forward.

    accepted_within: whether the provider still took the old value before that. calls_after: of the pods, since then.
    """

    hours: float
    accepted_within: bool
    calls_after: CallFact


class PutBackFact(_Fact):
    """What was seen after a rotation that was to be cancelled. reason: why it was, in Keyturn's words.

    secret_restored: whether the Secret holds the old value again. The other two are what the provider says in the end.
    """

    reason: str
    secret_restored: bool
    old_value_accepted: bool
    new_value_refused: bool


class RotationFact(_Fact):
    """One rotation. `restarts` counts the pod templates that a workload has had after its first one.

    left_behind: what only a rotation that runs should need. Of Immediate rotations only: window_seconds, from the
    provider's switch to the last refused call; and window, pod by pod. Of Timed ones only: overlap. Of those that were
    to be cancelled only: put_back.
    """

    name: str
    provider: str
    semantics: str
    result: str
    seconds: float
    phases: list[PhaseFact]
    calls: CallFact
    old_value_refused: bool
    restarts: dict[str, int]
    left_behind: list[str]
    window_seconds: float | None = None
    window: list[PodWindow] | None = None
    overlap: OverlapFact | None = None
    put_back: PutBackFact | None = None


class DemoReport(_Fact):
    """What `build/demo-report.json` holds."""

    kubernetes: str
    keyturn: str
    rotations: list[RotationFact]

    def to_json(self) -> str:
        """The file's text."""
        return self.model_dump_json(by_alias=True, indent=2, exclude_none=True) + "\n"


def window(pods: Iterable[PodTraffic], switched: float) -> list[PodWindow]:
    """The refused calls of each pod that has any, the pod that was replaced first at the top."""
    found = []
    for pod in pods:
        refused = pod.calls.refused
        if refused.first is not None and refused.last is not None:
            ended = None if pod.stopped is None else round(pod.stopped - switched, 3)
            first, last = round(refused.first - switched, 3), round(refused.last - switched, 3)
            found.append(PodWindow(pod=pod.pod, refused=refused.count, first=first, last=last, restarted=ended))
    return sorted(found, key=lambda one: one.last)


def faults(rotation: RotationFact, failed: int = 0, problems: Sequence[str] = ()) -> list[str]:
    """Why this rotation is no success; empty when it is one.

    failed: calls that ended without a verdict. problems: pods whose calls could not be counted.
    """
    found = list(problems)
    if failed:
        found.append(f"{failed} calls failed without an answer to whether the secret is accepted")
    expected, restarts = ("Completed", 1) if rotation.put_back is None else ("Cancelled", 2)
    if rotation.result != expected:
        found.append(f"it ended {rotation.result}, not {expected}")
    if rotation.window is not None:
        found += [fault for pod in rotation.window for fault in _outside(pod)]
    elif rotation.calls.refused:
        found.append(f"{rotation.calls.refused} calls were refused")
    if not rotation.calls.accepted:
        found.append("no call was accepted, so nothing was proved")
    for name, count in rotation.restarts.items():
        if count != restarts:
            found.append(f"{name}: {count} restarts, not {restarts}")
    found += [f"left behind: {thing}" for thing in rotation.left_behind]
    return found + (_not_dropped(rotation) if rotation.put_back is None else _not_put_back(rotation.put_back))


def _not_dropped(rotation: RotationFact) -> list[str]:
    """What is wrong with the end of the old value."""
    found = []
    if rotation.overlap is not None and not rotation.overlap.accepted_within:
        found.append("the provider refused the old value before the end of the overlap")
    if rotation.overlap is not None and not rotation.overlap.calls_after.accepted:
        found.append("no call was accepted after the end of the overlap")
    if not rotation.old_value_refused:
        found.append("the provider still accepts the old value")
    return found


def _not_put_back(seen: PutBackFact) -> list[str]:
    """What is not as it was before."""
    promised = {
        "the Secret does not hold the old value again": seen.secret_restored,
        "the provider no longer accepts the old value": seen.old_value_accepted,
        "the provider still accepts the new value": seen.new_value_refused,
    }
    return [fault for fault, kept in promised.items() if not kept]


def _outside(pod: PodWindow) -> list[str]:
    """What is wrong with a pod's refused calls, which must lie between the provider's switch and its restart."""
    if pod.first < 0:
        return [f"pod {pod.pod}: a call was refused {-pod.first:.2f} s before the provider's switch"]
    if pod.restarted is None:
        return [f"pod {pod.pod}: {pod.refused} calls were refused, and it was not restarted"]
    if pod.last > pod.restarted:
        return [f"pod {pod.pod}: a call was refused {pod.last - pod.restarted:.2f} s after its restart"]
    return []
