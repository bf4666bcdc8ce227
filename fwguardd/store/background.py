"""The store with a thread of its own, so that a disk that hangs does not stop whoever uses it.

A frozen file system, a network file system whose server is gone, a disk that tries again and again: any system call on
it can take minutes, and cannot be interrupted. So all of them are made by one thread, in the order in which they were
asked for, and a caller waits for `WITHIN` seconds at most. In the usual case it has the result by then, and everything
is as `fwguardd.store.revisions` says. Otherwise the disk counts as hanging until the thread has caught up:

- what is recorded, such as a revision, is written once the disk answers; a fault says so at once;
- what must be on the disk before something else is done, a pending confirmation or held files, is a StoreError;
- what would have to be read is unreadable, and what was read or written last is known.
"""

from __future__ import annotations

import contextlib
import dataclasses
import threading
import time
from collections import deque
from concurrent.futures import Future
from dataclasses import field
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar, cast

from fwguardd.store.model import (
    Fault,
    FaultKind,
    HeldFiles,
    PendingConfirmation,
    StoreError,
    Unreadable,
    UnreadableNote,
)
from fwguardd.store.revisions import RevisionStore
from fwguardd.threads import ThreadNotStartedError, finish, in_thread
from fwguardd.values import dataclass
from fwguardd.wording import counted

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from fwguardd.ruleset.canonical import Owned
    from fwguardd.ruleset.counter_history import CounterHistory
    from fwguardd.ruleset.others import Others
    from fwguardd.store.durable import System
    from fwguardd.store.model import Reading, Revision, RevisionSummary


WITHIN: Final = 1.0
"""Seconds that a caller waits for the disk. A foreign change has to be repaired within two."""

MOST_REVISIONS = 16
"""Revisions that wait for a disk that hangs; of more, the oldest are never recorded."""

Pending = PendingConfirmation | UnreadableNote | None
Held = HeldFiles | UnreadableNote | None

_OPEN, _REVISION = "open", "revision "

Result = TypeVar("Result")
Note = TypeVar("Note")


@dataclasses.dataclass(eq=False)
class _Job(Generic[Result]):
    """Something for the thread to do. A later job of the same name takes the place of one that has not begun."""

    name: str
    call: Callable[[], Result]
    value: object = None
    begun: bool = False
    ended: threading.Event = field(default_factory=threading.Event)
    outcome: Future[Result] = field(default_factory=Future)
    left: bool = False
    """Nobody waits for it any more."""

    @property
    def error(self) -> BaseException | None:
        """What the call raised."""
        return self.outcome.exception()


@dataclass(frozen=True, slots=True)
class _Known:
    """What the store said when the thread was last idle."""

    summaries: tuple[RevisionSummary, ...] = ()
    pending: Pending = None
    held: Held = None
    touched: Owned | UnreadableNote = frozenset()
    others: Others | UnreadableNote = ()


class BackgroundStore(RevisionStore):
    """A store that never makes its caller wait for long. It is used by one thread, and has another one of its own."""

    def __init__(
        self, state_dir: Path, keep: int = 50, *, system: System | None = None, within: float = WITHIN
    ) -> None:
        """Open the store, however long that takes. Raises StoreError where it cannot be trusted."""
        self._directory, self._within = state_dir, within
        self._changed = threading.Condition(threading.RLock())
        self._jobs: deque[_Job[Any]] = deque()
        self._known = _Known()
        self._numbered = 0
        self._hang = ""
        self._thread = 0
        try:
            self._running = in_thread(self._work)
        except ThreadNotStartedError as error:
            raise StoreError(str(error)) from error
        job = self._submit(_OPEN, partial(self._open_first, partial(super().__init__, state_dir, keep, system=system)))
        job.ended.wait()
        if job.error is not None:
            raise job.error

    @property
    def hangs(self) -> str:
        """A sentence about the disk that hangs, and what waits for it; "" while it answers."""
        with self._changed:
            if not self._hang:
                return ""
            return f"{self._hang}; {counted(len(self._jobs), 'write waits', 'writes wait')} for it"

    # What is known without the disk.

    def take_faults(self) -> tuple[Fault, ...]:
        """As in the base class."""
        with self._changed:
            return super().take_faults()

    def faults(self) -> tuple[Fault, ...]:
        """As in the base class; the disk that hangs is one of them."""
        hangs = self.hangs
        with self._changed:
            faults = super().faults()
        if hangs:
            return (*faults, Fault(FaultKind.INACCESSIBLE, hangs))
        return faults

    def next_number(self) -> int:
        """As in the base class; numbers of revisions that wait for the disk are used."""
        return max(super().next_number(), self._numbered + 1)

    def summaries(self) -> tuple[RevisionSummary, ...]:
        """As in the base class."""
        if self._is_inside():
            return super().summaries()
        return self._known.summaries

    # What is read from the disk.

    def get(self, number: int) -> Reading:
        """As in the base class."""
        return self._read(partial(super().get, number), lambda: Unreadable(number, self.hangs))

    def newest(self) -> Reading:
        """As in the base class."""
        return self._read(super().newest, lambda: Unreadable(0, self.hangs))

    def boot_copy(self) -> Reading:
        """As in the base class."""
        return self._read(super().boot_copy, lambda: Unreadable(0, self.hangs))

    def read_boot_revision(self) -> int | None:
        """As in the base class."""
        return self._read(super().read_boot_revision, lambda: None)

    def lost(self, number: int) -> bool:
        """As in the base class."""
        return self._read(partial(super().lost, number), lambda: False)

    def pending(self) -> Pending:
        """As in the base class; one that waits to be written counts."""
        return self._read(super().pending, lambda: self._coming("pending", self._known.pending))

    def held(self) -> Held:
        """As in the base class; what waits to be written counts."""
        return self._read(super().held, lambda: self._coming("held", self._known.held))

    def touched(self) -> Owned | UnreadableNote:
        """As in the base class; what waits to be written counts."""
        return self._read(super().touched, lambda: self._coming("touched", self._known.touched))

    def others(self) -> Others | UnreadableNote:
        """As in the base class; what waits to be written counts."""
        return self._read(super().others, lambda: self._coming("others", self._known.others))

    # What is recorded.

    def record(self, revision: Revision) -> None:
        """As in the base class; on a disk that hangs, later."""
        self._numbered = max(self._numbered, revision.number)
        self._drop_oldest()
        self._later(f"{_REVISION}{revision.number}", partial(super().record, revision))

    def mend(self, revision: Revision) -> None:
        """As in the base class; on a disk that hangs, later."""
        self._later(f"copy of revision {revision.number}", partial(super().mend, revision))

    def write_boot_files(self, revision: Revision) -> None:
        """As in the base class; on a disk that hangs, later."""
        self._later("boot files", partial(super().write_boot_files, revision))

    def release(self) -> None:
        """As in the base class; on a disk that hangs, later."""
        self._later("held", super().release, None)

    def touch(self, tables: Owned) -> None:
        """As in the base class; on a disk that hangs, later."""
        self._later("touched", partial(super().touch, tables), tables)

    def remember_others(self, others: Others) -> None:
        """As in the base class; on a disk that hangs, later."""
        self._later("others", partial(super().remember_others, others), others)

    def counters(self) -> CounterHistory | UnreadableNote:
        """As in the base class; unreadable while the disk hangs."""
        return self._read(super().counters, lambda: UnreadableNote(self.hangs, lost=False))

    def keep_counters(self, history: CounterHistory) -> None:
        """As in the base class; on a disk that hangs, later."""
        self._later("counters", partial(super().keep_counters, history), history)

    def later(self, name: str, call: Callable[[], None]) -> None:
        """Write something else in the state directory; on a disk that hangs, later. Raises what ``call`` raises."""
        self._later(name, call)

    # What must be on the disk before something else is done.

    def set_pending(self, pending: PendingConfirmation) -> None:
        """As in the base class. On a disk that hangs it is not kept, and what was pending before stays."""
        self._numbered = max(self._numbered, pending.number)
        before = self.pending()
        if self._hang:
            raise StoreError(f"the pending confirmation cannot be kept: {self._hang}")
        job = self._submit("pending", partial(super().set_pending, pending), pending)
        if self._ended(job):
            job.outcome.result()
            return
        undo = super().clear_pending
        if isinstance(before, PendingConfirmation):
            undo = partial(super().set_pending, before)
        self._submit("pending", undo, before).left = True
        raise StoreError(f"the pending confirmation cannot be kept: {self._hang}")

    def clear_pending(self) -> None:
        """As in the base class; on a disk that hangs, later, and yet a StoreError."""
        self._now("pending", super().clear_pending, None, "the pending confirmation is not removed yet")

    def hold(self, digest: str, reason: str) -> None:
        """As in the base class; on a disk that hangs, later, and yet a StoreError."""
        value = HeldFiles(digest, reason)
        self._now("held", partial(super().hold, digest, reason), value, "the held digest is not kept yet")

    def close(self, seconds: float) -> None:
        """Give the disk this long for what waits for it."""
        self._submit("close", lambda: None).ended.wait(seconds)

    # The thread.

    def _read(self, call: Callable[[], Result], otherwise: Callable[[], Result]) -> Result:
        """The result of a call, or what is known otherwise while the disk hangs."""
        if self._is_inside():
            return call()
        if self._hang:
            return otherwise()
        job = self._submit("read", call)
        if self._ended(job):
            return job.outcome.result()
        return otherwise()

    def _later(self, name: str, call: Callable[[], None], value: object = None) -> None:
        """Write now, or once the disk answers. Raises StoreError where it answered with an error."""
        job = self._submit(name, call, value)
        if self._ended(job):
            job.outcome.result()

    def _now(self, name: str, call: Callable[[], None], value: object, failure: str) -> None:
        """The same; but that it has to wait is a StoreError too."""
        job = self._submit(name, call, value)
        if not self._ended(job):
            raise StoreError(f"{failure}: {self._hang}")
        job.outcome.result()

    def _submit(self, name: str, call: Callable[[], Result], value: object = None) -> _Job[Result]:
        """Queue a job. ``value`` is what the note of this name holds once it is done."""
        job = _Job(name, call, value)
        with self._changed:
            for waiting in self._jobs:
                if waiting.name == name and not waiting.begun:
                    self._jobs.remove(waiting)
                    break
            self._jobs.append(job)
            self._changed.notify()
        self._keep_running()
        return job

    def _keep_running(self) -> None:
        """Start the thread again if it has ended for want of memory."""
        if self._running.done():
            with contextlib.suppress(ThreadNotStartedError):
                self._running = in_thread(self._work)

    def _ended(self, job: _Job[Result]) -> bool:
        """Wait for a job, but not if the disk hangs already. Whether it has ended."""
        if not self._hang:
            job.ended.wait(self._within)
        with self._changed:
            if job.ended.is_set():
                return True
            job.left = True
            if not self._hang:
                clock = time.strftime("%H:%M:%S")
                self._hang = f"the state directory {self._directory} has not answered since {clock}"
                waits = "what is to be recorded waits for it, and the rules in force are not affected"
                self._report(Fault(FaultKind.INACCESSIBLE, f"{self._hang}; {waits}"))
        return False

    def _coming(self, name: str, known: Note) -> Note:
        """What the note of this name will hold once the disk has caught up."""
        with self._changed:
            for job in reversed(self._jobs):
                if job.name == name:
                    return cast("Note", job.value)
        return known

    def _drop_oldest(self) -> None:
        """Make room for one more revision that waits for the disk."""
        with self._changed:
            waiting = self._waiting_revisions()
            if len(waiting) >= MOST_REVISIONS:
                self._jobs.remove(waiting[0])
                self._report(Fault(FaultKind.INACCESSIBLE, f"{waiting[0].name} is not recorded: {self._hang}"))

    def _report(self, fault: Fault) -> None:
        with self._changed:
            super()._report(fault)

    def _waiting_revisions(self) -> list[_Job[Any]]:
        return [job for job in self._jobs if job.name.startswith(_REVISION) and not job.begun]

    def _is_inside(self) -> bool:
        return threading.get_ident() == self._thread

    def _begin_next(self) -> _Job[Any]:
        """Wait for a job, which stays in the queue until it has ended."""
        with self._changed:
            while not self._jobs:
                self._changed.wait()
            job = self._jobs[0]
            job.begun = True
            return job

    def _work(self) -> None:
        """In the thread of the store, which ends only if the store cannot be opened, or for want of memory: then the
        next job starts another one."""
        self._thread = threading.get_ident()
        is_open = True
        while is_open:
            job = self._begin_next()
            if not job.outcome.done():
                finish(job.outcome, job.call)
            known = self._known_after(job)
            is_open = job.name != _OPEN or job.error is None
            with self._changed:
                self._end(job, known)

    def _open_first(self, open_store: Callable[[], None]) -> None:
        """Open the store, and read it once. Whatever this raises is raised again where the job was asked for."""
        open_store()
        self._known = self._read_all()

    def _read_all(self) -> _Known:
        return _Known(super().summaries(), super().pending(), super().held(), super().touched(), super().others())

    def _known_after(self, job: _Job[Any]) -> _Known:
        """What the store says now. Where it cannot be read, that is what it said before."""
        if job.name == _OPEN:
            return self._known
        known: Future[_Known] = Future()
        finish(known, self._read_all)
        error = known.exception()
        if error is None:
            return known.result()
        what = str(error) or type(error).__name__
        self._report(Fault(FaultKind.INACCESSIBLE, f"the state directory {self._directory}: {what}"))
        return self._known

    def _end(self, job: _Job[Any], known: _Known) -> None:
        self._known = known
        self._jobs.popleft()
        if job.left and job.error is not None:
            self._report(Fault(FaultKind.INACCESSIBLE, str(job.error)))
        if not self._jobs:
            self._hang = ""
        job.ended.set()
