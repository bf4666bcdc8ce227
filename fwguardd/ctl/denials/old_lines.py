"""What old kernel log lines would have become, had fwguardd read them: by the daemon's own reader, line by line.

Every line is accounted for, as on the daemon's road: understood, of unknown form, not the kernel's, or of no concern.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Final

from fwguardd.ctl.denials.event import of_denial, of_flow, of_unparsed
from fwguardd.ctl.denials.lines import read_line
from fwguardd.denials.model import Denial
from fwguardd.denials.parse import LineReader

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from fwguardd.ctl.denials.event import Event, KernelLine
    from fwguardd.ctl.denials.stamps import StampReader
    from fwguardd.ctl.denials.wanted import Wanted
    from fwguardd.denials.flow import Flow
    from fwguardd.denials.model import Watched

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


class OldLines:
    """Reads lines for a set of watched prefixes. With ``flows_only`` the events have no more fields than it takes to
    count them. Raises ValueError for prefixes that LineReader does not take."""

    def __init__(
        self, watched: Iterable[Watched], wanted: Wanted, stamps: StampReader, *, flows_only: bool = False
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
        seen = self._reader.glance(text if text.endswith(" ") else f"{text} ")
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
