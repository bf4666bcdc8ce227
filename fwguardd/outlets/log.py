"""Events through structlog to where they go: the journal, JSON lines, or a terminal."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Any, TextIO

import structlog

from fwguardd.outlets.console import ConsoleRenderer
from fwguardd.outlets.journal import JournalSocket, journal_fields
from fwguardd.settings import LogFormat

if TYPE_CHECKING:
    from collections.abc import MutableMapping

    from fwguardd.events import Emit, EventKind

_TIMESTAMP = structlog.processors.TimeStamper(fmt="iso", utc=True)


def open_log(wanted: LogFormat, stream: TextIO = sys.stdout) -> Emit:
    """Where events go. AUTO is the journal when systemd connected us to it, the console on a terminal, else JSON."""
    chosen = _chosen(wanted, stream)
    if chosen is LogFormat.JOURNAL:
        return _Teller(JournalSocket(), [journal_fields], {}).tell
    if chosen is LogFormat.JSON:
        return _Teller(structlog.PrintLogger(stream), [_TIMESTAMP, _json_line], {}).tell
    colours = stream.isatty() and "NO_COLOR" not in os.environ
    return _Teller(structlog.PrintLogger(stream), [_TIMESTAMP, ConsoleRenderer(colours=colours)], {}).tell


class _Teller(structlog.BoundLoggerBase):
    """structlog's machinery with one method: tell an event."""

    def tell(self, kind: EventKind, message: str, /, **fields: Any) -> None:
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
