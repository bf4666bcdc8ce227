r"""One line of a file that a kernel log left behind -> the kernel's text, or nothing.

Read are records of /dev/kmsg, what dmesg prints, what ``journalctl -k`` prints in its short forms and with ``-o json``,
and syslog text as in /var/log/kern.log. Only what shows that it is the kernel's is: facility 0, the transport of the
journal, or the name ``kernel`` where syslog text has the name of the program. Text is no proof: where any program may
write lines with any name, as in /var/log/syslog, somebody can have written lines in the kernel's name. dmesg tells the
facility only with --decode or --raw; without, root may have written a line, since nobody else can write to /dev/kmsg.

The text comes out as /dev/kmsg spells it (see `fwguardd.denials.spelling`). Syslog daemons write bytes as they are or
as the kernel spells them, and do not say which: what reads as the kernel's ``\xHH`` is taken for it.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Final

from fwguardd.ctl.denials.event import KernelLine, as_text
from fwguardd.denials.spelling import kernel_spelling
from fwguardd.kernel.journal_log import Entry, read_document
from fwguardd.kernel.kmsg import KERNEL_FACILITY, parse_record

if TYPE_CHECKING:
    from fwguardd.ctl.denials.stamps import StampReader

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
    return KernelLine(kernel_spelling(found.message), round(found.when * 1_000_000), None, host)


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
