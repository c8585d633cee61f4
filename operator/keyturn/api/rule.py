"""What a rule about a whole spec is: one object, for API servers and for the operator."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Generic, TypeVar

from keyturn.api.base import KubeModel, parse_duration

Spec = TypeVar("Spec", bound=KubeModel)


@dataclass(frozen=True, slots=True)
class Violation:
    """One thing wrong with an object: the field as its author wrote it, and what to do. Never the value."""

    field: str
    message: str

    def __str__(self) -> str:
        return f"{self.field}: {self.message}"


@dataclass(frozen=True, slots=True)
class Rule(Generic[Spec]):
    """One rule about a whole spec.

    field: the field to correct, by its path within the spec; empty for the spec itself.
    demand: what it must be, read after the field's name.
    cel: the rule for API servers; `self` is the spec.
    holds: the same rule for the operator.
    """

    field: str
    demand: str
    cel: str
    holds: Callable[[Spec], bool]

    def violation(self) -> Violation:
        """What the operator says when the rule is broken."""
        return Violation(f"spec.{self.field}" if self.field else "spec", self.demand)

    def to_schema(self) -> dict[str, str]:
        """The entry of `x-kubernetes-validations`; its message names the field for servers that ignore fieldPath."""
        broken = self.violation()
        place = {"fieldPath": f".{self.field}"} if self.field else {}
        return {"rule": self.cel, "message": f"{broken.field} {broken.message}", **place}


def between(field: str, low: str, high: str, value: Callable[[Spec], timedelta]) -> Rule[Spec]:
    """The rule that a duration lies within bounds."""
    least, most = parse_duration(low), parse_duration(high)
    return Rule(
        field,
        f"must be between {low} and {high}",
        f"duration(self.{field}) >= duration('{low}') && duration(self.{field}) <= duration('{high}')",
        lambda spec: least <= value(spec) <= most,
    )
