"""Exposure as text for a terminal: a table of the sockets, then what is odd about them."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Final

from fwguardd.ctl.answers import escaped
from fwguardd.packets.clients import THIS_HOST
from fwguardd.wording import counted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from fwguardd.ctl.answers import AnswerPainter
    from fwguardd.packets.exposure import ExposedSocket, OpenRule, Reach
    from fwguardd.packets.port_ranges import PortReach

    Paint = Callable[[str], str]

_WIDTH: Final = 80
_HEAD: Final = ("SOCKET", "PROGRAM (USER, UNIT)", "REACHABLE FROM")
_GAP: Final = "  "
_LONGEST_PROGRAM: Final = 32
MOST_PORTS_SHOWN: Final = 8


def exposure_lines(
    sockets: Sequence[ExposedSocket], open_rules: Sequence[OpenRule], ink: AnswerPainter
) -> Iterator[str]:
    """The sockets, the rules that open a port where no program listens, and a summary."""
    yield from _table(sockets, ink)
    for one in open_rules:
        yield from _open_lines(one, ink)
    yield _summary(sockets, open_rules, ink)


def _table(sockets: Sequence[ExposedSocket], ink: AnswerPainter) -> Iterator[str]:
    rows = list(map(_cells, sockets))
    widths = _widths(rows)
    if rows:
        yield ink.dim(_left(_HEAD, widths) + _HEAD[2])
    for one, row in zip(sockets, rows, strict=True):
        yield from _row(_left(row, widths), row[2], one, ink)


def _cells(one: ExposedSocket) -> tuple[str, str, str]:
    program = textwrap.shorten(escaped(one.listening.program), _LONGEST_PROGRAM, placeholder="…)")
    if one.loopback_only:
        return str(one.listening), program, f"{THIS_HOST} (bound to loopback)"
    return str(one.listening), program, str(one.reach)


def _widths(rows: Iterable[tuple[str, str, str]]) -> list[int]:
    return [max(map(len, column)) for column in zip(_HEAD, *rows, strict=True)]


def _left(row: tuple[str, str, str], widths: Sequence[int]) -> str:
    return f"{row[0].ljust(widths[0])}{_GAP}{row[1].ljust(widths[1])}{_GAP}"


def _row(left: str, reach: str, one: ExposedSocket, ink: AnswerPainter) -> Iterator[str]:
    """A socket; where it is reached from wraps in its column, and the rule that decides is below it."""
    indent = " " * len(left)
    parts = textwrap.wrap(escaped(reach), max(_WIDTH - len(left), 20), break_long_words=False)
    for start, part in zip((left, *[indent] * len(parts)), parts, strict=False):
        yield start + _painted(part, one, ink)
    yield from _origin_line(indent, one, ink)


def _origin_line(indent: str, one: ExposedSocket, ink: AnswerPainter) -> Iterator[str]:
    if one.origin is not None and not one.loopback_only:
        yield indent + ink.dim(escaped(one.origin))


def _painted(text: str, one: ExposedSocket, ink: AnswerPainter) -> str:
    if one.closed:
        return ink.warn(text)
    if one.open_to_all:
        return ink.bold(text)
    return text


def _open_lines(one: OpenRule, ink: AnswerPainter) -> Iterator[str]:
    place = f"rule {one.step.position} of {one.step.chain}"
    if one.origin is not None:
        place = str(one.origin)
    sentence = f"{place}: opens {_ports(one)} for {one.reach}, {_target(one.reach)}"
    for line in textwrap.wrap(escaped(sentence), _WIDTH, subsequent_indent="    ", break_long_words=False):
        yield ink.warn(line)


def _ports(one: OpenRule) -> str:
    ports = list(one.ports)
    if len(ports) > MOST_PORTS_SHOWN:
        ports[MOST_PORTS_SHOWN:] = [f"{len(ports) - MOST_PORTS_SHOWN} more"]
    return ", ".join(ports)


def _target(reach: Reach) -> str:
    if reach.forwarded:
        return f"forwarded to {', '.join(sorted(reach.forwarded))}"
    return "where no program listens"


def _summary(sockets: Sequence[ExposedSocket], open_rules: Sequence[OpenRule], ink: AnswerPainter) -> str:
    open_to_all, closed = sum(one.open_to_all for one in sockets), sum(one.closed for one in sockets)
    summary = f"{counted(len(sockets), 'socket')}: {open_to_all} reachable from anywhere, {closed} closed"
    unused = sum(not one.reach.forwarded for one in open_rules)
    if unused:
        summary += f"; {counted(unused, 'rule')} without a program"
    return ink.bold(summary)


def port_lines(ports: Iterable[PortReach], ink: AnswerPainter) -> Iterator[str]:
    """A line for each range of ports that are reached alike."""
    rows = [(str(one), _range_reach(one)) for one in ports]
    if rows:
        yield ""
        yield from _port_table([("PORTS", "REACHABLE FROM"), *rows], ink)


def _port_table(rows: Sequence[tuple[str, str]], ink: AnswerPainter) -> Iterator[str]:
    """Two columns, the heading first."""
    width = max(map(len, dict(rows))) + len(_GAP)
    paint: Paint = ink.dim
    for name, reach in rows:
        text = f"{name.ljust(width)}{escaped(reach)}"
        yield from map(paint, textwrap.wrap(text, _WIDTH, subsequent_indent=" " * width, break_long_words=False))
        paint = str


def _range_reach(one: PortReach) -> str:
    if one.reach.forwarded:
        return f"{one.reach}, forwarded to {', '.join(sorted(one.reach.forwarded))}"
    return str(one.reach)
