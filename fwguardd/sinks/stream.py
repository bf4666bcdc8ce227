"""The sink that writes to a stream, as JSON lines or for a terminal."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Any, TextIO

from fwguardd.events import DROPPED
from fwguardd.left_out import left_out
from fwguardd.sinks.console import ConsoleRenderer
from fwguardd.sinks.sink import Statistics
from fwguardd.sinks.writer import LineWriter
from fwguardd.wording import counted

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, MutableMapping, Sequence

    from fwguardd.events import EventKind

# structlog formats tracebacks with rich where that is installed. No traceback is formatted here, and rich takes longer
# to import than this program.
with left_out("rich"):
    import structlog

_NOW = structlog.processors.TimeStamper(fmt="iso", utc=True)


def _timestamp(logger: object, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Add the time of the event: that of its packet, if it was read later."""
    event = _NOW(logger, method, event)
    if "time" in event:
        event["timestamp"] = event["time"]
    return event


def _json_line(_logger: object, _method: str, event: MutableMapping[str, Any]) -> str:
    """One JSON object on one line, the time and the name first. Characters beyond ASCII are escaped: they are often
    hostile input, and a lone surrogate would break the program that reads the line."""
    ordered = {"timestamp": event.pop("timestamp"), "event": event.pop("event"), **event}
    return json.dumps(ordered, default=str)


def json_sink(stream: TextIO) -> StreamSink:
    """Events as JSON lines."""
    return StreamSink(stream, _json_line, "json")


def console_sink(stream: TextIO, *, colours: bool) -> StreamSink:
    """Events for a person at a terminal."""
    return StreamSink(stream, ConsoleRenderer(colours=colours), "console")


class StreamSink:
    """Writes each event to a stream, as a structlog renderer formats it. See `fwguardd.sinks.writer` for what happens
    where the stream takes nothing."""

    def __init__(
        self, stream: TextIO, render: Callable[[object, str, MutableMapping[str, Any]], str], name: str = "stream"
    ) -> None:
        self._logger = _StreamLogger(_Rendered(), [_timestamp, render], {})
        self._writer = _writer(stream, name, self._loss)

    def emit(self, kind: EventKind, message: str, /, **fields: Any) -> None:
        """Write one event, or queue it."""
        self._writer.put(kind.name, self._logger.line(kind, message, fields))

    def flush(self) -> int:
        """Try again to write the events in the queue; the number that is left in it."""
        return self._writer.flush()

    def close(self, seconds: float) -> None:
        """Give the events in the queue this long to be written."""
        self._writer.close(seconds)

    def statistics(self) -> Sequence[Statistics]:
        """The counts of this stream."""
        return (self._writer.statistics(),)

    def on_waiting(self, call: Callable[[], None]) -> None:
        """Call this, from any thread, when the queue begins to fill."""
        self._writer.on_waiting = call

    def _loss(self, count: int) -> str:
        message = f"{counted(count, 'event was', 'events were')} dropped because the log did not accept them"
        return self._logger.line(DROPPED, message, {"count": count})


class _StreamLogger(structlog.BoundLoggerBase):
    """A structlog logger with one method, which takes an event and returns its line."""

    def line(self, kind: EventKind, message: str, fields: Mapping[str, Any]) -> str:
        text = self._proxy_to_logger(
            "msg", kind.name, message=message, message_id=kind.message_id, priority=kind.priority, **fields
        )
        return str(text)


class _Rendered:
    """What a structlog logger writes to."""

    def msg(self, text: str) -> str:
        return text


class _DirectWriter:
    """Writes to a stream that is no descriptor, at once: such a stream does not block."""

    def __init__(self, stream: TextIO, name: str) -> None:
        self.on_waiting: Callable[[], None] | None = None
        self._stream, self._name = stream, name
        self._passed: Counter[str] = Counter()
        self._dropped: Counter[str] = Counter()

    def put(self, event: str, line: str) -> None:
        try:
            self._stream.write(f"{line}\n")
        except (OSError, ValueError):
            # ValueError: the stream was closed.
            self._dropped[event] += 1
        else:
            self._passed[event] += 1

    def flush(self) -> int:
        return 0

    def close(self, _seconds: float) -> None:
        pass

    def statistics(self) -> Statistics:
        return Statistics(self._name, dict(self._passed), dict(self._dropped))


def _writer(stream: TextIO, name: str, loss: Callable[[int], str]) -> LineWriter | _DirectWriter:
    try:
        fd = stream.fileno()
    except (OSError, ValueError):
        return _DirectWriter(stream, name)
    return LineWriter(fd, name, loss)
