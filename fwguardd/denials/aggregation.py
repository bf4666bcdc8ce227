"""What denials are counted by: the flow that a line is about; and a quick look that tells it without reading all.

A flow is a prefix, the way through the host, source, destination, protocol and destination port. The source port is
no part of it: whoever tries again does so from another one.

Under a flood most lines are counted and never told, and nobody asks for their other fields. `glance` knows the plain
lines of TCP and UDP, checks every byte of them against the same grammar as `fwguardd.denials.line_parser`, and leaves
all others to it: a line that it knows is a line that the parser would understand, as the same flow (a test holds it to
that).

Which denials become events now, and which are counted: exact counts in bounded memory, and no clock of its own.

The first lines of a flow are told at once. Those that follow are counted, and told together a window after the first
of them; a flow that goes on and on is one summary a window. After a window of silence its next lines are first ones
again. What comes when the events of this second are used up is counted too, never thrown away.

Every line is either told or counted, and every count is handed out once: what `Aggregator.count` said yes to, plus the
counts in the summaries, plus `Aggregator.waiting`, is the number of lines that were counted, always.

`now` is a clock that never jumps, in seconds; `when` is seconds since 1970. Nobody has to wake up while
`Aggregator.due` is None.

This module is pure.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from fwguardd.denials import grammar
from fwguardd.denials.grammar import compress_ipv6
from fwguardd.denials.model import Icmp, Tcp, Udp

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fwguardd.denials.model import Denial


class Flow(NamedTuple):
    """One who wants one thing, told by all lines that agree in these. Texts are "" where a line has none."""

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
    """All flows with a prefix that there was no room to count one by one."""

    prefix: str


@dataclass(frozen=True, slots=True)
class Malformed:
    """All lines with a prefix that nobody could read."""

    prefix: str


Key: TypeAlias = Flow | Others | Malformed


class Seen(NamedTuple):
    """A flow, and whether the packet asks for something, rather than answers: only asking makes a scan.

    A host that asks many questions gets many answers to many ports, some after it has forgotten the question.
    """

    flow: Flow
    asks: bool


_LAST_WELL_KNOWN: Final = 1023
_PORT: Final = "6553[0-5]|655[0-2][0-9]|65[0-4][0-9]{2}|6[0-4][0-9]{3}|[1-5][0-9]{4}|[1-9][0-9]{0,3}|0"
_NAME: Final = r"(?:[!-.0-9;-\[\]-~]{1,15})?"
_OCTET: Final = "[0-9a-f][0-9a-f]"
_LINK: Final = rf"IN=({_NAME}) OUT=({_NAME}) (?:MAC=(?:{_OCTET}(?::{_OCTET}){{13}})? )?"
_BYTE: Final = "(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_IPV4: Final = r"\.".join([_BYTE] * 4)
_IPV6: Final = ":".join(["[0-9a-f]{4}"] * 8)
_FLAGS: Final = "".join(f"(?:{flag} )?" for flag in grammar.TCP_FLAGS)
_PORTS: Final = (
    rf"PROTO=(?:(TCP)|UDP) SPT=({_PORT}) DPT=({_PORT}) "
    rf"(?(5)WINDOW=[0-9]{{1,5}} RES=0x[0-9a-f]{{2}} ({_FLAGS})URGP=[0-9]{{1,5}} |LEN=[0-9]{{1,5}} )\Z"
)
_PLAIN_IPV4: Final = re.compile(
    rf"{_LINK}SRC=({_IPV4}) DST=({_IPV4}) LEN=[0-9]{{1,10}} TOS=0x[0-9A-F]{{2}} PREC=0x[0-9A-F]{{2}} TTL=[0-9]{{1,3}} "
    rf"ID=[0-9]{{1,5}} (?:CE )?(?:DF )?(?:MF )?{_PORTS}"
)
_PLAIN_IPV6: Final = re.compile(
    rf"{_LINK}SRC=({_IPV6}) DST=({_IPV6}) LEN=[0-9]{{1,10}} TC=[0-9]{{1,3}} HOPLIMIT=[0-9]{{1,3}} "
    rf"FLOWLBL=[0-9]{{1,7}} {_PORTS}"
)


def glance(prefix: str, text: str, position: int) -> Seen | None:
    """The flow of a line whose prefix ends at a position, if it is a plain one; None when it is to be read."""
    match = _PLAIN_IPV4.match(text, position)
    if match is not None:
        incoming, outgoing, src, dst, tcp, spt, dpt, flags = match.groups()
    else:
        match = _PLAIN_IPV6.match(text, position)
        if match is None:
            return None
        incoming, outgoing, src, dst, tcp, spt, dpt, flags = match.groups()
        src, dst = compress_ipv6(src), compress_ipv6(dst)
    if tcp:
        return Seen(Flow(prefix, incoming, outgoing, src, dst, "tcp", dpt), "ACK" not in flags and "RST" not in flags)
    return Seen(Flow(prefix, incoming, outgoing, src, dst, "udp", dpt), _asks_udp(int(spt), int(dpt)))


def see(denial: Denial) -> Seen:
    """The flow that a denial is about."""
    network, transport, devices = denial.network, denial.transport, denial.devices
    port, asks = "", False
    if isinstance(transport, Tcp):
        port, asks = str(transport.dpt), "ACK" not in transport.flags and "RST" not in transport.flags
    elif isinstance(transport, Udp):
        port, asks = str(transport.dpt), _asks_udp(transport.spt, transport.dpt)
    elif isinstance(transport, Icmp):
        port = str(transport.type)
    flow = Flow(
        denial.watched.prefix,
        devices.incoming or "",
        devices.outgoing or "",
        (network.src or "") if network is not None else "",
        (network.dst or "") if network is not None else "",
        transport.proto if transport is not None else "",
        port,
    )
    return Seen(flow, asks)


def _asks_udp(spt: int, dpt: int) -> bool:
    """A packet from a well-known port to another one is an answer, most often of a name server."""
    return spt > _LAST_WELL_KNOWN or dpt <= _LAST_WELL_KNOWN


_FRESH: Final = 0.5
"""Seconds for which a flow counts as heard of just now."""

_TOGETHER: Final = 0.9
"""A summary may come this part of a window after its first line, when another one is due: fewer wake-ups."""


@dataclass(frozen=True, slots=True)
class AggregationLimits:
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
class FlowSummary:
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


class Aggregator:
    """Counts lines by flow."""

    def __init__(self, limits: AggregationLimits) -> None:
        self._limits = limits
        self._flows: OrderedDict[Key, _Counted] = OrderedDict()
        self._rest: dict[Key, _Counted] = {}
        self._pending: OrderedDict[Key, _Counted] = OrderedDict()
        self._allowance = TokenBucket(limits.per_second)
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

    def take(self, now: float, limit: int) -> list[FlowSummary]:
        """Summaries that are due, the oldest first, at most so many; with more of them, `due` stays in the past."""
        due = self.due()
        if due is None or due > now:
            return []
        return self._take(now - _TOGETHER * self._limits.window, limit)

    def take_all(self) -> list[FlowSummary]:
        """All that is counted, though its window has not ended."""
        return self._take(None, len(self._pending))

    def pending(self) -> list[FlowSummary]:
        """What `take_all` would give, left where it is."""
        return [FlowSummary(key, each.count, each.first, each.last) for key, each in self._pending.items()]

    def restore(self, summaries: Iterable[FlowSummary], now: float) -> None:
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

    def _take(self, began_before: float | None, limit: int) -> list[FlowSummary]:
        taken: list[FlowSummary] = []
        while self._pending and len(taken) < limit:
            key, counted = self._pending.popitem(last=False)
            if began_before is not None and counted.since > began_before:
                self._pending[key] = counted
                self._pending.move_to_end(key, last=False)
                break
            taken.append(FlowSummary(key, counted.count, counted.first, counted.last))
            self.waiting -= counted.count
            counted.count = 0
        return taken


class TokenBucket:
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
