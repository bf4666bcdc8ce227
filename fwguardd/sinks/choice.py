"""The choice of sinks: those that the settings want."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, TextIO

from fwguardd.settings import LogFormat
from fwguardd.sinks.journal import JournalSink, JournalSocket
from fwguardd.sinks.sink import FanOut

if TYPE_CHECKING:
    from fwguardd.sinks.sink import Sink


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
    # The service logs to the journal, and need not wait for the modules of the other formats.
    from fwguardd.sinks.stream import console_sink, json_sink  # noqa: PLC0415

    if chosen is LogFormat.JSON:
        return json_sink(stream)
    return console_sink(stream, colours=stream.isatty() and "NO_COLOR" not in os.environ)
