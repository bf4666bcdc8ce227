"""One denial as this verb knows it, whether fwguardd told it in the journal or an old kernel line would become it.

Its fields are those of `fwguardd.denials.formatting`. The journal keeps every value as text; what was a number becomes
a number again, and a list that had one element is a list again. Whatever else is in an entry never raises: a value that
is not what its name promises stays the text that it is.

This module is pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from fwguardd import events
from fwguardd.denials.fields import denial_fields
from fwguardd.denials.model import Denial, Meaning
from fwguardd.denials.sentences import sentence
from fwguardd.event_fields import FieldType

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fwguardd.denials.aggregation import Flow
    from fwguardd.denials.model import Unparsed, Watched
    from fwguardd.event_fields import Field

_PACKETS: Final = frozenset(
    kind.name for kind in (events.DENIED, events.LOGGED, events.DENIED_SUMMARY, events.LOGGED_SUMMARY)
)
_NOTICES: Final = frozenset({events.SCAN.name, events.SWEEP.name})
_GAPS: Final = frozenset(
    kind.name for kind in (events.DENIALS_LOST, events.DENIALS_UNPARSED, events.DENIALS_UNAVAILABLE, events.DROPPED)
)
EVENT_NAMES: Final = tuple(sorted(_PACKETS | _NOTICES | _GAPS))
"""What the road of denials tells: packets and summaries of packets, notices of scans, and where it was blind."""

_FIELDS: Final = {kind: {field.name: field for field in events.ALL_EVENTS[kind].fields} for kind in EVENT_NAMES}

_PREFIX: Final = "FWGUARD_"
_MOST_DIGITS: Final = 20


class KernelLine(NamedTuple):
    """A line of the kernel's: its text in the kernel's spelling, when it came, and how many times."""

    text: str
    realtime: int | None = None
    uptime: int | None = None
    host: str | None = None
    times: int = 1


@dataclass(frozen=True, slots=True)
class Event:
    """An event of the denial road. ``realtime`` counts microseconds since the epoch, ``uptime`` since boot on the
    printk clock; a line may tell one, both or neither. ``fields`` holds str, int, and tuples of str."""

    name: str
    told: str | Denial
    """The sentence, or the packet that it is about: wording it costs as much as reading it, and few forms show it."""
    fields: Mapping[str, Any]
    realtime: int | None
    uptime: int | None = None
    host: str | None = None

    @property
    def message(self) -> str:
        """The sentence that a person reads."""
        return self.told if isinstance(self.told, str) else sentence(self.told)

    @property
    def is_of_packets(self) -> bool:
        """Whether it tells of packets, and not of what is known of many, or of the reading of the log."""
        return self.name in _PACKETS

    @property
    def is_notice(self) -> bool:
        """Whether it tells of a scan or a sweep."""
        return self.name in _NOTICES

    @property
    def meaning(self) -> str:
        """What became of the packets, in one word."""
        return str(self.fields.get("meaning") or self.name.partition(".")[0])

    @property
    def weight(self) -> int:
        """How many packets (or lost records) it stands for: 1, or what a summary counts. What a notice counts are ports
        or hosts; their packets are told elsewhere."""
        count = self.fields.get("count", 1) if not self.is_notice else 1
        return count if isinstance(count, int) and count > 0 else 1


def of_denial(denial: Denial, line: KernelLine) -> Event:
    """The event that a kernel line would have become. Where a log daemon folded repeats, it counts them."""
    kind = events.DENIED if denial.watched.meaning is Meaning.DENIED else events.LOGGED
    found: dict[str, Any] = {**denial_fields(denial), "line": denial.text}
    if line.times > 1:
        found["count"] = line.times
    return Event(kind.name, denial, found, line.realtime, line.uptime, line.host)


def of_flow(flow: Flow, watched: Watched, line: KernelLine) -> Event:
    """The event of a plain line of TCP or UDP, with no more fields than its flow has: for who only counts."""
    kind = events.DENIED if watched.meaning is Meaning.DENIED else events.LOGGED
    found = {"name": watched.name, "src": flow.src, "proto": flow.proto, "dpt": int(flow.port), "count": line.times}
    return Event(kind.name, "", found, line.realtime, line.uptime, line.host)


def of_unparsed(read: Unparsed, line: KernelLine) -> Event:
    """The event that a kernel line of unknown form would have become."""
    message = f"a kernel line has the prefix {read.watched.prefix!r} and an unknown form: {read.text}"
    found = {"line": read.text, "expected": read.expected}
    return Event(events.DENIALS_UNPARSED.name, message, found, line.realtime, line.uptime, line.host)


def of_entry(entry: Mapping[str, Any]) -> Event | None:
    """The event in a journal entry as ``journalctl -o json`` prints it; None when it holds none of this road's."""
    name = as_text(entry.get("FWGUARD_EVENT"))
    if name not in EVENT_NAMES:
        return None
    known = _FIELDS[name]
    found = {}
    for key, value in entry.items():
        if key.startswith(_PREFIX) and key != "FWGUARD_EVENT" and value is not None:
            field = key[len(_PREFIX) :].lower()
            found[field] = _value(known.get(field), value)
    host = as_text(entry.get("_HOSTNAME")) or None
    return Event(name, as_text(entry.get("MESSAGE")), found, as_number(entry.get("__REALTIME_TIMESTAMP")), None, host)


def as_text(value: object) -> str:
    """A field of a journal entry as text: journalctl gives bytes that are not UTF-8 as a list of numbers, a field
    that is there more than once as a list of values (of which the first counts), and a field too long as null."""
    if isinstance(value, str):
        return value
    if isinstance(value, list) and value:
        if all(isinstance(byte, int) and 0 <= byte <= 0xFF for byte in value):
            return bytes(value).decode("utf-8", "backslashreplace")
        return as_text(value[0])
    return ""


def as_number(value: object) -> int | None:
    """A decimal number in a journal field; None for anything else."""
    text = as_text(value)
    return int(text) if text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS else None


def _value(field: Field | None, value: object) -> str | int | tuple[str, ...]:
    """A value of the journal with the type that the schema gives it; text where it has none, or is not of it."""
    if field is not None and field.type is FieldType.LIST:
        return _elements(field, value)
    text = as_text(value)
    if field is not None and field.type is FieldType.NUMBER:
        number = as_number(value)
        if number is not None:
            return number
    return text


def _elements(field: Field, value: object) -> tuple[str, ...]:
    """Journald keeps all values of a field, but not their order; one that is not in a fixed order comes last."""
    if isinstance(value, list) and any(isinstance(each, (str, list)) for each in value):
        elements = [as_text(each) for each in value]
    else:
        elements = [as_text(value)]
    return tuple(sorted(elements, key=lambda element: (*field.order, element).index(element)))
