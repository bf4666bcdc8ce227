"""The stamps that log daemons write before a line -> microseconds since the epoch.

A stamp without a zone is in local time, as the programs that wrote it have it: for the log of a host elsewhere, set TZ.
A stamp without a year, as syslog's own (``Nov 22 23:33:15``, RFC 3164), is of the latest year in which it is not later
than the file's last change: so a file that runs over a new year is read right, if it holds less than a year.
Which years were assumed is kept, to be told.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import Final

from fwguardd.ctl.denials.moments import to_usec

_MONTHS: Final = {
    name: number
    for number, name in enumerate("Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split(), start=1)  # noqa: SIM905
}
_CLOCKS_DIFFER: Final = timedelta(days=1)
"""How far a line may lie in the future before it is taken for one of last year: clocks and zones differ."""

_YEARS_BACK: Final = 9
"""Between two leap years lie at most eight years (1896 to 1904), so every stamp of a leap day is found."""

_SYSLOG: Final = re.compile(r"([A-Z][a-z]{2}) ([ 0-9][0-9]) ([0-9]{2}):([0-9]{2}):([0-9]{2})(?: ([0-9]{4}))?")


class StampReader:
    """Reads stamps; ``latest`` (naive, local) is when the last line can have been written."""

    def __init__(self, latest: datetime) -> None:
        self._latest = latest + _CLOCKS_DIFFER
        self._last: tuple[str, int | None] = ("", None)
        self.years: set[int] = set()
        """The years that were assumed."""

    def read(self, seconds: str, fraction: str | None) -> int | None:
        """Microseconds since the epoch, of a stamp down to its seconds and the digits after the point; None when it
        is no time, such as the 31st of February."""
        # Lines come in bursts, and most have their second in common with the one before.
        if seconds != self._last[0]:
            self._last = (seconds, self._usec(seconds))
        usec = self._last[1]
        return usec + int(fraction[:6].ljust(6, "0")) if usec is not None and fraction else usec

    def _usec(self, seconds: str) -> int | None:
        try:
            match = _SYSLOG.fullmatch(seconds)
            if match is None:
                return to_usec(datetime.fromisoformat(seconds))
            month, day, *clock, year = match.groups()
            parts = (_MONTHS[month], int(day), *(int(part) for part in clock))
            return self._of_year(int(year), parts) if year else self._of_any_year(parts)
        except (ValueError, KeyError, OverflowError, OSError):
            return None

    def _of_year(self, year: int, parts: tuple[int, ...]) -> int:
        month, day, hour, minute, second = parts
        return to_usec(datetime(year, month, day, hour, minute, second))  # noqa: DTZ001 - local time is meant.

    def _of_any_year(self, parts: tuple[int, ...]) -> int | None:
        latest = to_usec(self._latest)
        for year in range(self._latest.year, self._latest.year - _YEARS_BACK, -1):
            try:
                usec = self._of_year(year, parts)
            except ValueError:
                continue
            if usec <= latest:
                self.years.add(year)
                return usec
        return None
