"""Three judges of one spec must agree: the CRD's schema, its CEL rules, and the operator's own validation.

API servers before 1.25 enforce no CEL, and the operator trusts none of them, so each has to come to the same verdict.
"""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from keyturn.api.provider import ProviderKind
from keyturn.api.rules import Invalid
from tests.api.samples import BASES, BLOCKS, validate, with_block
from tests.chaos.inputs.mutators import Edit, alike, edited, mutation
from tests.chaos.inputs.schema import Broken, by_rules, by_schema, spec_schema

_NAMED_BY_USERS: Final = ".matchLabels"


@dataclass
class Agreement:
    """How many specs were judged, how many of them by whom refused, and on which the judges differ."""

    samples: int = 0
    refused_by_schema: int = 0
    refused_by_rules: int = 0
    accepted: int = 0
    violations: list[tuple[str, str]] = field(default_factory=list)


def judge(seed: int, samples: int) -> Agreement:
    """Let all judges look at this many generated specs; the same seed makes the same ones."""
    found = Agreement()
    for number in range(samples):
        kind, edits, spec = sample(seed, number)
        name = f"{seed}/{number} {kind}: {'; '.join(map(str, edits))}"
        found.samples += 1
        schema = by_schema(kind, spec)
        rules = [] if schema else by_rules(kind, spec)
        found.refused_by_schema += bool(schema)
        found.refused_by_rules += bool(rules)
        found.accepted += not schema and not rules
        found.violations += [(name, detail) for detail in differences(kind, spec, schema, rules)]
    return found


def sample(seed: int, number: int) -> tuple[str, tuple[Edit, ...], dict[str, Any]]:
    """The spec of this number: its kind, what was done to a good one, and what came of it."""
    rng = random.Random(f"agreement/{seed}/{number}")
    kind = rng.choice(sorted(BASES))
    blocks = [None, *BLOCKS] if kind in set(ProviderKind) else [None]
    block = rng.choice(blocks)
    whole: dict[str, Any] = {"spec": copy.deepcopy(BASES[kind]) if block is None else with_block(kind, block)}
    schema = spec_schema(kind)
    edits = alike(rng, schema, whole["spec"]) if rng.random() < 1 / 3 else []
    whole = edited(whole, tuple(edits))
    for _ in range(0 if edits else rng.choice((1, 1, 1, 2, 2, 3, 4))):
        edit = mutation(rng, schema, whole["spec"])
        edits.append(edit)
        whole = edited(whole, (edit,))
    return kind, tuple(edits), as_stored(whole["spec"])


def as_stored(spec: dict[str, Any]) -> dict[str, Any]:
    """As an API server would keep it: text that no UTF-8 can hold is replaced, and 5.0 is 5."""
    text = json.dumps(spec, ensure_ascii=False).encode("utf-8", "surrogatepass").decode("utf-8", "replace")
    stored: dict[str, Any] = json.loads(text, parse_float=_number)
    return stored


def _number(text: str) -> float:
    return int(float(text)) if float(text).is_integer() else float(text)


def differences(kind: str, spec: object, schema: list[Broken], rules: list[Broken]) -> Iterator[str]:
    """Where the operator's answer is not that of the other judges; it must not fall over either."""
    answer = validate(kind, spec)
    said = answer.violations if isinstance(answer, Invalid) else ()
    if schema:
        fields, others = {one.field for one in said}, {_without_names(one.field) for one in schema}
        if not said:
            yield f"the operator accepts what the schema refuses: {schema}"
        elif not fields & others:
            yield f"the operator complains of {sorted(fields)}, the schema of {sorted(others)}"
        return
    words, wanted = sorted(f"{one.field} {one.message}" for one in said), sorted(one.message for one in rules)
    if words != wanted:
        yield f"the operator says {words}, the CEL rules {wanted}"


def _without_names(field: str) -> str:
    """A field as the operator names it: what users call the entries of a map is never repeated."""
    before, found, _ = field.partition(_NAMED_BY_USERS)
    return before + found
