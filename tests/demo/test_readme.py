"""What the README and the docs say is true where that is cheap to check."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from keyturn.api.conditions import ConditionType
from keyturn.api.rotation import Phase, RotationSpec

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def _blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def _first_cells(header: str) -> list[str]:
    """The code in the first column of the table whose first header cell is this."""
    (table,) = re.findall(rf"^\| {header} \|.*\n\|[-|]+\n((?:\|.*\n)+)", README, re.MULTILINE)
    return re.findall(r"^\| `(\w+)`", table, re.MULTILINE)


def test_lists_every_phase_and_no_other() -> None:
    assert _first_cells("phase") == [str(phase) for phase in Phase]


def test_lists_every_condition_and_no_other() -> None:
    assert sorted(_first_cells("condition")) == sorted(ConditionType)


def test_sample_is_the_one_that_ships() -> None:
    shipped = list(yaml.safe_load_all((ROOT / "manifests/samples/stytch.yaml").read_text()))
    shown = [list(yaml.safe_load_all(block)) for block in _blocks(README, "yaml")]
    assert shipped in shown


def test_names_reasons_that_exist() -> None:
    (table,) = re.findall(r"^\| reason \|.*\n\|[-|]+\n((?:\|.*\n)+)", README, re.MULTILINE)
    reasons = {name for row in table.splitlines() for name in re.findall(r"`(\w+)`", row.split("|")[1])}
    source = "\n".join(path.read_text() for path in (ROOT / "operator/keyturn/rotation").glob("*.py"))
    assert {"ForeignRotation", "AnswerLost", "SecretLost"} <= reasons
    assert [name for name in reasons if f'"{name}"' not in source] == []


def test_names_fields_that_exist() -> None:
    described = re.findall(r"^\| `spec\.(\w+)[^|]*` \|", README, re.MULTILINE)
    assert {"overlap", "acceptDowntime", "takeOver", "rotationRequest"} <= set(described)
    assert set(described) <= {field.alias for field in RotationSpec.model_fields.values()} | set(
        RotationSpec.model_fields
    )


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_and_links_exist(page: Path) -> None:
    text = page.read_text()
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    shell = "\n".join([*_blocks(text, "sh"), *re.findall(r"`([^`\n]+)`", text)])
    assert set(re.findall(r"^make ([a-z]+)", shell, re.MULTILINE)) <= targets
    for module in re.findall(r"python -m (sandbox[\w.]*)", shell):
        assert (ROOT / module.replace(".", "/") / "__main__.py").exists(), module
    for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
        assert (page.parent / link).exists(), link
    anchors = {_anchor(heading) for heading in re.findall(r"^#+ (.*)$", text, re.MULTILINE)}
    assert set(re.findall(r"\]\(#([^)]*)\)", text)) <= anchors


def _anchor(heading: str) -> str:
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")
