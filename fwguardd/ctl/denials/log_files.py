r"""The stamps that log daemons write before a line -> microseconds since the epoch.

A stamp without a zone is in local time, as the programs that wrote it have it: for the log of a host elsewhere, set TZ.
A stamp without a year, as syslog's own (``Nov 22 23:33:15``, RFC 3164), is of the latest year in which it is not later
than the file's last change: so a file that runs over a new year is read right, if it holds less than a year.
Which years were assumed is kept, to be told.

One line of a file that a kernel log left behind -> the kernel's text, or nothing.

Read are records of /dev/kmsg, what dmesg prints, what ``journalctl -k`` prints in its short forms and with ``-o json``,
and syslog text as in /var/log/kern.log. Only what shows that it is the kernel's is: facility 0, the transport of the
journal, or the name ``kernel`` where syslog text has the name of the program. Text is no proof: where any program may
write lines with any name, as in /var/log/syslog, somebody can have written lines in the kernel's name. dmesg tells the
facility only with --decode or --raw; without, root may have written a line, since nobody else can write to /dev/kmsg.

The text comes out as /dev/kmsg spells it (see `fwguardd.denials.grammar`). Syslog daemons write bytes as they are or
as the kernel spells them, and do not say which: what reads as the kernel's ``\xHH`` is taken for it.

What old kernel log lines would have become, had fwguardd read them: by the daemon's own reader, line by line.

Every line is accounted for, as on the daemon's road: understood, of unknown form, not the kernel's, or of no concern.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from fwguardd.ctl.denials.event import KernelLine, as_text, of_denial, of_flow, of_unparsed
from fwguardd.ctl.denials.time_specs import to_usec
from fwguardd.denials.grammar import kernel_escaped
from fwguardd.denials.line_parser import LineReader
from fwguardd.denials.model import Denial
from fwguardd.kernel.journal_reader import Entry, read_document
from fwguardd.kernel.kmsg import KERNEL_FACILITY, parse_record

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from fwguardd.ctl.denials.event import Event
    from fwguardd.ctl.denials.filters import Filters
    from fwguardd.denials.aggregation import Flow
    from fwguardd.denials.model import Watched


_MONTHS: Final = {
    name: number
    for number, name in enumerate("Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split(), start=1)  # noqa: SIM905
}
_CLOCKS_DIFFER: Final = timedelta(days=1)
"""How far a line may lie in the future before it is taken for one of last year: clocks and zones differ."""

_YEARS_BACK: Final = 9
"""Between two leap years lie at most eight years (1896 to 1904), so every stamp of a leap day is found."""

_SYSLOG: Final = re.compile(r"([A-Z][a-z]{2}) ([ 0-9][0-9]) ([0-9]{2}):([0-9]{2}):([0-9]{2})(?: ([0-9]{4}))?")


class StampReader:
    """Reads stamps; ``latest`` (naive, local) is when the last line can have been written."""

    def __init__(self, latest: datetime) -> None:
        self._latest = latest + _CLOCKS_DIFFER
        self._last: tuple[str, int | None] = ("", None)
        self.years: set[int] = set()
        """The years that were assumed."""

    def read(self, seconds: str, fraction: str | None) -> int | None:
        """Microseconds since the epoch, of a stamp down to its seconds and the digits after the point; None when it
        is no time, such as the 31st of February."""
        # Lines come in bursts, and most have their second in common with the one before.
        if seconds != self._last[0]:
            self._last = (seconds, self._usec(seconds))
        usec = self._last[1]
        return usec + int(fraction[:6].ljust(6, "0")) if usec is not None and fraction else usec

    def _usec(self, seconds: str) -> int | None:
        try:
            match = _SYSLOG.fullmatch(seconds)
            if match is None:
                return to_usec(datetime.fromisoformat(seconds))
            month, day, *clock, year = match.groups()
            parts = (_MONTHS[month], int(day), *(int(part) for part in clock))
            return self._of_year(int(year), parts) if year else self._of_any_year(parts)
        except (ValueError, KeyError, OverflowError, OSError):
            return None

    def _of_year(self, year: int, parts: tuple[int, ...]) -> int:
        month, day, hour, minute, second = parts
        return to_usec(datetime(year, month, day, hour, minute, second))  # noqa: DTZ001 - local time is meant.

    def _of_any_year(self, parts: tuple[int, ...]) -> int | None:
        latest = to_usec(self._latest)
        for year in range(self._latest.year, self._latest.year - _YEARS_BACK, -1):
            try:
                usec = self._of_year(year, parts)
            except ValueError:
                continue
            if usec <= latest:
                self.years.add(year)
                return usec
        return None


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
"""rsyslog's way of writing a line that came several times ($RepeatedMsgReduction)."""

_NOT_SPELLED: Final = re.compile(r"\\x[0-9a-f]{2}|[^ -\[\]-~]")


def read_line(line: bytes, stamps: StampReader) -> KernelLine | None:
    """The kernel's line in a line of a file, or None when nothing shows that it is the kernel's. Never raises."""
    # Files have been through other systems, and serial consoles.
    line = line.removesuffix(b"\r")
    if line[:1] == b"{":
        return _from_journal(line)
    if line[:1].isdigit():
        record = parse_record(line)
        if record is not None:
            return KernelLine(record.text, uptime=record.usec) if record.facility == KERNEL_FACILITY else None
    return _from_text(line.decode("latin-1"), stamps)


def _from_journal(line: bytes) -> KernelLine | None:
    """An entry of ``journalctl -o json``. User space can write to the kernel log, but not as facility 0 (kernel)."""
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return None
    found = read_document(entry) if isinstance(entry, dict) else None
    if not isinstance(found, Entry):
        return None
    host = as_text(entry.get("_HOSTNAME")) or None
    return KernelLine(kernel_escaped(found.message), round(found.when * 1_000_000), None, host)


def _from_text(line: str, stamps: StampReader) -> KernelLine | None:
    match = _LINE.match(line)
    if match is None:
        return None
    uptime = match["uptime"] or match["printk"]
    if match["tag"] is None and not (match["uptime"] or match["ctime"] or match["dmesg_usec"]):
        # Only dmesg leaves out whose line it is: all that it prints comes from the kernel log.
        return None
    text, times = line[match.end() :], 1
    if text.startswith("message repeated "):
        repeated = _REPEATED.fullmatch(text)
        if repeated is not None:
            times, text = int(repeated[1]), repeated[2]
    usec = int(uptime.replace(".", "")) if uptime else None
    return KernelLine(_spelled(text), _realtime(match, stamps), usec, match["host"], times)


def _realtime(match: re.Match[str], stamps: StampReader) -> int | None:
    if match["iso"]:
        fraction = match["iso_usec"] or match["dmesg_usec"]
        return stamps.read(match["iso"] + (match["zone"] or ""), fraction)
    if match["syslog"]:
        return stamps.read(match["syslog"], match["syslog_usec"])
    if match["full"]:
        # journalctl writes the host's own zone by its name, which Python could not look up: it is local time.
        zone = match["name"] if match["name"][0] in "+-" else "Z" if match["name"] in {"UTC", "GMT"} else ""
        return stamps.read(match["full"] + zone, None)
    if match["epoch"]:
        return int(match["epoch"]) * 1_000_000 + int(match["epoch_usec"])
    return stamps.read(match["ctime"], None) if match["ctime"] else None


def _spelled(text: str) -> str:
    if text.isascii() and text.isprintable() and "\\" not in text:
        return text
    return _NOT_SPELLED.sub(lambda found: found[0] if len(found[0]) > 1 else f"\\x{ord(found[0]):02x}", text)


_PLAIN: Final = re.compile(r"[ !#-\[\]-~]+")
"""What every kind of file spells alike: printable ASCII less the quote and the backslash."""

_BYTES_IN_JSON: Final = b'"MESSAGE":['
"""A message that is not UTF-8, as journalctl writes it: no prefix can be seen in it from outside."""

_OWN_EVENT: Final = b'"FWGUARD_EVENT"'
"""What fwguardd told of a line, in the journal that the line is in as well: it repeats the line, and claims nothing."""

_BLOB: Final = b" blob data]"
_LEFT_OUT: Final = re.compile(r"\[[0-9.]{1,8}[BKMGT]{1,2} blob data\]")
"""What the short forms of journalctl print for a message with a byte that is not printable, unless --all is said: a
packet that came by a device with an odd name disappears that way (print_multiline() in src/shared/logs-show.c)."""


@dataclass(slots=True)
class Counts:
    """What became of the lines; the first number is the sum of the next four."""

    lines: int = 0
    ours: int = 0
    """Understood."""
    unparsed: int = 0
    """The kernel's, with a watched prefix, in an unknown form."""
    foreign: int = 0
    """With a watched prefix in it, but nothing shows that the kernel wrote it: passed over."""
    others: int = 0
    """Anything else."""
    left_out: int = 0
    """Of the others, the kernel's lines of which journalctl says only that there is one."""
    undated: int = 0
    """Of the first two kinds, those left out because they tell no time of day and a time was asked for."""


class LogFileReader:
    """Reads lines for a set of watched prefixes. With ``flows_only`` the events have no more fields than it takes to
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
        """The events that the lines would have become and that are wanted. Never raises of itself."""
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
        """What became of the lines, and which years were assumed for stamps that name none."""
        return {**asdict(self.counts), "assumed_years": sorted(self._stamps.years)}

    def _event(self, data: bytes) -> Event | None:
        line = read_line(data, self._stamps)
        if line is None:
            claims = _OWN_EVENT not in data and any(mark in data for mark in self._marks)
            self.counts.foreign += claims
            self.counts.others += not claims
            return None
        flow = self._glance(line.text)
        if flow is not None:
            wanted = self._wanted.takes_packet(flow.src, int(flow.port))
            if not wanted or self._flows_only:
                self.counts.ours += 1
                wanted = wanted and self._takes_time(line)
                return of_flow(flow, self._watched[flow.prefix], line) if wanted else None
        return self._read(line)

    def _glance(self, text: str) -> Flow | None:
        """The flow of a plain line, which most are; reading all of it takes thrice as long."""
        if not (self._flows_only or self._wanted.by_packet):
            return None
        seen = self._reader.read_flow(text if text.endswith(" ") else f"{text} ")
        return seen.flow if seen is not None else None

    def _read(self, line: KernelLine) -> Event | None:
        read = self._reader.read(line.text)
        if read is None:
            self.counts.others += 1
            self.counts.left_out += _LEFT_OUT.fullmatch(line.text) is not None
            return None
        if isinstance(read, Denial):
            self.counts.ours += 1
            wanted = self._wanted.takes_packet(read.src, read.dpt)
            return of_denial(read, line) if wanted and self._takes_time(line) else None
        self.counts.unparsed += 1
        return of_unparsed(read, line) if not self._wanted.by_packet and self._takes_time(line) else None

    def _takes_time(self, line: KernelLine) -> bool:
        if not self._wanted.by_time:
            return True
        if line.realtime is None:
            self.counts.undated += 1
            return False
        return self._wanted.takes_time(line.realtime)


def _needles(watched: Iterable[Watched]) -> tuple[bytes, ...]:
    """A line without any of these holds no watched prefix: for each prefix its longest part that no file spells
    otherwise. A prefix that has no such part makes every line be looked at."""
    parts = {max(_PLAIN.findall(item.prefix), key=len, default="").encode() for item in watched}
    return (*sorted(parts), _BYTES_IN_JSON, _BLOB)
