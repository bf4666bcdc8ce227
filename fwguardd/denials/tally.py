"""Which denials become events now, and which are counted: exact counts in bounded memory, and no clock of its own.

The first lines of a flow are told at once. Those that follow are counted, and told together a window after the first
of them; a flow that goes on and on is one summary a window. After a window of silence its next lines are first ones
again. What comes when the events of this second are used up is counted too, never thrown away.

Every line is either told or counted, and every count is handed out once: what `Tally.count` said yes to, plus the
counts in the summaries, plus `Tally.waiting`, is the number of lines that were counted, always.

`now` is a clock that never jumps, in seconds; `when` is seconds since 1970. Nobody has to wake up while `Tally.due` is
None.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from fwguardd.denials.flow import Flow, Others

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fwguardd.denials.flow import Key

_FRESH: Final = 0.5
"""Seconds for which a flow counts as heard of just now."""

_TOGETHER: Final = 0.9
"""A summary may come this part of a window after its first line, when another one is due: fewer wake-ups."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much is told at once, and how much is remembered. A `window` of 0 tells every line; `window` is in seconds,
    `per_second` counts the events that tell lines at once, and `flows` bounds the memory. 0 ports or hosts means that
    nothing is called a scan or a sweep."""

    window: float = 60.0
    first: int = 10
    per_second: int = 50
    flows: int = 1000
    scan_ports: int = 15
    sweep_hosts: int = 15


@dataclass(frozen=True, slots=True)
class Summary:
    """So many lines of a flow that were not told one by one, and when the first and the last of them came."""

    key: Key
    count: int
    first: float
    last: float


class _Counted:
    """A flow, how many of its lines were told, and how many wait to be."""

    __slots__ = ("count", "first", "last", "seen", "since", "told")

    def __init__(self) -> None:
        self.told = self.count = 0
        self.seen = self.since = self.first = self.last = 0.0


class Tally:
    """Counts lines by flow."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._flows: OrderedDict[Key, _Counted] = OrderedDict()
        self._rest: dict[Key, _Counted] = {}
        self._pending: OrderedDict[Key, _Counted] = OrderedDict()
        self._allowance = Allowance(limits.per_second)
        self.waiting = 0
        """Lines that are counted and not told yet."""

    def count(self, key: Key, now: float, when: float, *, room: bool = True) -> bool:
        """Whether to tell this line at once; if not, it is counted. Without `room` for events, it is counted."""
        if room and not self._limits.window:
            return True
        counted = self._flows.get(key)
        if counted is None:
            key, counted = self._begin(key)
        elif now - counted.seen > _FRESH:
            self._flows.move_to_end(key)
        if not counted.count and now - counted.seen >= self._limits.window:
            counted.told = 0
        counted.seen = now
        if room and self._tells(counted, now):
            counted.told += 1
            return True
        if not counted.count:
            counted.since, counted.first = now, when
            self._pending[key] = counted
        counted.count += 1
        counted.last = when
        self.waiting += 1
        return False

    def due(self) -> float | None:
        """When the next summary is to be told; None while nothing waits."""
        for counted in self._pending.values():
            return counted.since + self._limits.window
        return None

    def take(self, now: float, limit: int) -> list[Summary]:
        """Summaries that are due, the oldest first, at most so many; with more of them, `due` stays in the past."""
        due = self.due()
        if due is None or due > now:
            return []
        return self._take(now - _TOGETHER * self._limits.window, limit)

    def take_all(self) -> list[Summary]:
        """All that is counted, though its window has not ended."""
        return self._take(None, len(self._pending))

    def pending(self) -> list[Summary]:
        """What `take_all` would give, left where it is."""
        return [Summary(key, each.count, each.first, each.last) for key, each in self._pending.items()]

    def restore(self, summaries: Iterable[Summary], now: float) -> None:
        """Count on where another tally ended."""
        for summary in summaries:
            key, counted = summary.key, self._flows.get(summary.key)
            if counted is None:
                key, counted = self._begin(key)
            if not counted.count:
                counted.since, counted.first = now, summary.first
                self._pending[key] = counted
            counted.told, counted.seen = self._limits.first, now
            counted.count += summary.count
            counted.first, counted.last = min(counted.first, summary.first), max(counted.last, summary.last)
            self.waiting += summary.count

    def _tells(self, counted: _Counted, now: float) -> bool:
        return counted.told < self._limits.first and self._allowance.spend(now)

    def _begin(self, key: Key) -> tuple[Key, _Counted]:
        """Where a flow that is not known yet is counted: as itself while there is room, else with the others.

        Room is made by forgetting the flow that was silent for longest, but never one with lines to tell.
        """
        if not isinstance(key, Flow):
            return key, self._rest.setdefault(key, _Counted())
        if len(self._flows) >= self._limits.flows:
            oldest = next(iter(self._flows))
            if self._flows[oldest].count:
                others = Others(key.prefix)
                return others, self._rest.setdefault(others, _Counted())
            self._flows.popitem(last=False)
        counted = self._flows[key] = _Counted()
        return key, counted

    def _take(self, began_before: float | None, limit: int) -> list[Summary]:
        taken: list[Summary] = []
        while self._pending and len(taken) < limit:
            key, counted = self._pending.popitem(last=False)
            if began_before is not None and counted.since > began_before:
                self._pending[key] = counted
                self._pending.move_to_end(key, last=False)
                break
            taken.append(Summary(key, counted.count, counted.first, counted.last))
            self.waiting -= counted.count
            counted.count = 0
        return taken


class Allowance:
    """So many events a second, on average over a second. 0 allows none."""

    def __init__(self, per_second: int) -> None:
        self._per_second = per_second
        self._left = float(per_second)
        self._since = 0.0

    def spend(self, now: float) -> bool:
        """Whether there is one left; if so, there is one less."""
        if self._left < 1.0 and now == self._since:
            return False
        self._left = min(float(self._per_second), self._left + (now - self._since) * self._per_second)
        self._since = now
        if self._left < 1.0:
            return False
        self._left -= 1.0
        return True
