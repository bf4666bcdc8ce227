"""Numbers and times in messages.

This module is pure.
"""

from __future__ import annotations

from datetime import datetime


def counted(number: int, singular: str, plural: str = "") -> str:
    """A number with its words: "1 rule", "2 rules". ``plural`` is for words that do more than take an s: "was lost",
    "were lost"."""
    if number == 1:
        return f"1 {singular}"
    return f"{number} {plural or singular + 's'}"


def local_time(seconds: float) -> str:
    """A time in seconds since the epoch as local date and time. Raises ValueError, OverflowError and OSError for a time
    beyond the calendar."""
    return datetime.fromtimestamp(seconds).strftime("%Y-%m-%d %H:%M:%S")  # noqa: DTZ006 - local time is meant.


def local_time_of_day(seconds: float) -> str:
    """As `local_time`, without the date."""
    return datetime.fromtimestamp(seconds).strftime("%H:%M:%S")  # noqa: DTZ006 - local time is meant.
