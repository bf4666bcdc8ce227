"""Decides which lines become events at once and which are counted: exact counts in bounded memory.

Lines are counted by flow. The first lines of a flow are events at once; those that follow are counted, and reported in
one summary, a window after the first of them. A flow that continues makes one summary a window. After a window without
a line of the flow, its next lines are first ones again. Lines that exceed the limit of events per second are counted
too.

No line is lost: the number of lines for which `Aggregator.count` returned True, plus the counts in the summaries, plus
`Aggregator.waiting` is always the number of lines that were counted.

``now`` is the time of a monotonic clock, ``when`` is seconds since 1970, both are given by the caller. While
`Aggregator.due` is None nothing needs to be done.

This module is pure.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from fwguardd.denials.model import Icmp, Tcp, Udp
from fwguardd.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fwguardd.denials.model import Denial, Transport


class Flow(NamedTuple):
    """Lines that agree in all of these belong to one flow. A value that a line does not have is "".

    The source port is not part of a flow: each attempt of a client comes from another port.
    """

    prefix: str
    incoming: str
    outgoing: str
    src: str
    dst: str
    proto: str
    port: str
    """The destination port; of ICMP, the type."""


@dataclass(frozen=True, slots=True)
class Others:
    """All flows with a prefix for which there was no room to count them one by one."""

    prefix: str


@dataclass(frozen=True, slots=True)
class Malformed:
    """All lines with a prefix that are not in the kernel's grammar."""

    prefix: str


Key: TypeAlias = Flow | Others | Malformed


class FlowPacket(NamedTuple):
    """The flow of a packet, and whether the packet is a request: only requests count as a scan.

    A host that sends many requests receives answers at many ports, some of them after it has closed the port.
    """

    flow: Flow
    is_request: bool


def flow_of(denial: Denial) -> FlowPacket:
    """The flow of a denial."""
    devices = denial.devices
    port, is_request = _port(denial.transport)
    flow = Flow(
        denial.watched.prefix,
        devices.incoming or "",
        devices.outgoing or "",
        denial.src or "",
        denial.dst or "",
        denial.proto or "",
        port,
    )
    return FlowPacket(flow, is_request)


def _port(transport: Transport | None) -> tuple[str, bool]:
    """The port of a flow, and whether the packet is a request."""
    match transport:
        case Tcp():
            return str(transport.dpt), "ACK" not in transport.flags and "RST" not in transport.flags
        case Udp():
            return str(transport.dpt), is_udp_request(transport.spt, transport.dpt)
        case Icmp():
            return str(transport.type), False
        case _:
            return "", False


_LAST_WELL_KNOWN: Final = 1023


def is_udp_request(spt: int, dpt: int) -> bool:
    """Whether a datagram is a request: one from a well-known port to another port is an answer, mostly of a name
    server."""
    return spt > _LAST_WELL_KNOWN or dpt <= _LAST_WELL_KNOWN


@dataclass(frozen=True, slots=True)
class AggregationLimits:
    """How many lines become events, and how much is remembered.

    `window` is in seconds; 0 makes an event of every line. `first` lines of a flow are events at once, but no more than
    `per_second` of all flows together. `flows` bounds the memory. `scan_ports` and `sweep_hosts` are the numbers from
    which on one source makes a port scan or a sweep; 0 turns the notice off.
    """

    window: float = 60.0
    first: int = 10
    per_second: int = 50
    flows: int = 1000
    scan_ports: int = 15
    sweep_hosts: int = 15


@dataclass(frozen=True, slots=True)
class FlowSummary:
    """The number of lines of a flow that were counted, and when the first and the last of them came."""

    key: Key
    count: int
    first: float
    last: float


_FRESH: Final = 0.5
"""A flow whose last line is no older than this, in seconds, keeps its place in the order of forgetting."""

_EARLY: Final = 0.9
"""A summary may come this part of a window after its first line when another one is due: fewer wake-ups."""


class _FlowState:
    """A flow: how many of its lines became events in this window, and how many are counted since a time."""

    __slots__ = ("count", "emitted", "first", "last", "seen", "since")

    def __init__(self) -> None:
        self.emitted = self.count = 0
        self.seen = self.since = self.first = self.last = 0.0


class Aggregator:
    """Counts lines by flow."""

    def __init__(self, limits: AggregationLimits) -> None:
        self._limits = limits
        self._flows: OrderedDict[Key, _FlowState] = OrderedDict()
        self._shared: dict[Key, _FlowState] = {}
        self._pending: OrderedDict[Key, _FlowState] = OrderedDict()
        self._allowance = TokenBucket(limits.per_second)
        self.waiting = 0
        """Lines that are counted and not yet in a summary."""

    def count(self, key: Key, now: float, when: float, *, room: bool = True) -> bool:
        """Whether this line becomes an event at once; if not, or without `room` for an event, it is counted."""
        if room and not self._limits.window:
            return True
        state = self._flows.get(key)
        if state is None:
            key, state = self._begin(key)
        elif now - state.seen > _FRESH:
            self._flows.move_to_end(key)
        if not state.count and now - state.seen >= self._limits.window:
            state.emitted = 0
        state.seen = now
        if room and self._may_emit(state, now):
            state.emitted += 1
            return True
        if not state.count:
            self._await_summary(key, state, now, when)
        state.count += 1
        state.last = when
        self.waiting += 1
        return False

    def _may_emit(self, state: _FlowState, now: float) -> bool:
        return state.emitted < self._limits.first and self._allowance.spend(now)

    def _await_summary(self, key: Key, state: _FlowState, now: float, first: float) -> None:
        state.since, state.first = now, first
        self._pending[key] = state

    def _begin(self, key: Key) -> tuple[Key, _FlowState]:
        """The state of a flow that is not known yet: its own while there is room, else one that it shares.

        Room is made by forgetting the flow that had no line for longest, but never one with lines that wait.
        """
        if not isinstance(key, Flow):
            return key, self._shared.setdefault(key, _FlowState())
        if len(self._flows) >= self._limits.flows:
            oldest = next(iter(self._flows))
            if self._flows[oldest].count:
                others = Others(key.prefix)
                return others, self._shared.setdefault(others, _FlowState())
            self._flows.popitem(last=False)
        state = self._flows[key] = _FlowState()
        return key, state

    def due(self) -> float | None:
        """When the next summary is due; None while no line waits."""
        for state in self._pending.values():
            return state.since + self._limits.window
        return None

    def take(self, now: float, limit: int) -> list[FlowSummary]:
        """Summaries that are due, the oldest first, ``limit`` at most; if there are more, `due` stays in the past."""
        due = self.due()
        if due is None or due > now:
            return []
        return self._take(now - _EARLY * self._limits.window, limit)

    def take_all(self) -> list[FlowSummary]:
        """Everything that is counted, due or not."""
        return self._take(None, len(self._pending))

    def _take(self, began_before: float | None, limit: int) -> list[FlowSummary]:
        taken: list[FlowSummary] = []
        while self._pending and len(taken) < limit:
            key, state = self._pending.popitem(last=False)
            if began_before is not None and state.since > began_before:
                self._pending[key] = state
                self._pending.move_to_end(key, last=False)
                break
            taken.append(FlowSummary(key, state.count, state.first, state.last))
            self.waiting -= state.count
            state.count = 0
        return taken

    def pending(self) -> list[FlowSummary]:
        """What `take_all` would return, left in place."""
        return [FlowSummary(key, state.count, state.first, state.last) for key, state in self._pending.items()]

    def restore(self, summaries: Iterable[FlowSummary], now: float) -> None:
        """Continue the counts that another aggregator had pending."""
        for summary in summaries:
            key, state = summary.key, self._flows.get(summary.key)
            if state is None:
                key, state = self._begin(key)
            if not state.count:
                self._await_summary(key, state, now, summary.first)
            state.emitted, state.seen = self._limits.first, now
            state.count += summary.count
            state.first, state.last = min(state.first, summary.first), max(state.last, summary.last)
            self.waiting += summary.count


class TokenBucket:
    """Allows a number of events per second, on average over a second. 0 allows none."""

    def __init__(self, per_second: int) -> None:
        self._per_second = per_second
        self._left = float(per_second)
        self._since = 0.0

    def spend(self, now: float) -> bool:
        """Whether one more is allowed; if so, it is spent."""
        if self._left < 1.0 and now == self._since:
            return False
        self._left = min(float(self._per_second), self._left + (now - self._since) * self._per_second)
        self._since = now
        if self._left < 1.0:
            return False
        self._left -= 1.0
        return True
