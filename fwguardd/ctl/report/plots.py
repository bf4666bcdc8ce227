"""Plots as SVG: bars of packets over time with marks below them, and a bar beside a number.

Colours are classes, which the style of the page gives a value for light, dark and print. Each bar has a title, which
browsers show under the pointer and read aloud.

This module is pure.
"""

from __future__ import annotations

from functools import partial
from math import floor, log10
from typing import TYPE_CHECKING, Final

from fwguardd.ctl.report.markup import Markup, element
from fwguardd.ctl.report.outline import MarkKind
from fwguardd.ctl.report.timeline import DAY, HOUR, interval_in_words, moment, series, step_for, unit_of
from fwguardd.values import dataclass
from fwguardd.wording import counted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fwguardd.ctl.report.outline import Timeline, TimelineMark
    from fwguardd.ctl.report.timeline import Series


@dataclass(frozen=True, slots=True)
class Size:
    """The measures of a plot in its own units, which are pixels where it is shown in its full width."""

    name: str
    width: int
    height: int
    most_bars: int
    most_labels: int


WIDE: Final = Size("wide", 960, 190, 200, 9)
NARROW: Final = Size("narrow", 360, 170, 60, 4)

_LEFT, _TOP, _BELOW, _LANE = 44, 10, 22, 14
"""Room for the numbers at the left, above the highest bar, for the times below, and for the marks."""


@dataclass(frozen=True, slots=True)
class _Canvas:
    """Where things are in a plot of one series."""

    size: Size
    shown: Series
    top: int
    """The number at the upper end of the axis."""

    @property
    def base(self) -> int:
        """The height of the axis of time."""
        return self.size.height - _BELOW - _LANE

    @property
    def slot(self) -> float:
        """The width of an interval."""
        return (self.size.width - _LEFT) / len(self.shown.intervals)

    def x(self, time: float) -> float:
        """Where a time is."""
        passed = (time - self.shown.intervals[0].begin) / self.shown.step
        return _LEFT + min(max(passed, 0), len(self.shown.intervals)) * self.slot

    def y(self, count: float) -> float:
        """Where a number is."""
        return self.base - (self.base - _TOP) * count / self.top


def time_plot(timeline: Timeline, size: Size) -> Markup:
    """Packets over time as bars, and marks below them."""
    shown = series(timeline, step_for(timeline, size.most_bars))
    canvas = _Canvas(size, shown, axis_top(shown.highest))
    title, text = f"title-{size.name}", f"text-{size.name}"
    return element(
        "svg",
        element("title", "Denied packets over time", id=title),
        element("desc", _description(timeline, shown), id=text),
        *_grid(canvas),
        *_time_labels(canvas),
        *_bars(canvas),
        *map(partial(_mark, canvas), timeline.marks),
        viewBox=f"0 0 {size.width} {size.height}",
        class_=f"time {size.name}",
        role="img",
        aria_labelledby=f"{title} {text}",
    )


def _description(timeline: Timeline, shown: Series) -> str:
    busiest = max(shown.intervals, key=lambda interval: interval.count)
    bars = f"{counted(len(shown.intervals), 'bar')}, one for each {unit_of(shown.step)}"
    words = interval_in_words(busiest.begin, shown.step)
    return f"{bars}. {timeline.total:,} packets; most, {busiest.count:,}: {words}."


def axis_top(highest: int) -> int:
    """A round number that is at least the highest count, such as 1, 2, 4, 5, 10, 20, 40 or 50."""
    if highest <= 1:
        return 1
    size: int = 10 ** floor(log10(highest))
    for factor in (1, 2, 4, 5, 10):
        if factor * size >= highest:
            return factor * size
    return 10 * size


def _grid(canvas: _Canvas) -> Iterator[Markup]:
    for count in sorted({0, canvas.top // 2, canvas.top}):
        y = f"{canvas.y(count):.1f}"
        yield element("line", x1=_LEFT, x2=canvas.size.width, y1=y, y2=y, class_="grid")
        yield element("text", short(count), x=_LEFT - 6, y=f"{canvas.y(count) + 4:.1f}", class_="number")


_UNITS: Final = ((10**12, "T"), (10**9, "G"), (10**6, "M"), (10**3, "k"))


def short(count: int) -> str:
    """A round number in few characters: 400, 2k, 1.5M."""
    for size, unit in _UNITS:
        if count >= size:
            return f"{count / size:g}{unit}"
    return str(count)


def _time_labels(canvas: _Canvas) -> Iterator[Markup]:
    """A label for each day, or for every second one, third one and so on."""
    first, last = canvas.shown.intervals[0].begin, canvas.shown.intervals[-1].begin + canvas.shown.step
    unit, form = DAY, "%a %-d %b"
    if last - first <= 2 * DAY:
        unit, form = 3 * HOUR, "%H:%M"
    elif last - first > 300 * DAY:
        form = "%b %Y"
    every = unit * max(1, -(-(last - first) // (unit * canvas.size.most_labels)))
    for time in range(first - first % unit + unit * bool(first % unit), last, every):
        x = f"{canvas.x(time):.1f}"
        yield element("line", x1=x, x2=x, y1=canvas.base, y2=canvas.base + 4, class_="tick")
        yield element("text", moment(time).strftime(form), x=x, y=canvas.size.height - 5, class_="when")


def _bars(canvas: _Canvas) -> Iterator[Markup]:
    gap = min(canvas.slot * 0.2, 3.0)
    for place, interval in enumerate(canvas.shown.intervals):
        if interval.count:
            # A bar of one packet among thousands is still seen.
            height = max(canvas.base - canvas.y(interval.count), 1.0)
            words = f"{interval_in_words(interval.begin, canvas.shown.step)}: {counted(interval.count, 'packet')}"
            x = _LEFT + place * canvas.slot + gap / 2
            yield _titled_bar(x, canvas.base - height, canvas.slot - gap, height, words)


def _titled_bar(x: float, y: float, width: float, height: float, words: str) -> Markup:
    rect = {"x": f"{x:.1f}", "y": f"{y:.1f}", "width": f"{width:.1f}", "height": f"{height:.1f}"}
    return element("g", element("title", words), element("rect", class_="bar", **rect))


_MARKS: Final = {
    MarkKind.REVISION: ("M-4 8L0 0L4 8Z", "revision"),
    MarkKind.OPEN: ("M-5 9L0 0L5 9Z", "open"),
    MarkKind.DRIFT: ("M0 0L4 4L0 8L-4 4Z", "drift"),
}
"""The shape of each kind of mark, and its class: shapes differ, for those who do not see the colours."""


def _mark(canvas: _Canvas, mark: TimelineMark) -> Markup:
    shape, name = _MARKS[mark.kind]
    words = f"{moment(mark.when).strftime('%a %Y-%m-%d %H:%M')}: {mark.text}"
    place = f"translate({canvas.x(mark.when):.1f} {canvas.base + 3})"
    return element("g", element("title", words), element("path", d=shape, class_=f"mark {name}"), transform=place)


def legend_mark(kind: MarkKind) -> Markup:
    """The shape of a mark, for the legend."""
    shape, name = _MARKS[kind]
    mark = element("path", d=shape, class_=f"mark {name}")
    return element("svg", mark, viewBox="-6 -1 12 11", class_="key", aria_hidden="true")


def share_bar(count: int, highest: int) -> Markup:
    """A bar beside a number, which says the same, as long as the share of the highest number."""
    width = f"{max(100 * count / max(highest, 1), 0.7):.1f}"
    return element(
        "svg",
        element("rect", x=0, y=0, width=width, height=10, class_="bar"),
        viewBox="0 0 100 10",
        preserveAspectRatio="none",
        class_="share",
        aria_hidden="true",
    )
