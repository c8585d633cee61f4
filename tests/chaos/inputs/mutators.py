"""Changes of one field, made from its schema: each mutator takes what is there and the schema, and gives other values.

The kinds of changes are those of Acto (SOSP'23): delete, empty, push, pop, increase, decrease, toggle, change to and
from every word of an enum, confuse the type, and go to each bound and one step beyond it.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

Path = tuple[str, ...]


class _Gone:
    """Stands for a field that is left out."""

    def __repr__(self) -> str:
        return "(gone)"


GONE: Final = _Gone()


@dataclass(frozen=True, slots=True)
class Edit:
    """Put a value in a place of an object, or take it away with GONE."""

    path: Path
    value: Any

    def __str__(self) -> str:
        text = repr(self.value)
        return f"{'.'.join(self.path)} = {text if len(text) <= 80 else f'{text[:60]}… ({len(text)} characters)'}"


def edited(obj: Mapping[str, Any], edits: tuple[Edit, ...]) -> dict[str, Any]:
    """A copy of the object with these edits; parents that are missing are made, those that are no objects replaced."""
    changed = copy.deepcopy(dict(obj))
    for edit in edits:
        node = changed
        for step in edit.path[:-1]:
            if not isinstance(node.get(step), dict):
                node[step] = {}
            node = node[step]
        if isinstance(edit.value, _Gone):
            node.pop(edit.path[-1], None)
        else:
            node[edit.path[-1]] = copy.deepcopy(edit.value)
    return changed


def places(schema: Mapping[str, Any], path: Path = ("spec",)) -> Iterator[tuple[Path, Mapping[str, Any]]]:
    """Every field below a schema, objects as well as what they hold; not what is within lists and maps."""
    for name, child in schema.get("properties", {}).items():
        yield (*path, name), child
        yield from places(child, (*path, name))


def mutation(rng: random.Random, schema: Mapping[str, Any], spec: Mapping[str, Any]) -> Edit:
    """One edit of one field of `spec`, whose schema is given; parents that are missing are filled in as required."""
    path, child = rng.choice(list(places(schema)))
    value: Any = rng.choice(list(_values(rng, child, _at(spec, path))))
    return planted(schema, spec, path, value)


def alike(rng: random.Random, schema: Mapping[str, Any], spec: Mapping[str, Any]) -> list[Edit]:
    """Edits of several fields of one form, from few values: rules that compare fields are met at their very edge."""
    groups: dict[str, list[Path]] = {}
    for path, child in places(schema):
        if "pattern" in child:
            groups.setdefault(child["pattern"], []).append(path)
    pattern = rng.choice([pattern for pattern, paths in groups.items() if len(paths) > 1])
    known = [text for path in groups[pattern] if isinstance(text := _at(spec, path), str)]
    few = rng.sample(EDGES, 3) if pattern.startswith("^([0-9]{") else [*known, "a"]
    paths = rng.sample(groups[pattern], rng.randint(2, min(4, len(groups[pattern]))))
    edits: list[Edit] = []
    whole: dict[str, Any] = {"spec": dict(spec)}
    for path in paths:
        edits.append(planted(schema, whole["spec"], path, rng.choice(few)))
        whole = edited(whole, (edits[-1],))
    return edits


def planted(schema: Mapping[str, Any], spec: Mapping[str, Any], path: Path, value: Any) -> Edit:
    """The edit that puts a value in its place; optional objects above it that are not there come with it."""
    for depth in range(2, len(path)):
        if _at(spec, path[:depth]) is None:
            inner: Any = specimen(_child(schema, path[:depth]))
            return Edit(path[:depth], edited(inner, (Edit(path[depth:], value),)))
    return Edit(path, value)


def _at(spec: Mapping[str, Any], path: Path) -> Any:
    node: Any = spec
    for step in path[1:]:
        node = node.get(step) if isinstance(node, Mapping) else None
    return node


def _child(schema: Mapping[str, Any], path: Path) -> Mapping[str, Any]:
    for step in path[1:]:
        schema = schema["properties"][step]
    return schema


def specimen(schema: Mapping[str, Any]) -> Any:
    """A small value that the schema accepts, though perhaps nobody else."""
    if "default" in schema and schema["default"] not in ({}, []):
        return schema["default"]
    if "enum" in schema:
        return schema["enum"][0]
    match schema["type"]:
        case "object":
            return {name: specimen(schema["properties"][name]) for name in schema.get("required", [])}
        case "array":
            return [specimen(schema["items"])] * schema.get("minItems", 0)
        case "string":
            return _TEXT_OF.get(schema.get("pattern", "")[:8], "a")
        case kind:
            return {"integer": 1, "boolean": False}[kind]


_TEXT_OF: Final[Mapping[str, str]] = {
    "^https?:": "https://keyturn.invalid",
    "^([0-9]{": "1m",
    "^[-0-9A-": "0 2 * * *",
    "^[12][0-": "2027-01-07T08:00:00Z",
}
_CONFUSED: Final[tuple[Any, ...]] = ("text", 5, -1, 1.5, True, None, [], {}, [1, "a"], {"a": {"b": 1}}, "5", "true")
_LONG: Final = 253
TEXTS: Final[tuple[str, ...]] = (
    *("", " ", "a b", "A_B", "-a", "a-", ".", "..", "../../etc/passwd", "a/b", "a\n", "a\x00b", "\x1b[31m", "größe"),
    *("名前", "\u202egnp.exe", "\u200b", "e\u0301", "🔑", "\ud83d", "%s%n", "${HOME}", "{{ .Values.x }}", "<script>"),
    *("'; DROP TABLE x;--", "null", "true", "0", "a" * _LONG, "a" * (_LONG + 1), "a" * 5000),
)
DURATIONS: Final[tuple[str, ...]] = (
    *("0s", "1ms", "1s", "10s", "59m60s", "24h", "168h", "168h1ms", "99999h", "99999h99999h99999h99999h", "-5m", "+5m"),
    *("5", "1d", "1.5h", "\u0661m", "1h1h1h1h1h", "123456s", "1 h", "h", "1H", "PT1H", "9ms", "9s999ms", "1h0m0s0ms"),
)
EDGES: Final = (
    "0s",
    "1ms",
    "99ms",
    "100ms",
    "1s",
    "10s",
    "60s",
    "1m",
    "2m",
    "10m",
    "15m",
    "1h",
    "24h",
    "168h",
    "168h1ms",
)
"""Bounds and defaults of durations in the schemas, and beyond."""
NUMBERS: Final[tuple[Any, ...]] = (-1, 0, 1, 2, 5.0, 1.5, 2**31, 2**63 - 1, 2**63, 2**64, -(2**63) - 1, 1e300, "5")


def _values(rng: random.Random, schema: Mapping[str, Any], known: Any) -> Iterator[Any]:
    """What the mutators make of a field."""
    yield GONE
    yield rng.choice(_CONFUSED)
    yield from _BY_TYPE[schema["type"]](rng, schema, known)


def _texts(rng: random.Random, schema: Mapping[str, Any], known: Any) -> Iterator[Any]:
    if "enum" in schema:
        yield from (rng.choice(schema["enum"]), rng.choice(schema["enum"]).lower(), "Unknown")
        return
    if schema.get("pattern", "").startswith("^([0-9]{"):
        yield from rng.sample(DURATIONS, 3)
        return
    yield from rng.sample(TEXTS, 2)
    limit = min(schema.get("maxLength", _LONG), 100_000)
    yield from ("a" * limit, "a" * (limit + 1))
    if isinstance(known, str):
        yield from (known + "x", known[:-1], known.upper(), f" {known}", f"{known}\n")


def _numbers(rng: random.Random, schema: Mapping[str, Any], known: Any) -> Iterator[Any]:
    yield rng.choice(NUMBERS)
    low, high = schema.get("minimum", 0), schema.get("maximum", 2**31)
    yield from (low - 1, low, high, high + 1)
    if isinstance(known, int):
        yield from (known + 1, known - 1)


def _booleans(rng: random.Random, schema: Mapping[str, Any], known: Any) -> Iterator[Any]:
    yield from (not known, "true", "yes", 0)


def _lists(rng: random.Random, schema: Mapping[str, Any], known: Any) -> Iterator[Any]:
    item, most = specimen(schema["items"]), schema.get("maxItems", 10)
    held = known if isinstance(known, list) else []
    yield from ([], [*held, item], [*held, item, item], held[:-1], [None], [_mutant(rng, schema["items"])])
    yield from ([item] * most, [item] * (most + 1), {"0": item})


def _objects(rng: random.Random, schema: Mapping[str, Any], known: Any) -> Iterator[Any]:
    held = known if isinstance(known, dict) else specimen(schema)
    yield from ({}, {**held, "notYetInvented": {"a": 1}})
    if "additionalProperties" in schema:
        item = specimen(schema["additionalProperties"])
        most = schema.get("maxProperties", 10)
        yield from ({rng.choice(TEXTS): item}, {"a": _mutant(rng, schema["additionalProperties"])})
        yield {f"label-{number}": item for number in range(most + 1)}


def _mutant(rng: random.Random, schema: Mapping[str, Any]) -> Any:
    value = rng.choice(list(_values(rng, schema, specimen(schema))))
    if schema["type"] == "object" and schema.get("properties") and rng.random() < 0.7:
        name = rng.choice(sorted(schema["properties"]))
        inner = _mutant(rng, schema["properties"][name])
        return edited(specimen(schema), (Edit((name,), inner),))
    return None if isinstance(value, _Gone) else value


_BY_TYPE: Final[Mapping[str, Callable[[random.Random, Mapping[str, Any], Any], Iterator[Any]]]] = {
    "string": _texts,
    "integer": _numbers,
    "boolean": _booleans,
    "array": _lists,
    "object": _objects,
}
