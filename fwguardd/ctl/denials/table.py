"""Events as a table: time, meaning, devices, protocol and flags, source, destination, rule.

It is printed as the events come: the first ones decide how wide the columns are, and a wider value widens its column
from there on. Nothing is cut off. The values of an event can be hostile: everything is printed escaped.

This module is pure.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, Final

from fwguardd.denials.sentences import endpoint, icmp_words
from fwguardd.escaping import printable
from fwguardd.wording import local_time

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from fwguardd.ctl.answers import AnswerPainter
    from fwguardd.ctl.denials.event import Event

HEAD: Final = ("TIME", "MEANING", "IN → OUT", "PROTOCOL", "SOURCE", "DESTINATION", "RULE")
LOOKED_AHEAD: Final = 200
"""Events that decide the widths, if they are there already."""

_LIVE_WIDTHS: Final = (19, 7, 8, 10, 21, 21, 0)
"""The widths for events that come one by one: room for IPv4 addresses with ports."""


class TextTable:
    """The lines of a table, the heading first."""

    def __init__(self, ink: AnswerPainter) -> None:
        self._ink = ink
        self._widths = [len(word) for word in HEAD]

    def lines(self, events: Iterable[Event]) -> Iterator[str]:
        """A line for each event; without events no heading."""
        iterator = iter(events)
        ahead = list(islice(iterator, LOOKED_AHEAD))
        for event in ahead:
            self._widen(cells(event))
        if ahead:
            yield self._ink.dim(self._aligned(HEAD))
        for event in chain(ahead, iterator):
            yield self.line(event)

    def live_lines(self, events: Iterable[Event]) -> Iterator[str]:
        """The same for events that are still to come: the heading at once, and each event as it comes."""
        self._widths = list(map(max, self._widths, _LIVE_WIDTHS))
        yield self._ink.dim(self._aligned(HEAD))
        for event in events:
            yield self.line(event)

    def line(self, event: Event) -> str:
        """One event."""
        if not event.is_of_packets:
            return f"{self._ink.dim(when(event))}  {self._ink.warn(printable(event.message))}"
        row = cells(event)
        self._widen(row)
        time, meaning, way, what, source, *rest = self._padded(row)
        paint = self._ink.good
        if event.meaning == "denied":
            paint = self._ink.warn
        return "  ".join((self._ink.dim(time), paint(meaning), way, what, self._ink.bold(source), *rest)).rstrip()

    def _widen(self, row: tuple[str, ...]) -> None:
        for column, cell in enumerate(row):
            self._widths[column] = max(self._widths[column], len(cell))

    def _aligned(self, row: tuple[str, ...]) -> str:
        return "  ".join(self._padded(row)).rstrip()

    def _padded(self, row: tuple[str, ...]) -> list[str]:
        return [cell.ljust(width) for cell, width in zip(row, self._widths, strict=True)]


def _meaning(event: Event) -> str:
    """The meaning of the prefix, the number of packets, and whether another program relayed the line."""
    meaning = event.meaning
    if event.weight > 1:
        meaning += f" ×{event.weight}"
    if event.fields.get("relayed"):
        meaning += " (relayed)"
    return meaning


def cells(event: Event) -> tuple[str, ...]:
    """The columns of an event about packets, each safe for a terminal; of any other event only the time."""
    if not event.is_of_packets:
        return (when(event),)
    found = event.fields
    return (
        when(event),
        printable(_meaning(event)),
        printable(_way(found)),
        printable(_what(found)),
        printable(_endpoint(found, "src", "spt")),
        printable(_endpoint(found, "dst", "dpt")),
        printable(rule(found)),
    )


def _local_time(realtime: int) -> str:
    """The time of microseconds since 1970; a question mark for a time that the C library cannot represent."""
    minute, second = divmod(realtime // 1_000_000, 60)
    try:
        return f"{_local_minute(minute)}{second:02}"
    except (ValueError, OverflowError, OSError):
        return "?"


@lru_cache(maxsize=1024)
def _local_minute(minute: int) -> str:
    """The local time of a minute, without its seconds. Events come in order, and many are of the same minute."""
    return local_time(60 * minute)[: -len("00")]


def when(event: Event) -> str:
    """The local time, to the second; of a line without a time of day the seconds since boot in brackets, as in
    dmesg."""
    if event.realtime is not None:
        return _local_time(event.realtime)
    if event.uptime is None:
        return "?"
    return f"[{event.uptime / 1_000_000:.6f}]"


def rule(found: Mapping[str, Any]) -> str:
    """The rule that logged the packet, as file and line; if it is not known, the name of the prefix in the settings."""
    return str(found.get("rule") or found.get("name") or "").rpartition("/")[2]


def icmp(found: Mapping[str, Any]) -> str:
    """The ICMP type by its name; a summary has the number alone."""
    number = found["icmp_type"]
    if "icmp_name" in found:
        return str(found["icmp_name"])
    if isinstance(number, int):
        return icmp_words(str(found.get("proto")), number)
    return f"type {number}"


def _way(found: Mapping[str, Any]) -> str:
    incoming, outgoing = _device(found, "in", "physin"), _device(found, "out", "physout")
    if not incoming and not outgoing:
        return ""
    return f"{incoming} → {outgoing}".strip()


def _device(found: Mapping[str, Any], name: str, port: str) -> str:
    device, port = str(found.get(name, "")), str(found.get(port, ""))
    if port:
        return f"{device}({port})"
    return device


def _what(found: Mapping[str, Any]) -> str:
    """Protocol, and of TCP the flags, of ICMP the type. Lowest bit first, as flags are usually named: SYN+ACK."""
    proto = str(found.get("proto") or found.get("family") or "")
    if flags := found.get("flags"):
        return f"{proto} {'+'.join(map(str, reversed(flags)))}"
    if "icmp_type" in found:
        return f"{proto} {icmp(found)}"
    if "frag" in found:
        return f"{proto} fragment"
    return proto


def _host(found: Mapping[str, Any], address: str) -> str:
    """The IP address, or that of the link layer."""
    return str(found.get(address) or found.get(f"mac_{address}") or "")


def _endpoint(found: Mapping[str, Any], address: str, port: str) -> str:
    host = _host(found, address)
    if port not in found:
        return host
    # A summary may be about packets from or to many hosts.
    return endpoint(host or "*", found[port])
