"""One event of `fwguardctl denials`: from the journal, or made of an old kernel line as the daemon would have made it.

Nothing in an entry raises an error.

This module is pure.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from fwguardd import events
from fwguardd.ctl.denials.times import to_usec
from fwguardd.ctl.journal_fields import as_number, as_text, fields_of
from fwguardd.denials.fields import denial_fields, notice_fields
from fwguardd.denials.model import Denial, Meaning
from fwguardd.denials.scan import Scan
from fwguardd.denials.sentences import notice_sentence, sentence, unparsed_sentence
from fwguardd.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fwguardd.denials.aggregation import Flow
    from fwguardd.denials.model import Unparsed, Watched
    from fwguardd.denials.scan import Notice

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
class LossReport:
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
    found = {
        "name": watched.name,
        "prefix": watched.prefix,
        "in": flow.incoming,
        "out": flow.outgoing,
        "src": flow.src,
        "dst": flow.dst,
        "proto": flow.proto,
        "dpt": int(flow.port),
        "count": line.times,
    }
    return Event(_KINDS[watched.meaning].name, "", found, line.realtime, line.uptime, line.host)


def from_notice(notice: Notice, line: KernelLine) -> Event:
    """The event of a scan or a sweep that was found in lines, of which this is the last one."""
    name = events.SWEEP.name
    if isinstance(notice, Scan):
        name = events.SCAN.name
    return Event(name, notice_sentence(notice), notice_fields(notice), line.realtime, line.uptime, line.host)


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


def from_loss(loss: LossReport) -> Event:
    """The event of a report of lost messages."""
    found: dict[str, Any] = {"source": loss.source}
    if loss.count is not None:
        found["count"] = loss.count
    message = f"{_lost(loss.count)} ({loss.source}: {loss.reason}); denials may be among them"
    return Event(events.DENIALS_LOST.name, message, found, loss.realtime, None, loss.host or None)


def from_entry(entry: Mapping[str, Any]) -> Event | None:
    """The event in a journal entry as ``journalctl -o json`` prints it; None if it is not one of `EVENT_NAMES`."""
    if as_text(entry.get("FWGUARD_EVENT")) not in EVENT_NAMES:
        return None
    return any_from_entry(entry)


def any_from_entry(entry: Mapping[str, Any]) -> Event:
    """The same for an event of any name."""
    name = as_text(entry.get("FWGUARD_EVENT"))
    found = fields_of(name, entry)
    host = as_text(entry.get("_HOSTNAME")) or None
    realtime = _time_of_packet(found) or as_number(entry.get("__REALTIME_TIMESTAMP"))
    return Event(name, as_text(entry.get("MESSAGE")), found, realtime, None, host)


def _time_of_packet(found: Mapping[str, Any]) -> int | None:
    """When the packet was logged, if it was read later than that."""
    try:
        return to_usec(datetime.fromisoformat(found["time"]))
    except (KeyError, TypeError, ValueError, OverflowError, OSError):
        return None
