"""Remembers who the processes of this host were, so that one that has ended by the time of its change can be named.

Process events (`fwguardd.kernel.process_events`) are read in a thread of its own. Where a program that can change rules
is started, its process is read at once, about a millisecond before it commits. The forks among the events name the
ancestors of a process that was never read: one of them usually still runs, and a child runs in the control group of
its parent.

Ownership: the socket and the table belong to the thread that holds the lock. The watch's own thread takes it whenever
events have arrived; a thread that asks takes it to read those that have arrived since, so that the answer covers all
that the kernel reported before the question.
"""

from __future__ import annotations

import contextlib
import os
import select
import threading
import time
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Final, Self

from fwguardd.kernel.attribution import process_name, read_author, with_ancestor
from fwguardd.kernel.cgroups import ProcessKind
from fwguardd.kernel.netlink import OverrunError
from fwguardd.kernel.process_events import Fork
from fwguardd.kernel.process_table import ProcessTable
from fwguardd.threads import start_in_time

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from fwguardd.kernel.attribution import Author
    from fwguardd.kernel.process_events import ProcessEvent, ProcessEvents

RULE_PROGRAMS: Final = ("iptables", "ip6tables", "xtables-", "nft", "ebtables", "arptables")
"""How the names of programs begin that change rules and end at once."""

MOST_EVENTS: Final = 4_000
"""Process events per second up to which they are read, a fork and an exec for each program that is started; above it
they cost more than they are worth."""
MOST_SINGLE: Final = 1_000
"""Process events per second up to which each is read as it comes. Above it they are read in batches, which costs half
as much; a short-lived program is then rarely read itself, and known by its ancestors."""
BATCH: Final = 0.005
"""Seconds between two batches."""
SUSPENDED_FOR: Final = 60.0
"""Seconds without process events after that."""


class ProcessWatch(AbstractContextManager["ProcessWatch"]):
    """Watches the processes of this host between `__enter__` and `__exit__`.

    ``open_events`` opens the process events, or returns None where they cannot be used: then nothing is remembered, and
    there is no thread. It is called again after events were suspended, from the watch's thread.
    """

    def __init__(self, open_events: Callable[[], ProcessEvents | None]) -> None:
        self._open_events = open_events
        self._events = open_events()
        self._table = ProcessTable()
        self._lock = threading.Lock()
        self._rate = PerSecond()
        self._resume_at: float | None = None
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="process-watch", daemon=True)

    def __enter__(self) -> Self:
        if self._events is not None:
            start_in_time(self._thread.start)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the thread, and the events."""
        self._closing = True
        if self._thread.is_alive():
            os.eventfd_write(self._wake, 1)
            self._thread.join()
        if self._events is not None:
            self._events.close()
        os.close(self._wake)

    @property
    def working(self) -> bool:
        """Whether process events are read now."""
        return self._events is not None

    def completed(self, running: Author, pid: int) -> Author:
        """What /proc contained of a process just now, with what is remembered of it and its ancestors.

        ``pid`` and the name in ``running`` are those of the notice. May be called from any thread.
        """
        with self._lock:
            self._read_events()
            author = self._at_start(running, pid)
            ancestors = list(self._table.ancestors(pid))
        if author.kind is not ProcessKind.UNKNOWN and author.parent_pid is not None:
            return author
        for ancestor in ancestors:
            author = with_ancestor(author, ancestor, direct=ancestor == ancestors[0])
            if author.kind is not ProcessKind.UNKNOWN:
                break
        return author

    def _at_start(self, running: Author, pid: int) -> Author:
        """The process as it was read when it started its program, unless more could be read now."""
        started = self._table.author(pid, running.process or "", time.monotonic())
        if started is None or running.started not in (None, started.started):
            return running
        if started.command is None and running.command is not None:
            return running
        return started

    def _run(self) -> None:
        while not self._closing:
            self._watch_events()
            with contextlib.suppress(BlockingIOError):
                os.eventfd_read(self._wake)
            with self._lock:
                self._resume()

    def _watch_events(self) -> None:
        """Read events as they come, until they are suspended or their suspension ends, or the watch is closed."""
        descriptors = select.poll()
        descriptors.register(self._wake, select.POLLIN)
        with self._lock:
            milliseconds = self._milliseconds_to_resume()
            if self._events is not None:
                descriptors.register(self._events, select.POLLIN)
        while ready := descriptors.poll(milliseconds):
            if any(descriptor == self._wake for descriptor, _ in ready):
                return
            with self._lock:
                self._read_events()
                many = self._rate.add(0) > MOST_SINGLE
            if many:
                time.sleep(BATCH)

    def _read_events(self) -> None:
        if self._events is None:
            return
        try:
            found = self._events.read_available()
        except OverrunError:
            self._table.clear()
        except OSError:
            self._suspend()
        else:
            for event in found:
                self._note(event)
            if self._rate.add(len(found)) > MOST_EVENTS:
                self._suspend()

    def _note(self, event: ProcessEvent) -> None:
        if isinstance(event, Fork):
            self._table.add_fork(event.process, event.parent)
            return
        self._table.forget_author(event.process)
        name = process_name(event.process)
        if name.startswith(RULE_PROGRAMS):
            author = read_author(event.process, name)
            if author.started is not None:
                self._table.add_author(author, time.monotonic())

    def _suspend(self) -> None:
        """Do without process events for a while. The watch's thread has to wait for the end of that, so it is woken."""
        assert self._events is not None
        self._events.close()
        self._events = None
        self._table.clear()
        self._resume_at = time.monotonic() + SUSPENDED_FOR
        os.eventfd_write(self._wake, 1)

    def _resume(self) -> None:
        if self._resume_at is not None and time.monotonic() >= self._resume_at:
            self._resume_at = None
            self._events = self._open_events()

    def _milliseconds_to_resume(self) -> float | None:
        if self._resume_at is None:
            return None
        return max(0.0, self._resume_at - time.monotonic()) * 1000


class PerSecond:
    """Counts what happens within the present second."""

    def __init__(self) -> None:
        self._begun, self._count = 0.0, 0

    def add(self, count: int) -> int:
        """Count some more; the count since the second began."""
        now = time.monotonic()
        if now - self._begun >= 1.0:
            self._begun, self._count = now, 0
        self._count += count
        return self._count
