r"""Heads of log lines in unusual spellings, written anew in a common one: dates as numbers, ``kernel[0]:``, tabs.

What stands before the name of the kernel is only written anew. Whether it shows that the kernel wrote the line is
decided as for every other line.

This module is pure.
"""

from __future__ import annotations

import re
from typing import Final

from fwguardd.ctl.denials.times import MONTHS

_NAME: Final = re.compile(r"(?<![^ \t>\])}])kernel(?:\[[0-]\]|\(0\))?[ \t]?:[ \t]?")
"""The kernel has no process, so its number is 0 where there is one. `kernel[12]` is a program with that name."""

_LONGEST_HEAD: Final = 400
"""Characters: a name of a host has 255 at most, and a stamp less than 100."""

_BLANKS: Final = re.compile("[ \t]+")

_CLOCK: Final = (
    r",?[ T:_-]?(?P<hour>[0-9]{1,2}):?(?P<minute>[0-9]{2}):?(?P<second>[0-9]{2})(?:[.,](?P<fraction>[0-9]{1,9}))?"
    r"(?: ?(?P<half>[AP])M)?(?: ?(?P<zone>Z|[+-][0-9]{2}:?[0-9]{2}))?[\])>]?:?(?![^ ])"
)
_START: Final = r"(?P<priority><[0-9]{1,3}> ?)?[\[(<]?(?:(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)[a-z]{0,6},? )?"
_MONTH: Final = f"(?P<name>{'|'.join(MONTHS)})[a-z]{{0,6}}"
_STAMPS: Final = (
    re.compile(
        rf"{_START}(?P<month>[0-9]{{1,2}})(?P<by>[/.-])(?P<day>[0-9]{{1,2}})(?:(?P=by)(?P<year>[0-9]{{2,4}}))?{_CLOCK}"
    ),
    re.compile(rf"{_START}(?P<year>20[0-9]{{2}})[/.-]?(?P<month>[0-9]{{2}})[/.-]?(?P<day>[0-9]{{2}}){_CLOCK}"),
    re.compile(rf"{_START}{_MONTH}[ .-]{{1,2}}(?P<day>[0-9]{{1,2}})(?P<year>)(?![0-9:]){_CLOCK}"),
    re.compile(rf"{_START}(?P<day>[0-9]{{1,2}})[ .-]{{1,2}}{_MONTH}(?:[ .-](?P<year>[0-9]{{4}}))?{_CLOCK}"),
)
_CLOCK_ALONE: Final = re.compile(r"[0-9]{2}:[0-9]{2}:[0-9]{2}(?:[.,][0-9]{1,9})? (?:[^ ]{0,254}[^ :] )?")


def respelled(line: str) -> str | None:
    """A line with its head in a common spelling; None for a line without the name of the kernel, and for one whose
    spelling is common already."""
    name = _NAME.search(line, 0, _LONGEST_HEAD)
    if name is None:
        return None
    head = _BLANKS.sub(" ", line[: name.start()])
    new = f"{_with_common_stamp(head)}kernel: {line[name.end() :]}"
    if new == line:
        return None
    return new


def _with_common_stamp(head: str) -> str:
    for form in _STAMPS:
        match = form.match(head)
        if match is not None:
            return f"{match['priority'] or ''}{_stamp(match)}{head[match.end() :]}"
    if _CLOCK_ALONE.fullmatch(head):
        # A time of an unknown day is not a time.
        return ""
    return head


def _stamp(match: re.Match[str]) -> str:
    """The stamp as syslog or ISO 8601 has it."""
    parts = match.groupdict()
    clock = f"{_hour(match):02}:{match['minute']}:{match['second']}"
    if match["fraction"]:
        clock = f"{clock}.{match['fraction']}"
    month, day = _month_and_day(parts)
    if not match["year"]:
        return f"{_NAMES.get(month, 'Jan')} {day:>2} {clock}"
    return f"{_whole_year(match['year'])}-{month:02}-{day:02}T{clock}{match['zone'] or ''}"


_NAMES: Final = {number: name for name, number in MONTHS.items()}


def _month_and_day(parts: dict[str, str | None]) -> tuple[int, int]:
    """Month and day of a stamp."""
    day = int(parts["day"] or 0)
    if parts.get("name"):
        return MONTHS[parts["name"] or ""], day
    return _in_order(int(parts["month"] or 0), day, parts.get("by"))


def _in_order(first: int, second: int, separator: str | None) -> tuple[int, int]:
    """Month and day of two numbers. With points the day comes first, else the month, unless there is no such month."""
    if separator == "." or first > len(MONTHS):
        return second, first
    return first, second


def _whole_year(year: str) -> str:
    return f"20{year}"[-4:]


def _hour(match: re.Match[str]) -> int:
    """The hour of a clock of 24 hours."""
    hour = int(match["hour"])
    if not match["half"]:
        return hour
    return hour % 12 + 12 * (match["half"] == "P")
