"""The sinks beside the journal: streams, the fan-out, and what they count."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pty
import select
import termios
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import pytest

from fwguardd import events
from fwguardd.settings import LogFormat
from fwguardd.sinks.choice import open_sink
from fwguardd.sinks.sink import FanOut, Statistics, dropped_events
from fwguardd.sinks.writer import LONGEST_QUEUE
from tests.waiting import LONGEST, must_end, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator


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


@pytest.fixture
def pipe() -> Iterator[tuple[int, TextIO]]:
    """The reading end of a pipe, and a stream on the writing end."""
    reading, writing = os.pipe()
    with os.fdopen(writing, "w") as stream:
        yield reading, stream
    with contextlib.suppress(OSError):
        os.close(reading)


def _lines(reading: int, wanted: int) -> list[dict[str, Any]]:
    data = b""
    while data.count(b"\n") < wanted:
        data += os.read(reading, 1 << 16)
    return [json.loads(line) for line in data.splitlines()]


def test_a_pipe_that_is_not_read_stops_nobody(pipe: tuple[int, TextIO]) -> None:
    """Events wait in a queue, those beyond its length are dropped; once the pipe is read again the rest follows, with
    the number of those that are missing. The pipe itself stays as it was for others who have it."""
    reading, stream = pipe
    sink = open_sink(LogFormat.JSON, stream=stream)
    waiting: list[bool] = []
    sink.on_waiting(lambda: waiting.append(True))
    with must_end("emitting events to a pipe that nobody reads"):
        for number in range(LONGEST_QUEUE + 2000):
            sink.emit(events.REPAIRED, "repaired", revision=number, changes=1)
    assert os.get_blocking(stream.fileno())
    assert (sink.flush(), waiting) == (LONGEST_QUEUE, [True])
    dropped = dropped_events(sink)
    seen: list[dict[str, Any]] = []
    while sink.flush() or len(seen) + dropped < LONGEST_QUEUE + 2001:
        seen += _lines(reading, 1)
    losses = [event["count"] for event in seen if event["event"] == "events.dropped"]
    numbers = [event["revision"] for event in seen if event["event"] == "drift.repaired"]
    assert (numbers, losses) == (list(range(len(numbers))), [dropped])
    assert len(numbers) + dropped == LONGEST_QUEUE + 2000


def test_a_pipe_whose_reader_is_gone_harms_nobody(pipe: tuple[int, TextIO]) -> None:
    """Events to it are dropped and counted, one by one."""
    reading, stream = pipe
    sink = open_sink(LogFormat.JSON, stream=stream)
    os.close(reading)
    for _ in range(3):
        sink.emit(events.STOPPING, "bye")
    assert (sink.flush(), dropped_events(sink)) == (0, 3)


def test_a_full_disk_loses_events_with_their_number(tmp_path: Path) -> None:
    """What a file does not take is counted. With room again, the next event is on a line of its own, and the loss is
    said."""
    with (tmp_path / "log").open("w") as stream:
        sink = open_sink(LogFormat.JSON, stream=stream)
        with Path("/dev/full").open("w") as full:
            real = os.dup(stream.fileno())
            os.dup2(full.fileno(), stream.fileno())
            sink.emit(events.STOPPING, "lost")
            wait_until(lambda: dropped_events(sink) == 1, "the loss")
            os.dup2(real, stream.fileno())
            os.close(real)
        sink.emit(events.STOPPING, "bye")
        sink.close(LONGEST)
    found = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert [event["event"] for event in found] == ["daemon.stopping", "events.dropped"]
    assert found[1]["count"] == 1


def test_a_file_that_takes_nothing_stops_nobody() -> None:
    """Where write(2) blocks, as on a frozen disk, only the thread of the writer waits. A terminal that is stopped with
    Ctrl-S stands in for the disk here."""
    near, far = pty.openpty()
    with os.fdopen(far, "w") as stream:
        termios.tcflow(stream.fileno(), termios.TCOOFF)
        sink = open_sink(LogFormat.JSON, stream=stream)
        with must_end("emitting events to a terminal that is stopped"):
            for _ in range(LONGEST_QUEUE + 1):
                sink.emit(events.STOPPING, "bye")
            sink.close(0.1)
        assert (sink.flush(), dropped_events(sink)) == (LONGEST_QUEUE, 1)
        termios.tcflow(stream.fileno(), termios.TCOON)
        while sink.flush():
            # What was read last may be counted as waiting for a moment longer: there is nothing to read then.
            if select.select([near], [], [], 0.01)[0]:
                os.read(near, 1 << 16)
    os.close(near)
