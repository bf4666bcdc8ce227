"""Who knocks at many doors: one source that asks for many ports, or at many hosts, within a window.

What counts is that packets ask (`fwguardd.denials.aggregation.Seen`): answers to forgotten questions are no scan. The
source address of a packet that was denied proves nothing, since nobody ever answered it: whoever sends packets can
write any address into them. So these are notices for people, and no reason to block an address by program.

This module is pure.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

from fwguardd.denials.aggregation import TokenBucket

if TYPE_CHECKING:
    from fwguardd.denials.aggregation import AggregationLimits, Flow

_WINDOW_WITHOUT_SUMMARIES: Final = 60.0


@dataclass(frozen=True, slots=True)
class Scan:
    """One source asked for many ports; as `tcp/23`, in the order of asking."""

    src: str
    ports: tuple[str, ...]
    seconds: float


@dataclass(frozen=True, slots=True)
class Sweep:
    """One source asked at many hosts, in the order of asking."""

    src: str
    hosts: tuple[str, ...]
    seconds: float


Notice: TypeAlias = Scan | Sweep


class _Asked:
    """What a source has asked for since a time. What was told of is None, until the window ends."""

    __slots__ = ("hosts", "ports", "since")

    def __init__(self, now: float) -> None:
        self.since = now
        self.ports: dict[str, None] | None = {}
        self.hosts: dict[str, None] | None = {}


class Scans:
    """Remembers who asked for what, for so many sources, the latest to come; each of them is told once a window."""

    def __init__(self, limits: AggregationLimits) -> None:
        self._limits = limits
        self._window = limits.window or _WINDOW_WITHOUT_SUMMARIES
        self._sources: OrderedDict[str, _Asked] = OrderedDict()
        self._allowance = TokenBucket(limits.per_second)

    def look(self, flow: Flow, now: float) -> Notice | None:
        """What to tell of the source of a packet that asked for something."""
        asked = self._sources.get(flow.src)
        if asked is None or now - asked.since >= self._window:
            asked = self._begin(flow.src, now)
        return self._look_at_ports(flow, asked, now) or self._look_at_hosts(flow, asked, now)

    def _look_at_ports(self, flow: Flow, asked: _Asked, now: float) -> Scan | None:
        ports, most = asked.ports, self._limits.scan_ports
        if ports is None or (port := f"{flow.proto}/{flow.port}") in ports:
            return None
        ports[port] = None
        if len(ports) < most:
            return None
        if most and self._allowance.spend(now):
            asked.ports = None
            return Scan(flow.src, tuple(ports), now - asked.since)
        # No more are needed; the next one tells, if it may.
        ports.popitem()
        return None

    def _look_at_hosts(self, flow: Flow, asked: _Asked, now: float) -> Sweep | None:
        hosts, most = asked.hosts, self._limits.sweep_hosts
        if hosts is None or flow.dst in hosts:
            return None
        hosts[flow.dst] = None
        if len(hosts) < most:
            return None
        if most and self._allowance.spend(now):
            asked.hosts = None
            return Sweep(flow.src, tuple(hosts), now - asked.since)
        hosts.popitem()
        return None

    def _begin(self, src: str, now: float) -> _Asked:
        self._sources.pop(src, None)
        if len(self._sources) >= self._limits.flows:
            self._sources.popitem(last=False)
        asked = self._sources[src] = _Asked(now)
        return asked
