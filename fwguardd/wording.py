"""Numbers and times: how messages print them, and how durations are written.

This module is pure.
"""

from __future__ import annotations

import re
from datetime import datetime

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_LONGEST_QUOTE = 80
_LONG_UNITS = {**_UNITS, "d": 86400.0, "w": 604800.0}
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h)$")
_CALLER = re.compile(r"uid ([0-9]+), pid [0-9]+(?: \((.*)\))?", re.DOTALL)
_OWNER = " (owner of the changed files)"


def counted(number: int, singular: str, plural: str = "") -> str:
    """A number with its words: "1 rule", "2 rules". ``plural`` is for words that do more than take an s: "was lost",
    "were lost"."""
    if number == 1:
        return f"1 {singular}"
    return f"{number} {plural or singular + 's'}"


def quoted(text: str) -> str:
    """A text from a file in quotation marks. A long one is cut: a line of a file may have megabytes."""
    if len(text) > _LONGEST_QUOTE:
        text = f"{text[:_LONGEST_QUOTE]}…"
    return repr(text)


def local_time(seconds: float) -> str:
    """A time in seconds since the epoch as local date and time. Raises ValueError, OverflowError and OSError for a time
    beyond the calendar."""
    return datetime.fromtimestamp(seconds).strftime("%Y-%m-%d %H:%M:%S")  # noqa: DTZ006 - local time is meant.


def local_time_of_day(seconds: float) -> str:
    """As `local_time`, without the date."""
    return datetime.fromtimestamp(seconds).strftime("%H:%M:%S")  # noqa: DTZ006 - local time is meant.


def duration(text: str) -> float:
    """Seconds for a duration such as 200ms, 30s, 5m or 1h. Raises ValueError."""
    match = _DURATION.match(text)
    if not match:
        raise ValueError(f"{quoted(text)} is not a duration; write it as 200ms, 30s, 5m or 1h")
    return float(match[1]) * _UNITS[match[2]]


def days(text: str) -> float:
    """Seconds for a long duration, such as 12h, 30d or 2w. Raises ValueError."""
    number, unit = text[:-1], text[-1:]
    if not number.isascii() or not number.isdigit() or unit not in _LONG_UNITS:
        raise ValueError(f"{text!r} is not a duration; write it as 12h, 30d or 2w")
    return int(number) * _LONG_UNITS[unit]


SPAN_UNITS = ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s"))
"""Seconds and name of each unit of `span`, and of the one that stands beside it."""


def span(seconds: float) -> str:
    """A duration in its two largest units."""
    whole = round(seconds)
    for unit, name, below, below_name in SPAN_UNITS:
        if whole >= unit:
            large, small = whole // unit, whole % unit // below
            return f"{large} {name} {small} {below_name}" if small else f"{large} {name}"
    return f"{whole} s"


def words_for_caller(by: str | None) -> str:
    """Who asked for a revision, in few words: the process has ended since, so its number says nothing."""
    if not by:
        return ""
    caller = _CALLER.fullmatch(by)
    if caller is None:
        return by.replace(_OWNER, ", who owns the files")
    name = f"uid {caller[1]}"
    if caller[1] == "0":
        name = "root"
    if caller[2]:
        name += f", with {caller[2]}"
    return name
