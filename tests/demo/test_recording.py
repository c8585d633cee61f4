"""The recording is one SVG file that stands on its own."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from rich.text import Text

from sandbox.demo.recording import ROWS, Recording

ROOT = Path(__file__).parents[2]
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture
def recorded() -> str:
    recording = Recording("a <title>")
    recording.take(Text("first\nthe same"))
    recording.take(Text("too soon after it"))
    recording.take(Text("second\nthe same"), always=True)
    recording.take(Text("\n".join(f"row {number}" for number in range(ROWS + 5))), always=True)
    return recording.svg()


def test_keeps_every_frame_and_every_row_once(recorded: str) -> None:
    assert len(re.findall('<g class="f"', recorded)) == 3
    assert _texts(recorded).count("the same") == 1
    assert "too soon after it" not in _texts(recorded)


def test_shows_the_end_of_what_is_longer_than_the_screen(recorded: str) -> None:
    rows = [text for text in _texts(recorded) if text.startswith("row")]
    assert rows == [f"row {number}" for number in range(5, ROWS + 5)]


def test_shows_the_last_frame_where_nothing_moves(recorded: str) -> None:
    assert ".f { visibility: hidden }\n#f2 { visibility: visible }" in recorded


def test_needs_nothing_from_elsewhere(recorded: str) -> None:
    for svg in (recorded, (ROOT / "docs" / "demo.svg").read_text()):
        assert re.findall(r"https?://[^\"' )]+", svg) == ["http://www.w3.org/2000/svg"]
        assert "<script" not in svg


def _texts(svg: str) -> list[str]:
    root = ET.fromstring(svg)  # noqa: S314  # our own
    return ["".join(text.itertext()).replace("\xa0", " ").strip() for text in root.iter(f"{SVG}text")]
