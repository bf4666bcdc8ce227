"""Times in the words of a report.

This module is pure.
"""

from __future__ import annotations

from fwguardd.wording import SPAN_UNITS, local_time


def minute(seconds: float) -> str:
    """A time to the minute, local; "?" for one that the calendar does not have."""
    try:
        return local_time(seconds)[:16]
    except (ValueError, OverflowError, OSError):
        return "?"


def ago(now: float, when: float) -> str:
    """How long ago a time is, in one unit."""
    passed = max(0.0, now - when)
    for unit, name, *_ in SPAN_UNITS:
        if passed >= unit:
            return f"{passed // unit:.0f} {name} ago"
    return "just now"
