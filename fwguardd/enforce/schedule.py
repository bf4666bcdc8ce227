"""When to run a pass, and when to suspend repairs: times in, times out.

A burst of changes to the files is one pass: it begins after a time without changes, and no later than a limit after the
first one. A quarter into that time the files are validated ahead, so that the wait is not lost. After a write the
kernel is compared again at 1, 2 and 4 seconds, because a program that undoes a write does it soon. After a failure that
may disappear by itself a pass is tried again, with a wait that doubles up to a minute. Otherwise the kernel is compared
once in each drift interval.

A change of the kernel by another program causes a pass at once. Two limits bound the cost: comparisons that find
nothing to repair take at most a small share of the time, so that a busy program (kube-proxy, fail2ban under attack)
costs little; and repairs of one chain become slower and slower, until they are suspended.

This module is pure.
"""

from __future__ import annotations

import math
from collections import Counter
from enum import Enum
from typing import TYPE_CHECKING

from fwguardd.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

LOOK_AGAIN = (1.0, 2.0, 4.0)
"""Seconds after a write, each counted from the one before."""

FIRST_RETRY = 1.0
"""Seconds until the first try after a failure; each further wait is twice as long."""

LONGEST_RETRY = 60.0
"""The longest time between two tries, in seconds."""

LONGEST_UNDO_RETRY = 1.5
"""The same while a load that failed is not undone: the kernel may hold parts of two rulesets."""

NOTICE_GAP = 0.05
"""The shortest time between two passes that changes of other programs cause, in seconds."""

LOOK_GAP = 1.0
"""The same while nothing is repaired."""

LOOK_SHARE = 0.05
"""The share of the time that comparisons may take which changes of other programs cause, without a repair."""

LOOK_CREDIT = 0.5
"""Seconds of such comparisons that are free, before the share is enforced."""

LONGEST_GAP = 60.0
"""Seconds after which a change of another program causes a pass, whatever the share says."""

IN_A_ROW = 5
"""Repairs of the same difference that are a fight, however slowly they follow each other."""

LONG_QUIET = 3600.0
"""Seconds without a repair of a difference after which its repairs are counted anew."""

PAUSE = 0.2
"""Seconds without a change of another program after which a pass that such changes had starved is tried again."""


class Due(Enum):
    """What is due. The value is the cause of the pass, as events name it."""

    VALIDATE_AHEAD = "validate ahead"
    CHANGE = "change"
    RETRY = "retry"
    NOTICE = "notice"
    AGAIN = "after a write"
    TIMER = "timer"


MAY_BE_KNOWN = frozenset({Due.CHANGE.value, Due.NOTICE.value, Due.AGAIN.value})
"""Causes of passes in which the kernel is not read where it is certain what it holds. They do not put off the timer."""


class Unfinished(Enum):
    """What a pass has left to be tried again. Each kind that comes anew starts over with a short wait."""

    FILES = "files"
    """The files wait for something outside of them, or could not be tried."""

    FAILED = "failed"
    """The pass failed for a reason that may disappear by itself."""

    UNVERIFIED = "unverified"
    """The kernel could not be compared: other programs change it all the time."""

    UNKNOWN = "unknown"
    """The state directory could not be read."""

    UNDO = "undo"
    """A revision that was not confirmed in time could not be undone."""


NOTHING_LEFT: frozenset[Unfinished] = frozenset()
"""A pass that has left nothing to be tried again."""


class Schedule:
    """The times of the next passes. All times are seconds on one monotonic clock."""

    def __init__(self, settle: float, settle_max: float, interval: float) -> None:
        self.set_durations(settle, settle_max, interval)
        self._first_notice: float | None = None
        self._last_notice = 0.0
        self._next_look, self._puts_off = 0.0, True
        self._look_again: float | None = None
        self._looks_left: tuple[float, ...] = ()
        self._retry_wait = FIRST_RETRY / 2
        self._retry_at: float | None = None
        self._unfinished = NOTHING_LEFT
        self._validated = False
        self._kernel_pass_at: float | None = None
        self._began = self._ended = float("-inf")
        self._noticed = False
        self._spent = 0.0
        self._wait_for_pause = False

    def set_durations(self, settle: float, settle_max: float, interval: float) -> None:
        """Change the settle times and the drift interval, in seconds."""
        self._settle, self._settle_max, self._interval = settle, settle_max, interval

    def files_changed(self, now: float) -> None:
        """The files in the rules directory changed."""
        if self._first_notice is None:
            self._first_notice = now
        self._last_notice = now
        self._validated = False

    def kernel_changed(self, now: float, *, gap: float = NOTICE_GAP) -> None:
        """Another program changed the kernel.

        A pass is due at once, but at least ``gap`` seconds after the one before, and later if comparisons have used up
        their share. If the last pass was starved by such changes, it is due when they pause.
        """
        if self._wait_for_pause:
            self._kernel_pass_at = now + PAUSE
        elif self._kernel_pass_at is None:
            dear = min((self._spent - LOOK_CREDIT) / LOOK_SHARE, LONGEST_GAP)
            self._kernel_pass_at = max(now, self._ended + max(gap, dear))

    def validation_begins(self) -> None:
        """The changes until now are being validated ahead."""
        self._validated = True

    def pass_begins(
        self, now: float, *, look_only: bool = False, may_be_known: bool = False, noticed: bool = False
    ) -> None:
        """A pass begins. It covers all changes of the files until now, and is a retry, unless it only looks at the
        kernel. One that may not read it, because it ``may_be_known`` what it holds, does not put off the timer. With
        ``noticed`` changes by other programs have caused it, and its time counts for the share of such passes."""
        if not look_only:
            self._first_notice = None
            self._retry_at = None
        self._kernel_pass_at = None
        self._began, self._noticed, self._look_again = now, noticed, None
        # The timer stays set until the pass has ended: the event loop goes on while a verb runs a pass.
        self._puts_off = self._puts_off or not may_be_known

    def pass_ended(self, now: float, *, wrote: bool, again: frozenset[Unfinished], undo: bool = False) -> None:
        """A pass ended.

        ``wrote``: it changed the kernel. ``again``: what has to be tried again. ``undo``: a load that failed is not
        undone yet.
        """
        if wrote:
            self._looks_left = LOOK_AGAIN
        if self._looks_left:
            wait, *left = self._looks_left
            self._looks_left, self._look_again = tuple(left), now + min(wait, self._interval)
        self._spent = max(0.0, self._spent - LOOK_SHARE * (now - max(self._ended, 0.0)))
        if self._noticed and not wrote:
            self._spent += now - self._began
        self._ended, self._noticed = now, False
        self._wait_for_pause = Unfinished.UNVERIFIED in again
        if self._puts_off:
            self._next_look, self._puts_off = now + self._interval, False
        longest = LONGEST_RETRY
        if undo:
            longest = LONGEST_UNDO_RETRY
        self._plan_retry(now, again, longest)

    def _plan_retry(self, now: float, again: frozenset[Unfinished], longest: float) -> None:
        """Set the time of the next retry. A pass that was none leaves the time as it is, unless it has left more."""
        more = bool(again - self._unfinished)
        self._unfinished = again
        if more or not again:
            self._retry_wait, self._retry_at = FIRST_RETRY / 2, None
        if again and self._retry_at is None:
            self._retry_wait = min(self._retry_wait * 2, longest)
            self._retry_at = now + self._retry_wait
        elif self._retry_at is not None:
            self._retry_at = min(self._retry_at, now + longest)

    @property
    def settling(self) -> bool:
        """Whether changed files wait until there are no further changes."""
        return self._first_notice is not None

    def retries(self, what: Unfinished) -> bool:
        """Whether this is to be tried again at the next retry."""
        return self._retry_at is not None and what in self._unfinished

    def wait(self, now: float) -> float:
        """Seconds until something is due, if nothing else happens."""
        return max(0.0, min(time for _, time in self._times() if time is not None) - now)

    def due(self, now: float) -> Due | None:
        """What is due at this time; None when nothing is due yet."""
        for due, time in self._times():
            if time is not None and now >= time:
                return due
        return None

    def _times(self) -> tuple[tuple[Due, float | None], ...]:
        """What will be due, and when, the most important first; None for what nothing calls for."""
        return (
            (Due.CHANGE, self._settled_at()),
            (Due.RETRY, self._retry_at),
            (Due.NOTICE, self._kernel_pass_at),
            (Due.VALIDATE_AHEAD, self._quiet_at()),
            (Due.AGAIN, self._look_again),
            (Due.TIMER, self._next_look),
        )

    def _quiet_at(self) -> float | None:
        if self._first_notice is None or self._validated:
            return None
        return self._last_notice + self._settle / 4

    def _settled_at(self) -> float | None:
        if self._first_notice is None:
            return None
        return min(self._last_notice + self._settle, self._first_notice + self._settle_max)


class Alarm:
    """A time on a clock at which something is due once."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._at = math.inf

    def set(self, at: float | None) -> None:
        """Let it be due at this time of the clock; None stands for never."""
        self._at = math.inf
        if at is not None:
            self._at = at

    def wait(self) -> float:
        """Seconds until it is due; infinite where it is not set."""
        return max(0.0, self._at - self._clock())

    def is_due(self) -> bool:
        """Whether it is due. True once."""
        if self.wait() > 0:
            return False
        self._at = math.inf
        return True


@dataclass(frozen=True, slots=True)
class Fight:
    """A chain that another program changes again after each repair, and when repairs resume."""

    chain: str
    author: str
    until: float


class RepairBudget:
    """How many repairs are too many.

    Each further repair of one chain within ``window`` seconds waits longer than the one before. The ``most``-th is a
    fight: then nothing is repaired for ``cool_down`` seconds, or until a reload. ``most_in_all`` is the same for passes
    with repairs of any chains.

    A slow program fights too: the same difference that is repaired `IN_A_ROW` times is one, however long the times
    between are, unless one of them is longer than `LONG_QUIET`.
    """

    def __init__(self, most: int = 10, window: float = 60.0, cool_down: float = 300.0, most_in_all: int = 150) -> None:
        self._most, self._most_in_all, self._window, self._cool_down = most, most_in_all, window, cool_down
        self._repairs: list[tuple[float, str]] = []
        self._in_a_row: dict[str, tuple[int, float]] = {}
        self._fight: Fight | None = None

    def fight(self, now: float) -> Fight | None:
        """The fight because of which repairs are suspended; None while they are not."""
        if self._fight is not None and now >= self._fight.until:
            self._fight = None
        return self._fight

    def back_off(self, now: float) -> float:
        """Seconds to leave between the last repair and the next: none for the first three of a chain, then 0.1,
        doubled with each, up to the one second after which a write is compared again in any case."""
        _, count = self._worst(now)
        if count < 3:
            return 0.0
        return min(0.1 * 2.0 ** (count - 3), LOOK_AGAIN[0])

    def spend(self, now: float, repaired: Mapping[str, str], author: str) -> Fight | None:
        """Count a repair of these differences, each with its chain. The fight, if this repair was one too many."""
        self._repairs = self._recent(now) + [(now, chain) for chain in frozenset(repaired.values())]
        again = self._repaired_again(now, repaired)
        chain, count = self._worst(now)
        passes = len({when for when, _ in self._repairs})
        if count < self._most and passes < self._most_in_all:
            if not again:
                return None
            chain = again
        self.reset()
        self._fight = Fight(chain, author, now + self._cool_down)
        return self._fight

    def _repaired_again(self, now: float, repaired: Mapping[str, str]) -> str:
        """The chain of a difference that was repaired too often in a row; "" if there is none."""
        recent = {text: seen for text, seen in self._in_a_row.items() if now - seen[1] <= LONG_QUIET}
        chain = ""
        for text, where in repaired.items():
            count = recent.get(text, (0, now))[0] + 1
            recent[text] = count, now
            if count >= IN_A_ROW:
                chain = where
        self._in_a_row = recent
        return chain

    def reset(self) -> None:
        """Start over: a reload or a resume asked for repairs."""
        self._repairs = []
        self._in_a_row = {}
        self._fight = None

    def _worst(self, now: float) -> tuple[str, int]:
        """The chain that was repaired most often within the window, and how often."""
        counts = Counter(chain for _, chain in self._recent(now))
        if not counts:
            return "", 0
        return counts.most_common(1)[0]

    def _recent(self, now: float) -> list[tuple[float, str]]:
        return [(when, chain) for when, chain in self._repairs if when > now - self._window]
