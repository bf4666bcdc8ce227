"""Writes lines to a descriptor, and lets nobody who emits an event wait for whatever is at its other end.

A pipe that is not read, a terminal that is stopped, a disk that is frozen: write(2) blocks for as long as that lasts.
Lines wait in a bounded queue meanwhile. What does not fit there, and what the descriptor refuses because the reader is
gone or the disk is full, is dropped and counted, and the count is written as soon as a line goes through again.

A pipe is opened anew by way of /proc, so that O_NONBLOCK is set for this process only and not for others that have the
same pipe. Files and terminals have no such mode (open(2), O_NONBLOCK): a thread of their own writes there.
"""

from __future__ import annotations

import contextlib
import os
import stat
import threading
import time
from collections import Counter, deque
from typing import TYPE_CHECKING

from fwguardd.events import DROPPED
from fwguardd.sinks.sink import Statistics
from fwguardd.threads import start_in_time

if TYPE_CHECKING:
    from collections.abc import Callable

LONGEST_QUEUE = 4096
"""Lines that wait; about 4 MB."""

CLOSE_PAUSE = 0.02
"""Seconds between two looks at the queue when the end waits for it."""


class LineWriter:
    """Writes lines to a descriptor. Safe to use from several threads; never blocks and never raises.

    ``loss`` makes the line that reports how many were dropped.
    """

    def __init__(self, fd: int, name: str, loss: Callable[[int], str]) -> None:
        self.on_waiting: Callable[[], None] | None = None
        """Called when the queue begins to fill, from the thread that writes: the queue must be flushed later."""
        self._name, self._loss = name, loss
        self._changed = threading.Condition()
        self._queue: deque[tuple[str, bytes]] = deque()
        self._passed: Counter[str] = Counter()
        self._dropped: Counter[str] = Counter()
        self._unreported = 0
        self._begun = False
        """Whether a part of the first line in the queue is written."""
        self._pipe = _nonblocking(fd)
        self._fd = fd
        if self._pipe is not None:
            self._fd = self._pipe
        else:
            start_in_time(threading.Thread(target=self._write_queue, name=f"log-{name}", daemon=True).start)

    def put(self, event: str, line: str) -> None:
        """Write a line, or queue it. ``event`` is the name that it is counted by."""
        data = (line + "\n").encode("utf-8", "backslashreplace")
        with self._changed:
            waited = bool(self._queue)
            if len(self._queue) >= LONGEST_QUEUE:
                self._drop(event)
                return
            self._queue.append((event, data))
            self._changed.notify()
            self._flush_pipe()
            begins = bool(self._queue) and not waited
        if begins and self.on_waiting is not None:
            self.on_waiting()

    def flush(self) -> int:
        """Try again to write the lines in the queue; the number that is left in it."""
        with self._changed:
            self._flush_pipe()
            return len(self._queue)

    def close(self, seconds: float) -> None:
        """Give the lines in the queue this long to be written."""
        deadline = time.monotonic() + seconds
        while self.flush() and time.monotonic() < deadline:
            time.sleep(CLOSE_PAUSE)

    def statistics(self) -> Statistics:
        """The lines that were written, and those that were dropped, by event."""
        with self._changed:
            return Statistics(self._name, dict(self._passed), dict(self._dropped))

    def _flush_pipe(self) -> None:
        while self._pipe is not None and self._queue:
            event, data = self._queue[0]
            try:
                written = os.write(self._fd, data)
            except BlockingIOError:
                return
            except OSError:
                self._refused(event)
                continue
            self._wrote(event, data, written)

    def _wait_for_line(self) -> tuple[str, bytes]:
        """The oldest line, which stays in the queue until it is written."""
        with self._changed:
            while not self._queue:
                self._changed.wait()
            return self._queue[0]

    def _write_queue(self) -> None:
        """In the thread of the writer, where write(2) may block: without the lock."""
        while True:
            event, data = self._wait_for_line()
            try:
                written = os.write(self._fd, data)
            except BlockingIOError:
                time.sleep(CLOSE_PAUSE)  # Another process has set O_NONBLOCK.
                continue
            except OSError:
                with self._changed:
                    self._refused(event)
                continue
            with self._changed:
                self._wrote(event, data, written)

    def _wrote(self, event: str, data: bytes, written: int) -> None:
        """So many bytes of the first line were written."""
        if written < len(data):
            self._queue[0] = (event, data[written:])
            self._begun = True
            return
        self._queue.popleft()
        self._begun = False
        self._passed[event] += 1
        if self._unreported and event != DROPPED.name:
            line = self._loss(self._unreported) + "\n"
            self._unreported = 0
            self._queue.appendleft((DROPPED.name, line.encode("utf-8", "backslashreplace")))

    def _refused(self, event: str) -> None:
        """The descriptor takes the first line neither now nor later."""
        self._queue.popleft()
        self._drop(event)
        if self._begun:
            self._begun = False
            if self._queue:
                following, data = self._queue[0]
                self._queue[0] = (following, b"\n" + data)

    def _drop(self, event: str) -> None:
        self._dropped[event] += 1
        if event != DROPPED.name:
            self._unreported += 1


def _nonblocking(fd: int) -> int | None:
    """A descriptor of the same pipe that never blocks; None if it is not a pipe, or may not be opened."""
    with contextlib.suppress(OSError):
        if stat.S_ISFIFO(os.fstat(fd).st_mode):
            return os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    return None
