"""The sink that writes to a stream, as JSON lines or for a terminal; and the choice of sinks."""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from typing import TYPE_CHECKING, Any, TextIO

import structlog

from fwguardd.settings import LogFormat
from fwguardd.sinks.console import ConsoleRenderer
from fwguardd.sinks.journal import JournalSink, JournalSocket
from fwguardd.sinks.sink import FanOut, Statistics

if TYPE_CHECKING:
    from collections.abc import Callable, MutableMapping, Sequence

    from fwguardd.events import EventKind
    from fwguardd.sinks.sink import Sink

_TIMESTAMP = structlog.processors.TimeStamper(fmt="iso", utc=True)


def open_sink(*wanted: LogFormat, stream: TextIO = sys.stdout) -> Sink:
    """The sink for a format, or for several of them. AUTO is the journal when systemd connected standard error to it,
    the console on a terminal, and JSON lines otherwise."""
    sinks = [_open(_chosen(each, stream), stream) for each in wanted]
    return sinks[0] if len(sinks) == 1 else FanOut(sinks)


def _chosen(wanted: LogFormat, stream: TextIO) -> LogFormat:
    if wanted is not LogFormat.AUTO:
        return wanted
    if _connected_to_journal():
        return LogFormat.JOURNAL
    if stream.isatty():
        return LogFormat.CONSOLE
    return LogFormat.JSON


def _connected_to_journal() -> bool:
    """Whether standard error is the journal's stream: $JOURNAL_STREAM names its device and inode (systemd.exec(5))."""
    named = os.environ.get("JOURNAL_STREAM", "")
    status = os.fstat(2)
    return named == f"{status.st_dev}:{status.st_ino}"


def _open(chosen: LogFormat, stream: TextIO) -> Sink:
    if chosen is LogFormat.JOURNAL:
        return JournalSink(JournalSocket())
    if chosen is LogFormat.JSON:
        return StreamSink(stream, _json_line, "json")
    colours = stream.isatty() and "NO_COLOR" not in os.environ
    return StreamSink(stream, ConsoleRenderer(colours=colours), "console")


def _json_line(_logger: object, _method: str, event: MutableMapping[str, Any]) -> str:
    """One JSON object on one line, the time and the name first. Characters beyond ASCII are escaped: they are often
    hostile input, and a lone surrogate would break the program that reads the line."""
    ordered = {"timestamp": event.pop("timestamp"), "event": event.pop("event"), **event}
    return json.dumps(ordered, default=str)


class StreamSink:
    """Writes each event to a stream at once, as a structlog renderer formats it. Nothing waits; an event that the
    stream does not take, because its reader is gone or its disk is full, is dropped."""

    def __init__(
        self, stream: TextIO, render: Callable[[object, str, MutableMapping[str, Any]], str], name: str = "stream"
    ) -> None:
        self._logger = _StreamLogger(structlog.PrintLogger(stream), [_TIMESTAMP, render], {})
        self._name = name
        self._passed: Counter[str] = Counter()
        self._dropped: Counter[str] = Counter()

    def emit(self, kind: EventKind, message: str, /, **fields: Any) -> None:
        """Write one event."""
        try:
            self._logger.write(kind, message, fields)
        except (OSError, ValueError):
            # ValueError: the stream was closed.
            self._dropped[kind.name] += 1
        else:
            self._passed[kind.name] += 1

    def flush(self) -> int:
        """Nothing waits."""
        return 0

    def statistics(self) -> Sequence[Statistics]:
        """The counts of this stream."""
        return (Statistics(self._name, dict(self._passed), dict(self._dropped)),)

    def on_waiting(self, call: Callable[[], None]) -> None:
        """Nothing ever waits, so this is never called."""


class _StreamLogger(structlog.BoundLoggerBase):
    """A structlog logger with one method, which takes an event."""

    def write(self, kind: EventKind, message: str, fields: dict[str, Any]) -> None:
        self._proxy_to_logger(
            "msg", kind.name, message=message, message_id=kind.message_id, priority=kind.priority, **fields
        )
