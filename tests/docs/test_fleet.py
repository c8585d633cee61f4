"""The page about fleets: its samples are good, and its tables say what the code says."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import yaml

from keyturn.api.base import KubeModel
from keyturn.api.policy import POLICY_KIND, Concurrency, Freeze, RotationPolicySpec, RotationPolicyStatus
from keyturn.api.rotation import RotationRecord, RotationStatus
from keyturn.api.rules import validate_policy
from tests.docs.pages import ROOT, section, table

PAGE = (ROOT / "docs" / "fleet.md").read_text()


def samples() -> Iterator[dict[str, Any]]:
    for block in re.findall(r"^```yaml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL):
        document = yaml.safe_load(block)
        if document.get("kind") == POLICY_KIND:
            yield document["spec"]


def test_samples_are_good() -> None:
    assert list(samples())
    for sample in samples():
        spec = validate_policy(sample)
        assert isinstance(spec, RotationPolicySpec), spec
        assert set(sample) <= {field.alias for field in RotationPolicySpec.model_fields.values()}


def fields(model: type[KubeModel], prefix: str = "") -> Iterator[tuple[str, str]]:
    for field in model.model_fields.values():
        default = field.get_default(call_default_factory=True)
        if field.is_required():
            text = "required"
        elif isinstance(default, str):
            text = f"`{default}`"
        else:
            text = "none" if default == [] else "all" if "Selector" in str(field.alias) else "-"
        yield f"`{prefix}{field.alias}`", text


def test_every_field_is_described_with_its_default() -> None:
    known = [*fields(RotationPolicySpec), *fields(Freeze, "freeze."), *fields(Concurrency, "concurrency.")]
    assert {row[0]: row[1] for row in table(section(PAGE, "Policies"), "field")} == dict(known)


def test_fields_of_statuses_exist() -> None:
    known = {
        field.alias
        for model in (RotationStatus, RotationPolicyStatus, RotationRecord)
        for field in model.model_fields.values()
    }
    for path in re.findall(r"`status\.([\w.]+)", PAGE):
        assert set(path.split(".")) <= {*known, "since"}, path
