"""Events as a table for a person: time, meaning, way in and out, protocol and flags, source, destination, rule.

It is written as the events come, so the first ones decide how wide the columns are, and a wider value widens its
column from there on. Nothing is cut off. Whatever an event carries can be hostile: everything is shown escaped.

This module is pure.
"""

from __future__ import annotations

from datetime import datetime
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from fwguardd.denials.model import icmp_type_name
from fwguardd.sinks.console import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from fwguardd.ctl.answers import AnswerPainter
    from fwguardd.ctl.denials.event import Event

HEAD: Final = ("TIME", "MEANING", "IN → OUT", "PROTOCOL", "SOURCE", "DESTINATION", "RULE")
LOOKED_AHEAD: Final = 200
"""Events that decide the widths, where all are there already."""

_LIVE_WIDTHS: Final = (19, 7, 8, 10, 21, 21, 0)
"""Where they come one by one: room for IPv4 addresses with ports."""


class Table:
    """The lines of a table, the head first."""

    def __init__(self, ink: AnswerPainter) -> None:
        self._ink = ink
        self._widths = [len(word) for word in HEAD]

    def lines(self, events: Iterable[Event]) -> Iterator[str]:
        """One line or more for each event. No event, no head."""
        iterator = iter(events)
        ahead = list(islice(iterator, LOOKED_AHEAD))
        for event in ahead:
            self._widen(cells(event))
        if ahead:
            yield self._ink.dim(self._aligned(HEAD))
        for event in ahead:
            yield self.line(event)
        for event in iterator:
            yield self.line(event)

    def live_lines(self, events: Iterable[Event]) -> Iterator[str]:
        """The same without looking ahead: the head at once, and each event as it comes."""
        self._widths = [max(pair) for pair in zip(self._widths, _LIVE_WIDTHS, strict=True)]
        yield self._ink.dim(self._aligned(HEAD))
        for event in events:
            yield self.line(event)

    def line(self, event: Event) -> str:
        """One event."""
        if not event.is_of_packets:
            return f"{self._ink.dim(when(event))}  {self._ink.warn(printable(event.message))}"
        row = cells(event)
        self._widen(row)
        time, meaning, way, what, source, *rest = (
            cell.ljust(width) for cell, width in zip(row, self._widths, strict=True)
        )
        paint = self._ink.warn if event.meaning == "denied" else self._ink.good
        return "  ".join((self._ink.dim(time), paint(meaning), way, what, self._ink.bold(source), *rest)).rstrip()

    def _widen(self, row: tuple[str, ...]) -> None:
        for column, cell in enumerate(row):
            self._widths[column] = max(self._widths[column], len(cell))

    def _aligned(self, row: tuple[str, ...]) -> str:
        return "  ".join(cell.ljust(width) for cell, width in zip(row, self._widths, strict=True)).rstrip()


def cells(event: Event) -> tuple[str, ...]:
    """The columns of an event that tells of packets, each safe for a terminal. Of one that does not, only the time."""
    if not event.is_of_packets:
        return (when(event),)
    found = event.fields
    return (
        when(event),
        printable(event.meaning + (f" ×{event.weight}" if event.weight > 1 else "")),
        printable(_way(found)),
        printable(_what(found)),
        printable(_endpoint(found, "src", "spt")),
        printable(_endpoint(found, "dst", "dpt")),
        printable(rule(found)),
    )


def when(event: Event) -> str:
    """The local time, to the second; where a line tells none, the seconds since boot in brackets, as in dmesg."""
    if event.realtime is not None:
        try:
            return datetime.fromtimestamp(event.realtime // 1_000_000).strftime("%Y-%m-%d %H:%M:%S")  # noqa: DTZ006
        except (ValueError, OverflowError, OSError):
            return "?"
    return "?" if event.uptime is None else f"[{event.uptime / 1_000_000:.6f}]"


def rule(found: Mapping[str, Any]) -> str:
    """The rule that logged the packet, as file and line, where its prefix tells it apart; else what the settings call
    the prefix."""
    return str(found.get("rule") or found.get("name") or "").rpartition("/")[2]


def icmp(found: Mapping[str, Any]) -> str:
    """The ICMP type by its name; a summary has the number alone."""
    number = found["icmp_type"]
    name = found.get("icmp_name") or (
        icmp_type_name(str(found.get("proto")), number) if isinstance(number, int) else None
    )
    return str(name or f"type {number}")


def _way(found: Mapping[str, Any]) -> str:
    ways = [_device(found, name, port) for name, port in (("in", "physin"), ("out", "physout"))]
    return f"{ways[0]} →" + (f" {ways[1]}" if ways[1] else "") if ways[0] else f"→ {ways[1]}" if ways[1] else ""


def _device(found: Mapping[str, Any], name: str, port: str) -> str:
    device, port = str(found.get(name, "")), str(found.get(port, ""))
    return f"{device}({port})" if port else device


def _what(found: Mapping[str, Any]) -> str:
    """Protocol, and of TCP the flags, of ICMP the type; lowest bit first, as people name flags: SYN+ACK."""
    proto = str(found.get("proto") or found.get("family") or "")
    if flags := found.get("flags"):
        return f"{proto} {'+'.join(reversed([str(flag) for flag in flags]))}"
    if "icmp_type" in found:
        return f"{proto} {icmp(found)}"
    return f"{proto} fragment" if "frag" in found else proto


def _endpoint(found: Mapping[str, Any], address: str, port: str) -> str:
    host = str(found.get(address) or found.get(f"mac_{address}") or "")
    if port not in found:
        return host
    # A summary may stand for packets from many hosts, or to many.
    host = host or "*"
    return f"[{host}]:{found[port]}" if ":" in host else f"{host}:{found[port]}"
