"""A recording of the terminal as one SVG file: every frame as rich exports it, shown in turn by CSS.

Where SVG is not animated, the last frame is seen. The file needs no fonts and nothing else from elsewhere.
"""

from __future__ import annotations

import io
import re
import time
from dataclasses import dataclass, field
from typing import Final

from rich.console import Console, RenderableType
from rich.segment import Segment, Segments
from rich.terminal_theme import TerminalTheme

COLUMNS: Final = 100
ROWS: Final = 35
_INTERVAL: Final = 0.5
_LAST_STAYS: Final = 8.0
# Rich fills these in; the parts are taken apart again below.
_PARTS: Final = (
    "{styles}\0{backgrounds}\0{matrix}\0{width}\0{height}\0{terminal_x}\0{terminal_y}\0{char_height}\0{line_height}"
)
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
_FONTS: Final = 'ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", "Liberation Mono", monospace'


@dataclass(frozen=True, slots=True)
class _Frame:
    at: float
    styles: str
    drawing: str
    width: float
    height: float
    x: str
    y: str


@dataclass
class Recording:
    """Takes frames as they are shown; `svg` puts them together."""

    title: str
    _frames: list[_Frame] = field(default_factory=list)

    def take(self, picture: RenderableType, *, always: bool = False) -> None:
        """Take a frame, unless the newest one is younger than half a second."""
        now = time.monotonic()
        if self._frames and not always and now - self._frames[-1].at < _INTERVAL:
            return
        name = f"f{len(self._frames)}"
        console = Console(
            record=True, width=COLUMNS, height=ROWS, file=io.StringIO(), force_terminal=True, color_system="truecolor"
        )
        lines = console.render_lines(picture, console.options.update(height=None))[-ROWS:]
        lines += [[Segment(" ")]] * (ROWS - len(lines))
        console.print(Segments([piece for line in lines for piece in (*line, Segment.line())]), end="")
        exported = console.export_svg(title="", theme=_THEME, code_format=_PARTS, unique_id=name)
        styles, backgrounds, matrix, width, height, x, y, *_ = exported.split("\0")
        drawing = re.sub(r' clip-path="[^"]*"', "", backgrounds + f'<g class="text">{matrix}</g>')
        self._frames.append(_Frame(now, styles, drawing, float(width), float(height), x, y))

    def svg(self) -> str:
        """The whole file."""
        first, last = self._frames[0], self._frames[-1]
        total = last.at - first.at + _LAST_STAYS
        starts = [frame.at - first.at for frame in self._frames] + [total]
        rules, groups = [], []
        for number, frame in enumerate(self._frames):
            begin, end = (100 * start / total for start in starts[number : number + 2])
            shown = "visible" if frame is last else "hidden"
            rules.append(f".f{number} {{ visibility: {shown}; animation: k{number} {total:.2f}s step-end infinite }}")
            rules.append(f"@keyframes k{number} {{ {_keyframes(begin, end)} }}")
            rules.append(frame.styles)
            groups.append(f'<g class="f{number}">{frame.drawing}</g>')
        return _DOCUMENT.format(
            width=first.width,
            height=first.height,
            title=self.title,
            fonts=_FONTS,
            rules="\n".join(rules),
            x=first.x,
            y=first.y,
            frames="\n".join(groups),
            middle=first.width / 2,
        )


def _keyframes(begin: float, end: float) -> str:
    """Visible from `begin` to `end`, in percent of the whole."""
    steps = [] if begin == 0 else ["0% { visibility: hidden }"]
    steps.append(f"{begin:.3f}% {{ visibility: visible }}")
    steps.append("100% { visibility: visible }" if end >= 100 else f"{end:.3f}% {{ visibility: hidden }}")
    return " ".join(steps)


_DOCUMENT: Final = """\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" aria-label="{title}">
<title>{title}</title>
<style>
.text {{ font-family: {fonts}; font-size: 20px; line-height: 24.4px; white-space: pre }}
.title {{ font-family: {fonts}; font-size: 18px; fill: #9aa0b0 }}
{rules}
@media (prefers-reduced-motion: reduce) {{ g {{ animation: none !important }} }}
</style>
<rect x="1" y="1" width="{width}" height="{height}" rx="8" fill="#12141c" stroke="rgba(255,255,255,0.3)"/>
<text class="title" text-anchor="middle" x="{middle}" y="27">{title}</text>
<g transform="translate(26,22)"><circle r="7" fill="#ff5f57"/><circle cx="22" r="7" fill="#febc2e"/>\
<circle cx="44" r="7" fill="#28c840"/></g>
<g transform="translate({x}, {y})">
{frames}
</g>
</svg>
"""
