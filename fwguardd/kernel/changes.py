"""Reads the notices of changes and their authors in a thread of its own, because an author is gone within milliseconds.

The thread sleeps until a notice comes and then reads /proc at once, even while the event loop is busy; it does nothing
else, because a thread that wakes more often is given the processor later. It owns the socket of the notices, and hands
over values that do not change, in batches, through the function ``deliver``, which it calls. What /proc no longer
contains is answered by `fwguardd.kernel.process_watch`.

For each rule of a load the kernel makes a message for the group of the notices, before it filters them: that takes a
third of the time of a load of 10,000 rules. So a large load of our own is carried out without them
(`ChangeReader.unnoticed`). The number of commits then says whether another program has written meanwhile; which one is
not known, as after any notice that was lost.

On a busy host this thread may get the processor later than the thread that compares the rules. So that one can read the
notices itself (`ChangeReader.authors_by_now`): the kernel sends a notice before the program that committed goes on.
"""

from __future__ import annotations

import contextlib
import os
import select
import threading
from collections import deque
from typing import TYPE_CHECKING, Final, Self

from fwguardd.kernel.attribution import NO_AUTHORS, Authors, read_author
from fwguardd.kernel.generations import Generation, GenerationNoticesError, Missed
from fwguardd.kernel.process_watch import PerSecond
from fwguardd.threads import start_in_time
from fwguardd.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
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


class ChangeReader(contextlib.AbstractContextManager["ChangeReader"]):
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
        failed: Callable[[Exception], object],
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

    @contextlib.contextmanager
    def unnoticed(self, commits: int) -> Iterator[None]:
        """Get no notices while the caller commits so often. If there were other commits, that is reported as `Missed`:
        as a change by an unknown process."""
        with self._read:
            before = self._leave()
        expected = None
        try:
            yield
            if before is not None:
                expected = before + commits
        finally:
            if before is not None:
                with self._read:
                    self._join(expected)

    def _leave(self) -> int | None:
        """Get no notices; the number of the generation, None where they go on. The caller holds the lock."""
        if self._closing:
            return None
        with contextlib.suppress(GenerationNoticesError, OSError):
            return self._notices.leave()
        return None

    def _join(self, expected: int | None) -> None:
        """Get notices again, where the generation is to have this number; None where that is not known, as after a load
        that failed. The caller holds the lock."""
        if self._closing:
            return
        try:
            number = self._notices.join()
        except (GenerationNoticesError, OSError) as error:
            self._fail(error)
            return
        if number != expected:
            self._take([Change(Missed(), None)])

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
            self._fail(error)
            return
        if changes:
            self._take(changes)

    def _take(self, changes: Sequence[Change]) -> None:
        self._recent.extend(changes)
        self._read.notify_all()
        self._deliver(changes)

    def _fail(self, error: Exception) -> None:
        self._closing = True
        self._failed(error)

    def _author_of(self, notice: Notice) -> Author | None:
        if self._is_ours(notice) or isinstance(notice, Missed) or self._rate.add(1) > MOST_READS:
            return None
        return self._watch.completed(read_author(notice.pid, notice.process), notice.pid)

    def _is_ours(self, notice: Notice) -> bool:
        return isinstance(notice, Generation) and self._ours(notice.pid)


class Noticing:
    """The reader of changes, for those that are made before there is one. Without a reader no process is known to have
    changed anything."""

    def __init__(self) -> None:
        self.reader: ChangeReader | None = None

    def authors(self) -> Authors:
        """As `ChangeReader.authors`."""
        if self.reader is None:
            return NO_AUTHORS
        return self.reader.authors()

    def authors_by_now(self, seconds: float) -> Authors:
        """As `ChangeReader.authors_by_now`."""
        if self.reader is None:
            return NO_AUTHORS
        return self.reader.authors_by_now(seconds)

    def unnoticed(self, commits: int) -> contextlib.AbstractContextManager[None]:
        """As `ChangeReader.unnoticed`."""
        if self.reader is None:
            return contextlib.nullcontext()
        return self.reader.unnoticed(commits)
