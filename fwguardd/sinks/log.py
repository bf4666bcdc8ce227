"""Events to where they go: the journal, or through structlog to JSON lines or a terminal."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Any, Protocol, TextIO

import structlog

from fwguardd.settings import LogFormat
from fwguardd.sinks.console import ConsoleRenderer
from fwguardd.sinks.journal import JournalSocket, entry_of

if TYPE_CHECKING:
    from collections.abc import Callable, MutableMapping

    from fwguardd.events import Emit, EventKind

_TIMESTAMP = structlog.processors.TimeStamper(fmt="iso", utc=True)


class Sink(Protocol):
    """Where events go. What a slow journald has not taken yet waits in a queue, which somebody has to flush."""

    @property
    def tell(self) -> Emit:
        """Tell one event, from any thread."""

    def waiting(self) -> int:
        """Events that are told and not taken yet; tries again to hand them on."""

    def dropped(self) -> int:
        """Events that were dropped since the start, because the queue was full."""

    def when_waiting(self, call: Callable[[], None]) -> None:
        """Have this called, from any thread, when the queue begins to fill."""


def open_sink(wanted: LogFormat, stream: TextIO = sys.stdout) -> Sink:
    """Where events go. AUTO is the journal when systemd connected us to it, the console on a terminal, else JSON."""
    chosen = _chosen(wanted, stream)
    if chosen is LogFormat.JOURNAL:
        return JournalSink(JournalSocket())
    if chosen is LogFormat.JSON:
        return StreamSink(stream, _json_line)
    return StreamSink(stream, ConsoleRenderer(colours=stream.isatty() and "NO_COLOR" not in os.environ))


class JournalSink:
    """Events to the journal."""

    def __init__(self, journal: JournalSocket) -> None:
        self._journal = journal

    def tell(self, kind: EventKind, message: str, /, **fields: Any) -> None:
        """One entry for each event; structlog would add nothing here but time, of which a flood leaves none."""
        self._journal.send(entry_of(kind, message, fields))

    def waiting(self) -> int:
        """Entries that journald has not taken yet, after another try."""
        return self._journal.flush()

    def dropped(self) -> int:
        """Entries that were dropped since the start."""
        return self._journal.dropped

    def when_waiting(self, call: Callable[[], None]) -> None:
        """Have this called when the queue begins to fill."""
        self._journal.on_waiting = call


class StreamSink:
    """Events to a stream, each written at once: nothing ever waits."""

    def __init__(self, stream: TextIO, render: Callable[[object, str, MutableMapping[str, Any]], str]) -> None:
        self.tell: Emit = _Teller(structlog.PrintLogger(stream), [_TIMESTAMP, render], {}).tell

    def waiting(self) -> int:
        """Nothing."""
        return 0

    def dropped(self) -> int:
        """Nothing."""
        return 0

    def when_waiting(self, call: Callable[[], None]) -> None:
        """Never."""


class _Teller(structlog.BoundLoggerBase):
    """structlog's machinery with one method: tell an event."""

    def tell(self, kind: EventKind, message: str, /, **fields: Any) -> None:
        """Tell an event, as JSON or for a person."""
        self._proxy_to_logger(
            "msg", kind.name, message=message, message_id=kind.message_id, priority=kind.priority, **fields
        )


def _chosen(wanted: LogFormat, stream: TextIO) -> LogFormat:
    if wanted is not LogFormat.AUTO:
        return wanted
    if _connected_to_journal():
        return LogFormat.JOURNAL
    return LogFormat.CONSOLE if stream.isatty() else LogFormat.JSON


def _connected_to_journal() -> bool:
    """Whether standard error is the journal's stream: $JOURNAL_STREAM names its device and inode (systemd.exec(5))."""
    named = os.environ.get("JOURNAL_STREAM", "")
    status = os.fstat(2)
    return named == f"{status.st_dev}:{status.st_ino}"


def _json_line(_logger: object, _method: str, event: MutableMapping[str, Any]) -> str:
    """One JSON object a line, the time and the name first. Characters beyond ASCII are escaped: they are hostile input
    as often as not, and a lone surrogate would break whoever reads the line."""
    ordered = {"timestamp": event.pop("timestamp"), "event": event.pop("event"), **event}
    return json.dumps(ordered, default=str)
