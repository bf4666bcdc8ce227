"""Events and counts as comma-separated values (RFC 4180, with the line ends of Unix).

A text that a spreadsheet would take for a formula gets a quote before it: the names of devices and the prefixes in a
log can be hostile.
"""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING, Final

from fwguardd.ctl.denials.formats import timestamp
from fwguardd.escaping import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from fwguardd.ctl.denials.event import Event

_COLUMNS: Final = (
    "src", "spt", "dst", "dpt", "proto", "flags", "icmp_type", "in", "out", "mac_src", "len", "ttl", "uid", "mark",
    "prefix", "rule", "name",
)  # fmt: skip
HEAD: Final = ("time", "event", "meaning", "packets", "host", *_COLUMNS, "message")
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")


def row_text(row: Iterable[object]) -> str:
    """One row with its end."""
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerow([_cell(value) for value in row])
    return out.getvalue()


def _cell(value: object) -> object:
    if value is None or isinstance(value, int):
        return value
    if isinstance(value, tuple):
        value = " ".join(map(str, value))
    text = printable(str(value))
    if text.startswith(_FORMULA):
        return f"'{text}"
    return text


def rows(events: Iterable[Event]) -> Iterator[str]:
    """The heading, and a row for each event."""
    yield row_text(HEAD)
    for event in events:
        found = event.fields
        columns = [found.get(name) for name in _COLUMNS]
        meaning, packets, message = None, None, event.message
        if event.is_of_packets:
            meaning, packets, message = event.meaning, event.weight, ""
        yield row_text([timestamp(event.realtime), event.name, meaning, packets, event.host, *columns, message])


def table(head: Sequence[str], body: Iterable[Sequence[object]]) -> Iterator[str]:
    """A heading and rows of counts."""
    yield row_text(head)
    for row in body:
        yield row_text(row)
