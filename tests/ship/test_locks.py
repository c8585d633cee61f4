"""The locked requirements: complete, hash-checked, and free of anything that only one machine has."""

import re
import tomllib
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
LOCKS = sorted((ROOT / "requirements").glob("*.txt"))
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())


def pins(path: Path) -> dict[str, str]:
    return dict(re.findall(r"^([a-z0-9._-]+)==(\S+)", path.read_text(), re.MULTILINE))


def wanted(requirements: list[str]) -> set[str]:
    names = (re.match(r"[A-Za-z0-9._-]+", requirement) for requirement in requirements)
    return {name[0].lower().replace("_", "-") for name in names if name}


@pytest.mark.parametrize("path", LOCKS, ids=lambda path: path.stem)
def test_only_pins_with_hashes(path: Path) -> None:
    lines = [line for line in path.read_text().splitlines() if not line.lstrip().startswith("#")]
    requirement = re.compile(r"[a-z0-9._-]+==[^\s@]+( ; .+)? \\")
    digest = re.compile(r"    --hash=sha256:[0-9a-f]{64}( \\)?")
    assert lines
    assert [line for line in lines if not (requirement.fullmatch(line) or digest.fullmatch(line))] == []
    continued = [before for before, after in pairwise(lines) if after.startswith("    ")]
    assert all(line.endswith("\\") for line in continued)


def test_locks_hold_every_direct_dependency() -> None:
    runtime = wanted(PROJECT["project"]["dependencies"])
    extras = [wanted(extra) for extra in PROJECT["project"]["optional-dependencies"].values()]
    build = wanted(PROJECT["build-system"]["requires"])
    assert runtime <= set(pins(ROOT / "requirements/runtime.txt"))
    assert runtime.union(build, *extras) <= set(pins(ROOT / "requirements/dev.txt"))
    assert set(pins(ROOT / "requirements/build.txt")) == build


def test_what_ships_is_what_was_tested() -> None:
    tested = pins(ROOT / "requirements/dev.txt")
    for name in ("runtime", "build"):
        shipped = pins(ROOT / f"requirements/{name}.txt")
        assert shipped.items() <= tested.items()


def test_image_holds_no_development_tools() -> None:
    assert not {"pip", "pytest", "mypy", "ruff", "setuptools"} & set(pins(ROOT / "requirements/runtime.txt"))


def test_operator_folder_never_becomes_a_package() -> None:
    assert not (ROOT / "operator/__init__.py").exists()
