r"""What tools put before a whole log line: ``grep -n``, the logs of containers, relays, terminals.

This module is pure.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from fwguardd.ctl.denials.event import KernelLine
from fwguardd.ctl.denials.line_heads import CLOCK, DATE, LEVEL, spelled
from fwguardd.ctl.denials.other_heads import MONTH, UNDATED_DMESG, WEEKDAY, read_any_head
from fwguardd.values import dataclass

if TYPE_CHECKING:
    from fwguardd.ctl.denials.times import StampReader

_OFFSET: Final = "(?:Z|[+-][0-9]{2}:[0-9]{2})"
_NANOSECONDS: Final = rf"{DATE}T{CLOCK}\.[0-9]{{9}}{_OFFSET}"
"""The stamps of Docker have all nine digits; those of other runtimes may have fewer."""

_WRAPPER: Final = re.compile(
    "(?:"
    # A byte order mark, the colours of a terminal, the separators of application/json-seq and server-sent events.
    "(?P<dull>\xef\xbb\xbf|(?:\x1b\\[[0-9;]*m)+|\x1e|data: |\ufeff)|"
    # A line of a syslog stream (RFC 6587) begins with its length.
    "(?P<length>[0-9]{1,5} )(?=<[0-9])|"
    # The containers' runtimes: CRI (stream, and full or partial line), docker logs -t; kubectl logs --prefix; compose.
    rf"(?P<container>{DATE}T{CLOCK}(?:\.[0-9]{{1,9}})?{_OFFSET}(?= (?:stdout|stderr) [FP] )|{_NANOSECONDS})"
    r" (?:(?:stdout|stderr) [FP] )?|"
    # stern, and pdsh or Ansible, which begin a line with the name of its host.
    r"(?P<pod>\[pod/[^\] ]{1,300}\] |[A-Za-z0-9_.-]{1,80} *\| |"
    rf"(?:[a-z0-9.-]{{1,253}} [a-z0-9.-]{{1,63}}|[A-Za-z0-9_.-]{{1,253}}:) "
    rf"(?=<[0-9]{{1,3}}>|(?:{MONTH}) [ 0-9][0-9] {CLOCK} |{DATE}[T ]{CLOCK}[^ ]* ))|"
    # A relay that puts its own stamp and the name of the sender before the line as it came.
    rf"(?P<relay>(?:{DATE}[T ]{CLOCK}(?:\.[0-9]{{1,9}})?(?:Z|[+-][0-9:]{{5,6}})?|(?:{MONTH}) [ 0-9]?[0-9] {CLOCK}) "
    rf"[^ ]{{0,254}}[^ :] )(?=<[0-9]{{1,3}}>|1 {DATE}T|(?:{MONTH}) [ 0-9][0-9] {CLOCK}|{DATE}[T ]{CLOCK})|"
    # A stamp that any program can have written.
    rf"(?P<stamp>{DATE}T{CLOCK}\.[0-9]{{1,9}}{_OFFSET}) |"
    # grep -H and -n, with - for lines of context; cat -n.
    r"(?P<grep>[A-Za-z]:\\[^:]{1,255}:(?:[0-9]{1,9}:)?|\(standard input\):(?:[0-9]{1,9}:)?|"
    r"(?:[^: ]*[/.][^: ]*:(?:[0-9]{1,9}:)?|[^: ]*[/.][^: ]*-[0-9]{1,9}-|[^: /.]+:[0-9]{1,9}:|[0-9]{1,9}[:-])(?! )|"
    r"[^: ]*/[^: ]*-(?=[A-Z<\[])| *[0-9]{1,9}\t|[^:]{1,255}\.[^:]{1,20}:[0-9]{1,9}:)"
    ")"
)
_COLOURS: Final = re.compile("\x1b\\[[0-9;]*m")
_MOST_WRAPPERS: Final = 6
_OWN_STAMP: Final = re.compile(
    rf"<[0-9]{{1,3}}>|{WEEKDAY}(?:{MONTH}) {{0,2}}[0-9]|[0-9]{{4}}[-/][0-9]|[0-9]{{9}}|"
    rf"[a-z0-9]+ *[:.](?:{LEVEL}) *[: ]"
)


@dataclass(frozen=True, slots=True)
class Wrapped:
    """What is left of a line after what carried it, and when the carrier took it; `is_json` where it is an object."""

    text: str
    realtime: int | None = None

    @property
    def is_json(self) -> bool:
        """Whether it can be an object of JSON."""
        return self.text.startswith("{")

    @property
    def is_bare(self) -> bool:
        """Whether the line has no head at all, so that only its text can show that the kernel wrote it."""
        return _OWN_STAMP.match(self.text) is None


def unwrap(line: str, stamps: StampReader) -> KernelLine | Wrapped:
    """The kernel line in a line of any form; or what is left of it when nothing shows that the kernel wrote it."""
    realtime, stamped = None, ""
    for _ in range(_MOST_WRAPPERS):
        found = read_any_head(line, stamps)
        if found is not None:
            return _dated(found, realtime)
        match = _carrier(line)
        if match is None:
            break
        if match["stamp"]:
            stamped = stamped or line
        realtime = _time_of(match, stamps, realtime)
        line = _COLOURS.sub("", line[match.end() :])
    return _rest(line, stamped, realtime)


def _time_of(wrapper: re.Match[str], stamps: StampReader, outer: int | None) -> int | None:
    """The time in a wrapper; that of the wrapper around it if it has none."""
    carried_at = wrapper["container"] or wrapper["stamp"]
    if not carried_at:
        return outer
    return stamps.read_iso(carried_at)


def _rest(line: str, stamped: str, realtime: int | None) -> KernelLine | Wrapped:
    """What is left of a line; ``stamped`` is the line from its first stamp on."""
    if stamped:
        # A stamp alone shows nothing: any program may have written what is behind it.
        return Wrapped(stamped, realtime)
    return _unwrapped(line, realtime)


def _carrier(line: str) -> re.Match[str] | None:
    """What a tool has put before a line. The digits of a stamp are not the number of a line."""
    match = _WRAPPER.match(line)
    if match is not None and match["grep"] and _OWN_STAMP.match(line):
        return None
    return match


def _dated(found: KernelLine, realtime: int | None) -> KernelLine:
    """A line with the time of its carrier, if it has none of its own."""
    if found.realtime is None:
        return found._replace(realtime=realtime)
    return found


def _unwrapped(line: str, realtime: int | None) -> KernelLine | Wrapped:
    undated = UNDATED_DMESG.match(line)
    if undated is not None and not _OWN_STAMP.match(line, undated.end()):
        return KernelLine(spelled(line[undated.end() :]), realtime)
    return Wrapped(line, realtime)
