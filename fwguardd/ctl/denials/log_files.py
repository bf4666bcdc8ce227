r"""From the lines of a file to events, with the parser of the daemon: text of a kernel log, whatever carried it.

Supported are records of /dev/kmsg, the output of dmesg and ``journalctl -k`` in all their forms, syslog text as in
/var/log/kern.log in its many spellings, and any of these behind what ``grep``, a container's log or a relay puts before
a line (`fwguardd.ctl.denials.line_heads`, `other_heads`, `wrapped_lines`, `entries`).

A line counts if it shows that the kernel wrote it: by facility 0, by the transport of the journal, or by the name
``kernel`` where syslog text has the name of the program. A line of ``dmesg --notime`` or ``journalctl -o cat`` has no
such sign: it counts if it begins with a watched prefix, and the account says how many there were. Text is not a proof:
where any program may write lines with any name, as in /var/log/syslog, it can have written lines in the kernel's name.
dmesg prints the facility only with --decode or --raw; without it root may have written a line, since only root can
write to /dev/kmsg.

The text is spelled as in /dev/kmsg (see `fwguardd.denials.grammar`). Syslog daemons write bytes as they are or as the
kernel spells them, without a sign of which: what reads as the kernel's ``\xHH`` is taken for it.

Every line is accounted for in `Counts`.
"""

from __future__ import annotations

import re
from itertools import chain
from typing import TYPE_CHECKING, Final

from fwguardd.ctl.denials import entries, reports
from fwguardd.ctl.denials.counts import Counts
from fwguardd.ctl.denials.event import (
    KernelLine,
    LossReport,
    from_denial,
    from_flow,
    from_loss,
    from_notice,
    from_unparsed,
)
from fwguardd.ctl.denials.file_scans import FileScans
from fwguardd.ctl.denials.kernel_lines import read_line
from fwguardd.ctl.denials.line_heads import UPTIME, spelled
from fwguardd.ctl.denials.line_search import LOOKS_LOGGED, REPORTS, has_many, lines_in, lines_with, marks, needles
from fwguardd.ctl.denials.other_heads import ProgramLine, read_program_line
from fwguardd.ctl.denials.wrapped_lines import Wrapped
from fwguardd.denials.aggregation import flow_of
from fwguardd.denials.any_prefix import AnyPrefixReader, prefix_of
from fwguardd.denials.line_parser import LineReader
from fwguardd.denials.model import Denial, Meaning
from fwguardd.kernel.kmsg import Lost

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from fwguardd.ctl.denials.event import Event
    from fwguardd.ctl.denials.filters import Filters
    from fwguardd.ctl.denials.times import StampReader
    from fwguardd.denials.aggregation import AggregationLimits, FlowPacket
    from fwguardd.denials.model import Unparsed, Watched


_OWN_EVENT: Final = b'"FWGUARD_EVENT"'
"""An event of fwguardd about a line, in the same journal as the line: it repeats the line."""

_DOUBLED: Final = re.compile(rf"(?: +|kernel: ?|<[0-7]>|\[ *{UPTIME}\] ?)+")
"""What some log daemons write a second time, or add, between the name of the kernel and the text."""

_LEFT_OUT: Final = re.compile(r"\[[0-9.]{1,8}[BKMGT]{1,2} blob data\]")
"""What the short forms of journalctl print without --all for a message with a byte that is not printable: the message
of a packet from a device with an odd name is missing then (print_multiline() in src/shared/logs-show.c)."""


_GAPS_SHOWN: Final = 10
"""Gaps in the numbers of kernel records that are reported one by one."""

_FILTERED: Final = "records between the lines of the file are missing: overwritten in the kernel, or filtered out"


class LogFileReader:
    """Reads lines for a set of watched prefixes, or with ``any_prefix`` for all.

    With ``flows_only`` the events have only the fields that it takes to count them; with ``scans`` scans and sweeps are
    found too, as these limits say. Raises ValueError for prefixes that LineReader does not take.
    """

    def __init__(
        self,
        watched: Iterable[Watched],
        wanted: Filters,
        stamps: StampReader,
        *,
        flows_only: bool = False,
        any_prefix: bool = False,
        scans: AggregationLimits | None = None,
    ) -> None:
        watched = tuple(watched)
        self._any_prefix = any_prefix
        self._reader: LineReader | AnyPrefixReader = LineReader(watched)
        if any_prefix:
            self._reader = AnyPrefixReader(watched)
        self._wanted = wanted
        self._stamps = stamps
        self._flows_only = flows_only
        self._tries_flows = flows_only or wanted.by_packet
        self._marks = marks(watched)
        self._needles = needles(self._marks)
        self._reads_all = b"" in self._needles
        self._last: tuple[int, KernelLine] = (0, KernelLine(""))
        """The last line of the kernel and its number, for the case that it is repeated."""
        self._scans: FileScans | None = None
        if scans is not None and (scans.scan_ports or scans.sweep_hosts):
            self._scans = FileScans(scans)
        self._notices: list[Event] = []
        self.counts = Counts()

    def events(self, lines: Iterable[bytes]) -> Iterator[Event]:
        """The events of the lines, as far as they are wanted. Raises only what ``lines`` raises."""
        iterator = iter(entries.single_lines(lines))
        for first in iterator:
            rest = chain((first,), iterator)
            if reports.is_record(first):
                yield from self._events_of_records(rest)
            else:
                yield from self._events_of_lines(rest)

    def events_of_blocks(self, blocks: Iterable[bytes]) -> Iterator[Event]:
        """The same, of blocks of whole lines: in logs with few denials many times as fast."""
        iterator = iter(blocks)
        for block in iterator:
            first = block[: block.index(b"\n")]
            rest = chain((block,), iterator)
            if self._reads_all or reports.is_record(first) or not entries.is_single(first):
                yield from self.events(lines_in(rest))
            for each in rest:
                yield from self._events_of_block(each)

    def _events_of_block(self, block: bytes) -> Iterator[Event]:
        if has_many(block, LOOKS_LOGGED):
            yield from self._events_of_lines(lines_in((block,)))
            return
        position = 0
        for start, end in lines_with(block, self._needles):
            self.counts.lines += block.count(b"\n", position, end) + 1
            position = end + 1
            event = self._event_if_needed(block[start:end])
            if event is not None:
                yield event
                yield from self._taken_notices()
        self.counts.lines += block.count(b"\n", position)

    def _events_of_lines(self, lines: Iterable[bytes]) -> Iterator[Event]:
        for line in lines:
            self.counts.lines += 1
            event = self._event_if_needed(line)
            if event is not None:
                yield event
                yield from self._taken_notices()

    def _taken_notices(self) -> Sequence[Event]:
        """The scans and sweeps that the last packet has completed."""
        if not self._notices:
            return ()
        notices, self._notices = self._notices, []
        return notices

    def _event_if_needed(self, line: bytes) -> Event | None:
        """The event of a line; only a line with one of the needles has any."""
        for needle in self._needles:
            if needle in line:
                if needle in REPORTS and not reports.may_report(line):
                    return None
                return self._event(line)
        return None

    def _events_of_records(self, lines: Iterable[bytes]) -> Iterator[Event]:
        """The events of records of /dev/kmsg, and of the records that are missing between them."""
        gaps, shown, hidden = reports.SequenceGaps(), 0, 0
        for line in lines:
            missing = gaps.missing(line)
            if missing and shown < _GAPS_SHOWN:
                shown += 1
                yield from self._loss(LossReport("kmsg", missing, _FILTERED))
            else:
                hidden += missing
            yield from self._events_of_lines((line,))
        if hidden:
            yield from self._loss(LossReport("kmsg", hidden, _FILTERED))

    def _loss(self, loss: LossReport) -> tuple[Event, ...]:
        """The event of lost messages, unless it is not wanted."""
        self.counts.lost += loss.count or 0
        if self._wanted.by_packet or not self._takes_time_of(loss.realtime):
            return ()
        return (from_loss(loss),)

    def _takes_time_of(self, realtime: int | None) -> bool:
        if not self._wanted.by_time:
            return True
        return realtime is not None and self._wanted.takes_time(realtime)

    def account(self) -> dict[str, object]:
        """What became of the lines, and which years were assumed for stamps without a year."""
        return {**self.counts.document(), "assumed_years": sorted(self._stamps.years)}

    def _event(self, data: bytes) -> Event | None:
        line = read_line(data, self._stamps)
        if isinstance(line, KernelLine):
            return self._event_of(line)
        if isinstance(line, Lost):
            return self._event_of_loss(
                LossReport("systemd-journald", line.count, f"Missed {line.count} kernel messages")
            )
        if isinstance(line, Wrapped):
            return self._event_of_wrapped(data, line)
        if isinstance(line, ProgramLine):
            return self._event_of_report(data, line)
        self._count_ignored(data)
        return None

    def _event_of(self, line: KernelLine) -> Event | None:
        """The event of a line that the kernel wrote."""
        self._last = (self.counts.lines, line)
        packet = self._read_flow(line.text)
        if packet is None:
            return self._read(line)
        flow = packet.flow
        watched = self._reader.watched(flow.prefix)
        if not self._wanted.takes_flow(flow, watched.name, line.host):
            self._count_ours(line)
            return None
        if not self._flows_only:
            return self._read(line)
        self._count_ours(line)
        if not self._takes_time(line):
            return None
        if self._scans is not None:
            self._observe(packet, watched, line)
        return from_flow(flow, watched, line)

    def _observe(self, packet: FlowPacket, watched: Watched, line: KernelLine) -> None:
        """Look for a scan or sweep that this packet completes, as the daemon does. Its event comes after the packet's.
        A line without a time of day counts by its uptime."""
        time = line.realtime or line.uptime
        if self._scans is not None and time is not None and _is_denied_request(packet, watched):
            notice = self._scans.observe(packet.flow, time / 1_000_000)
            if notice is not None:
                self._notices.append(from_notice(notice, line))

    def _count_ours(self, line: KernelLine) -> None:
        self.counts.ours += 1
        if line.relayed:
            self.counts.relayed += 1

    def _event_of_wrapped(self, data: bytes, wrapped: Wrapped) -> Event | None:
        """The event of a line without a sign of the kernel: its text alone may be that of a LOG line, or it reports a
        loss or a repeated line."""
        if wrapped.is_bare:
            line = KernelLine(spelled(wrapped.text), wrapped.realtime)
            if isinstance(self._reader.read(line.text), Denial):
                self.counts.bare += 1
                return self._event_of(line)
        report = read_program_line(wrapped.text, self._stamps)
        if report is not None:
            return self._event_of_report(data, report)
        self._count_ignored(data, wrapped)
        return None

    def _event_of_report(self, data: bytes, report: ProgramLine) -> Event | None:
        """The event of a line of another program, if it reports a loss or a repeated line."""
        number = reports.repeats(report.program, report.text)
        if number is not None:
            return self._repeated(report, number)
        found = reports.loss(report.program, report.text)
        if found is not None:
            return self._event_of_loss(
                LossReport(report.program, found.count, report.text, report.realtime, report.host)
            )
        self._count_ignored(data)
        return None

    def _event_of_loss(self, loss: LossReport) -> Event | None:
        for event in self._loss(loss):
            return event
        return None

    def _repeated(self, report: ProgramLine, number: int) -> Event | None:
        """The event of a line that a log daemon left out so many times: the line before, of the same host."""
        line_number, line = self._last
        if line_number != self.counts.lines - 1 or (line.host or "") != report.host:
            return None
        return self._event_of(line._replace(realtime=report.realtime, times=number * line.times))

    def _count_ignored(self, data: bytes, wrapped: Wrapped | None = None) -> None:
        """Count a line that nothing shows to be the kernel's."""
        is_imitation = self._count_imitation(data)
        if self._is_watched(data):
            self.counts.foreign += 1
        elif not is_imitation and wrapped is not None and wrapped.is_bare:
            self._count_other_prefix(spelled(wrapped.text))

    def _count_imitation(self, data: bytes) -> bool:
        """Count a line of a program that prints packets in user space; whether it is one."""
        if LOOKS_LOGGED not in data:
            return False
        program = reports.imitation(data.decode("latin-1"))
        if program is None:
            return False
        imitations = self.counts.imitations
        imitations[program] = imitations.get(program, 0) + 1
        return True

    def _is_watched(self, data: bytes) -> bool:
        """Whether a line has a watched prefix somewhere. An event of fwguardd repeats the line that it is about."""
        if _OWN_EVENT in data:
            return False
        return any(mark and mark in data for mark in self._marks)

    def _read_flow(self, text: str) -> FlowPacket | None:
        """The flow of a plain line, as most are, where that may be enough: `_read` takes three times as long."""
        if not self._tries_flows:
            return None
        if not text.endswith(" "):
            text += " "
        return self._reader.read_flow(text)

    def _read(self, line: KernelLine) -> Event | None:
        read = self._reader.read(line.text)
        if read is None:
            return self._event_of_other(line)
        if isinstance(read, Denial):
            self._count_ours(line)
            if self._wanted.takes_denial(read, line.host) and self._takes_time(line):
                self._observe(flow_of(read), read.watched, line)
                return from_denial(read, line)
            return None
        return self._event_of_unparsed(read, line)

    def _event_of_unparsed(self, read: Unparsed, line: KernelLine) -> Event | None:
        self.counts.unparsed += 1
        if self._wanted.by_packet or not self._takes_time(line):
            return None
        return from_unparsed(read, line)

    def _event_of_other(self, line: KernelLine) -> Event | None:
        """A line of the kernel without a watched prefix."""
        doubled = _DOUBLED.match(line.text)
        if doubled is not None:
            return self._event_of(line._replace(text=line.text[doubled.end() :]))
        found = reports.loss("kernel", line.text)
        if found is not None:
            return self._event_of_loss(LossReport("kernel", found.count, line.text, line.realtime, line.host))
        self.counts.left_out += _LEFT_OUT.fullmatch(line.text) is not None
        self._count_other_prefix(line.text)
        return None

    def _count_other_prefix(self, text: str) -> None:
        """Count the prefix of a text that looks like a LOG line."""
        prefix = prefix_of(text)
        if prefix is not None:
            self.counts.count_prefix(prefix)

    def _takes_time(self, line: KernelLine) -> bool:
        if not self._wanted.by_time:
            return True
        if line.realtime is None:
            self.counts.undated += 1
            return False
        return self._wanted.takes_time(line.realtime)


def _is_denied_request(packet: FlowPacket, watched: Watched) -> bool:
    return packet.is_request and watched.meaning is Meaning.DENIED
