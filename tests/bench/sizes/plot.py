"""The durations as a picture in SVG: a panel for each thing, the rules to the right, the time upwards, both by powers
of ten, and a line for each program."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final
from xml.sax.saxutils import escape

from tests.bench.sizes.figures import BARE, LOADED, OURS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.bench.sizes.figures import Figure, Figures

_WIDTH: Final = 420
_HEIGHT: Final = 320
_MARGIN: Final = 60
_COLOURS: Final = ("#000000", "#c0392b", "#2980b9", "#27ae60", "#8e44ad", "#d35400", "#16a085", "#7f8c8d")


def plot(figures: Figures, panels: Sequence[str]) -> str:
    """The text of an SVG file."""
    durations = [each for each in figures.found.values() if each.what in {*panels, LOADED}]
    programs = list(dict.fromkeys([OURS, BARE, *(each.program for each in durations)]))
    colours = {name: _COLOURS[number % len(_COLOURS)] for number, name in enumerate(programs)}
    height = _HEIGHT + 20 * (1 + len(programs))
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH * len(panels)}" height="{height}">',
        '<g font-family="sans-serif" font-size="12"><rect width="100%" height="100%" fill="white"/>',
    ]
    for number, what in enumerate(panels):
        shown = [each for each in durations if each.what in {what, LOADED}]
        if shown:
            parts += [f'<g transform="translate({_WIDTH * number} 0)">', *_panel(what, shown, colours), "</g>"]
    for number, (name, colour) in enumerate(colours.items()):
        y = _HEIGHT + 20 * (number + 1)
        parts.append(f'<text x="{_MARGIN}" y="{y}" fill="{colour}">— {escape(name)}</text>')
    return "\n".join([*parts, "</g></svg>", ""])


def _panel(what: str, shown: Sequence[Figure], colours: dict[str, str]) -> list[str]:
    times = [value for each in shown for value in (each.median,) if value > 0]
    rows, columns = _decades(times), _decades([each.size for each in shown])
    parts = [f'<text x="{_WIDTH / 2}" y="24" text-anchor="middle">{escape(what)}, ms</text>']
    for power in range(rows[0], rows[1] + 1):
        y = _y(10.0**power, rows)
        parts.append(f'<path d="M{_MARGIN} {y:.0f}H{_WIDTH - 20}" stroke="#ddd"/>')
        parts.append(f'<text x="{_MARGIN - 6}" y="{y + 4:.0f}" text-anchor="end">{10.0**power:g}</text>')
    for power in range(columns[0], columns[1] + 1):
        x = _x(10**power, columns)
        parts.append(f'<text x="{x:.0f}" y="{_HEIGHT - 20}" text-anchor="middle">{10**power:,}</text>')
    for name, colour in colours.items():
        line = sorted((each for each in shown if each.program == name), key=lambda each: each.size)
        points = " ".join(f"{_x(each.size, columns):.1f},{_y(each.median, rows):.1f}" for each in line)
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>')
    return parts


def _decades(values: Sequence[float]) -> tuple[int, int]:
    """The powers of ten below and above all values."""
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    return low, max(high, low + 1)


def _x(value: float, decades: tuple[int, int]) -> float:
    return _MARGIN + (_WIDTH - _MARGIN - 30) * (math.log10(value) - decades[0]) / (decades[1] - decades[0])


def _y(value: float, decades: tuple[int, int]) -> float:
    return _HEIGHT - 40 - (_HEIGHT - 80) * (math.log10(value) - decades[0]) / (decades[1] - decades[0])
