"""The shipped CRDs as judges of a spec: their structural schema as API servers read it, and their CEL rules."""

from __future__ import annotations

import base64
import binascii
import functools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, Final

import celpy
import yaml
from celpy.adapter import json_to_cel

from tests.api.samples import complete, without_nulls

_CRDS: Final = Path(__file__).parents[3] / "crds"
_GO_PATTERN_END: Final = re.compile(r"(?<!\\)\$")


@functools.cache
def definitions() -> Mapping[str, dict[str, Any]]:
    """The committed CRDs by kind."""
    found = (yaml.safe_load(path.read_text("utf-8")) for path in sorted(_CRDS.glob("keyturn.dev_*.yaml")))
    return {crd["spec"]["names"]["kind"]: crd for crd in found}


def plural(kind: str) -> str:
    return str(definitions()[kind]["spec"]["names"]["plural"])


def spec_schema(kind: str) -> dict[str, Any]:
    """The schema of `spec`, with the CEL rules."""
    version = definitions()[kind]["spec"]["versions"][0]
    schema: dict[str, Any] = version["schema"]["openAPIV3Schema"]["properties"]["spec"]
    return schema


@dataclass(frozen=True, slots=True)
class Broken:
    """One thing that a judge does not accept: the field, as in `spec.secretRef.name`, and what about it."""

    field: str
    message: str


def by_schema(kind: str, spec: object) -> list[Broken]:
    """What an API server's structural schema refuses, before which it drops nulls and fills in defaults."""
    schema = spec_schema(kind)
    return list(_problems(schema, complete(schema, without_nulls(spec)), "spec"))


def by_rules(kind: str, spec: Mapping[str, Any]) -> list[Broken]:
    """What the CEL rules in the CRD refuse in a spec that the schema accepts."""
    schema = spec_schema(kind)
    known = json_to_cel(_escaped(complete(schema, without_nulls(spec))))
    return [
        Broken("spec" + rule.get("fieldPath", ""), rule["message"])
        for rule in schema.get("x-kubernetes-validations", [])
        if not _program(rule["rule"]).evaluate({"self": known})
    ]


@functools.cache
def _program(cel: str) -> celpy.Runner:
    environment = celpy.Environment()
    return environment.program(environment.compile(cel))


def _escaped(value: Any) -> Any:
    """Kubernetes shows a field to CEL as __namespace__ where its name is a word that CEL reserves."""
    if isinstance(value, dict):
        return {"__namespace__" if key == "namespace" else key: _escaped(item) for key, item in value.items()}
    return [_escaped(item) for item in value] if isinstance(value, list) else value


_TYPES: Final[Mapping[str, type | tuple[type, ...]]] = {
    "object": dict,
    "array": list,
    "string": str,
    "boolean": bool,
    "integer": (int, float),
}


def _problems(schema: Mapping[str, Any], value: object, path: str) -> Iterator[Broken]:
    kind = schema.get("type")
    if kind is not None and not _is(kind, value):
        yield Broken(path, f"must be of type {kind}")
        return
    if isinstance(value, str):
        yield from _text_problems(schema, value, path)
    elif isinstance(value, list):
        yield from _count_problems(schema, len(value), "Items", path)
        for number, item in enumerate(value):
            yield from _problems(schema.get("items", {}), item, f"{path}[{number}]")
    elif isinstance(value, dict):
        yield from _object_problems(schema, value, path)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        low, high = schema.get("minimum", value), schema.get("maximum", value)
        if not low <= value <= high:
            yield Broken(path, f"must be between {low} and {high}")


def _is(kind: str, value: object) -> bool:
    if kind == "integer":
        return isinstance(value, int | float) and not isinstance(value, bool) and float(value).is_integer()
    return isinstance(value, _TYPES[kind]) and (kind == "boolean" or not isinstance(value, bool))


def _text_problems(schema: Mapping[str, Any], value: str, path: str) -> Iterator[Broken]:
    yield from _count_problems(schema, len(value), "Length", path)
    if "enum" in schema and value not in schema["enum"]:
        yield Broken(path, "must be one of the listed words")
    # Python's $ also matches before a line break at the end, Go's does not.
    pattern = schema.get("pattern")
    if pattern is not None and re.search(_GO_PATTERN_END.sub(r"\\Z", pattern), value) is None:
        yield Broken(path, "must match the pattern")
    if schema.get("format") == "byte" and not _is_base64(value):
        yield Broken(path, "must be base64")
    if schema.get("format") == "date-time" and pattern is not None and not _is_a_day(value):
        yield Broken(path, "must be a time")


def _is_a_day(value: str) -> bool:
    """Whether there is such a day; what else a time must be is in the pattern."""
    try:
        date.fromisoformat(value[:10])
    except ValueError:
        return False
    return True


def _is_base64(value: str) -> bool:
    try:
        base64.b64decode(value.replace("\n", "").replace("\r", ""), validate=True)
    except (binascii.Error, ValueError):
        return False
    return True


def _object_problems(schema: Mapping[str, Any], value: Mapping[str, Any], path: str) -> Iterator[Broken]:
    known = schema.get("properties", {})
    for name in schema.get("required", []):
        if name not in value:
            yield Broken(f"{path}.{name}", "is required")
    for name, item in value.items():
        if name in known:
            yield from _problems(known[name], item, f"{path}.{name}")
        elif "additionalProperties" in schema:
            yield from _problems(schema["additionalProperties"], item, f"{path}.{name}")
    if "additionalProperties" in schema:
        yield from _count_problems(schema, len(value), "Properties", path)


def _count_problems(schema: Mapping[str, Any], count: int, what: str, path: str) -> Iterator[Broken]:
    low, high = schema.get(f"min{what}", 0), schema.get(f"max{what}", count)
    if not low <= count <= high:
        yield Broken(path, f"must have between {low} and {high} {what.lower()}")
