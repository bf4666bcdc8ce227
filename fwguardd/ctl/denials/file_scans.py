"""Scans and sweeps in the lines of a file, as the daemon finds them in the log that it reads.

A file may have many times more lines than a log that is read live, and most sources knock only a few times: what a
source does is only kept until there are enough requests for a scan, and then given to the detector in one go.

This module is pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fwguardd.denials.scan import ScanDetector

if TYPE_CHECKING:
    from fwguardd.denials.aggregation import AggregationLimits, Flow
    from fwguardd.denials.scan import Notice

_WINDOW_WITHOUT_SUMMARIES: Final = 60.0
_MOST_SOURCES: Final = 20_000


class FileScans:
    """Finds scans and sweeps of denied requests; ``limits`` has the numbers from which on there is one."""

    def __init__(self, limits: AggregationLimits) -> None:
        self._detector = ScanDetector(limits)
        self._window = limits.window or _WINDOW_WITHOUT_SUMMARIES
        self._enough = min((number for number in (limits.scan_ports, limits.sweep_hosts) if number), default=0)
        self._sources: dict[str, tuple[float, list[tuple[Flow, float]]]] = {}
        """For each source the time of its first request in the window, and its requests so far."""

    def observe(self, flow: Flow, time: float) -> Notice | None:
        """Take note of a denied request; the notice that it gives rise to."""
        found = self._sources.get(flow.src)
        if found is None or time - found[0] >= self._window:
            found = self._begin(flow.src, time)
        requests = found[1]
        if len(requests) < self._enough:
            requests.append((flow, time))
            if len(requests) < self._enough:
                return None
            return self._catch_up(requests)
        return self._detector.observe(flow, time)

    def _begin(self, src: str, time: float) -> tuple[float, list[tuple[Flow, float]]]:
        if len(self._sources) >= _MOST_SOURCES:
            self._sources.clear()
        found: tuple[float, list[tuple[Flow, float]]] = (time, [])
        self._sources[src] = found
        return found

    def _catch_up(self, requests: list[tuple[Flow, float]]) -> Notice | None:
        """Give the detector all requests of a source so far."""
        notice = None
        for flow, time in requests:
            notice = self._detector.observe(flow, time)
        return notice
