"""A recording of the terminal as one SVG file: every frame as rich exports it, shown in turn by CSS.

Where SVG is not animated, the last frame is seen. The file needs no fonts and nothing else from elsewhere.
"""

from __future__ import annotations

import html
import io
import re
import time
from dataclasses import dataclass, field
from typing import Final

from rich.console import Console, RenderableType
from rich.segment import Segment, Segments
from rich.terminal_theme import TerminalTheme

COLUMNS: Final = 120
ROWS: Final = 38
_INTERVAL: Final = 0.5
_LAST_STAYS: Final = 8.0
# Rich fills these in; they are taken apart again below.
_PARTS: Final = "\0".join(
    f"{{{name}}}" for name in ("styles", "backgrounds", "matrix", "width", "height", "terminal_x", "terminal_y")
)
_STYLE: Final = re.compile(r"\.([\w-]+) \{ ?(.*?) ?\}")
_ELEMENT: Final = re.compile(r"<(?:text|rect)\b.*?(?:/>|</text>)", re.DOTALL)
_PLACE: Final = re.compile(r' y="([^"]*)"')
_THEME: Final = TerminalTheme(
    (18, 20, 28),
    (208, 212, 222),
    [
        (30, 33, 46),
        (255, 107, 107),
        (107, 203, 119),
        (240, 196, 92),
        (110, 160, 255),
        (199, 146, 234),
        (92, 207, 230),
        (208, 212, 222),
    ],
)


@dataclass(frozen=True, slots=True)
class _Frame:
    at: float
    rows: tuple[int, ...]


@dataclass
class Recording:
    """Takes frames as they are shown; `svg` puts them together. Rows that are alike are stored once."""

    title: str
    _frames: list[_Frame] = field(default_factory=list)
    _rows: dict[str, int] = field(default_factory=dict)
    _styles: dict[str, int] = field(default_factory=dict)
    _size: tuple[float, float, str, str] = (0.0, 0.0, "", "")

    def take(self, picture: RenderableType, *, always: bool = False) -> None:
        """Take a frame, unless the newest one is younger than half a second."""
        now = time.monotonic()
        if self._frames and not always and now - self._frames[-1].at < _INTERVAL:
            return
        console = Console(
            record=True, width=COLUMNS, height=ROWS, file=io.StringIO(), force_terminal=True, color_system="truecolor"
        )
        # As in a terminal, what does not fit has left at the top.
        lines = console.render_lines(picture, console.options.update(height=None))[-ROWS:]
        lines += [[Segment(" ")]] * (ROWS - len(lines))
        console.print(Segments([piece for line in lines for piece in (*line, Segment.line())]), end="")
        exported = console.export_svg(title="", theme=_THEME, code_format=_PARTS, unique_id="f")
        styles, backgrounds, matrix, width, height, x, y = exported.split("\0")
        self._size = (float(width), float(height), x, y)
        self._frames.append(_Frame(now, self._share(styles, backgrounds + matrix)))

    def _share(self, styles: str, drawing: str) -> tuple[int, ...]:
        """The numbers of the rows that make up a drawing; new ones are kept."""
        classes = {name: self._styles.setdefault(css, len(self._styles)) for name, css in _STYLE.findall(styles)}
        drawing = re.sub(r' clip-path="[^"]*"', "", drawing)
        drawing = re.sub(r'class="([\w-]+)"', lambda found: f'class="s{classes[found[1]]}"', drawing)
        rows: dict[str, str] = {}
        for element in _ELEMENT.findall(drawing):
            place = _PLACE.search(element)
            assert place is not None
            rows[place[1]] = rows.get(place[1], "") + element
        return tuple(self._rows.setdefault(row, len(self._rows)) for row in rows.values())

    def svg(self) -> str:
        """The whole file."""
        width, height, x, y = self._size
        began = self._frames[0].at
        total = self._frames[-1].at - began + _LAST_STAYS
        starts = [frame.at - began for frame in self._frames] + [total]
        frames = [
            (_shown(number, 100 * start / total, 100 * end / total, total), frame)
            for number, (frame, start, end) in enumerate(zip(self._frames, starts, starts[1:], strict=False))
        ]
        return _DOCUMENT.format(
            title=html.escape(self.title),
            width=width,
            height=height,
            middle=width / 2,
            x=x,
            y=y,
            last=len(frames) - 1,
            styles="\n".join(f".s{number} {{ {css} }}" for css, number in self._styles.items()),
            animations="\n".join(rules for rules, _ in frames),
            rows="\n".join(f'<g id="r{number}">{row}</g>' for row, number in self._rows.items()),
            frames="\n".join(_drawn(number, frame) for number, (_, frame) in enumerate(frames)),
        )


def _drawn(number: int, frame: _Frame) -> str:
    rows = "".join(f'<use href="#r{row}"/>' for row in frame.rows)
    return f'<g class="f" id="f{number}">{rows}</g>'


def _shown(number: int, begin: float, end: float, total: float) -> str:
    """The rules that show a frame from `begin` to `end`, in percent of the whole, again and again."""
    steps = [] if begin == 0 else ["0% { visibility: hidden }"]
    steps.append(f"{begin:.2f}% {{ visibility: visible }}")
    steps.append("100% { visibility: visible }" if end >= 100 else f"{end:.2f}%, 100% {{ visibility: hidden }}")
    rule = f"#f{number} {{ animation: k{number} {total:.1f}s step-end infinite }}"
    return f"{rule} @keyframes k{number} {{ {' '.join(steps)} }}"


_DOCUMENT: Final = """\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" aria-label="{title}">
<title>{title}</title>
<style>
text {{ font: 20px ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", "Liberation Mono", monospace }}
text {{ white-space: pre }}
.title {{ font-size: 18px; fill: #9aa0b0 }}
.f {{ visibility: hidden }}
#f{last} {{ visibility: visible }}
{styles}
{animations}
@media (prefers-reduced-motion: reduce) {{ .f {{ animation: none !important }} }}
</style>
<defs>
{rows}
</defs>
<rect x="0.5" y="0.5" width="{width}" height="{height}" rx="8" fill="#12141c"/>
<text class="title" text-anchor="middle" x="{middle}" y="27">{title}</text>
<g transform="translate(26,22)"><circle r="7" fill="#ff5f57"/><circle cx="22" r="7" fill="#febc2e"/>\
<circle cx="44" r="7" fill="#28c840"/></g>
<g transform="translate({x}, {y})">
{frames}
</g>
</svg>
"""
