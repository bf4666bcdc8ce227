"""When a kernel record was made: its time on the printk clock, as seconds before it was read.

/dev/kmsg has no time of day. A record that was waited for has just been made, and its time is that of its arrival. One
that is read later, after a restart or a stall, has to be dated by the printk clock. That clock and CLOCK_MONOTONIC both
start at boot and stop in suspend, but they drift apart, since only the latter follows NTP; how far is learned from
records that were waited for. A record from before a suspend is dated earlier by the time that was spent suspended: how
long that was, CLOCK_BOOTTIME shows, and which records came before, the record that begins the suspend. After several
suspends the records between them may be dated too late.

This module is pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from fwguardd.denials.fields import utc

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fwguardd.denials.source import LogLine

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


_SUSPEND: Final = ("PM: suspend entry", "PM: hibernation: hibernation entry")
"""How the kernel begins a suspend (pm_suspend() in kernel/power/suspend.c, hibernate() in kernel/power/hibernate.c)."""

_SHORTEST_SUSPEND: Final = 0.5
"""Seconds. Less is taken for the difference between two looks at two clocks."""


class SuspendClock:
    """How much longer ago records were made than the printk clock says, in ``missing`` seconds: the host was suspended
    between the records and their reading."""

    def __init__(self) -> None:
        self.missing = 0.0
        self._before: float | None = None
        self._begun = False

    @property
    def accounted(self) -> float | None:
        """For `resume`: the seconds of suspends of this boot that no unread record is from before. None if a suspend
        has begun, and its length is not known yet."""
        if self._begun or self._before is None:
            return None
        return self._before - self.missing

    def resume(self, accounted: float | None) -> None:
        """Continue from what an earlier process had accounted for."""
        self._before = accounted

    def look(self, suspended: float) -> None:
        """Note how many seconds the host has been suspended since boot, before records are read."""
        before, self._before = self._before, suspended
        if before is None or suspended - before < _SHORTEST_SUSPEND:
            return
        if not self._begun:
            self.missing += suspended - before
        self._begun = False

    def pass_by(self, text: str) -> None:
        """Note a record that may begin a suspend: the records after it are not from before."""
        if text.startswith(_SUSPEND):
            self._begun = not self.missing
            self.missing = 0.0

    def all_read(self) -> None:
        """Note that there are no more records from before."""
        self.missing = 0.0


class RecordClock:
    """Ages of records; ``now`` is the time of time.monotonic() when they were read."""

    def __init__(self) -> None:
        self.suspends = SuspendClock()
        self._lag = 0.0
        """How far the printk clock is behind."""
        self._sampled_at: float | None = None

    def age(self, usec: int, now: float) -> float:
        """Seconds since a record was made; 0 if it has just been made."""
        age = now - usec / 1_000_000 - self._lag
        if age <= self._tolerance(now):
            age = 0.0
        return age + self.suspends.missing

    def moment_of(self, line: LogLine, moment: ReadTime) -> ReadTime:
        """When a line was made, if that was not just now."""
        if line.when is not None:
            age = moment.when - line.when
            if age <= LIVE:
                age = 0.0
            return moment._replace(when=line.when, age=age)
        if line.usec:
            # It is 0 in records from before the clock began to run.
            age = self.age(line.usec, moment.now)
            if age:
                return moment._replace(when=moment.when - age, age=age)
        return moment

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
