r"""What common programs write before the text of a kernel line: syslog text, the short forms of journalctl, and dmesg.

Every log line comes this way, so it has to be fast. `fwguardd.ctl.denials.other_heads` knows the forms that are less
common.

This module is pure.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from fwguardd.ctl.denials.event import KernelLine

if TYPE_CHECKING:
    from fwguardd.ctl.denials.times import StampReader


CLOCK: Final = "[0-9]{2}:[0-9]{2}:[0-9]{2}"
DATE: Final = "[0-9]{4}-[0-9]{2}-[0-9]{2}"
UPTIME: Final = r"[0-9]{1,10}\.[0-9]{1,9}"
CALLER: Final = r"(?: ?\[ *[TC][0-9]{1,10}\])? ?"
"""The task or processor that printed the line (CONFIG_PRINTK_CALLER; print_caller() in kernel/printk/printk.c)."""

PRINTK: Final = rf"(?:<[0-7]>)?(?:\[ *(?P<printk>{UPTIME})\]{CALLER})?"
NAME: Final = "kernel: ?"

_HEAD: Final = re.compile(
    # dmesg --raw and /proc/kmsg begin with a priority, dmesg --decode with facility and level.
    r"(?:<[0-7]>|kern *:[a-z]+ *: *)?"
    r"(?:"
    rf"(?P<syslog>[A-Z][a-z]{{2}} [ 0-9][0-9] {CLOCK})(?:\.(?P<syslog_usec>[0-9]{{1,9}}))? |"
    rf"(?P<iso>{DATE}[T ]{CLOCK})(?:\.(?P<iso_usec>[0-9]{{1,9}})|,(?P<dmesg_usec>[0-9]{{6}}))?"
    r"(?P<zone>Z|[+-][0-9]{2}:?[0-9]{2})? |"
    rf"[A-Z][a-z]{{2}} (?P<full>{DATE} {CLOCK})(?:\.(?P<full_usec>[0-9]{{1,9}}))? "
    r"(?P<name>[A-Z]{2,5}|[+-][0-9]{2,4}) |"
    r"(?P<epoch>[0-9]{9,11})\.(?P<epoch_usec>[0-9]{6}) |"
    rf"\[ *(?P<uptime>{UPTIME})(?: <[^<>]{{1,24}}>)?\]{CALLER}|"
    rf"\[[A-Z][a-z]{{2}} (?P<ctime>[A-Z][a-z]{{2}} [ 0-9][0-9] {CLOCK} [0-9]{{4}})(?: <[^<>]{{1,24}}>)?\]{CALLER}"
    r")"
    # The name of the host may be left out; a program's name ends with a colon, so it cannot stand for a host's.
    rf"(?P<tag>(?:(?P<host>[^ ]{{0,254}}[^ :]) )?{NAME}{PRINTK})?"
)
_REPEATED: Final = re.compile(r"message repeated ([0-9]{1,9}) times: \[ ?(.*)\]")
"""How rsyslog writes a line that came several times ($RepeatedMsgReduction)."""


_SYSLOG_HEAD: Final = re.compile(
    rf"(?:([A-Z][a-z]{{2}} [ 0-9][0-9] {CLOCK})|({DATE}T{CLOCK}))(?:\.([0-9]{{1,9}}))?"
    r"(Z|[+-][0-9]{2}:?[0-9]{2})? "
    rf"(?:([^ ]{{0,254}}[^ :]) )?kernel: ?(?:<[0-7]>)?(?:\[ *({UPTIME})\]{CALLER})?"
)
"""The two heads of syslog text that nearly all files have; `_HEAD` has them too, and takes longer."""


LEVEL: Final = "emerg|panic|alert|crit|err|error|warn|warning|notice|info|debug"
_FACILITY_LEVEL: Final = re.compile(rf"\[?[a-z][a-z0-9]{{1,8}}\.(?:{LEVEL})\]?")
"""What may stand in the place of the host's name, and is not one."""


def read_head(line: str, stamps: StampReader) -> KernelLine | None:
    """The kernel line in a line of the common forms."""
    match = _SYSLOG_HEAD.match(line)
    if match is None:
        return _read_other_head(line, stamps)
    syslog, iso, fraction, zone, host, uptime = match.groups()
    seconds = syslog or iso
    if zone:
        seconds += zone
    if host and "." in host and _FACILITY_LEVEL.fullmatch(host):
        return None
    text, times = line[match.end() :], 1
    if text.startswith("message repeated "):
        text, times = _unfolded(text)
    return KernelLine(spelled(text), stamps.read(seconds, fraction), _uptime(uptime), host, times)


def _read_other_head(line: str, stamps: StampReader) -> KernelLine | None:
    match = _HEAD.match(line)
    if match is None or not _is_of_kernel(match):
        return None
    return kernel_line(line, match, _realtime(match, stamps), match["uptime"] or match["printk"])


def _is_of_kernel(match: re.Match[str]) -> bool:
    """Whether the line names the kernel, or was printed by dmesg, which prints no names: all that it prints comes from
    the kernel log."""
    if match["tag"] is None:
        return bool(match["uptime"] or match["ctime"] or match["dmesg_usec"])
    return _FACILITY_LEVEL.fullmatch(match["host"] or "") is None


def kernel_line(
    line: str, match: re.Match[str], realtime: int | None, uptime: str | None, *, relayed: bool = False
) -> KernelLine:
    """The kernel line behind a head; ``uptime`` is the printk clock as the line has it."""
    text, times = _unfolded(line[match.end() :])
    return KernelLine(spelled(text), realtime, _uptime(uptime), match["host"], times, relayed)


def _unfolded(text: str) -> tuple[str, int]:
    """A text, and how many times rsyslog says that it came."""
    repeated = _REPEATED.fullmatch(text)
    if repeated is None:
        return text, 1
    return repeated[2], int(repeated[1])


def _uptime(seconds: str | None) -> int | None:
    """Microseconds since boot, of the seconds as printk prints them."""
    if not seconds:
        return None
    if seconds[-7:-6] == ".":
        return int(seconds.replace(".", ""))
    whole, _, fraction = seconds.partition(".")
    return int(whole + fraction[:6].ljust(6, "0"))


def _realtime(match: re.Match[str], stamps: StampReader) -> int | None:
    if match["iso"]:
        return _iso_realtime(match, stamps)
    if match["syslog"]:
        return stamps.read(match["syslog"], match["syslog_usec"])
    if match["full"]:
        return stamps.read(match["full"] + zone_of(match["name"]), match["full_usec"])
    if match["epoch"]:
        return int(match["epoch"]) * 1_000_000 + int(match["epoch_usec"])
    if match["ctime"]:
        return stamps.read(match["ctime"], None)
    return None


def _iso_realtime(match: re.Match[str], stamps: StampReader) -> int | None:
    return stamps.read(match["iso"] + (match["zone"] or ""), match["iso_usec"] or match["dmesg_usec"])


def zone_of(name: str | None) -> str:
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
