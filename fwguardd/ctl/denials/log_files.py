r"""From the lines of a file to events, with the parser of the daemon: text of a kernel log, whatever program wrote it.

Supported are records of /dev/kmsg, the output of dmesg, that of ``journalctl -k`` in its short forms and with ``-o
json``, and syslog text as in /var/log/kern.log. A line counts only if it shows that the kernel wrote it: by facility 0,
by the transport of the journal, or by the name ``kernel`` where syslog text has the name of the program. Text is not a
proof: where any program may write lines with any name, as in /var/log/syslog, it can have written lines in the kernel's
name. dmesg prints the facility only with --decode or --raw; without it root may have written a line, since only root
can write to /dev/kmsg.

The text is spelled as in /dev/kmsg (see `fwguardd.denials.grammar`). Syslog daemons write bytes as they are or as the
kernel spells them, without a sign of which: what reads as the kernel's ``\xHH`` is taken for it.

Every line is accounted for in `Counts`.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Final

from fwguardd.ctl.denials.event import KernelLine, as_text, from_denial, from_flow, from_unparsed
from fwguardd.denials.grammar import kernel_escaped
from fwguardd.denials.line_parser import LineReader
from fwguardd.denials.model import Denial, Unparsed
from fwguardd.kernel.journal_reader import Entry, read_document
from fwguardd.kernel.kmsg import KERNEL_FACILITY, parse_record

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from fwguardd.ctl.denials.event import Event
    from fwguardd.ctl.denials.filters import Filters
    from fwguardd.ctl.denials.times import StampReader
    from fwguardd.denials.aggregation import Flow
    from fwguardd.denials.model import Watched


_CLOCK: Final = "[0-9]{2}:[0-9]{2}:[0-9]{2}"
_DATE: Final = "[0-9]{4}-[0-9]{2}-[0-9]{2}"
_LINE: Final = re.compile(
    # dmesg --raw and /proc/kmsg begin with a priority, dmesg --decode with facility and level.
    r"(?:<[0-7]>|kern *:[a-z]+ *: *)?"
    r"(?:"
    rf"(?P<syslog>[A-Z][a-z]{{2}} [ 0-9][0-9] {_CLOCK})(?:\.(?P<syslog_usec>[0-9]{{6}}))? |"
    rf"(?P<iso>{_DATE}[T ]{_CLOCK})(?:\.(?P<iso_usec>[0-9]{{1,9}})|,(?P<dmesg_usec>[0-9]{{6}}))?"
    r"(?P<zone>Z|[+-][0-9]{2}:?[0-9]{2})? |"
    rf"[A-Z][a-z]{{2}} (?P<full>{_DATE} {_CLOCK}) (?P<name>[A-Z]{{2,5}}|[+-][0-9]{{2,4}}) |"
    r"(?P<epoch>[0-9]{9,11})\.(?P<epoch_usec>[0-9]{6}) |"
    r"\[ *(?P<uptime>[0-9]{1,10}\.[0-9]{6})(?: <[^<>]{1,24}>)?\] |"
    rf"\[[A-Z][a-z]{{2}} (?P<ctime>[A-Z][a-z]{{2}} [ 0-9][0-9] {_CLOCK} [0-9]{{4}})\] "
    r")"
    # The name of the host may be left out; a program's name ends with a colon, so it cannot stand for a host's.
    r"(?P<tag>(?:(?P<host>[^ ]{0,254}[^ :]) )?kernel: (?:\[ *(?P<printk>[0-9]{1,10}\.[0-9]{6})\] )?)?"
)
_REPEATED: Final = re.compile(r"message repeated ([0-9]{1,9}) times: \[ ?(.*)\]")
"""How rsyslog writes a line that came several times ($RepeatedMsgReduction)."""

_NOT_SPELLED: Final = re.compile(r"\\x[0-9a-f]{2}|[^ -\[\]-~]")


def read_line(line: bytes, stamps: StampReader) -> KernelLine | None:
    """The kernel line in a line of a file, or None when nothing shows that the kernel wrote it. Never raises."""
    # Serial consoles and other systems end lines with a carriage return.
    line = line.removesuffix(b"\r")
    if line[:1] == b"{":
        return _from_journal(line)
    if line[:1].isdigit():
        record = parse_record(line)
        if record is not None:
            if record.facility != KERNEL_FACILITY:
                return None
            return KernelLine(record.text, uptime=record.usec)
    return _from_text(line.decode("latin-1"), stamps)


def _from_journal(line: bytes) -> KernelLine | None:
    """An entry of ``journalctl -o json``. User space can write to the kernel log, but not as facility 0 (kernel)."""
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(entry, dict):
        return None
    found = read_document(entry)
    if not isinstance(found, Entry):
        return None
    host = as_text(entry.get("_HOSTNAME")) or None
    return KernelLine(kernel_escaped(found.message), round(found.when * 1_000_000), None, host)


def _from_text(line: str, stamps: StampReader) -> KernelLine | None:
    match = _LINE.match(line)
    if match is None or not _is_of_kernel(match):
        return None
    text, times = line[match.end() :], 1
    repeated = _REPEATED.fullmatch(text)
    if repeated is not None:
        times, text = int(repeated[1]), repeated[2]
    return KernelLine(_spelled(text), _realtime(match, stamps), _uptime(match), match["host"], times)


def _is_of_kernel(match: re.Match[str]) -> bool:
    """Whether the line names the kernel, or was printed by dmesg, which prints no names: all that it prints comes from
    the kernel log."""
    return match["tag"] is not None or bool(match["uptime"] or match["ctime"] or match["dmesg_usec"])


def _uptime(match: re.Match[str]) -> int | None:
    """Microseconds since boot."""
    seconds = match["uptime"] or match["printk"]
    if not seconds:
        return None
    return int(seconds.replace(".", ""))


def _realtime(match: re.Match[str], stamps: StampReader) -> int | None:
    if match["iso"]:
        return _iso_realtime(match, stamps)
    if match["syslog"]:
        return stamps.read(match["syslog"], match["syslog_usec"])
    if match["full"]:
        return stamps.read(match["full"] + _zone(match["name"]), None)
    if match["epoch"]:
        return int(match["epoch"]) * 1_000_000 + int(match["epoch_usec"])
    if match["ctime"]:
        return stamps.read(match["ctime"], None)
    return None


def _iso_realtime(match: re.Match[str], stamps: StampReader) -> int | None:
    return stamps.read(match["iso"] + (match["zone"] or ""), match["iso_usec"] or match["dmesg_usec"])


def _zone(name: str) -> str:
    """The zone that journalctl prints, as ISO 8601 has it. Python cannot look up the name of a zone: it is the zone of
    the host, so the time is local."""
    if name[0] in "+-":
        return name
    return {"UTC": "Z", "GMT": "Z"}.get(name, "")


def _spelled(text: str) -> str:
    if text.isascii() and text.isprintable() and "\\" not in text:
        return text
    return _NOT_SPELLED.sub(_spell, text)


def _spell(found: re.Match[str]) -> str:
    """One character that no kernel line holds; four are the kernel's spelling already."""
    if len(found[0]) > 1:
        return found[0]
    return f"\\x{ord(found[0]):02x}"


_PLAIN: Final = re.compile(r"[ !#-\[\]-~]+")
"""What is the same in every kind of file: printable ASCII without the quote and the backslash."""

_BYTES_IN_JSON: Final = b'"MESSAGE":['
"""A message that is not UTF-8, as journalctl prints it: the prefix is not visible in it."""

_OWN_EVENT: Final = b'"FWGUARD_EVENT"'
"""An event of fwguardd about a line, in the same journal as the line: it repeats the line."""

_BLOB: Final = b" blob data]"
_LEFT_OUT: Final = re.compile(r"\[[0-9.]{1,8}[BKMGT]{1,2} blob data\]")
"""What the short forms of journalctl print without --all for a message with a byte that is not printable: the message
of a packet from a device with an odd name is missing then (print_multiline() in src/shared/logs-show.c)."""


@dataclass(slots=True)
class Counts:
    """What became of the lines; the first number is the sum of the next four."""

    lines: int = 0
    ours: int = 0
    """Parsed."""
    unparsed: int = 0
    """Kernel lines with a watched prefix, in an unknown form."""
    foreign: int = 0
    """Lines with a watched prefix that nothing shows to be the kernel's: ignored."""
    others: int = 0
    """Lines without a watched prefix."""
    left_out: int = 0
    """Of the others, kernel lines whose text journalctl did not print."""
    undated: int = 0
    """Of the first two kinds, those that --since or --until excluded because they have no time of day."""


class LogFileReader:
    """Reads lines for a set of watched prefixes. With ``flows_only`` the events have only the fields that it takes to
    count them. Raises ValueError for prefixes that LineReader does not take."""

    def __init__(
        self, watched: Iterable[Watched], wanted: Filters, stamps: StampReader, *, flows_only: bool = False
    ) -> None:
        watched = tuple(watched)
        self._reader = LineReader(watched)
        self._watched = {each.prefix: each for each in watched}
        self._wanted = wanted
        self._stamps = stamps
        self._flows_only = flows_only
        self._needles = _needles(watched)
        self._marks = tuple(needle for needle in self._needles if needle not in {b"", _BYTES_IN_JSON, _BLOB})
        self.counts = Counts()

    def events(self, lines: Iterable[bytes]) -> Iterator[Event]:
        """The events of the lines, as far as they are wanted. Raises only what ``lines`` raises."""
        counts, needles = self.counts, self._needles
        for line in lines:
            counts.lines += 1
            for needle in needles:
                if needle in line:
                    break
            else:
                counts.others += 1
                continue
            event = self._event(line)
            if event is not None:
                yield event

    def account(self) -> dict[str, object]:
        """What became of the lines, and which years were assumed for stamps without a year."""
        return {**asdict(self.counts), "assumed_years": sorted(self._stamps.years)}

    def _event(self, data: bytes) -> Event | None:
        line = read_line(data, self._stamps)
        if line is None:
            self._count_ignored(data)
            return None
        flow = self._read_flow(line.text)
        if flow is None:
            return self._read(line)
        if not self._wanted.takes_packet(flow.src, int(flow.port)):
            self.counts.ours += 1
            return None
        if not self._flows_only:
            return self._read(line)
        self.counts.ours += 1
        if not self._takes_time(line):
            return None
        return from_flow(flow, self._watched[flow.prefix], line)

    def _count_ignored(self, data: bytes) -> None:
        """Count a line that nothing shows to be the kernel's."""
        if _OWN_EVENT not in data:
            for mark in self._marks:
                if mark in data:
                    self.counts.foreign += 1
                    return
        self.counts.others += 1

    def _read_flow(self, text: str) -> Flow | None:
        """The flow of a plain line, as most are, where that may be enough: `_read` takes three times as long."""
        if not (self._flows_only or self._wanted.by_packet):
            return None
        if not text.endswith(" "):
            text += " "
        packet = self._reader.read_flow(text)
        if packet is None:
            return None
        return packet.flow

    def _read(self, line: KernelLine) -> Event | None:
        read = self._reader.read(line.text)
        match read:
            case None:
                self.counts.others += 1
                self.counts.left_out += _LEFT_OUT.fullmatch(line.text) is not None
                return None
            case Denial():
                self.counts.ours += 1
                if self._wanted.takes_packet(read.src, read.dpt) and self._takes_time(line):
                    return from_denial(read, line)
                return None
            case Unparsed():
                self.counts.unparsed += 1
                if self._wanted.by_packet or not self._takes_time(line):
                    return None
                return from_unparsed(read, line)

    def _takes_time(self, line: KernelLine) -> bool:
        if not self._wanted.by_time:
            return True
        if line.realtime is None:
            self.counts.undated += 1
            return False
        return self._wanted.takes_time(line.realtime)


def _needles(watched: Iterable[Watched]) -> tuple[bytes, ...]:
    """A line without any of these holds no watched prefix: for each prefix its longest part that is the same in every
    kind of file. With a prefix that has no such part every line is read."""
    parts = {max(_PLAIN.findall(item.prefix), key=len, default="").encode() for item in watched}
    return (*sorted(parts), _BYTES_IN_JSON, _BLOB)
