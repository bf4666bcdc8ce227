"""The sinks beside the journal: streams, the fan-out, and what they count."""

from __future__ import annotations

import io
import json

from fwguardd import events
from fwguardd.settings import LogFormat
from fwguardd.sinks.sink import FanOut, Statistics, dropped_events
from fwguardd.sinks.stream import open_sink


class _FullDisk(io.StringIO):
    """A stream on a disk that is full."""

    def write(self, _: str, /) -> int:
        raise OSError(28, "No space left on device")


def test_json_lines_hold_the_event() -> None:
    """One line for each event, with its name, its MESSAGE_ID and its fields."""
    stream = io.StringIO()
    open_sink(LogFormat.JSON, stream=stream).emit(events.REPAIRED, "repaired", revision=3, changes=1)
    (line,) = stream.getvalue().splitlines()
    found = json.loads(line)
    assert found.pop("timestamp").endswith("Z")
    assert found == {
        "event": "drift.repaired",
        "message": "repaired",
        "message_id": events.REPAIRED.message_id,
        "priority": events.NOTICE,
        "revision": 3,
        "changes": 1,
    }


def test_an_event_goes_to_every_sink_of_a_fan_out() -> None:
    """Two formats at once: each gets every event, and each counts for itself."""
    stream = io.StringIO()
    sink = open_sink(LogFormat.JSON, LogFormat.CONSOLE, stream=stream)
    for _ in range(2):
        sink.emit(events.REPAIRED, "the rules are repaired", revision=3, changes=1)
    lines = stream.getvalue().splitlines()
    assert [line.startswith("{") for line in lines] == [True, False, True, False]
    assert sink.flush() == 0
    assert sink.statistics() == (
        Statistics("json", {"drift.repaired": 2}, {}),
        Statistics("console", {"drift.repaired": 2}, {}),
    )


def test_a_stream_that_takes_nothing_harms_nobody() -> None:
    """An event that a stream does not take is dropped and counted; the other sinks still get it."""
    stream = io.StringIO()
    full, good = open_sink(LogFormat.JSON, stream=_FullDisk()), open_sink(LogFormat.JSON, stream=stream)
    sink = FanOut([full, good])
    sink.emit(events.STOPPING, "bye")
    assert full.statistics() == (Statistics("json", {}, {"daemon.stopping": 1}),)
    assert good.statistics() == (Statistics("json", {"daemon.stopping": 1}, {}),)
    assert dropped_events(sink) == 1
    assert json.loads(stream.getvalue())["message"] == "bye"
