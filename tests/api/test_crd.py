"""The generated definitions: fresh, structural, documented, with defaults that an API server can apply."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from keyturn.api.crd import crds, schema_for, write
from keyturn.api.policy import POLICY_KIND
from keyturn.api.provider import ProviderKind
from keyturn.api.rules import PROVIDER_BLOCKS, ROTATION_KIND, Invalid
from tests.api.samples import BASES, complete, validate

ROOT = Path(__file__).parents[2]
KINDS = [ROTATION_KIND, *ProviderKind, POLICY_KIND]


def test_committed_files_are_fresh(tmp_path: Path) -> None:
    committed = {path.name for path in (ROOT / "crds").glob("keyturn.dev_*.yaml")}
    generated = write(tmp_path)
    assert committed == {path.name for path in generated}, "run `make crds`, and delete files of kinds that are gone"
    for path in generated:
        same = path.read_text("utf-8") == (ROOT / "crds" / path.name).read_text("utf-8")
        assert same, f"crds/{path.name} is stale: run `make crds` and commit the result"


def test_files_hold_what_crds_returns(tmp_path: Path) -> None:
    assert [yaml.safe_load(path.read_text("utf-8")) for path in write(tmp_path)] == crds()


def nodes(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """All schemas within a schema, with their paths."""
    yield path, schema
    for name, child in schema.get("properties", {}).items():
        yield from nodes(child, f"{path}.{name}")
    if "items" in schema:
        yield from nodes(schema["items"], f"{path}[]")
    if "additionalProperties" in schema:
        yield from nodes(schema["additionalProperties"], f"{path}{{}}")


@pytest.mark.parametrize("kind", KINDS)
def test_schemas_are_structural_and_documented(kind: str) -> None:
    allowed = {
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
            "default",
        ),
        *("required", "properties", "additionalProperties", "items", "x-kubernetes-validations"),
        *("x-kubernetes-list-type", "x-kubernetes-list-map-keys", "x-kubernetes-map-type"),
    }
    for path, node in nodes(schema_for(kind)):
        assert set(node) <= allowed, path
        assert node["type"] in {"object", "array", "string", "integer", "boolean"}, path
        if not path.endswith(("[]", "{}")) or node["type"] == "object":  # what a list or map holds, its own words tell
            assert node.get("description", "").endswith("."), path
            assert "  " not in node["description"], path
            assert "\n" not in node["description"], path
        # API servers take a schema with both for a mistake; with neither they would drop everything in the object.
        assert (node["type"] == "object") == (("properties" in node) != ("additionalProperties" in node)), path
        assert ("items" in node) == (node["type"] == "array") == ("x-kubernetes-list-type" in node), path
        assert set(node.get("required", [])) <= set(node.get("properties", {})), path


@pytest.mark.parametrize("kind", KINDS)
def test_everything_in_the_spec_is_bounded(kind: str) -> None:
    """API servers estimate the cost of CEL rules from these bounds."""
    for path, node in nodes(schema_for(kind)["properties"]["spec"]):
        assert node["type"] != "array" or node["maxItems"] <= 256, path
        assert "additionalProperties" not in node or node["maxProperties"] <= 100, path
        if node["type"] == "string":
            assert "enum" in node or node["maxLength"] <= 1_048_576, path
            assert "default" not in node or "enum" not in node or node["default"] in node["enum"], path
            assert "default" not in node or re.search(node.get("pattern", ""), node["default"]), path


@pytest.mark.parametrize("kind", KINDS)
def test_servers_and_the_operator_fill_in_the_same_defaults(kind: str) -> None:
    known = validate(kind, BASES[kind])
    assert not isinstance(known, Invalid)
    assert complete(schema_for(kind)["properties"]["spec"], BASES[kind]) == known.to_wire()


@pytest.mark.parametrize("kind", KINDS)
def test_the_status_has_no_defaults(kind: str) -> None:
    assert [path for path, node in nodes(schema_for(kind)["properties"]["status"]) if "default" in node] == []


def test_conditions_are_merged_by_type_and_other_lists_replaced() -> None:
    """A selector too is replaced as a whole, as all selectors in Kubernetes are."""
    lists = {path: node for path, node in nodes(schema_for(ROTATION_KIND)) if node["type"] == "array"}
    types = {
        path: (node["x-kubernetes-list-type"], node.get("x-kubernetes-list-map-keys")) for path, node in lists.items()
    }
    assert types == {
        ".spec.schedule.windows": ("atomic", None),
        ".spec.rollout.targets": ("atomic", None),
        ".spec.rollout.selector.matchExpressions": ("atomic", None),
        ".spec.rollout.selector.matchExpressions[].values": ("atomic", None),
        ".status.conditions": ("map", ["type"]),
        ".status.rotation.targets": ("atomic", None),
        ".status.rotation.rollout.targets": ("atomic", None),
        ".status.rotation.rollout.selector.matchExpressions": ("atomic", None),
        ".status.rotation.rollout.selector.matchExpressions[].values": ("atomic", None),
        ".status.history": ("atomic", None),
    }
    whole = {path: node for path, node in nodes(schema_for(ROTATION_KIND)) if "x-kubernetes-map-type" in node}
    assert {path: node["x-kubernetes-map-type"] for path, node in whole.items()} == {
        ".spec.rollout.selector": "atomic",
        ".status.rotation.rollout.selector": "atomic",
    }


def test_names_and_scopes() -> None:
    said = {
        definition["metadata"]["name"]: (
            definition["spec"]["names"]["kind"],
            definition["spec"]["scope"],
            definition["spec"]["names"].get("shortNames", []),
        )
        for definition in crds()
    }
    assert said == {
        "clientsecretrotations.keyturn.dev": ("ClientSecretRotation", "Namespaced", ["csrot"]),
        "rotationproviders.keyturn.dev": ("RotationProvider", "Namespaced", []),
        "clusterrotationproviders.keyturn.dev": ("ClusterRotationProvider", "Cluster", []),
        "rotationpolicies.keyturn.dev": ("RotationPolicy", "Cluster", []),
    }


def test_each_kind_of_provider_has_its_own_rule_about_namespaces() -> None:
    rules = {
        kind: {entry["rule"] for entry in schema_for(kind)["properties"]["spec"]["x-kubernetes-validations"]}
        for kind in KINDS
    }
    only_namespaced = rules[ProviderKind.ROTATION_PROVIDER] - rules[ProviderKind.CLUSTER_ROTATION_PROVIDER]
    only_cluster = rules[ProviderKind.CLUSTER_ROTATION_PROVIDER] - rules[ProviderKind.ROTATION_PROVIDER]
    assert only_namespaced == {"!has(self.namespaces)"} | {
        f"!has(self.{block}) || !has(self.{block}.secretRef.__namespace__)" for block in PROVIDER_BLOCKS
    }
    assert only_cluster == {"has(self.namespaces)"} | {
        f"!has(self.{block}) || has(self.{block}.secretRef.__namespace__)" for block in PROVIDER_BLOCKS
    }


def test_exactly_one_provider_is_asked_for_by_name() -> None:
    entry = schema_for(ProviderKind.ROTATION_PROVIDER)["properties"]["spec"]["x-kubernetes-validations"][0]
    assert entry == {
        "rule": "[has(self.stytch), has(self.janrain), has(self.snaptrade)].exists_one(set, set)",
        "message": "spec must hold exactly one provider: stytch, janrain, snaptrade",
    }
