"""Times as people and log daemons write them → microseconds since the epoch.

The values of --since and --until for lines that journalctl does not read are a part of what systemd.time(7) has: an ISO
8601 date or time (``2026-11-22``, ``2026-11-22 23:30``, ``2026-11-22T23:30:00Z``), a time of today (``23:30``),
``now``, ``today``, ``yesterday``, ``tomorrow``, seconds since the epoch (``@1763854395``), or a distance: ``1h ago``,
``2 days ago``, ``-15m``, ``+1h 30min``.

Stamps are what log daemons write before a line. A stamp without a year, as syslog's own (``Nov 22 23:33:15``, RFC
3164), is of the latest year in which it is not later than the last change of the file: a file that begins before a new
year is read correctly if it holds less than a year. The years that were assumed are kept, to be reported.

A time without a zone is local; for the log of a host in another zone, set TZ.

This module is pure.
"""

from __future__ import annotations

import re
from datetime import datetime, time, timedelta
from typing import Final

_UNITS: Final = {
    "": 1, "s": 1, "sec": 1, "second": 1, "seconds": 1,
    "m": 60, "min": 60, "minute": 60, "minutes": 60,
    "h": 3600, "hr": 3600, "hour": 3600, "hours": 3600,
    "d": 86400, "day": 86400, "days": 86400,
    "w": 604800, "week": 604800, "weeks": 604800,
    "month": 2629800, "months": 2629800, "y": 31557600, "year": 31557600, "years": 31557600,
}  # fmt: skip
"""Seconds, as in systemd.time(7): a month is 30.44 days, a year 365.25; without a unit a number counts seconds."""

_SPAN: Final = re.compile(r" *([0-9]{1,9}(?:\.[0-9]{1,6})?) *([a-z]*)")
_EPOCH: Final = re.compile(r"@([0-9]{1,11})(?:\.([0-9]{1,6}))?")
_DAYS: Final = {"today": 0, "yesterday": -1, "tomorrow": 1}
_HELP: Final = (
    'write it as "2026-11-22 23:30", "23:30", "yesterday", "1h ago", "-15m" or "@1763854395" (seconds since the epoch)'
)


def time_spec(text: str, now: datetime) -> int:
    """The value of --since or --until. ``now`` is naive and local, and so is every time without a zone.

    Raises ValueError with a message for the user.
    """
    words = " ".join(text.split())
    try:
        for read in (_epoch, _named, _distance, _iso):
            found = read(words, now)
            if found is not None:
                return found
    except (OverflowError, OSError):
        pass
    raise ValueError(f"{text!r} is not a time that --read understands; {_HELP}")


def to_usec(moment: datetime) -> int:
    """Microseconds since the epoch; a naive time is local. Raises OverflowError or OSError for a time beyond the
    calendar."""
    return round(moment.replace(microsecond=0).timestamp()) * 1_000_000 + moment.microsecond


def _epoch(words: str, _: datetime) -> int | None:
    match = _EPOCH.fullmatch(words)
    if match is None:
        return None
    return int(match[1]) * 1_000_000 + int((match[2] or "").ljust(6, "0"))


def _named(words: str, now: datetime) -> int | None:
    if words == "now":
        return to_usec(now)
    if words in _DAYS:
        return to_usec(datetime.combine(now.date() + timedelta(days=_DAYS[words]), time()))
    return None


def _distance(words: str, now: datetime) -> int | None:
    """``-15m``, ``+2h``, ``15m ago``. A bare number counts seconds."""
    if words.endswith(" ago"):
        seconds = _span(words.removesuffix(" ago"))
        sign = -1
    elif words[:1] in {"-", "+"}:
        seconds = _span(words[1:])
        sign = int(f"{words[0]}1")
    else:
        return None
    if seconds is None:
        return None
    # On the epoch's clock: an hour ago is an hour ago, also in the night in which the clocks are changed.
    return to_usec(now) + sign * round(seconds * 1_000_000)


def _span(words: str) -> float | None:
    """Seconds of ``1h 30min``."""
    if not words:
        return None
    seconds, position = 0.0, 0
    while position < len(words):
        match = _SPAN.match(words, position)
        if match is None or match[2] not in _UNITS:
            return None
        seconds += float(match[1]) * _UNITS[match[2]]
        position = match.end()
    return seconds


def _iso(words: str, now: datetime) -> int | None:
    text = words
    if words.endswith(" UTC"):
        text = f"{words.removesuffix(' UTC')}+00:00"
    try:
        return to_usec(datetime.fromisoformat(text))
    except ValueError:
        return _time_of_day(text, now)


def _time_of_day(text: str, now: datetime) -> int | None:
    """A time of today, without a date."""
    try:
        return to_usec(datetime.combine(now.date(), time.fromisoformat(text)))
    except ValueError:
        return None


MONTHS: Final = {
    "Jan": 1, "Feb": 2, "Mar": 3, "Apr": 4, "May": 5, "Jun": 6,
    "Jul": 7, "Aug": 8, "Sep": 9, "Oct": 10, "Nov": 11, "Dec": 12,
}  # fmt: skip
_CLOCKS_DIFFER: Final = timedelta(days=1)
"""A line that is later than the file by more than this is of the year before: clocks and zones differ."""

_YEARS_BACK: Final = 9
"""Leap years are at most eight years apart (1896 and 1904), so the year of a leap day is always found."""

_SYSLOG_STAMP: Final = re.compile(r"([A-Z][a-z]{2}) ([ 0-9][0-9]) ([0-9]{2}):([0-9]{2}):([0-9]{2})(?: ([0-9]{4}))?")


_LONG_FRACTION: Final = re.compile(r"(\.[0-9]{6})[0-9]+")


_SYSLOG_LENGTH: Final = len("Nov 22 21:14:25")
_MINUTE: Final = 60_000_000


class StampReader:
    """Reads stamps; ``latest`` (naive, local) is the latest time at which a line can have been written."""

    def __init__(self, latest: datetime) -> None:
        self._latest = latest + _CLOCKS_DIFFER
        self._latest_usec = to_usec(self._latest)
        self._last: tuple[str, int | None] = ("", None)
        self._minute: tuple[str, int] = ("", 0)
        """The beginning of a syslog stamp up to its minute, and the time of that minute."""
        self.years: set[int] = set()
        """The years that were assumed."""

    def read(self, seconds: str, fraction: str | None) -> int | None:
        """Microseconds since the epoch, of a stamp down to its seconds and the digits after the point; None when there
        is no such time, such as the 31st of February."""
        # Lines come in bursts, and most are of the same second as the one before.
        if seconds != self._last[0]:
            self._last = (seconds, self._usec_of_minute(seconds))
        usec = self._last[1]
        if usec is None or not fraction:
            return usec
        return usec + int(fraction[:6].ljust(6, "0"))

    def read_iso(self, text: str) -> int | None:
        """Microseconds since the epoch, of an ISO 8601 time with any number of digits after the point; None for any
        other text."""
        try:
            return to_usec(datetime.fromisoformat(_LONG_FRACTION.sub(r"\1", text)))
        except (ValueError, OverflowError, OSError):
            return None

    def _usec_of_minute(self, seconds: str) -> int | None:
        """The time of a stamp, in less time if it is of the same minute as the one before."""
        if len(seconds) != _SYSLOG_LENGTH:
            return self._usec(seconds)
        minute, second = seconds[:-2], seconds[-2:]
        if minute == self._minute[0] and second <= "59":
            return self._minute[1] + int(second) * 1_000_000
        usec = self._usec(seconds)
        if usec is not None and usec + _MINUTE < self._latest_usec:
            # In the last minute before the file was written the year may depend on the second.
            self._minute = (minute, usec - int(second) * 1_000_000)
        return usec

    def _usec(self, seconds: str) -> int | None:
        try:
            match = _SYSLOG_STAMP.fullmatch(seconds)
            if match is None:
                return to_usec(datetime.fromisoformat(seconds))
            return self._of_syslog(match)
        except (ValueError, KeyError, OverflowError, OSError):
            return None

    def _of_syslog(self, match: re.Match[str]) -> int | None:
        month, day, *clock, year = match.groups()
        parts = (MONTHS[month], int(day), *(int(part) for part in clock))
        if year:
            return self._of_year(int(year), parts)
        return self._of_latest_year(parts)

    def _of_year(self, year: int, parts: tuple[int, ...]) -> int:
        month, day, hour, minute, second = parts
        return to_usec(datetime(year, month, day, hour, minute, second))  # noqa: DTZ001 - local time is meant.

    def _of_latest_year(self, parts: tuple[int, ...]) -> int | None:
        for year in range(self._latest.year, self._latest.year - _YEARS_BACK, -1):
            try:
                usec = self._of_year(year, parts)
            except ValueError:
                continue
            if usec <= self._latest_usec:
                self.years.add(year)
                return usec
        return None
