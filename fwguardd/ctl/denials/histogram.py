"""Packets over time, as bars in a terminal. Steps are joined as the time grows, so that the memory is bounded."""

from __future__ import annotations

import re
from argparse import ArgumentTypeError
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from fwguardd.wording import counted

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fwguardd.ctl.answers import AnswerPainter
    from fwguardd.ctl.denials.event import Event

_MINUTE, _HOUR, _DAY = 60, 3600, 86400
_STEPS: Final = (
    _MINUTE,
    5 * _MINUTE,
    15 * _MINUTE,
    _HOUR,
    3 * _HOUR,
    12 * _HOUR,
    _DAY,
    7 * _DAY,
    28 * _DAY,
    364 * _DAY,
)
"""Seconds. Each is a multiple of the one before, so that counts can be joined."""

_MOST_ROWS: Final = 48
_MOST_KEPT: Final = 100_000
_SPEC: Final = re.compile(r"([1-9][0-9]{0,4})(m|h|d)")
_UNITS: Final = {"m": _MINUTE, "h": _HOUR, "d": _DAY}
AUTOMATIC: Final = 0


def step(text: str) -> int:
    """The value of --histogram, in seconds. Raises ArgumentTypeError."""
    match = _SPEC.fullmatch(text)
    if match is None:
        raise ArgumentTypeError(f"{text!r} is not an interval; write one such as 10m, 1h or 1d")
    return int(match[1]) * _UNITS[match[2]]


class Histogram:
    """Counts of packets for each interval of ``seconds``; `AUTOMATIC` finds one that makes up to 48 intervals."""

    def __init__(self, seconds: int) -> None:
        self._seconds = seconds or _STEPS[0]
        self._is_automatic = not seconds
        self._counts: dict[int, int] = {}
        self.total, self.undated = 0, 0

    def add(self, events: Iterable[Event]) -> None:
        """Count the events that are about packets."""
        for event in events:
            if event.is_of_packets:
                self.count(event)

    def count(self, event: Event) -> None:
        """Count an event that is about packets."""
        self.total += event.weight
        begin = local_begin(event.realtime, self._seconds)
        if begin is None:
            self.undated += event.weight
            return
        self._counts[begin] = self._counts.get(begin, 0) + event.weight
        if len(self._counts) > _MOST_KEPT:
            self._join(self._next_step())

    def _join(self, seconds: int) -> None:
        joined: dict[int, int] = {}
        for begin, count in self._counts.items():
            place = begin - begin % seconds
            joined[place] = joined.get(place, 0) + count
        self._counts, self._seconds = joined, seconds

    def _next_step(self) -> int:
        """The next interval that is a multiple of this one."""
        for seconds in _STEPS:
            if seconds > self._seconds and seconds % self._seconds == 0:
                return seconds
        return 2 * self._seconds

    @property
    def seconds(self) -> int:
        """The length of an interval, which grows where there are too many of them."""
        return self._seconds

    def counts(self) -> dict[int, int]:
        """The packets of each interval that has any, by its begin: a local time, in seconds as if there were no
        zones."""
        return dict(self._counts)

    def _intervals(self) -> list[tuple[int, int]]:
        """Begin and count of each interval from the first to the last, those without packets too where that is not
        too many. Begins are local times, counted in seconds as if there were no zones."""
        while self._is_automatic and self._span() > _MOST_ROWS * self._seconds:
            self._join(self._next_step())
        if self._span() > _MOST_KEPT * self._seconds or not self._counts:
            return sorted(self._counts.items())
        first, last = min(self._counts), max(self._counts)
        return [(begin, self._counts.get(begin, 0)) for begin in range(first, last + 1, self._seconds)]

    def _span(self) -> int:
        if not self._counts:
            return 0
        return max(self._counts) - min(self._counts) + self._seconds

    def table(self) -> tuple[list[str], list[list[str | int]]]:
        """The heading and the rows, for CSV."""
        return ["time", "packets"], [[_shown(begin, self._seconds), count] for begin, count in self._intervals()]

    def document(self) -> dict[str, Any]:
        """The histogram as JSON, with stable keys."""
        intervals = [{"time": _shown(begin, _MINUTE), "count": count} for begin, count in self._intervals()]
        return {"packets": self.total, "undated": self.undated, "seconds": self._seconds, "intervals": intervals}

    def lines(self, width: int, bar: str, ink: AnswerPainter) -> list[str]:
        """The histogram as text of this width, with a character for the bars."""
        intervals = self._intervals()
        lines = [counted(self.total, "packet")]
        if self.undated:
            lines.append(ink.warn(f"{counted(self.undated, 'packet')} without a time of day"))
        if not intervals:
            return lines
        lines.append("")
        highest = max(count for _, count in intervals)
        digits = len(str(highest))
        room = max(10, width - digits - len(_shown(0, self._seconds)) - 4)
        for begin, count in intervals:
            length = -(-room * count // highest)
            time = ink.dim(_shown(begin, self._seconds))
            lines.append(f"{time}  {count:>{digits}}  {ink.warn(bar * length)}".rstrip())
        return lines


def local_begin(realtime: int | None, seconds: int) -> int | None:
    """The begin of the interval with a time: a local time, in seconds as if there were no zones."""
    if realtime is None:
        return None
    try:
        local = datetime.fromtimestamp(realtime // 1_000_000)  # noqa: DTZ006 - local time is meant.
    except (ValueError, OverflowError, OSError):
        return None
    number = local.toordinal() * _DAY + local.hour * _HOUR + local.minute * _MINUTE + local.second
    return number - number % seconds


def _shown(begin: int, seconds: int) -> str:
    days, rest = divmod(begin, _DAY)
    date = datetime.fromordinal(max(1, days)).strftime("%Y-%m-%d")
    if seconds % _DAY == 0:
        return date
    return f"{date} {rest // _HOUR:02}:{rest % _HOUR // _MINUTE:02}"
