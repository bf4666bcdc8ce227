"""One event of `fwguardctl denials`: from the journal, or made of an old kernel line as the daemon would have made it.

The journal keeps every value as text. The schema (`fwguardd.event_fields`) says what was a number or a list, and it is
read back as such; a value that is not of its type stays text. Nothing in an entry raises an error.

This module is pure.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeGuard

from fwguardd import events
from fwguardd.ctl.denials.times import to_usec
from fwguardd.denials.fields import denial_fields
from fwguardd.denials.model import Denial, Meaning
from fwguardd.denials.sentences import sentence, unparsed_sentence
from fwguardd.event_fields import Field, FieldType

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fwguardd.denials.aggregation import Flow
    from fwguardd.denials.model import Unparsed, Watched

_PACKETS: Final = frozenset(
    {events.DENIED.name, events.LOGGED.name, events.DENIED_SUMMARY.name, events.LOGGED_SUMMARY.name}
)
_NOTICES: Final = frozenset({events.SCAN.name, events.SWEEP.name})
_GAPS: Final = frozenset(
    {
        events.DENIALS_LOST.name,
        events.DENIALS_UNPARSED.name,
        events.DENIALS_UNAVAILABLE.name,
        events.DROPPED.name,
    }
)
EVENT_NAMES: Final = tuple(sorted(_PACKETS | _NOTICES | _GAPS))
"""The events that are shown: packets and summaries of packets, notices of scans, and what could not be read."""

_FIELDS: Final = {(name, field.name): field for name in EVENT_NAMES for field in events.ALL_EVENTS[name].fields}
_UNKNOWN_FIELD: Final = Field("", FieldType.TEXT, "")
_PREFIX: Final = "FWGUARD_"
_NUMBER: Final = re.compile("[0-9]{1,20}")


class KernelLine(NamedTuple):
    """A kernel line: its text in the kernel's spelling, when it came, and how often. ``relayed``: another program has
    passed it on under a facility of its own."""

    text: str
    realtime: int | None = None
    uptime: int | None = None
    host: str | None = None
    times: int = 1
    relayed: bool = False


@dataclass(frozen=True, slots=True)
class Loss:
    """Messages that a log does not have: the program that reports it or that lost them, the number (None where the
    report has none), and the text of the report."""

    source: str
    count: int | None
    reason: str
    realtime: int | None = None
    host: str | None = None


@dataclass(frozen=True, slots=True)
class Event:
    """An event about denials. ``realtime`` is in microseconds since the epoch, ``uptime`` in microseconds since boot on
    the printk clock; a line may have one, both or neither. The values of ``fields`` are str, int, and tuples of str."""

    name: str
    subject: str | Denial
    """The message, or the packet that it is about: a message takes as long to make as a line to parse, and few forms of
    output show it."""
    fields: Mapping[str, Any]
    realtime: int | None
    uptime: int | None = None
    host: str | None = None

    @property
    def message(self) -> str:
        """The message for people."""
        if isinstance(self.subject, str):
            return self.subject
        return sentence(self.subject)

    @property
    def is_of_packets(self) -> bool:
        """Whether it is about packets, and not a notice or about the reading of the log."""
        return self.name in _PACKETS

    @property
    def is_notice(self) -> bool:
        """Whether it is about a scan or a sweep."""
        return self.name in _NOTICES

    @property
    def meaning(self) -> str:
        """What happened to the packets: denied, logged or allowed."""
        return str(self.fields.get("meaning") or self.name.partition(".")[0])

    @property
    def weight(self) -> int:
        """The number of packets (or lost records) that it stands for. A notice counts as one: its number is of ports or
        hosts, and its packets have events of their own."""
        count = self.fields.get("count", 1)
        if self.is_notice or not isinstance(count, int) or count < 1:
            return 1
        return count


def from_denial(denial: Denial, line: KernelLine) -> Event:
    """The event of a kernel line. Where a log daemon folded repeated lines, the event counts them."""
    found: dict[str, Any] = {**denial_fields(denial), "line": denial.text}
    if line.times > 1:
        found["count"] = line.times
    if line.relayed:
        found["relayed"] = True
    return Event(_KINDS[denial.watched.meaning].name, denial, found, line.realtime, line.uptime, line.host)


def from_flow(flow: Flow, watched: Watched, line: KernelLine) -> Event:
    """The event of a plain line of TCP or UDP, with the fields that it takes to count it."""
    found = {"name": watched.name, "src": flow.src, "proto": flow.proto, "dpt": int(flow.port), "count": line.times}
    return Event(_KINDS[watched.meaning].name, "", found, line.realtime, line.uptime, line.host)


_KINDS: Final = {Meaning.DENIED: events.DENIED, Meaning.LOGGED: events.LOGGED, Meaning.ALLOWED: events.LOGGED}


def from_unparsed(read: Unparsed, line: KernelLine) -> Event:
    """The event of a kernel line of unknown form."""
    found = {"line": read.text, "expected": read.expected}
    name = events.DENIALS_UNPARSED.name
    return Event(name, unparsed_sentence(read), found, line.realtime, line.uptime, line.host)


def _lost(count: int | None) -> str:
    if count is None:
        return "messages were lost"
    if count == 1:
        return "1 message was lost"
    return f"{count} messages were lost"


def from_loss(loss: Loss) -> Event:
    """The event of a report of lost messages."""
    found: dict[str, Any] = {"source": loss.source}
    if loss.count is not None:
        found["count"] = loss.count
    message = f"{_lost(loss.count)} ({loss.source}: {loss.reason}); denials may be among them"
    return Event(events.DENIALS_LOST.name, message, found, loss.realtime, None, loss.host or None)


def from_entry(entry: Mapping[str, Any]) -> Event | None:
    """The event in a journal entry as ``journalctl -o json`` prints it; None if it is not one of `EVENT_NAMES`."""
    name = as_text(entry.get("FWGUARD_EVENT"))
    if name not in EVENT_NAMES:
        return None
    found = _fields(name, entry)
    host = as_text(entry.get("_HOSTNAME")) or None
    realtime = _time_of_packet(found) or as_number(entry.get("__REALTIME_TIMESTAMP"))
    return Event(name, as_text(entry.get("MESSAGE")), found, realtime, None, host)


def _time_of_packet(found: Mapping[str, Any]) -> int | None:
    """When the packet was logged, if it was read later than that."""
    try:
        return to_usec(datetime.fromisoformat(found["time"]))
    except (KeyError, TypeError, ValueError, OverflowError, OSError):
        return None


def _is_field(key: str) -> bool:
    return key.startswith(_PREFIX) and key != "FWGUARD_EVENT"


def _fields(name: str, entry: Mapping[str, Any]) -> dict[str, str | int | tuple[str, ...]]:
    """The fields of an event of this name. One that the schema does not have is a text."""
    found = {}
    for key, value in entry.items():
        if _is_field(key) and value is not None:
            field = key[len(_PREFIX) :].lower()
            found[field] = _value(_FIELDS.get((name, field), _UNKNOWN_FIELD), value)
    return found


def _value(field: Field, value: object) -> str | int | tuple[str, ...]:
    if field.type is FieldType.LIST:
        return _elements(field, value)
    number = as_number(value)
    if field.type is FieldType.NUMBER and number is not None:
        return number
    return as_text(value)


def _elements(field: Field, value: object) -> tuple[str, ...]:
    """The elements of a list, in its fixed order if it has one: journald does not keep the order."""
    elements = [as_text(value)]
    if _is_of_elements(value):
        elements = [as_text(each) for each in value]
    return tuple(sorted(elements, key=lambda element: (*field.order, element).index(element)))


def _is_of_elements(value: object) -> TypeGuard[list[object]]:
    """Whether a list has the values of a field that stands more than once, and not the bytes of one value."""
    return isinstance(value, list) and any(isinstance(each, (str, list)) for each in value)


def as_text(value: object) -> str:
    """A field of a journal entry as text. journalctl gives bytes that are not UTF-8 as a list of numbers, a field that
    stands more than once as a list of values (of which the first counts), and a field that is too long as null."""
    if isinstance(value, str):
        return value
    if not isinstance(value, list) or not value:
        return ""
    if _is_bytes(value):
        return bytes(value).decode("utf-8", "backslashreplace")
    return as_text(value[0])


def _is_bytes(numbers: list[Any]) -> bool:
    return all(isinstance(number, int) and 0 <= number <= 0xFF for number in numbers)


def as_number(value: object) -> int | None:
    """A decimal number in a journal field; None for anything else."""
    text = as_text(value)
    if _NUMBER.fullmatch(text) is None:
        return None
    return int(text)
