"""Reads the notices of changes and their authors in a thread of its own, because an author is gone within milliseconds.

The thread sleeps until a notice comes and then reads /proc at once, even while the event loop is busy; it does nothing
else, because a thread that wakes more often is given the processor later. It owns the socket of the notices, and hands
over values that do not change, in batches, through the function ``deliver``, which it calls. What /proc no longer
contains is answered by `fwguardd.kernel.process_watch`.

On a busy host this thread may get the processor later than the thread that compares the rules. So that one can read the
notices itself (`ChangeReader.authors_by_now`): the kernel sends a notice before the program that committed goes on.
"""

from __future__ import annotations

import os
import select
import threading
from collections import deque
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Final, Self

from fwguardd.kernel.attribution import NO_AUTHORS, Authors, read_author
from fwguardd.kernel.generations import Generation, Missed
from fwguardd.kernel.process_watch import PerSecond
from fwguardd.threads import start_in_time
from fwguardd.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType

    from fwguardd.kernel.attribution import Author
    from fwguardd.kernel.generations import GenerationNotices, Notice
    from fwguardd.kernel.process_watch import ProcessWatch

MOST_READS: Final = 100
"""Authors read per second; of further changes the author is not known."""

MOST_CHANGES: Final = 1_000
"""Changes that are kept until their authors are taken; the oldest are dropped."""


@dataclass(frozen=True, slots=True)
class Change:
    """A notice, with the process that committed as far as it is known: None if it was not read."""

    notice: Notice
    author: Author | None


class ChangeReader(AbstractContextManager["ChangeReader"]):
    """Reads notices and authors between `__enter__` and `__exit__`, and calls ``deliver`` with the changes.

    ``ours`` says of a process id whether it is one of our own child processes, which are not read. ``failed`` is called
    with the error if the socket of the notices fails; nothing is delivered afterwards. All three are called from the
    reader's thread or from that which calls `authors_by_now`, and may not block.
    """

    def __init__(
        self,
        notices: GenerationNotices,
        watch: ProcessWatch,
        deliver: Callable[[Sequence[Change]], object],
        failed: Callable[[OSError], object],
        ours: Callable[[int], bool],
    ) -> None:
        self._notices, self._watch = notices, watch
        self._deliver, self._failed, self._ours = deliver, failed, ours
        self._rate = PerSecond()
        self._recent: deque[Change] = deque(maxlen=MOST_CHANGES)
        self._read = threading.Condition()
        """Held while the socket is read; notified when changes have been read."""
        self._stop = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="change-reader", daemon=True)

    def __enter__(self) -> Self:
        start_in_time(self._thread.start)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the thread. Afterwards nothing is read any more."""
        with self._read:
            self._closing = True
        os.eventfd_write(self._stop, 1)
        self._thread.join()
        os.close(self._stop)

    def authors(self) -> Authors:
        """The processes that have changed the rules since their authors were taken last, as far as notices have been
        read. Never waits. From any thread; each change is given once."""
        found = NO_AUTHORS
        while self._recent:
            change = self._recent.popleft()
            if not self._is_ours(change.notice):
                found = found.with_another(change.author)
        return found

    def authors_by_now(self, seconds: float) -> Authors:
        """Those of `authors`, after reading the notices that have arrived. With none, a late one is waited for."""
        with self._read:
            self._read_available()
            found = self.authors()
            if not found and not self._closing and self._read.wait_for(lambda: bool(self._recent), seconds):
                found = self.authors()
        return found

    def _run(self) -> None:
        descriptors = select.poll()
        descriptors.register(self._stop, select.POLLIN)
        descriptors.register(self._notices, select.POLLIN)
        while not self._closing:
            descriptors.poll()
            with self._read:
                self._read_available()

    def _read_available(self) -> None:
        """Read and deliver what has arrived. The caller holds the lock."""
        if self._closing:
            return
        try:
            changes = [Change(notice, self._author_of(notice)) for notice in self._notices.read_available()]
        except OSError as error:
            self._closing = True
            self._failed(error)
            return
        if changes:
            self._recent.extend(changes)
            self._read.notify_all()
            self._deliver(changes)

    def _author_of(self, notice: Notice) -> Author | None:
        if self._is_ours(notice) or isinstance(notice, Missed) or self._rate.add(1) > MOST_READS:
            return None
        return self._watch.completed(read_author(notice.pid, notice.process), notice.pid)

    def _is_ours(self, notice: Notice) -> bool:
        return isinstance(notice, Generation) and self._ours(notice.pid)
