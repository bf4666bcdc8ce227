"""When a kernel record was made: its time on the printk clock, as seconds before it was read.

/dev/kmsg has no time of day. A record that was waited for has just been made, and its time is that of its arrival. One
that is read later, after a restart or a stall, has to be dated by the printk clock. That clock and CLOCK_MONOTONIC both
start at boot and stop in suspend, but they drift apart, since only the latter follows NTP; how far is learned from
records that were waited for. After a suspend between the record and its reading, the computed time is too late by the
time that was spent suspended.

This module is pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from fwguardd.denials.fields import utc

if TYPE_CHECKING:
    from collections.abc import Mapping

LIVE: Final = 1.0
"""Seconds. A record that is no older when it is read counts as just made."""

_DRIFT: Final = 0.0005
"""Seconds per second by which the clocks may drift apart: NTP slews CLOCK_MONOTONIC by at most 500 ppm, adjtimex(2)."""


class ReadTime(NamedTuple):
    """When lines were read, by a monotonic clock; when they were made, in seconds since 1970; whether the sink has
    room; and how long before the reading they were made, in seconds: 0 for those that have just been made. ``live``
    means that all have just been made."""

    now: float
    when: float
    room: bool
    age: float = 0.0
    live: bool = False


def time_field(moment: ReadTime) -> Mapping[str, str]:
    """The time of a line that was read later. The time of any other is that of its event."""
    if not moment.age:
        return {}
    return {"time": utc(moment.when)}


class RecordClock:
    """Ages of records; ``now`` is the time of time.monotonic() when they were read."""

    def __init__(self) -> None:
        self._lag = 0.0
        """How far the printk clock is behind."""
        self._sampled_at: float | None = None

    def age(self, usec: int, now: float) -> float:
        """Seconds since a record was made; 0 if it has just been made."""
        age = now - usec / 1_000_000 - self._lag
        if age <= self._tolerance(now):
            return 0.0
        return age

    def sample(self, usec: int, now: float) -> None:
        """Learn from a record that was waited for."""
        lag = now - usec / 1_000_000
        if self._sampled_at is None:
            if abs(lag) > LIVE + _DRIFT * now:
                return
        elif lag - self._lag > self._tolerance(now):
            # It was made long before: nothing was read in between.
            return
        else:
            # A record that waited for a short time must not be taken for drift.
            lag = min(lag, self._lag + _DRIFT * (now - self._sampled_at))
        self._lag, self._sampled_at = lag, now

    def _tolerance(self, now: float) -> float:
        if self._sampled_at is None:
            return LIVE
        return LIVE + _DRIFT * (now - self._sampled_at)
