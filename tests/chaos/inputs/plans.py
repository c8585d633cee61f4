"""Plans: a cast with names of its own, and what is done to it, one input after the other. The seed decides it all."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from tests.chaos.inputs.cast import LONG_NAME, Cast, Facts, Names, cast
from tests.chaos.inputs.mutators import Edit, alike, edited, mutation
from tests.chaos.inputs.schema import spec_schema
from tests.chaos.inputs.semantic import ALL, SEMANTIC, Semantic

_KINDS: Final = ("RotationProvider", "RotationProvider", "ClusterRotationProvider")
_NAMES: Final = ("billing", "a", "0", "a.b-c.9", LONG_NAME)
_KEYS: Final = ("CLIENT_SECRET", "CLIENT_SECRET", "tls.crt", "-", "._-", "a" * 253)
_ROWS: Final = 3
_SHAPE: Final = Facts("ns", "https://keyturn.invalid", "projectId", "project-1", "credential", "client-1", "value")


@dataclass(frozen=True, slots=True)
class Input:
    """One thing that is sent: a row of the semantic table, or edits of one object that its schema has led to."""

    role: str
    edits: tuple[Edit, ...] = ()
    semantic: Semantic | None = None

    def __str__(self) -> str:
        return self.semantic.name if self.semantic else f"{self.role}: {'; '.join(map(str, self.edits))}"

    def applied(self, objects: Cast, names: Names, facts: Facts) -> Cast:
        """The objects as this input wants them."""
        if self.semantic is not None:
            return self.semantic.spoil(objects, names, facts)
        obj = objects[self.role]
        assert obj is not None
        return {**objects, self.role: edited(obj, self.edits)}


@dataclass(frozen=True, slots=True)
class Plan:
    """create, then each input and its revert, delete.

    hurried: nothing is waited for after a revert, so that the next input comes upon whatever the last has left.
    deleted_bad: the last input is not reverted.
    """

    number: int
    names: Names
    inputs: tuple[Input, ...]
    hurried: bool
    deleted_bad: bool

    def __str__(self) -> str:
        return f"plan {self.number}"


def plans(seed: int, total: int) -> Iterator[Plan]:
    """As many plans as it takes to send `total` inputs: each creation, and each change that follows."""
    table = list(SEMANTIC)
    random.Random(f"inputs/{seed}").shuffle(table)
    number = 0
    while total > 0:
        plan = _plan(seed, number, table)
        yield plan
        total -= 1 + len(plan.inputs)
        number += 1


def _plan(seed: int, number: int, table: list[Semantic]) -> Plan:
    rng = random.Random(f"inputs/{seed}/{number}")
    provider = ALL[number % len(ALL)]
    kind = rng.choice(_KINDS)
    account = f"account-{number}" if kind == "ClusterRotationProvider" else rng.choice(_NAMES)
    names = Names(provider, kind, rng.choice(_NAMES), account, rng.choice(_NAMES), rng.choice(_KEYS))
    # The table is gone through in order, so that every row is played before any is played twice.
    rows = [row for row in table if provider in row.providers]
    first = number // len(ALL) * _ROWS
    inputs = [Input("", semantic=rows[(first + turn) % len(rows)]) for turn in range(_ROWS)]
    inputs += [_generic(rng, names) for _ in range(rng.randint(2, 4))]
    rng.shuffle(inputs)
    return Plan(number, names, tuple(inputs), hurried=rng.random() < 0.2, deleted_bad=rng.random() < 0.3)


def _generic(rng: random.Random, names: Names) -> Input:
    role = rng.choice(("rotation", "rotation", "provider"))
    whole = cast(names, _SHAPE)[role]
    assert whole is not None
    schema = spec_schema(whole["kind"])
    if rng.random() < 1 / 8:
        return Input(role, tuple(alike(rng, schema, whole["spec"])))
    edits: list[Edit] = []
    for _ in range(rng.choice((1, 1, 1, 2))):
        edit = mutation(rng, schema, whole["spec"])
        edits.append(edit)
        whole = edited(whole, (edit,))
    return Input(role, tuple(edits))
