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
_HEAD: Final = 70
"""Above the panels: the title and the legend."""
_LEGEND: Final = 175
"""The width of one name in the legend."""
_COLOURS: Final = ("#111111", "#c0392b", "#2471a3", "#e67e22", "#7d3c98", "#1e8449", "#b7950b", "#7f8c8d")
_SIZES: Final = {0.001: "1 µs", 0.01: "10 µs", 0.1: "0.1 ms", 1: "1 ms", 10: "10 ms", 100: "100 ms"}


def plot(figures: Figures, panels: Sequence[str]) -> str:
    """The text of an SVG file. All panels have the same scales, so that they can be compared."""
    durations = [each for each in figures.found.values() if each.what in {*panels, LOADED} and each.median > 0]
    programs = list(dict.fromkeys([OURS, BARE, *(each.program for each in durations)]))
    colours = {name: _COLOURS[number % len(_COLOURS)] for number, name in enumerate(programs)}
    width, height = _WIDTH * len(panels), _HEAD + _HEIGHT
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}">',
        '<g font-family="sans-serif" font-size="12"><rect width="100%" height="100%" fill="white"/>',
        f'<text x="{_MARGIN}" y="22" font-size="14">Time to load rules, median; {escape(figures.machine)}</text>',
    ]
    for number, (name, colour) in enumerate(colours.items()):
        x = _MARGIN + _LEGEND * number
        parts.append(f'<path d="M{x} 44h20" stroke="{colour}" {_stroke(name)}/>')
        parts.append(f'<text x="{x + 26}" y="48">{escape(name)}</text>')
    for number, what in enumerate(panels):
        parts.append(f'<g transform="translate({_WIDTH * number} {_HEAD})">')
        if durations:
            parts += _panel(what, durations, colours)
        parts.append("</g>")
    return "\n".join([*parts, "</g></svg>", ""])


def _stroke(name: str) -> str:
    """Our line is thick, and that of the bare restore is dashed."""
    if name == OURS:
        return 'stroke-width="3"'
    return 'stroke-width="1.5" stroke-dasharray="5 3"' if name == BARE else 'stroke-width="1.5"'


def _panel(what: str, durations: Sequence[Figure], colours: dict[str, str]) -> list[str]:
    rows = _decades([each.median for each in durations])
    columns = _decades([each.size for each in durations])
    parts = [f'<text x="{_WIDTH / 2}" y="24" text-anchor="middle" font-weight="bold">{escape(what)}</text>']
    for power in range(rows[0], rows[1] + 1):
        y, time = _y(10.0**power, rows), 10.0**power
        parts.append(f'<path d="M{_MARGIN} {y:.0f}H{_WIDTH - 20}" stroke="#ddd"/>')
        label = _SIZES.get(time, f"{time / 1000:g} s")
        parts.append(f'<text x="{_MARGIN - 6}" y="{y + 4:.0f}" text-anchor="end">{label}</text>')
    for power in range(columns[0], columns[1] + 1):
        x = _x(10**power, columns)
        parts.append(f'<path d="M{x:.0f} 40V{_HEIGHT - 40}" stroke="#eee"/>')
        parts.append(f'<text x="{x:.0f}" y="{_HEIGHT - 22}" text-anchor="middle">{10**power:,}</text>')
    parts.append(f'<text x="{_WIDTH / 2}" y="{_HEIGHT - 4}" text-anchor="middle" fill="#555">rules</text>')
    for name, colour in reversed(colours.items()):
        line = [each for each in durations if each.program == name and each.what in {what, LOADED}]
        places = [(_x(each.size, columns), _y(each.median, rows)) for each in sorted(line, key=lambda each: each.size)]
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" {_stroke(name)}/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in places]
    return parts


def _decades(values: Sequence[float]) -> tuple[int, int]:
    """The powers of ten below and above all values."""
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    return low, max(high, low + 1)


def _x(value: float, decades: tuple[int, int]) -> float:
    return _MARGIN + (_WIDTH - _MARGIN - 30) * (math.log10(value) - decades[0]) / (decades[1] - decades[0])


def _y(value: float, decades: tuple[int, int]) -> float:
    return _HEIGHT - 40 - (_HEIGHT - 80) * (math.log10(value) - decades[0]) / (decades[1] - decades[0])
