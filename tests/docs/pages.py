"""The pages for users, and how to find things in them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
PROVIDERS_PAGE: Final = (ROOT / "docs" / "providers.md").read_text()
OPERATIONS: Final = (ROOT / "docs" / "operations.md").read_text()
LIFECYCLE: Final = (ROOT / "docs" / "lifecycle.md").read_text()


def section(page: str, heading: str) -> str:
    """The text under a heading, down to the next one of its level or above."""
    level, fenced, found = 0, False, []
    for line in page.splitlines(keepends=True):
        fenced ^= line.lstrip().startswith("```")
        mark = 0 if fenced else len(line) - len(line.lstrip("#"))
        if level and 0 < mark <= level:
            break
        if level:
            found.append(line)
        elif mark and line.strip("# \n") == heading:
            level = mark
    assert found, f"nothing under a heading {heading}"
    return "".join(found)


def table(text: str, first: str) -> list[list[str]]:
    """The cells of all tables in a text whose first column has this name."""
    tables = re.findall(rf"^\| {first} \|.*\n\|[-|]+\n((?:\|.*\n?)+)", text, re.MULTILINE)
    assert tables, f"no table that begins with {first}"
    return [re.split(r" \| ", line.strip("| ")) for rows in tables for line in rows.splitlines()]
