"""Port scans and sweeps: one source whose requests to many ports, or to many hosts, were denied within a window.

Only requests count (`fwguardd.denials.aggregation.FlowPacket`). The source address of a denied packet proves nothing,
since nothing was sent back to it: the sender can write any address there. A notice is for administrators, and not a
reason to block an address automatically.

This module is pure.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Final, TypeAlias

from fwguardd.denials.aggregation import TokenBucket
from fwguardd.values import dataclass

if TYPE_CHECKING:
    from fwguardd.denials.aggregation import AggregationLimits, Flow

_WINDOW_WITHOUT_SUMMARIES: Final = 60.0


@dataclass(frozen=True, slots=True)
class Scan:
    """Requests of one source to many ports, as `tcp/23`, in the order of their coming, within so many seconds."""

    src: str
    ports: tuple[str, ...]
    seconds: float


@dataclass(frozen=True, slots=True)
class Sweep:
    """Requests of one source to many hosts, in the order of their coming, within so many seconds."""

    src: str
    hosts: tuple[str, ...]
    seconds: float


Notice: TypeAlias = Scan | Sweep


class _Targets:
    """The ports and hosts that a source has tried since a time. None: a notice was given, until the window ends."""

    __slots__ = ("hosts", "ports", "since")

    def __init__(self, now: float) -> None:
        self.since = now
        self.ports: dict[str, None] | None = {}
        self.hosts: dict[str, None] | None = {}


class ScanDetector:
    """Remembers the targets of a bounded number of sources, the latest ones; each gets one notice a window."""

    def __init__(self, limits: AggregationLimits) -> None:
        self._limits = limits
        self._window = limits.window or _WINDOW_WITHOUT_SUMMARIES
        self._sources: OrderedDict[str, _Targets] = OrderedDict()
        self._allowance = TokenBucket(limits.per_second)

    def observe(self, flow: Flow, now: float) -> Notice | None:
        """Take note of a denied request; the notice that it gives rise to."""
        targets = self._sources.get(flow.src)
        if targets is None or now - targets.since >= self._window:
            targets = self._begin(flow.src, now)
        return self._observe_port(flow, targets, now) or self._observe_host(flow, targets, now)

    def _begin(self, src: str, now: float) -> _Targets:
        self._sources.pop(src, None)
        if len(self._sources) >= self._limits.flows:
            self._sources.popitem(last=False)
        targets = self._sources[src] = _Targets(now)
        return targets

    def _observe_port(self, flow: Flow, targets: _Targets, now: float) -> Scan | None:
        ports = targets.ports
        if ports is None or not self._is_enough(ports, f"{flow.proto}/{flow.port}", self._limits.scan_ports, now):
            return None
        targets.ports = None
        return Scan(flow.src, tuple(ports), now - targets.since)

    def _observe_host(self, flow: Flow, targets: _Targets, now: float) -> Sweep | None:
        hosts = targets.hosts
        if hosts is None or not self._is_enough(hosts, flow.dst, self._limits.sweep_hosts, now):
            return None
        targets.hosts = None
        return Sweep(flow.src, tuple(hosts), now - targets.since)

    def _is_enough(self, found: dict[str, None], target: str, threshold: int, now: float) -> bool:
        """Add a target; whether there are enough now, and a notice is allowed in this second."""
        if target in found:
            return False
        found[target] = None
        if len(found) < threshold:
            return False
        if threshold and self._allowance.spend(now):
            return True
        # The memory is bounded by the threshold; the next target tries again.
        found.popitem()
        return False
