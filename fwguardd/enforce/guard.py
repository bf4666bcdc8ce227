"""When to look: PURE. Times in, times out; no clock is read here.

A burst of notices is one pass: it begins after a time of quiet, and no later than a limit after the first notice. A
quarter into the quiet the files are judged ahead, so that the wait is no lost time. After
a write the kernel is looked at again at 1, 2 and 4 seconds, because whoever fights back does it soon; after a failure
that may pass, likewise with a wait that doubles up to a minute. Else once in a drift interval.
"""

from __future__ import annotations

from enum import Enum

LOOK_AGAIN = (1.0, 2.0, 4.0)
"""Seconds after a write, each counted from the one before."""

LONGEST_RETRY = 60.0
"""Seconds between two tries at most."""


NOTICE_GAP = 0.05
"""Seconds between two passes that foreign changes wake, at least."""


class Due(Enum):
    """What there is to do. The value is the cause that a pass tells."""

    LOOK_AHEAD = "look ahead"
    CHANGE = "change"
    RETRY = "retry"
    NOTICE = "notice"
    TIMER = "timer"


class Timetable:
    """The times of the next passes. All times are seconds on one monotonic clock."""

    def __init__(self, settle: float, settle_max: float, interval: float) -> None:
        self.set_durations(settle, settle_max, interval)
        self._first_notice: float | None = None
        self._last_notice = 0.0
        self._next_look = 0.0
        self._looks_left: tuple[float, ...] = ()
        self._retry_wait = 0.5
        self._retry_at: float | None = None
        self._looked_ahead = False
        self._foreign_at: float | None = None
        self._pass_ended = float("-inf")

    def set_durations(self, settle: float, settle_max: float, interval: float) -> None:
        """Change the settle times and the drift interval, in seconds."""
        self._settle, self._settle_max, self._interval = settle, settle_max, interval

    def notice(self, now: float) -> None:
        """Something in the directory changed."""
        if self._first_notice is None:
            self._first_notice = now
        self._last_notice = now
        self._looked_ahead = False

    def foreign_change(self, now: float, *, gap: float = NOTICE_GAP) -> None:
        """Somebody else changed the kernel. A pass is due at once, but ``gap`` seconds after the one before."""
        if self._foreign_at is None:
            self._foreign_at = max(now, self._pass_ended + gap)

    def looked_ahead(self) -> None:
        """What was noticed until now is being judged ahead."""
        self._looked_ahead = True

    def pass_begins(self, *, look_only: bool = False) -> None:
        """All that was noticed until now is in this pass, unless it only looks at the kernel; what comes from now on is
        for the next."""
        if not look_only:
            self._first_notice = None
        self._retry_at = None
        self._foreign_at = None

    def pass_ended(self, now: float, *, wrote: bool, again: bool) -> None:
        """A pass ended. ``wrote``: it changed the kernel. ``again``: it failed in a way that may pass."""
        if wrote:
            self._looks_left = LOOK_AGAIN
        wait, self._looks_left = (
            (self._looks_left[0], self._looks_left[1:]) if self._looks_left else (self._interval, ())
        )
        self._pass_ended = now
        self._next_look = now + min(wait, self._interval)
        if again:
            self._retry_wait = min(self._retry_wait * 2, LONGEST_RETRY)
            self._retry_at = now + self._retry_wait
        else:
            self._retry_wait = 0.5

    @property
    def settling(self) -> bool:
        """Whether a change of the files waits for quiet."""
        return self._first_notice is not None

    @property
    def retrying(self) -> bool:
        """Whether the last pass failed in a way that may pass."""
        return self._retry_at is not None

    def wait(self, now: float) -> float:
        """Seconds until something is due, if nothing else happens."""
        times = (self._quiet_at(), self._settled_at(), self._retry_at, self._foreign_at, self._next_look)
        return max(0.0, min(time for time in times if time is not None) - now)

    def due(self, now: float) -> Due | None:
        """What a pass is due for at this time; None when there is nothing to do yet."""
        settled = self._settled_at()
        if settled is not None and now >= settled:
            return Due.CHANGE
        if self._retry_at is not None and now >= self._retry_at:
            return Due.RETRY
        if self._foreign_at is not None and now >= self._foreign_at:
            return Due.NOTICE
        quiet = self._quiet_at()
        if quiet is not None and now >= quiet:
            return Due.LOOK_AHEAD
        return Due.TIMER if now >= self._next_look else None

    def _quiet_at(self) -> float | None:
        if self._first_notice is None or self._looked_ahead:
            return None
        return self._last_notice + self._settle / 4

    def _settled_at(self) -> float | None:
        if self._first_notice is None:
            return None
        return min(self._last_notice + self._settle, self._first_notice + self._settle_max)


class RepairBudget:
    """How many repairs are too many: more than ``most`` within ``window`` seconds is a fight with somebody, and nobody
    wins it. Then there are none for ``cool_down`` seconds, or until a reload."""

    def __init__(self, most: int = 10, window: float = 60.0, cool_down: float = 300.0) -> None:
        self._most, self._window, self._cool_down = most, window, cool_down
        self._repairs: list[float] = []
        self._resumes_at = float("-inf")

    def allows(self, now: float) -> bool:
        """Whether a repair may be made now."""
        return now >= self._resumes_at

    def spend(self, now: float) -> bool:
        """A repair was made. Whether it was the one too many, after which the guard stops fighting."""
        self._repairs = [when for when in self._repairs if when > now - self._window] + [now]
        if len(self._repairs) < self._most:
            return False
        self._repairs.clear()
        self._resumes_at = now + self._cool_down
        return True

    def reset(self) -> None:
        """Somebody asked for a reload: start over."""
        self._repairs.clear()
        self._resumes_at = float("-inf")
