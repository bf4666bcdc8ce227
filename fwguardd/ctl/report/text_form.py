"""A report as text for a terminal of 80 columns."""

from __future__ import annotations

import textwrap
from operator import attrgetter
from typing import TYPE_CHECKING, Final

from fwguardd.ctl.report.outline import Fact, Notice, Ranking, ReportTable, Sentence, Timeline, Tone
from fwguardd.ctl.report.timeline import DAY, HOUR, WEEK, begin_of, moment, series
from fwguardd.escaping import printable
from fwguardd.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from fwguardd.ctl.answers import AnswerPainter
    from fwguardd.ctl.report.outline import Block, Column, Outline, Row, Section

    Paint = Callable[[str], str]

WIDTH: Final = 80
_GAP: Final = "  "
_FACT: Final = 16
MOST_ROWS: Final = 20
"""Rows of a table: a screen has no more."""

MOST_DAYS: Final = 35
MOST_WEEKS: Final = 60
_NARROWEST: Final = 20
_BAR: Final = 16


@dataclass(frozen=True, slots=True)
class Ramp:
    """Characters of growing height; the first is for nothing, the last for the highest, of which bars are made."""

    characters: str

    def of(self, count: int, highest: int) -> str:
        """The character for a count: not the first one unless it is 0."""
        if not count:
            return self.characters[0]
        steps = len(self.characters) - 1
        return self.characters[-(-steps * count // highest)]

    def bar(self, count: int, highest: int, width: int) -> str:
        """A bar for a count: at least one character unless it is 0."""
        if not highest:
            return ""
        return self.characters[-1] * -(-width * count // highest)


BLOCKS: Final = Ramp("·▁▂▃▄▅▆▇█")
ASCII: Final = Ramp(" .:-=+*#%@")


def text_of(outline: Outline, ink: AnswerPainter, ramp: Ramp) -> Iterator[str]:
    """The lines."""
    yield ink.bold(f"Firewall report of {printable(outline.host)}")
    yield ink.dim(printable(f"{outline.period}; {outline.made}"))
    yield ""
    paint = _paint_of(outline.tone, ink)
    state = f"{outline.state}: "
    for place, line in enumerate(_wrapped(f"{state}{outline.headline}", "", " " * len(state))):
        yield paint(line) if place == 0 else line
    yield ""
    for fact in outline.facts:
        yield from _fact(fact, ink)
    yield from _notices(outline.notices, ink)
    for section in outline.sections:
        yield from _section(section, ink, ramp)


def _paint_of(tone: Tone, ink: AnswerPainter) -> Paint:
    paints: dict[Tone, Paint] = {Tone.GOOD: ink.good, Tone.WARN: ink.warn, Tone.BAD: ink.bad, Tone.QUIET: ink.dim}
    return paints.get(tone, str)


def _wrapped(text: str, indent: str, more: str = "", width: int = WIDTH) -> list[str]:
    """The text in lines; a long word, such as an address, is not broken."""
    return textwrap.wrap(
        printable(text), width, initial_indent=indent, subsequent_indent=more or indent, break_long_words=False,
        break_on_hyphens=False,
    )  # fmt: skip


def _fact(fact: Fact, ink: AnswerPainter) -> Iterator[str]:
    value = _paint_of(fact.tone, ink)(printable(fact.value))
    head = f"  {fact.name:{_FACT}}"
    if not fact.words:
        yield f"{head}{value}"
        return
    used = len(head) + len(printable(fact.value)) + len(_GAP)
    first, *others = _wrapped(fact.words, "", width=max(WIDTH - used, _NARROWEST))
    yield f"{head}{value}{_GAP}{ink.dim(first)}"
    for line in others:
        yield " " * used + ink.dim(line)


def _notices(notices: Sequence[Notice], ink: AnswerPainter) -> Iterator[str]:
    if not notices:
        yield from ("", ink.good("Nothing needs attention."))
        return
    yield from ("", ink.bold("Needs attention"))
    for notice in notices:
        yield from map(_paint_of(notice.tone, ink), _wrapped(notice.text, "  ! ", "    "))
        yield from map(ink.dim, _wrapped(notice.advice, "      "))


def _section(section: Section, ink: AnswerPainter, ramp: Ramp) -> Iterator[str]:
    yield from ("", ink.bold(section.title))
    yield from _wrapped(section.lead, "")
    for block in section.blocks:
        yield from _block(block, ink, ramp)


def _block(block: Block, ink: AnswerPainter, ramp: Ramp) -> Iterator[str]:
    match block:
        case Sentence():
            yield from map(_paint_of(block.tone, ink), _wrapped(block.text, "  ", "    "))
        case ReportTable():
            yield ""
            yield from _table(block, ink)
        case Ranking():
            yield ""
            yield from _ranking(block, ink, ramp)
        case Timeline():
            yield ""
            yield from _timeline(block, ink, ramp)


# Tables: columns are as wide as their cells, and the last one has the rest of the line.


def _table(table: ReportTable, ink: AnswerPainter) -> Iterator[str]:
    widths = _widths(table)
    heads = map(attrgetter("title"), table.columns)
    yield from map(ink.dim, _lines_of(tuple(map(str.upper, heads)), table.columns, widths))
    for row in table.rows[:MOST_ROWS]:
        yield from _row(row, table.columns, widths, ink)
    left = len(table.rows) - MOST_ROWS
    if left > 0:
        yield ink.dim(f"  … and {left:,} more: --html FILE shows them")
    if table.left_out:
        yield ink.dim(f"  {printable(table.left_out)}")


def _widths(table: ReportTable) -> list[int]:
    """The widths of the columns: as wide as their cells, and the widest ones less until they fit together."""
    cells = [map(printable, row.cells) for row in table.rows]
    heads = map(attrgetter("title"), table.columns)
    widths = [min(max(map(len, column)), WIDTH) for column in zip(heads, *cells, strict=True)]
    while sum(widths) + len(_GAP) * len(widths) > WIDTH:
        widest = max(range(len(widths)), key=widths.__getitem__)
        widths[widest] -= 1
    return widths


def _row(row: Row, columns: Sequence[Column], widths: Sequence[int], ink: AnswerPainter) -> Iterator[str]:
    paint = _paint_of(row.tone, ink)
    yield from map(paint, _lines_of(row.cells, columns, widths))
    indent = len(_GAP) + widths[0] + len(_GAP)
    if columns[0].number or not row.detail:
        indent = 4
    for detail in row.detail:
        yield from map(ink.dim, _wrapped(detail, " " * indent, " " * (indent + 2)))


def _lines_of(cells: Sequence[str], columns: Sequence[Column], widths: Sequence[int]) -> Iterator[str]:
    """A row: every cell wraps in its column."""
    wrapped = [_cell_lines(cell, width) for cell, width in zip(cells, widths, strict=True)]
    for number in range(max(map(len, wrapped))):
        parts = [""]
        for lines, column, width in zip(wrapped, columns, widths, strict=True):
            text = "".join(lines[number : number + 1])
            parts.append(_ALIGNED[column.number](text, width))
        yield _GAP.join(parts).rstrip()


_ALIGNED: Final = {False: str.ljust, True: str.rjust}


def _cell_lines(cell: str, width: int) -> list[str]:
    return textwrap.wrap(printable(cell), max(width, 1), break_on_hyphens=False) or [""]


# Rankings: the count, its share, and a bar.


def _ranking(ranking: Ranking, ink: AnswerPainter, ramp: Ramp) -> Iterator[str]:
    counts = [f"{place.count:,}" for place in ranking.places]
    digits = max(7, *map(len, counts))
    beside = max(len(ranking.beside), *(len(place.beside) for place in ranking.places))
    room = WIDTH - 2 - digits - 3 - _BAR - 2 * len(_GAP) - beside
    names = [_cut(printable(place.name), room) for place in ranking.places]
    width = max(map(len, [*names, ranking.title]))
    head = f"{ranking.title.upper():{width}}{_GAP}{ranking.beside.upper():>{beside}}"
    yield ink.dim(f"  {ranking.unit.upper():>{digits}}   {'':{_BAR}}{_GAP}{head}".rstrip())
    highest = max(map(attrgetter("count"), ranking.places))
    for name, count, place in zip(names, counts, ranking.places, strict=True):
        bar = ink.warn(f"{ramp.bar(place.count, highest, _BAR):{_BAR}}")
        yield f"  {count:>{digits}}   {bar}{_GAP}{name:{width}}{_GAP}{place.beside:>{beside}}".rstrip()
    if ranking.note:
        yield ink.warn(f"  {printable(ranking.note)}")


def _cut(text: str, room: int) -> str:
    if len(text) <= room:
        return text
    return f"{text[: room - 1]}…"


# Time: a line for each day with its hours, or for each week with its days.


def _timeline(timeline: Timeline, ink: AnswerPainter, ramp: Ramp) -> Iterator[str]:
    line_step, cell_step, axis = DAY, HOUR, "0     6     12    18     "
    if timeline.until - timeline.since > MOST_DAYS * DAY:
        line_step, cell_step, axis = WEEK, DAY, "MTWTFSS"
    cells = series(timeline, cell_step)
    lines = series(timeline, line_step)
    counts = {interval.begin: interval.count for interval in cells.intervals}
    digits = max(7, len(f"{lines.highest:,}"))
    yield ink.dim(f"  {'':14}  {axis}  {'PACKETS':>{digits}}")
    older = sum(interval.count for interval in lines.intervals[:-MOST_WEEKS])
    if older:
        yield f"  {'before':14}  {'':{len(axis)}}  {older:>{digits},}"
    for interval in lines.intervals[-MOST_WEEKS:]:
        spark = "".join(_sparks(interval.begin, line_step, cell_step, counts, ramp))
        bar = ramp.bar(interval.count, lines.highest, WIDTH - 2 - 14 - 2 - len(axis) - 2 - digits - 2)
        day = moment(interval.begin).strftime("%Y-%m-%d %a")
        yield f"  {day}  {ink.warn(spark):{len(axis)}}  {interval.count:>{digits},}  {ink.dim(bar)}".rstrip()


def _sparks(begin: int, line_step: int, cell_step: int, counts: dict[int, int], ramp: Ramp) -> Iterable[str]:
    """A character for each cell of a line; a blank for what is not in the period."""
    highest = max(counts.values())
    for cell in range(begin, begin + line_step, cell_step):
        count = counts.get(begin_of(cell, cell_step))
        if count is None:
            yield " "
        else:
            yield ramp.of(count, highest)
