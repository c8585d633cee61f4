"""Writes the CustomResourceDefinitions from the models: `python -m keyturn.api.crd crds/`.

The schemas are structural: references are inlined, and a field that may be left out is one that is not required.
Defaults of the spec are applied by the API server; the status has none, because the operator writes all of it.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import yaml
from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema

from keyturn.api.base import GROUP, VERSION, KubeModel, format_duration
from keyturn.api.conditions import Condition
from keyturn.api.policy import POLICY_KIND, RotationPolicySpec, RotationPolicyStatus
from keyturn.api.provider import ProviderKind, ProviderSpec, ProviderStatus
from keyturn.api.rotation import RotationSpec, RotationStatus
from keyturn.api.rules import ROTATION_KIND, RULES

HEADER = "# Generated from the models in operator/keyturn/api by `make crds`. Do not edit.\n"

_REFERENCE = "#/$defs/"
_KEPT = (
    *(
        "description",
        "type",
        "format",
        "enum",
        "pattern",
        "minLength",
        "maxItems",
        "maxLength",
        "maxProperties",
        "minItems",
        "minimum",
        "maximum",
    ),
    *("default", "required", "x-kubernetes-map-type"),
)
_KNOWN = {*_KEPT, "$defs", "$ref", "additionalProperties", "anyOf", "items", "properties", "title"}


def _column(name: str, path: str, kind: str = "string", *, wide: bool = False) -> dict[str, Any]:
    column = {"name": name, "type": kind, "jsonPath": path}
    return {**column, "priority": 1} if wide else column


def _condition(kind: str, field: str) -> str:
    return f'.status.conditions[?(@.type=="{kind}")].{field}'


_AGE = _column("Age", ".metadata.creationTimestamp", "date")
# A future time is text: as a date, kubectl would show how long ago it was.
_ROTATION_COLUMNS = (
    _column("Phase", ".status.phase"),
    _column("Provider", ".spec.providerRef.name"),
    _column("Last", ".status.lastRotationTime", "date"),
    _column("Next", ".status.nextRotationTime"),
    _column("Ready", _condition("Ready", "status")),
    _AGE,
    _column("Reason", ".status.conditions[0].reason", wide=True),
)
_POLICY_COLUMNS = (
    _column("Max Age", ".spec.maxAge"),
    _column("Freeze", ".spec.freeze.reason"),
    _column("Until", ".spec.freeze.until"),
    _column("Rotations", ".status.rotations", "integer"),
    _column("Ready", _condition("Ready", "status")),
    _AGE,
    _column("Reason", _condition("Ready", "reason"), wide=True),
)
_PROVIDER_COLUMNS = (
    _column("Ready", _condition("Ready", "status")),
    _AGE,
    _column("Reason", _condition("Ready", "reason"), wide=True),
)


@dataclass(frozen=True, slots=True)
class _Resource:
    """What a definition says beyond its schema."""

    description: str
    scope: str
    spec: type[KubeModel]
    status: type[KubeModel]
    columns: tuple[dict[str, Any], ...]
    short_names: tuple[str, ...] = ()
    plural: str | None = None


_RESOURCES: Final[Mapping[str, _Resource]] = {
    ROTATION_KIND: _Resource(
        "One client whose secret is rotated, the Secret that holds it, and how to do it safely.",
        "Namespaced",
        RotationSpec,
        RotationStatus,
        _ROTATION_COLUMNS,
        ("csrot",),
    ),
    ProviderKind.ROTATION_PROVIDER: _Resource(
        "An account at a provider, for the rotations of its own namespace.",
        "Namespaced",
        ProviderSpec,
        ProviderStatus,
        _PROVIDER_COLUMNS,
    ),
    ProviderKind.CLUSTER_ROTATION_PROVIDER: _Resource(
        "An account at a provider, for the rotations of all namespaces.",
        "Cluster",
        ProviderSpec,
        ProviderStatus,
        _PROVIDER_COLUMNS,
    ),
    POLICY_KIND: _Resource(
        "Rules for many rotations at once: how old secrets may become, and when and how many rotations may run.",
        "Cluster",
        RotationPolicySpec,
        RotationPolicyStatus,
        _POLICY_COLUMNS,
        plural="rotationpolicies",
    ),
}


def crds() -> list[dict[str, Any]]:
    """The definitions of all resources, as `kubectl apply` takes them."""
    return [_definition(str(kind), resource) for kind, resource in _RESOURCES.items()]


def schema_for(kind: str) -> dict[str, Any]:
    """The OpenAPI v3 schema of one kind; KeyError for a kind that is not Keyturn's."""
    resource = _RESOURCES[kind]
    spec = _schema(resource.spec, defaults=True)
    spec["x-kubernetes-validations"] = [rule.to_schema() for rule in RULES[kind]]
    return {
        "description": resource.description,
        "type": "object",
        "required": ["spec"],
        "properties": {"spec": spec, "status": _schema(resource.status, defaults=False)},
    }


def write(folder: Path) -> list[Path]:
    """Write one file per definition into `folder`, which must exist, and return their paths."""
    paths = []
    for definition in crds():
        path = folder / f"{GROUP}_{definition['spec']['names']['plural']}.yaml"
        text = yaml.dump(definition, Dumper=_PlainDumper, sort_keys=False, allow_unicode=True, width=118)
        path.write_text(HEADER + text, encoding="utf-8")
        paths.append(path)
    return paths


def _definition(kind: str, resource: _Resource) -> dict[str, Any]:
    plural = resource.plural or f"{kind.lower()}s"
    names: dict[str, Any] = {"kind": kind, "listKind": f"{kind}List", "plural": plural, "singular": kind.lower()}
    if resource.short_names:
        names["shortNames"] = list(resource.short_names)
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "names": {**names, "categories": ["keyturn"]},
            "scope": resource.scope,
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "additionalPrinterColumns": list(resource.columns),
                    "subresources": {"status": {}},
                    "schema": {"openAPIV3Schema": schema_for(kind)},
                }
            ],
        },
    }


class _Generator(GenerateJsonSchema):
    """Writes defaults as a user would: durations as text, and of nested objects only what differs from their own."""

    def encode_default(self, dft: Any) -> Any:
        if isinstance(dft, timedelta):
            return format_duration(dft)
        if isinstance(dft, BaseModel):
            return dft.model_dump(mode="json", by_alias=True, exclude_unset=True)
        return super().encode_default(dft)


def _schema(model: type[KubeModel], *, defaults: bool) -> dict[str, Any]:
    raw = model.model_json_schema(schema_generator=_Generator)
    return _structural(raw, raw.get("$defs", {}), defaults=defaults)


def _structural(raw: Mapping[str, Any], defs: Mapping[str, Any], *, defaults: bool) -> dict[str, Any]:
    node = _inlined(raw, defs)
    if unknown := set(node) - _KNOWN:
        raise ValueError(f"no rule for the JSON schema keywords {sorted(unknown)}: teach keyturn.api.crd about them")
    if node["type"] == "integer":
        node = {**node, "format": "int64"}
    schema = {keyword: node[keyword] for keyword in _KEPT if node.get(keyword) is not None}
    if not defaults:
        schema.pop("default", None)
    if "description" in schema:
        schema["description"] = " ".join(schema["description"].split())
    if "properties" in node:
        schema["properties"] = {
            name: _structural(child, defs, defaults=defaults) for name, child in node["properties"].items()
        }
    if "additionalProperties" in node:
        schema["additionalProperties"] = _structural(node["additionalProperties"], defs, defaults=defaults)
    if "items" in node:
        schema.update(_list_type(node["items"]), items=_structural(node["items"], defs, defaults=defaults))
    return schema


def _inlined(node: Mapping[str, Any], defs: Mapping[str, Any]) -> Mapping[str, Any]:
    """The node without a reference or the alternative null. What it says itself goes before what it refers to."""
    if "$ref" in node:
        target = defs[node["$ref"].removeprefix(_REFERENCE)]
        return _inlined({**target, **{key: value for key, value in node.items() if key != "$ref"}}, defs)
    if "anyOf" in node:
        (wanted,) = (option for option in node["anyOf"] if option != {"type": "null"})
        return _inlined({**wanted, **{key: value for key, value in node.items() if key != "anyOf"}}, defs)
    return node


def _list_type(items: Mapping[str, Any]) -> dict[str, Any]:
    if items.get("$ref") == _REFERENCE + Condition.__name__:
        return {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]}
    return {"x-kubernetes-list-type": "atomic"}


class _PlainDumper(yaml.SafeDumper):
    """Writes equal parts out in full: nobody wants to read anchors."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m keyturn.api.crd FOLDER")
    write(Path(sys.argv[1]))
