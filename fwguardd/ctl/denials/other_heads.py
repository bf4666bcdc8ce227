r"""What less common programs write before the text of a kernel line: stamp, priority, facility, host in any spelling.

A facility other than kern does not come from the kernel itself: some program has relayed the line, and it is marked so.
dmesg prints the facility as the kernel has it, so there another facility means another author.

This module is pure.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from fwguardd.ctl.denials.event import KernelLine
from fwguardd.ctl.denials.head_spellings import respelled
from fwguardd.ctl.denials.line_heads import (
    CALLER,
    CLOCK,
    DATE,
    LEVEL,
    NAME,
    PRINTK,
    kernel_line,
    read_head,
    spelled,
    zone_of,
)
from fwguardd.ctl.denials.times import MONTHS
from fwguardd.values import dataclass

if TYPE_CHECKING:
    from fwguardd.ctl.denials.times import StampReader


MONTH: Final = "Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec"
WEEKDAY: Final = "(?:(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun),? )?"
_ZONE: Final = "Z|UTC|GMT|[+-][0-9]{2}(?::?[0-9]{2})?"
_STAMP: Final = (
    rf"(?P<open>\[)?{WEEKDAY}(?:"
    rf"(?:(?P<year>[0-9]{{4}}) )?(?P<month>{MONTH}) {{0,2}}(?P<day>[0-9]{{1,2}}),?(?: (?P<year_2>[0-9]{{4}}))?|"
    rf"(?P<day_2>[0-9]{{1,2}})[ /-](?P<month_2>{MONTH})[ /-](?P<year_3>[0-9]{{4}})|"
    r"(?P<year_4>[0-9]{4})[-/.](?P<month_4>[0-9]{1,2})[-/.](?P<day_4>[0-9]{1,2}),?|"
    r"@?(?P<epoch>[0-9]{9,11})(?:\.(?P<epoch_fraction>[0-9]{1,9}))?"
    r")"
    rf"(?(epoch)|[T :](?P<clock>[0-9]{{1,2}}:[0-9]{{2}}(?::[0-9]{{2}})?)(?:[.,](?P<fraction>[0-9]{{1,9}}))?"
    rf"(?: ?(?P<zone>{_ZONE}|[A-Z]{{3,5}}(?= [0-9]{{4}}))(?![^ \]:]))?(?: (?P<year_5>[0-9]{{4}}))?)"
    r"(?(open)\]):? {1,2}"
)
_FACILITY: Final = r"[\[<(]?{name}[a-z0-9]{{2,9}}) *[.:/| ] *(?:{level}|[0-7]) *[\])>]?[,:|]? +"


def _facility(name: str) -> str:
    return f"(?:{_FACILITY.format(name=f'(?P<{name}>', level=LEVEL)})?"


_PRIORITY: Final = "<(?P<priority>[0-9]{1,3})>"

_NAMED_HEAD: Final = re.compile(
    rf"(?:{_PRIORITY} ?)?{_facility('facility')}(?P<stamp>{_STAMP}(?:\[ *[0-9]+\.[0-9]+\] )?)?{_facility('facility_2')}"
    rf"(?:(?P<host>(?!kernel:)[^ ]{{0,254}}[^ :]) )?{_facility('facility_3')}{NAME}{PRINTK}"
)
"""Priority, facility.level, stamp and host before the name `kernel`: syslog in all its spellings, BusyBox, OpenWrt."""

_SYSLOG_5424: Final = re.compile(
    rf"(?:{_PRIORITY})?(?:1 )?(?:-|(?P<iso>{DATE}T{CLOCK})(?:\.(?P<fraction>[0-9]{{1,9}}))?"
    r"(?P<zone>Z|[+-][0-9:]{4,6})) "
    r"(?P<host>[^ ]{1,255}) (?:kernel:? |- (?=[^ ]+ [^ ]+ (?:- )?kernel: ))[^ ]{1,128} [^ ]{1,32} "
    # Some relays leave out the structured data.
    r'(?:(?:-|(?:\[(?! *[0-9]+\.[0-9]+\])[^ =\]"]{1,32}(?: [^ =\]"]{1,32}="(?:[^"\\\]]|\\.)*")*\]){1,8}) )?'
    rf"(?:\xef\xbb\xbf)?(?:kernel: )?{PRINTK}"
)
"""RFC 5424, with the priority that files leave out."""

_DMESG_HEAD: Final = re.compile(
    r"(?:<[0-7]>|kern *:[a-z]+ *: *)?"
    rf"\[(?:(?P<month>{MONTH}) ?(?P<day>[0-9]{{1,2}}) (?P<clock>[0-9]{{2}}:[0-9]{{2}})| *\+[0-9]+\.[0-9]+)\]{CALLER}"
)
"""dmesg --reltime (-e): the minute where it is a new one, else the seconds since the line before."""

_FACILITY_ALONE: Final = re.compile(
    rf"(?:(?P<iso>{DATE}[T_ ]{CLOCK})(?:[.,](?P<fraction>[0-9]{{1,9}}))?(?P<zone>Z|[+-][0-9:]{{4,6}})? )?"
    rf"(?:(?P<host>[^ ]{{0,254}}[^ :]): )?kern(?:\.(?:{LEVEL}):|: (?:{LEVEL}):) +"
    rf"(?:\[(?P<inner>{DATE}T{CLOCK}(?:\.[0-9]{{1,9}})?Z)\]: )?{PRINTK}"
)
"""The facility of the kernel instead of its name: socklog and svlogd, and ``talosctl dmesg``."""

UNDATED_DMESG: Final = re.compile(r"<[0-7]>(?![0-9\[<])|kern *:[a-z]+ *: +(?!\[)")
"""dmesg --raw or --decode, with --notime."""


def _realtime_5424(match: re.Match[str], stamps: StampReader) -> int | None:
    if not match["iso"]:
        return None
    return stamps.read(match["iso"] + match["zone"], match["fraction"])


def _read_syslog_5424(line: str, stamps: StampReader) -> KernelLine | None:
    match = _SYSLOG_5424.match(line)
    if match is None:
        return None
    found = kernel_line(
        line, match, _realtime_5424(match, stamps), match["printk"], relayed=_is_relayed(match["priority"])
    )
    if found.host == "-":
        return found._replace(host=None)
    return found


def _read_relative_dmesg(line: str, stamps: StampReader) -> KernelLine | None:
    match = _DMESG_HEAD.match(line)
    if match is None:
        return None
    realtime = None
    if match["month"]:
        realtime = stamps.read(f"{match['month']} {match['day']:>2} {match['clock']}:00", None)
    return KernelLine(spelled(line[match.end() :]), realtime)


def _is_host_alone(match: re.Match[str]) -> bool:
    """Whether the head has neither a stamp nor a priority: the word before the name can then be anything."""
    return bool(match["host"]) and not (match["stamp"] or match["priority"])


def _read_named(line: str, stamps: StampReader) -> KernelLine | None:
    match = _NAMED_HEAD.match(line)
    if match is None:
        return None
    if _is_host_alone(match):
        return None
    relayed = _is_relayed(match["priority"]) or _is_other_facility(match)
    return kernel_line(line, match, _named_realtime(match, stamps), match["printk"], relayed=relayed)


def _read_facility_alone(line: str, stamps: StampReader) -> KernelLine | None:
    match = _FACILITY_ALONE.match(line)
    if match is None or not any(match.group("iso", "inner", "printk")):
        return None
    return kernel_line(line, match, _facility_realtime(match, stamps), match["printk"])


def _facility_realtime(match: re.Match[str], stamps: StampReader) -> int | None:
    if match["inner"]:
        return stamps.read_iso(match["inner"])
    if match["iso"]:
        return stamps.read(match["iso"].replace("_", "T") + (match["zone"] or ""), match["fraction"])
    return None


_FORMS: Final = (read_head, _read_syslog_5424, _read_relative_dmesg, _read_named, _read_facility_alone)


def read_any_head(line: str, stamps: StampReader) -> KernelLine | None:
    """The kernel line in a line that begins with a head of any form, common ones included."""
    found = _read_forms(line, stamps)
    if found is not None:
        return found
    new = respelled(line)
    if new is None:
        return None
    return _read_forms(new, stamps)


def _read_forms(line: str, stamps: StampReader) -> KernelLine | None:
    for form in _FORMS:
        found = form(line, stamps)
        if found is not None:
            return found
    return None


def _is_relayed(priority: str | None) -> bool:
    """Whether a priority (facility times eight, and level) is not of the kernel."""
    return priority is not None and int(priority) > 7


def _is_other_facility(match: re.Match[str]) -> bool:
    named = match["facility"] or match["facility_2"] or match["facility_3"]
    return named is not None and named != "kern"


def _epoch_realtime(match: re.Match[str]) -> int:
    """Microseconds of a stamp in seconds since 1970, with a fraction of any number of digits."""
    fraction = match["epoch_fraction"] or "0"
    return int(match["epoch"]) * 1_000_000 + int(fraction[:6].ljust(6, "0"))


def _named_realtime(match: re.Match[str], stamps: StampReader) -> int | None:
    """The time of a stamp in one of its many spellings."""
    if match["epoch"]:
        return _epoch_realtime(match)
    if not match["clock"]:
        return None
    clock = _whole_clock(match["clock"])
    if match["year_4"]:
        date = f"{match['year_4']}-{int(match['month_4']):02}-{int(match['day_4']):02}"
        return stamps.read(f"{date}T{clock}{zone_of(match['zone'])}", match["fraction"])
    return _named_month_realtime(match, clock, stamps)


def _named_month_realtime(match: re.Match[str], clock: str, stamps: StampReader) -> int | None:
    """The time of a stamp that has the name of the month, and may have no year."""
    month, day, year = _first(match, "month", "month_2"), _first(match, "day", "day_2"), _first(match, *_YEARS)
    if not year:
        return stamps.read(f"{month} {day:>2} {clock}", match["fraction"])
    date = f"{year}-{MONTHS.get(month, 0):02}-{int(day):02}"
    return stamps.read(f"{date}T{clock}{zone_of(match['zone'])}", match["fraction"])


_YEARS: Final = ("year", "year_2", "year_3", "year_5")


def _first(match: re.Match[str], *names: str) -> str:
    """The text of the first of some groups that has one."""
    for text in match.group(*names):
        if text:
            return str(text)
    return ""


def _whole_clock(clock: str) -> str:
    """A time of day with two digits for each part, and with seconds."""
    parts = clock.split(":")
    if len(parts) == 2:
        parts.append("00")
    return ":".join(part.rjust(2, "0") for part in parts)


@dataclass(frozen=True, slots=True)
class ProgramLine:
    """A line of syslog text: its time, host and program ("" where it has none), and the message."""

    realtime: int | None
    host: str
    program: str
    text: str


_PROGRAM_LINE: Final = re.compile(
    rf"(?:{_PRIORITY} ?)?{_facility('facility')}{_STAMP}{_facility('facility_2')}"
    rf"(?:(?![Ll]ast message)(?P<host>[^ ]{{0,254}}[^ :]) )?{_facility('facility_3')}"
    r"(?:(?P<program>[A-Za-z][A-Za-z0-9_-]{0,30})(?:\[[0-9]{1,10}\])?: )?"
)


def read_program_line(line: str, stamps: StampReader) -> ProgramLine | None:
    """A line of any program; None where it does not begin with a stamp."""
    match = _PROGRAM_LINE.match(line)
    if match is None:
        return None
    realtime = _named_realtime(match, stamps)
    return ProgramLine(realtime, match["host"] or "", match["program"] or "", line[match.end() :])
