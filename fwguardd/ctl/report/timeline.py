"""Packets over time, for plots: the intervals of a period, none left out, and where their labels are.

Times are local, in seconds as if there were no zones, counted as `datetime.date.toordinal` counts days.

This module is pure.
"""

from __future__ import annotations

from datetime import datetime
from operator import attrgetter
from typing import TYPE_CHECKING, Final

from fwguardd.values import dataclass

if TYPE_CHECKING:
    from fwguardd.ctl.report.outline import Timeline

HOUR: Final = 3600
DAY: Final = 24 * HOUR
WEEK: Final = 7 * DAY
STEPS: Final = (HOUR, 3 * HOUR, 6 * HOUR, 12 * HOUR, DAY, WEEK, 4 * WEEK, 52 * WEEK)
_MONDAY: Final = DAY
"""The first day of the calendar is a Monday, and its number is 1 (datetime.date.toordinal)."""


@dataclass(frozen=True, slots=True)
class Interval:
    """An interval from ``begin`` on, and its packets."""

    begin: int
    count: int


@dataclass(frozen=True, slots=True)
class Series:
    """All intervals of a period, of ``step`` seconds each."""

    step: int
    intervals: tuple[Interval, ...]

    @property
    def highest(self) -> int:
        """The highest count; 0 where there is none."""
        return max(map(attrgetter("count"), self.intervals), default=0)


def step_for(timeline: Timeline, most: int) -> int:
    """The shortest step that makes at most so many intervals."""
    span = max(timeline.until - timeline.since, HOUR)
    for step in STEPS:
        if span / step <= most:
            return step
    return STEPS[-1] * -(-span // (most * STEPS[-1]))


def begin_of(time: int, step: int) -> int:
    """The begin of the interval of a time. Weeks begin on Mondays."""
    offset = 0
    if step >= WEEK:
        offset = _MONDAY
    return time - (time - offset) % step


def series(timeline: Timeline, step: int) -> Series:
    """The intervals of the period, those without packets too. What is outside of it, as a packet that was logged before
    and read within it, counts at its edge."""
    first = begin_of(timeline.since, step)
    last = begin_of(max(timeline.until - 1, timeline.since), step)
    counts: dict[int, int] = {}
    for begin, count in timeline.counts.items():
        place = min(max(begin_of(begin, step), first), last)
        counts[place] = counts.get(place, 0) + count
    begins = range(first, last + 1, step)
    return Series(step, tuple(Interval(begin, counts.get(begin, 0)) for begin in begins))


def moment(time: int) -> datetime:
    """The date and time; a time before the calendar is its first day."""
    days, rest = divmod(max(time, DAY), DAY)
    return datetime.fromordinal(days).replace(hour=rest // HOUR, minute=rest % HOUR // 60)


def interval_in_words(begin: int, step: int) -> str:
    """An interval in words: ``Sat 2026-11-28 09:00``, ``Sat 2026-11-28``, ``week of Mon 2026-11-23``."""
    if step < DAY:
        return moment(begin).strftime("%a %Y-%m-%d %H:%M")
    day = moment(begin).strftime("%a %Y-%m-%d")
    if step == DAY:
        return day
    if step == WEEK:
        return f"week of {day}"
    return f"{step // DAY} days from {day}"


def unit_of(step: int) -> str:
    """What a step is called: hour, day, week."""
    names = {HOUR: "hour", DAY: "day", WEEK: "week"}
    if step in names:
        return names[step]
    if step < DAY:
        return f"{step // HOUR} hours"
    return f"{step // WEEK} weeks"
