"""The report of a demo: counted facts, and what is wrong with them if anything is."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel


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


class RotationFact(_Fact):
    """One rotation. `restarts` counts the pod templates that a workload has had after its first one."""

    name: str
    provider: str
    semantics: str
    result: str
    seconds: float
    phases: list[PhaseFact]
    calls: CallFact
    old_value_refused: bool
    restarts: dict[str, int]


class DemoReport(_Fact):
    """What `build/demo-report.json` holds."""

    kubernetes: str
    keyturn: str
    rotations: list[RotationFact]

    def to_json(self) -> str:
        """The file's text."""
        return self.model_dump_json(by_alias=True, indent=2) + "\n"


def faults(rotation: RotationFact, failed: int = 0, problems: Sequence[str] = ()) -> list[str]:
    """Why this rotation is no success; empty when it is one.

    failed: calls that ended without a verdict. problems: pods whose calls could not be counted.
    """
    found = list(problems)
    if failed:
        found.append(f"{failed} calls failed without an answer to whether the secret is accepted")
    if rotation.result != "Completed":
        found.append(f"it ended {rotation.result}, not Completed")
    if rotation.calls.refused:
        found.append(f"{rotation.calls.refused} calls were refused")
    if not rotation.calls.accepted:
        found.append("no call was accepted, so nothing was proved")
    if not rotation.old_value_refused:
        found.append("the provider still accepts the old value")
    return found
