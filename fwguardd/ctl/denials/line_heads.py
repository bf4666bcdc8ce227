r"""What stands before the text of a kernel line: stamps, names and priorities, as programs and people put them there.

`read_head` knows the forms that the common programs write, and is fast. `read_wrapped` is for all others: it takes off
what carried the line (``grep -n``, container logs, relays), and then reads stamp, facility, host and name in any of
their spellings. Both return None where nothing shows that the kernel wrote the line.

A facility other than kern does not come from the kernel itself: some program has relayed the line, and it is marked so.
dmesg prints the facility as the kernel has it, so there another facility means another author.

This module is pure.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from fwguardd.ctl.denials.event import KernelLine
from fwguardd.ctl.denials.times import MONTHS

if TYPE_CHECKING:
    from fwguardd.ctl.denials.times import StampReader


_CLOCK: Final = "[0-9]{2}:[0-9]{2}:[0-9]{2}"
_DATE: Final = "[0-9]{4}-[0-9]{2}-[0-9]{2}"
_UPTIME: Final = r"[0-9]{1,10}\.[0-9]{1,9}"
_CALLER: Final = r"(?:\[ *[TC][0-9]{1,10}\])?"
"""The task or processor that printed the line (CONFIG_PRINTK_CALLER; print_caller() in kernel/printk/printk.c)."""

_PRINTK: Final = rf"(?:\[ *(?P<printk>{_UPTIME})\]{_CALLER} )?"
_NAME: Final = r"kernel:(?: |(?=\[))"

_HEAD: Final = re.compile(
    # dmesg --raw and /proc/kmsg begin with a priority, dmesg --decode with facility and level.
    r"(?:<[0-7]>|kern *:[a-z]+ *: *)?"
    r"(?:"
    rf"(?P<syslog>[A-Z][a-z]{{2}} [ 0-9][0-9] {_CLOCK})(?:\.(?P<syslog_usec>[0-9]{{1,9}}))? |"
    rf"(?P<iso>{_DATE}[T ]{_CLOCK})(?:\.(?P<iso_usec>[0-9]{{1,9}})|,(?P<dmesg_usec>[0-9]{{6}}))?"
    r"(?P<zone>Z|[+-][0-9]{2}:?[0-9]{2})? |"
    rf"[A-Z][a-z]{{2}} (?P<full>{_DATE} {_CLOCK}) (?P<name>[A-Z]{{2,5}}|[+-][0-9]{{2,4}}) |"
    r"(?P<epoch>[0-9]{9,11})\.(?P<epoch_usec>[0-9]{6}) |"
    rf"\[ *(?P<uptime>{_UPTIME})(?: <[^<>]{{1,24}}>)?\]{_CALLER} |"
    rf"\[[A-Z][a-z]{{2}} (?P<ctime>[A-Z][a-z]{{2}} [ 0-9][0-9] {_CLOCK} [0-9]{{4}})(?: <[^<>]{{1,24}}>)?\]{_CALLER} "
    r")"
    # The name of the host may be left out; a program's name ends with a colon, so it cannot stand for a host's.
    rf"(?P<tag>(?:(?P<host>[^ ]{{0,254}}[^ :]) )?{_NAME}{_PRINTK})?"
)
_REPEATED: Final = re.compile(r"message repeated ([0-9]{1,9}) times: \[ ?(.*)\]")
"""How rsyslog writes a line that came several times ($RepeatedMsgReduction)."""


_SYSLOG_HEAD: Final = re.compile(
    rf"(?:([A-Z][a-z]{{2}} [ 0-9][0-9] {_CLOCK})|({_DATE}T{_CLOCK}))(?:\.([0-9]{{1,9}}))?"
    r"(Z|[+-][0-9]{2}:?[0-9]{2})? "
    rf"(?:([^ ]{{0,254}}[^ :]) )?kernel: (?:\[ *({_UPTIME})\]{_CALLER} )?"
)
"""The two heads of syslog text that nearly all files have; `_HEAD` has them too, and takes longer."""


_LEVEL: Final = "emerg|panic|alert|crit|err|error|warn|warning|notice|info|debug"
_FACILITY_LEVEL: Final = re.compile(rf"\[?[a-z][a-z0-9]{{1,8}}\.(?:{_LEVEL})\]?")
"""What may stand in the place of the host's name, and is not one."""


def read_head(line: str, stamps: StampReader) -> KernelLine | None:
    """The kernel line in a line of the common forms."""
    match = _SYSLOG_HEAD.match(line)
    if match is not None:
        syslog, iso, fraction, zone, host, uptime = match.groups()
        seconds = syslog or iso
        if zone:
            seconds += zone
        if host and "." in host and _FACILITY_LEVEL.fullmatch(host):
            return None
        text, times = _unfolded(line[match.end() :])
        return KernelLine(spelled(text), stamps.read(seconds, fraction), _uptime(uptime), host, times)
    return _read_other_head(line, stamps)


def _read_other_head(line: str, stamps: StampReader) -> KernelLine | None:
    match = _HEAD.match(line)
    if match is None or not _is_of_kernel(match):
        return None
    return _kernel_line(line, match, _realtime(match, stamps), match["uptime"] or match["printk"])


def _is_of_kernel(match: re.Match[str]) -> bool:
    """Whether the line names the kernel, or was printed by dmesg, which prints no names: all that it prints comes from
    the kernel log."""
    if match["tag"] is None:
        return bool(match["uptime"] or match["ctime"] or match["dmesg_usec"])
    return _FACILITY_LEVEL.fullmatch(match["host"] or "") is None


def _kernel_line(
    line: str, match: re.Match[str], realtime: int | None, uptime: str | None, *, relayed: bool = False
) -> KernelLine:
    text, times = _unfolded(line[match.end() :])
    return KernelLine(spelled(text), realtime, _uptime(uptime), match["host"], times, relayed)


def _unfolded(text: str) -> tuple[str, int]:
    """A text, and how many times rsyslog says that it came."""
    if text.startswith("message repeated "):
        repeated = _REPEATED.fullmatch(text)
        if repeated is not None:
            return repeated[2], int(repeated[1])
    return text, 1


def _uptime(seconds: str | None) -> int | None:
    """Microseconds since boot, of the seconds as printk prints them."""
    if not seconds:
        return None
    whole, _, fraction = seconds.partition(".")
    return int(whole + fraction[:6].ljust(6, "0"))


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


def _zone(name: str | None) -> str:
    """The zone that journalctl prints, as ISO 8601 has it. Python cannot look up the name of a zone: it is the zone of
    the host, so the time is local."""
    if not name:
        return ""
    if name[0] in "+-":
        return name
    return {"UTC": "Z", "GMT": "Z", "Z": "Z"}.get(name, "")


_NOT_SPELLED: Final = re.compile(r"\\x[0-9a-f]{2}|[^ -\[\]-~]")


def spelled(text: str) -> str:
    """A text, decoded as Latin-1, in the kernel's spelling."""
    if text.isascii() and text.isprintable() and "\\" not in text:
        return text
    return _NOT_SPELLED.sub(_spell, text)


def _spell(found: re.Match[str]) -> str:
    """One character that no kernel line holds; four are the kernel's spelling already."""
    if len(found[0]) > 1:
        return found[0]
    return f"\\x{ord(found[0]):02x}"


# The forms that are less common.

_MONTH: Final = "Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec"
_WEEKDAY: Final = "(?:(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun),? )?"
_ZONE: Final = "Z|UTC|GMT|[+-][0-9]{2}(?::?[0-9]{2})?"
_STAMP: Final = (
    rf"(?P<open>\[)?{_WEEKDAY}(?:"
    rf"(?:(?P<year>[0-9]{{4}}) )?(?P<month>{_MONTH}) {{0,2}}(?P<day>[0-9]{{1,2}}),?(?: (?P<year_2>[0-9]{{4}}))?|"
    rf"(?P<day_2>[0-9]{{1,2}})[ /-](?P<month_2>{_MONTH})[ /-](?P<year_3>[0-9]{{4}})|"
    r"(?P<year_4>[0-9]{4})[-/.](?P<month_4>[0-9]{1,2})[-/.](?P<day_4>[0-9]{1,2}),?|"
    r"@?(?P<epoch>[0-9]{9,11})(?:\.(?P<epoch_fraction>[0-9]{1,9}))?"
    r")"
    rf"(?(epoch)|[T :](?P<clock>[0-9]{{1,2}}:[0-9]{{2}}(?::[0-9]{{2}})?)(?:[.,](?P<fraction>[0-9]{{1,9}}))?"
    rf"(?: ?(?P<zone>{_ZONE}|[A-Z]{{3,5}}(?= [0-9]{{4}}))(?![^ \]:]))?(?: (?P<year_5>[0-9]{{4}}))?)"
    r"(?(open)\]):? {1,2}"
)
_FACILITY: Final = r"[\[<(]?{name}[a-z0-9]{{2,9}}) *[.:/|] *(?:{level}) *[\])>]?[:|]? +"


def _facility(name: str) -> str:
    return f"(?:{_FACILITY.format(name=f'(?P<{name}>', level=_LEVEL)})?"


_PRIORITY: Final = "<(?P<priority>[0-9]{1,3})>"

_NAMED_HEAD: Final = re.compile(
    rf"(?:{_PRIORITY} ?)?{_facility('facility')}(?P<stamp>{_STAMP}(?:\[ *[0-9]+\.[0-9]+\] )?)?{_facility('facility_2')}"
    rf"(?:(?P<host>(?!kernel:)[^ ]{{0,254}}[^ :]) )?{_facility('facility_3')}{_NAME}{_PRINTK}"
)
"""Priority, facility.level, stamp and host before the name `kernel`: syslog in all its spellings, BusyBox, OpenWrt."""

_SYSLOG_5424: Final = re.compile(
    rf"(?:{_PRIORITY})?1 (?:-|(?P<iso>{_DATE}T{_CLOCK})(?:\.(?P<fraction>[0-9]{{1,9}}))?(?P<zone>Z|[+-][0-9:]{{4,6}})) "
    r"(?P<host>[^ ]{1,255}) kernel [^ ]{1,128} [^ ]{1,32} "
    r'(?:-|(?:\[[^ =\]"]{1,32}(?: [^ =\]"]{1,32}="(?:[^"\\\]]|\\.)*")*\]){1,8}) '
    rf"(?:\xef\xbb\xbf)?(?:kernel: )?{_PRINTK}"
)
"""RFC 5424, with the priority that files leave out."""

_DMESG_HEAD: Final = re.compile(
    r"(?:<[0-7]>|kern *:[a-z]+ *: *)?"
    rf"\[(?:(?P<month>{_MONTH}) ?(?P<day>[0-9]{{1,2}}) (?P<clock>[0-9]{{2}}:[0-9]{{2}})| *\+[0-9]+\.[0-9]+)\]{_CALLER} "
)
"""dmesg --reltime (-e): the minute where it is a new one, else the seconds since the line before."""

_UNDATED_DMESG: Final = re.compile(r"<[0-7]>(?![0-9\[<])|kern *:[a-z]+ *: +(?!\[)")
"""dmesg --raw or --decode, with --notime."""


def _read_syslog_5424(line: str, stamps: StampReader) -> KernelLine | None:
    match = _SYSLOG_5424.match(line)
    if match is None:
        return None
    realtime = None
    if match["iso"]:
        realtime = stamps.read(match["iso"] + match["zone"], match["fraction"])
    found = _kernel_line(line, match, realtime, match["printk"], relayed=_is_relayed(match["priority"]))
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


def _read_named(line: str, stamps: StampReader) -> KernelLine | None:
    match = _NAMED_HEAD.match(line)
    if match is None:
        return None
    if match["host"] and not (match["stamp"] or match["priority"]):
        # The word before the name can be anything.
        return None
    relayed = _is_relayed(match["priority"]) or _is_other_facility(match)
    return _kernel_line(line, match, _named_realtime(match, stamps), match["printk"], relayed=relayed)


_FORMS: Final = (read_head, _read_syslog_5424, _read_relative_dmesg, _read_named)


def _read_any_head(line: str, stamps: StampReader) -> KernelLine | None:
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


def _named_realtime(match: re.Match[str], stamps: StampReader) -> int | None:
    """The time of a stamp in one of its many spellings."""
    if match["epoch"]:
        return int(match["epoch"]) * 1_000_000 + int((match["epoch_fraction"] or "0")[:6].ljust(6, "0"))
    if not match["clock"]:
        return None
    clock = _whole_clock(match["clock"])
    if match["year_4"]:
        date = f"{match['year_4']}-{int(match['month_4']):02}-{int(match['day_4']):02}"
        return stamps.read(f"{date}T{clock}{_zone(match['zone'])}", match["fraction"])
    month, day, year = _first(match, "month", "month_2"), _first(match, "day", "day_2"), _first(match, *_YEARS)
    if not year:
        return stamps.read(f"{month} {day:>2} {clock}", match["fraction"])
    date = f"{year}-{MONTHS.get(month, 0):02}-{int(day):02}"
    return stamps.read(f"{date}T{clock}{_zone(match['zone'])}", match["fraction"])


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


_NANOSECONDS: Final = rf"{_DATE}T{_CLOCK}\.[0-9]{{9}}(?:Z|[+-][0-9]{{2}}:[0-9]{{2}})"
_WRAPPER: Final = re.compile(
    "(?:"
    # A byte order mark, the colours of a terminal, the separators of application/json-seq and server-sent events.
    "(?P<dull>\xef\xbb\xbf|(?:\x1b\\[[0-9;]*m)+|\x1e|data: |\ufeff)|"
    # A line of a syslog stream (RFC 6587) begins with its length.
    "(?P<length>[0-9]{1,5} )(?=<[0-9])|"
    # The containers' runtimes: CRI (stream, and full or partial line), docker logs -t; kubectl logs --prefix; compose.
    rf"(?P<container>{_NANOSECONDS}) (?:(?:stdout|stderr) [FP] )?|"
    r"(?P<pod>\[pod/[^\] ]{1,300}\] |[A-Za-z0-9_.-]{1,80} *\| )|"
    # A relay that puts its own stamp and the name of the sender before the line as it came.
    rf"(?P<relay>(?:{_DATE}[T ]{_CLOCK}(?:\.[0-9]{{1,9}})?(?:Z|[+-][0-9:]{{5,6}})?|(?:{_MONTH}) [ 0-9]?[0-9] {_CLOCK}) "
    rf"[^ ]{{0,254}}[^ :] )(?=<[0-9]{{1,3}}>|(?:{_MONTH}) [ 0-9][0-9] {_CLOCK}|{_DATE}[T ]{_CLOCK})|"
    # grep -H and -n, with - for lines of context; cat -n.
    r"(?P<grep>(?:[^: ]*[/.][^: ]*:(?:[0-9]{1,9}:)?|[^: ]*[/.][^: ]*-[0-9]{1,9}-|[^: /.]+:[0-9]{1,9}:"
    r"|[0-9]{1,9}[:-])(?! )|[^: ]*/[^: ]*-(?=[A-Z<\[])| *[0-9]{1,9}\t)"
    ")"
)
_COLOURS: Final = re.compile("\x1b\\[[0-9;]*m")
_MOST_WRAPPERS: Final = 6
_OWN_STAMP: Final = re.compile(
    rf"<[0-9]{{1,3}}>|{_WEEKDAY}(?:{_MONTH}) {{0,2}}[0-9]|[0-9]{{4}}[-/][0-9]|[0-9]{{9}}|"
    rf"[a-z0-9]+ *[:.](?:{_LEVEL}) *[: ]"
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
    realtime = None
    for _ in range(_MOST_WRAPPERS):
        found = _read_any_head(line, stamps)
        if found is not None:
            if found.realtime is None:
                return found._replace(realtime=realtime)
            return found
        match = _WRAPPER.match(line)
        if match is None or (match["grep"] and _OWN_STAMP.match(line)):
            break
        if match["container"]:
            realtime = stamps.read_iso(match["container"])
        line = _COLOURS.sub("", line[match.end() :])
    undated = _UNDATED_DMESG.match(line)
    if undated is not None and not _OWN_STAMP.match(line, undated.end()):
        return KernelLine(spelled(line[undated.end() :]), realtime)
    return Wrapped(line, realtime)


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
