"""The words of --since and --until for lines that journalctl does not read: a part of what systemd.time(7) has.

A moment is an ISO 8601 date or time (``2026-11-22``, ``2026-11-22 23:30``, ``2026-11-22T23:30:00Z``), a time of today
(``23:30``), ``now``, ``today``, ``yesterday``, ``tomorrow``, seconds since the epoch (``@1763854395``), or a distance:
``1h ago``, ``2 days ago``, ``-15m``, ``+1h 30min``. Without an offset local time is meant.

This module is pure.
"""

from __future__ import annotations

import re
from datetime import datetime, time, timedelta
from typing import Final

_UNITS: Final = {
    "s": 1, "sec": 1, "second": 1, "seconds": 1,
    "m": 60, "min": 60, "minute": 60, "minutes": 60,
    "h": 3600, "hr": 3600, "hour": 3600, "hours": 3600,
    "d": 86400, "day": 86400, "days": 86400,
    "w": 604800, "week": 604800, "weeks": 604800,
    "month": 2629800, "months": 2629800, "y": 31557600, "year": 31557600, "years": 31557600,
}  # fmt: skip
"""Seconds, as systemd.time(7) has them: a month is 30.44 days, a year 365.25."""

_SPAN: Final = re.compile(r" *([0-9]{1,9}(?:\.[0-9]{1,6})?) *([a-z]*)")
_EPOCH: Final = re.compile(r"@([0-9]{1,11})(?:\.([0-9]{1,6}))?")
_DAYS: Final = {"today": 0, "yesterday": -1, "tomorrow": 1}
_HELP: Final = (
    'write it as "2026-11-22 23:30", "23:30", "yesterday", "1h ago", "-15m" or "@1763854395" (seconds since the epoch)'
)


def time_spec(text: str, now: datetime) -> int:
    """Microseconds since the epoch. ``now`` is naive and local, and so is every time that names no zone.

    Raises ValueError with a sentence for a person.
    """
    words = " ".join(text.split())
    try:
        for read in (_epoch, _named, _distance, _iso):
            found = read(words, now)
            if found is not None:
                return found
    except (OverflowError, OSError):
        pass
    raise ValueError(f"{text!r} is no time that --read understands; {_HELP}")


def to_usec(time_spec: datetime) -> int:
    """Microseconds since the epoch; a naive time is local. Raises OverflowError or OSError where there is no such."""
    return round(time_spec.replace(microsecond=0).timestamp()) * 1_000_000 + time_spec.microsecond


def _epoch(words: str, _: datetime) -> int | None:
    match = _EPOCH.fullmatch(words)
    return int(match[1]) * 1_000_000 + int((match[2] or "").ljust(6, "0")) if match else None


def _named(words: str, now: datetime) -> int | None:
    if words == "now":
        return to_usec(now)
    if words in _DAYS:
        return to_usec(datetime.combine(now.date() + timedelta(days=_DAYS[words]), time()))
    return None


def _distance(words: str, now: datetime) -> int | None:
    """``-15m``, ``+2h``, ``15m ago``. A bare number counts seconds."""
    if words.endswith(" ago"):
        span, sign = words.removesuffix(" ago"), -1
    elif words[:1] in {"-", "+"}:
        span, sign = words[1:], -1 if words[0] == "-" else 1
    else:
        return None
    seconds, position = 0.0, 0
    while position < len(span):
        match = _SPAN.match(span, position)
        if match is None or (match[2] or "s") not in _UNITS:
            return None
        seconds += float(match[1]) * _UNITS[match[2] or "s"]
        position = match.end()
    # Counted on the epoch's clock: an hour ago is an hour ago, also in the night that sets the clocks.
    return to_usec(now) + sign * round(seconds * 1_000_000) if position else None


def _iso(words: str, now: datetime) -> int | None:
    text = f"{words.removesuffix(' UTC')}+00:00" if words.endswith(" UTC") else words
    try:
        return to_usec(datetime.fromisoformat(text))
    except ValueError:
        pass
    try:
        return to_usec(datetime.combine(now.date(), time.fromisoformat(text)))
    except ValueError:
        return None
