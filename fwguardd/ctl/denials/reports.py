"""What log daemons and the kernel report about lines that a log does not have: repeated lines, and lost ones.

This module is pure.
"""

from __future__ import annotations

import re
from typing import Final

from fwguardd.denials.losses import reported_loss
from fwguardd.values import dataclass

_REPEATED: Final = re.compile(
    r"(?:-* *)?[Ll]ast message (?:'.{0,4096}' )?(?:repeated|buffered) ([0-9]{1,9}) times?\b.{0,200}", re.DOTALL
)
"""sysklogd, rsyslog, BusyBox and BSD; syslog-ng quotes the message."""

_REPEATERS: Final = frozenset({"", "kernel", "syslogd", "rsyslogd", "syslog", "syslog-ng", "last"})

_LOSERS: Final = frozenset({"rsyslogd", "systemd-journald", "journal", "syslogd", "syslog-ng", "klogd", "imjournal"})
"""Programs whose reports of loss count. Any other program could say so too."""

_LOST_BY_PROGRAM: Final = (
    re.compile(r"(?:[a-z]+: )?([0-9]{1,15}) messages? (?:were |was )?(?:lost|dropped|discarded|suppressed)\b.*"),
    re.compile(r"(?:[a-z]+:? )?lost ([0-9]{1,15}) messages?\b.*"),
    re.compile(r"Missed ([0-9]{1,15}) kernel messages?\b.*"),
    re.compile(r"Suppressed ([0-9]{1,15}) messages? from (?:kernel|(?:klogd|syslog|rsyslog|syslog-ng)\b).*"),
)
_OVERRUN: Final = re.compile(r"(?:[a-z]+: )?/dev/kmsg buffer overrun, some messages lost\b.*")


_MAY_REPORT: Final = re.compile(
    rb"essage (?:'|repeated|buffered|lost|dropped|discarded|suppressed|was )|"
    rb"essages (?:were |was )?(?:lost|dropped|discarded|suppressed|from |\*\*)|lost [0-9]+ message|"
    rb"Missed [0-9]+ kernel message| (?:callbacks|messages) suppressed"
)


def may_report(line: bytes) -> bool:
    """Whether a line can be a report of repeated or lost lines. It takes a tenth of the time that reading does."""
    return _MAY_REPORT.search(line) is not None


@dataclass(frozen=True, slots=True)
class LostCount:
    """Lost messages; the number is None where the report has none."""

    count: int | None


def repeats(program: str, message: str) -> int | None:
    """How often a log daemon left out the line before this one, because it was the same."""
    if program not in _REPEATERS:
        return None
    match = _REPEATED.fullmatch(message)
    if match is None:
        return None
    return int(match[1])


def loss(program: str, message: str) -> LostCount | None:
    """The loss that a program or the kernel (``kernel``) reports in a message."""
    # rsyslogd prints the number of the error behind its name, as in rsyslogd-2177.
    name = program.rstrip("0123456789").rstrip("-")
    if name == "kernel":
        return _counted(reported_loss(message))
    if name not in _LOSERS:
        return None
    if _OVERRUN.fullmatch(message):
        return LostCount(None)
    for form in _LOST_BY_PROGRAM:
        match = form.fullmatch(message)
        if match is not None:
            return LostCount(int(match[1]))
    return None


def _counted(count: int | None) -> LostCount | None:
    if count is None:
        return None
    return LostCount(count)


_RECORD: Final = re.compile(rb"[0-9]{1,10},([0-9]{1,20}),[0-9]{1,20},[^;\n]*;")


class SequenceGaps:
    """Finds records of /dev/kmsg that are missing between the lines of a file, by their numbers."""

    def __init__(self) -> None:
        self._expected: int | None = None

    def missing(self, line: bytes) -> int:
        """How many are missing before this line; the numbers begin again with each boot."""
        match = _RECORD.match(line)
        if match is None:
            return 0
        seq, expected = int(match[1]), self._expected
        self._expected = seq + 1
        if expected is None:
            return 0
        return max(0, seq - expected)


def is_record(line: bytes) -> bool:
    """Whether a line is a record of /dev/kmsg."""
    return _RECORD.match(line) is not None


_IMITATIONS: Final = (
    ("UniFi", re.compile(r"\[[A-Z0-9_]{1,40}-[ADR]-[0-9]{1,10}\] ?(?:DESCR=|IN=)")),
    ("Proxmox VE", re.compile(r"[0-9]{1,10} [0-7] [^ ]{1,40} [0-9]{2}/[A-Z][a-z]{2}/[0-9]{4}:")),
    ("ulogd", re.compile(r"\bulogd(?:\[[0-9]+\])?: |\bTOS=[0-9A-F]{2} PREC=0x")),
)


def imitation(line: str) -> str | None:
    """The user-space program that wrote a line in the style of the kernel; None for every other line. These programs
    get packets by NFLOG and print them nearly as the kernel does, without its guarantees."""
    for name, form in _IMITATIONS:
        if form.search(line):
            return name
    return None
