"""A report as one HTML file: nothing in it comes from elsewhere, and there are no scripts.

This module is pure.
"""

from __future__ import annotations

from functools import partial
from operator import attrgetter
from typing import TYPE_CHECKING, Final

from fwguardd.ctl.report.markup import Markup, element, joined
from fwguardd.ctl.report.outline import MarkKind, Ranking, ReportTable, Sentence, Timeline
from fwguardd.ctl.report.page_style import STYLE
from fwguardd.ctl.report.plots import NARROW, WIDE, legend_mark, share_bar, time_plot
from fwguardd.ctl.report.timeline import DAY, WEEK, interval_in_words, series, step_for

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from fwguardd.ctl.report.outline import Block, Column, Fact, Notice, Outline, RankedPlace, Row, Section

_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
"""A browser fetches and runs nothing for this page, whatever is in it."""

MOST_DAYS: Final = 16
MOST_WEEKS: Final = 60
MOST_WHOLE: Final = 5
"""Rows of a table that is not divided between two pages of paper."""


def html_of(outline: Outline) -> str:
    """The file."""
    title = f"Firewall report of {outline.host}"
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("meta", name="robots", content="noindex"),
        element("title", f"{title}: {outline.state}"),
        element("style", Markup(STYLE)),
    )
    body = element("body", element("main", *_main(outline)), element("footer", f"{outline.made}, fwguardctl report"))
    return f"<!DOCTYPE html>\n{element('html', head, body, lang='en').text}\n"


def _main(outline: Outline) -> Iterator[Markup]:
    yield _header(outline)
    yield _state(outline)
    yield element("dl", *map(_fact, outline.facts), class_="facts")
    yield _notices(outline.notices)
    yield element("nav", *map(_link, outline.sections), aria_label="Sections")
    yield from map(_section, outline.sections)


def _header(outline: Outline) -> Markup:
    name = element("h1", "Firewall report of ", element("span", outline.host, class_="host"))
    return element("header", name, element("p", outline.period))


def _state(outline: Outline) -> Markup:
    word = element("strong", outline.state)
    return element("p", word, " ", outline.headline, class_=f"state {outline.tone.value}")


def _fact(fact: Fact) -> Markup:
    value = element("dd", element("b", fact.value), element("span", fact.words), class_=fact.tone.value)
    return element("div", element("dt", fact.name), value)


def _notices(notices: Sequence[Notice]) -> Markup:
    title = element("h2", "Needs attention", id="attention")
    content = element("p", "Nothing needs attention.", class_="good")
    if notices:
        content = element("ul", *map(_notice, notices))
    return element("section", title, content, class_="attention", aria_labelledby="attention")


def _notice(notice: Notice) -> Markup:
    parts = [element("p", notice.text)]
    if notice.advice:
        parts.append(element("p", notice.advice, class_="advice"))
    return element("li", *parts, class_=notice.tone.value)


def _link(section: Section) -> Markup:
    return element("a", section.title, href=f"#{section.key}")


def _section(section: Section) -> Markup:
    title = element("h2", section.title, id=section.key)
    lead = element("p", section.lead, class_="lead")
    return element("section", title, lead, *_blocks(section.blocks), aria_labelledby=section.key)


def _blocks(blocks: Sequence[Block]) -> Iterator[Markup]:
    """Rankings stand beside each other where there is room."""
    rankings = [_ranking(block) for block in blocks if isinstance(block, Ranking)]
    if rankings:
        yield element("div", *rankings, class_="rankings")
    for block in blocks:
        match block:
            case Sentence():
                yield element("p", block.text, class_=f"note {block.tone.value}")
            case ReportTable():
                yield _table(block)
            case Timeline():
                yield _timeline(block)


def _caption(text: str) -> Markup:
    return element("caption", text)


# Tables.


def _table(table: ReportTable) -> Markup:
    heads = map(_head, table.columns)
    body = map(partial(_row, table.columns), table.rows)
    rows = element("table", _caption(table.title), element("thead", element("tr", *heads)), element("tbody", *body))
    name = "scroll"
    if len(table.rows) <= MOST_WHOLE:
        name = "scroll whole"
    parts = [element("div", rows, class_=name, tabindex=0, role="region", aria_label=table.title)]
    if table.left_out:
        parts.append(element("p", table.left_out, class_="note quiet"))
    return joined(parts)


def _head(column: Column) -> Markup:
    return element("th", column.title, scope="col", class_=_class_of(column))


def _class_of(column: Column) -> str:
    if column.number:
        return "number"
    if column.code:
        return "code"
    return "text"


def _row(columns: Sequence[Column], row: Row) -> Markup:
    """A row; what explains it stands in the last column that is no number."""
    place = max(number for number, column in enumerate(columns) if not column.number)
    cells: list[Markup] = []
    for number, (cell, column) in enumerate(zip(row.cells, columns, strict=True)):
        parts: list[Markup | str] = [cell]
        if number == place:
            parts += map(_detail, row.detail)
        cells.append(element("td", *parts, class_=_class_of(column), data_title=column.title))
    return element("tr", *cells, class_=row.tone.value)


def _detail(text: str) -> Markup:
    return element("span", text, class_="detail")


# Rankings.


def _ranking(ranking: Ranking) -> Markup:
    heads = [
        element("th", ranking.title, scope="col"),
        element("th", _title(ranking.unit), scope="col", class_="number"),
    ]
    if ranking.beside:
        heads.append(element("th", _title(ranking.beside), scope="col", class_="number"))
    highest = max(map(attrgetter("count"), ranking.places), default=0)
    body = map(partial(_place, highest, ranking.total), ranking.places)
    parts = [_caption(ranking.title), element("thead", element("tr", *heads)), element("tbody", *body)]
    table = element("table", *parts, class_="ranking")
    if ranking.note:
        return element("div", table, element("p", ranking.note, class_="note warn"))
    return element("div", table)


def _title(text: str) -> str:
    """The title of a column."""
    return text[:1].upper() + text[1:]


def _place(highest: int, total: int, place: RankedPlace) -> Markup:
    name = element("th", element("span", place.name), share_bar(place.count, highest), scope="row")
    share = f"{100 * place.count / max(total, 1):.1f}%"
    count = element("td", f"{place.count:,}", element("span", share, class_="percent"), class_="number")
    if not place.beside:
        return element("tr", name, count)
    return element("tr", name, count, element("td", place.beside, class_="number quiet"))


# Time.


def _timeline(timeline: Timeline) -> Markup:
    plots = element("figure", time_plot(timeline, WIDE), time_plot(timeline, NARROW), _legend(timeline))
    return joined((plots, _days(timeline)))


_KEYS: Final = {
    MarkKind.REVISION: "revision loaded",
    MarkKind.OPEN: "opened, everything is accepted",
    MarkKind.DRIFT: "drift",
}


def _legend(timeline: Timeline) -> Markup:
    kinds = set(map(attrgetter("kind"), timeline.marks))
    parts: list[Markup] = []
    for kind, words in _KEYS.items():
        if kind in kinds:
            parts.append(element("span", legend_mark(kind), words))
    return element("figcaption", *parts)


def _days(timeline: Timeline) -> Markup:
    """The numbers of the plot, a row for each day or week."""
    step = DAY
    if timeline.until - timeline.since > MOST_DAYS * DAY:
        step = max(WEEK, step_for(timeline, MOST_WEEKS))
    shown = series(timeline, step)
    rows: list[Markup] = []
    for interval in shown.intervals:
        name = element("th", interval_in_words(interval.begin, step), scope="row")
        bar = element("td", share_bar(interval.count, shown.highest), class_="plot")
        rows.append(element("tr", name, element("td", f"{interval.count:,}", class_="number"), bar))
    return element("table", _caption("Denied packets"), element("tbody", *rows), class_="days")
