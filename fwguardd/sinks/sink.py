"""The interface of sinks, their counts, and the sink that hands each event to several others.

Emitting an event never blocks and never raises: an event that its sink cannot take is queued, or dropped and counted.

This module is pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from fwguardd.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from fwguardd.events import EventKind


@dataclass(frozen=True, slots=True)
class Statistics:
    """The events that one destination has taken, and those that were dropped, each by the name of their kind, since the
    start. Events that wait in a queue are in neither."""

    destination: str
    passed: Mapping[str, int]
    dropped: Mapping[str, int]


class Sink(Protocol):
    """Takes events. Those that it cannot hand on at once wait in a queue, which the event loop flushes."""

    def emit(self, kind: EventKind, message: str, /, **fields: Any) -> None:
        """Take one event, from any thread. Never raises, never waits."""

    def flush(self) -> int:
        """Try again to hand on the events in the queue; the number that is left in it."""

    def close(self, seconds: float) -> None:
        """The daemon ends: give the events in the queue this long to be handed on."""

    def statistics(self) -> Sequence[Statistics]:
        """What was passed on and what was dropped since the start, for each destination."""

    def on_waiting(self, call: Callable[[], None]) -> None:
        """Call this, from any thread, when the queue begins to fill: it must be flushed later."""


def dropped_events(sink: Sink) -> int:
    """The number of events that were dropped since the start, all kinds and destinations together."""
    return sum(sum(each.dropped.values()) for each in sink.statistics())


class FanOut:
    """Hands each event to several sinks."""

    def __init__(self, sinks: Sequence[Sink]) -> None:
        self._sinks = tuple(sinks)

    def emit(self, kind: EventKind, message: str, /, **fields: Any) -> None:
        """Hand one event to every sink, in their order."""
        for sink in self._sinks:
            sink.emit(kind, message, **fields)

    def flush(self) -> int:
        """Flush every sink; the length of the longest queue that is left."""
        return max((sink.flush() for sink in self._sinks), default=0)

    def close(self, seconds: float) -> None:
        """Close every sink, one after the other."""
        for sink in self._sinks:
            sink.close(seconds)

    def statistics(self) -> Sequence[Statistics]:
        """The counts of every sink."""
        found: list[Statistics] = []
        for sink in self._sinks:
            found += sink.statistics()
        return tuple(found)

    def on_waiting(self, call: Callable[[], None]) -> None:
        """Call this when the queue of any sink begins to fill."""
        for sink in self._sinks:
            sink.on_waiting(call)
