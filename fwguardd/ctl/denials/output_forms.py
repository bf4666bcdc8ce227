"""How events are printed: one by one, or counted, as text, JSON or CSV."""

from __future__ import annotations

import shutil
import sys
from enum import Enum
from typing import TYPE_CHECKING, Any, TypeAlias

from fwguardd.ctl.answers import AnswerPainter
from fwguardd.ctl.denials import csv_form, formats
from fwguardd.ctl.denials.groups import TIME_KEYS, Groups
from fwguardd.ctl.denials.histogram import Histogram
from fwguardd.ctl.denials.table import TextTable
from fwguardd.ctl.denials.top import SHOWN, Top
from fwguardd.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from fwguardd.ctl.denials.event import Event
    from fwguardd.ctl.denials.network_database import NetworkNames

Account: TypeAlias = "Callable[[], Mapping[str, object]]"
"""Gives what became of the lines, after all are read."""


class OutputForm(Enum):
    """The forms that can be chosen."""

    TABLE = "table"
    JSON = "json"
    JSON_LINES = "json-lines"
    ECS = "ecs"
    CSV = "csv"


@dataclass(frozen=True, slots=True)
class Form:
    """What the command line asks for. ``live`` means that each event is printed as it comes; ``histogram`` is in
    seconds."""

    kind: OutputForm
    live: bool
    top: int | None = None
    by: tuple[str, ...] = ()
    unique: str | None = None
    histogram: int | None = None
    names: NetworkNames | None = None

    @property
    def counts(self) -> bool:
        """Whether packets are counted, and not printed one by one."""
        return bool(self.by or self.unique or self.top) or self.histogram is not None

    @property
    def rows(self) -> int | None:
        """How many groups are shown: all of those that are times."""
        if self.top is None and self.by and self.by[0] in TIME_KEYS:
            return None
        return self.top or SHOWN


def pieces(events: Iterable[Event], form: Form, account: Account | None) -> Iterator[str]:
    """The output, piece by piece: it can be of any size."""
    if form.counts:
        yield from _counted(events, form, account)
        return
    match form.kind:
        case OutputForm.ECS:
            yield from _json_lines(events, formats.ecs)
        case OutputForm.JSON_LINES:
            yield from _json_lines(events, formats.event_object)
        case OutputForm.CSV:
            yield from csv_form.rows(events)
        case OutputForm.JSON:
            yield from _json(events, account, live=form.live)
        case OutputForm.TABLE:
            yield from _table(events, live=form.live)


def _json(events: Iterable[Event], account: Account | None, *, live: bool) -> Iterator[str]:
    """A line for each event while the log is followed; one document of a log that has an end."""
    if live:
        yield from _json_lines(events, formats.event_object)
        return
    yield from formats.pieces(events)
    yield formats.last_piece(_read(account))


def _json_lines(events: Iterable[Event], as_object: Callable[[Event], dict[str, Any]]) -> Iterator[str]:
    for event in events:
        yield f"{formats.json_line(as_object(event))}\n"


def _table(events: Iterable[Event], *, live: bool) -> Iterator[str]:
    table = TextTable(AnswerPainter())
    lines = table.lines(events)
    if live:
        lines = table.live_lines(events)
    yield from _text(lines)


def _text(lines: Iterable[str]) -> Iterator[str]:
    for line in lines:
        yield f"{line}\n"


def _counted(events: Iterable[Event], form: Form, account: Account | None) -> Iterator[str]:
    if form.histogram is not None:
        yield from _histogram(events, form.histogram, form.kind, account)
    elif form.by or form.unique:
        yield from _groups(events, form, account)
    else:
        yield from _top(events, form, account)


def _histogram(events: Iterable[Event], seconds: int, kind: OutputForm, account: Account | None) -> Iterator[str]:
    histogram = Histogram(seconds)
    histogram.add(events)
    if kind is OutputForm.JSON:
        yield _document(histogram.document(), account)
    elif kind is OutputForm.CSV:
        yield from csv_form.table(*histogram.table())
    else:
        yield from _text(histogram.lines(shutil.get_terminal_size().columns, _bar(), AnswerPainter()))


def _bar() -> str:
    """The character of which bars are made."""
    if sys.stdout.encoding.lower().startswith("utf"):
        return "█"
    return "#"


def _groups(events: Iterable[Event], form: Form, account: Account | None) -> Iterator[str]:
    groups = Groups(form.by, form.unique, form.names)
    groups.add(events)
    if form.kind is OutputForm.JSON:
        yield _document(groups.document(form.rows), account)
    elif form.kind is OutputForm.CSV:
        yield from csv_form.table(*groups.table(form.rows))
    else:
        yield from _text(groups.lines(form.rows, AnswerPainter()))


def _top(events: Iterable[Event], form: Form, account: Account | None) -> Iterator[str]:
    top = Top()
    top.add(events)
    number = form.top or SHOWN
    if form.kind is OutputForm.JSON:
        yield _document(top.document(number), account)
    elif form.kind is OutputForm.CSV:
        yield from csv_form.table(*top.table(number))
    else:
        yield from _text(top.lines(number, AnswerPainter()))


def _document(document: Mapping[str, object], account: Account | None) -> str:
    return f"{formats.json_line({**document, 'read': _read(account)})}\n"


def _read(account: Account | None) -> Mapping[str, object] | None:
    """The account of the lines; None where the journal was read."""
    if account is None:
        return None
    return account()
