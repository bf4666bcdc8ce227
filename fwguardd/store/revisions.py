"""The state directory: everything that fwguardd keeps on disk is in it.

::

    /var/lib/fwguard/          mode 0700
      revisions/000041.json    one revision, complete: rule files, canonical rulesets, time, cause, user
      boot -> boot-000041-1/   ipv4.rules, ipv6.rules, manifest: for the boot loader (`fwguardd.store.boot_files`)
      pending.json             the confirmation that is pending
      held.json                the digest of rule files that were undone
      touched.json             the tables that a write is about to touch for the first time
      others.json              the rules of other programs in owned tables that are remembered
      counters.json            what each rule counted
      damaged/                 files that were found damaged

What it guarantees, and how:

1. A crash or a power cut at any instant leaves the old or the new, whole: `fwguardd.store.durable`.
2. A damaged file is detected, moved to damaged/ and reported, and does not keep the daemon from starting: every file
   carries a checksum over all of its bytes (`fwguardd.store.sealed_files`), and opening the store reads them all.
3. A number is never used twice: the next one is above every number that any name or file in the directory mentions.
4. A disk that cannot be written can still be read; each write that fails is a `StoreError` that names the consequence.
5. Memory is bounded by the largest revision: of the others only the summaries are held.

There is no index that could disagree with the files: the directory is the index. One process at a time may use a
store, which the daemon's lock guarantees.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from fwguardd.ruleset.counter_history import CounterHistory
from fwguardd.store.boot_files import BootFiles
from fwguardd.store.durable import TEMPORARY, HostSystem, make_directory, names_in, remove_all, sync_directory
from fwguardd.store.folder import RevisionFolder, seal_revision
from fwguardd.store.model import (
    DamagedError,
    Expired,
    Fault,
    FaultKind,
    HeldFiles,
    NotKept,
    PendingConfirmation,
    Reading,
    Revision,
    RevisionKind,
    RevisionSummary,
    StoreError,
    Unreadable,
    UnreadableNote,
    Waiting,
    evaluate_pending,
)
from fwguardd.store.notes import Notes
from fwguardd.store.prepared import PreparedFiles
from fwguardd.store.sealed_files import DamagedFiles, SealedValue, check_trust, number_in, writing

if TYPE_CHECKING:
    from pathlib import Path
    from typing import TypeVar

    from fwguardd.ruleset.canonical import Owned
    from fwguardd.ruleset.others import Others
    from fwguardd.store.durable import System
    from fwguardd.store.folder import Sealed

    Value = TypeVar("Value")

__all__ = [
    "Expired",
    "Fault",
    "FaultKind",
    "HeldFiles",
    "PendingConfirmation",
    "Revision",
    "RevisionKind",
    "RevisionStore",
    "RevisionSummary",
    "StoreError",
    "Waiting",
    "evaluate_pending",
]

MOST_FAULTS = 20
"""Faults that are remembered, to be listed."""


class RevisionStore:
    """The store in one state directory. Opening it makes what is missing, and reads and checks what is there.

    ``keep`` is how many revisions stay; the newest, and those that the boot files or a pending confirmation name, stay
    in any case. Opening raises StoreError only if the directory cannot be trusted: it is not a directory, belongs to
    another user, or can be written by others. Every other fault is in `take_faults`. After a StoreError from a write
    the store has what a reader of the disk would find: what was there before, or what was written if only its last sync
    failed.
    """

    def __init__(self, state_dir: Path, keep: int = 50, *, system: System | None = None) -> None:
        self.keep = keep
        self._state_dir = state_dir
        self._system: System = system or HostSystem()
        self._faults: dict[Fault, None] = {}
        self._unreported: list[Fault] = []
        self._damaged = DamagedFiles(self._system, state_dir / "damaged")
        self._revisions = RevisionFolder(self._system, state_dir / "revisions", self._damaged, self._report)
        self._boot = BootFiles(self._system, state_dir)
        self.prepared = PreparedFiles()
        self._notes = notes = Notes(self._system, state_dir)
        self._pending, self._held, self._touched, self._others = notes.pending, notes.held, notes.touched, notes.others
        self._highest = self._promised = 0
        self._claimed: Sealed | None = None
        self._prepared = self._loaded = False
        self._open()

    def take_faults(self) -> tuple[Fault, ...]:
        """The faults that were found since the last call. Each is returned once, however often it is found."""
        faults = tuple(self._unreported)
        self._unreported.clear()
        return faults

    def faults(self) -> tuple[Fault, ...]:
        """The faults that were found since the store was opened, oldest first; of many, the newest."""
        return tuple(self._faults)

    def next_number(self) -> int:
        """The number for the next revision: above every number that the disk shows was ever used."""
        return max(self._highest, self._promised) + 1

    def summaries(self) -> tuple[RevisionSummary, ...]:
        """The revisions that are kept, oldest first, without reading them."""
        return self._revisions.summaries()

    def get(self, number: int) -> Reading:
        """A revision. One that is found damaged is moved aside, and is unreadable from then on."""
        if not self._readable():
            return Unreadable(number, self._unread)
        return self._revisions.read(number)

    def newest(self) -> Reading:
        """The newest revision that there ever was, also if it cannot be read; `NotKept` if there was none.

        A number that only a pending confirmation names is not that of a revision: it may never have been in force.
        """
        if not self._readable():
            return Unreadable(0, self._unread)
        number = max(self._revisions.newest(), self.read_boot_revision() or 0)
        reading = self._revisions.read(number)
        if number and isinstance(reading, NotKept):
            return Unreadable(number, f"revision {number} is not kept, though the boot files name it")
        return reading

    def boot_copy(self) -> Reading:
        """The revision that the boot files hold, without its rule files and the origins of its rules."""
        return self._boot.copy()

    def lost(self, number: int) -> bool:
        """Whether the file of a revision that was kept is gone: somebody has removed it, or the directory."""
        return self._revisions.sealed(number) is not None and not self._revisions.is_there(number)

    def mend(self, revision: Revision) -> None:
        """Write a revision anew whose file is lost, from another copy. Raises StoreError.

        A file that is there and that the disk could not read is left: it may be read later, and holds more.
        """
        if self._revisions.is_there(revision.number):
            return
        failure = f"revision {revision.number} cannot be written anew"
        meaning = "only its copy in the boot files can be read"
        with writing(failure, self._revisions.file(revision.number), meaning):
            self._prepare()
            self._revisions.write(*seal_revision(revision))

    def record(self, revision: Revision) -> None:
        """Keep a revision, and remove the oldest beyond ``keep``. When this returns it is on the disk.

        The number must not have been used, not even by a revision that could not be kept; only the same revision may be
        recorded again. Raises StoreError.
        """
        sealed, data = self.prepared.sealed(revision)
        failure = f"revision {revision.number} cannot be kept"
        meaning = "rollback, history and the next boot know only what was kept before"
        with writing(failure, self._revisions.file(revision.number), meaning):
            self._claim(sealed)
            self._revisions.write(sealed, data)
        needed = self._needed()
        if needed is not None:
            self._revisions.prune(self.keep, needed)

    def write_boot_files(self, revision: Revision) -> None:
        """Make the boot files hold a revision, in one step. Raises StoreError; then they hold what they held."""
        failure = f"the boot files of revision {revision.number} cannot be written"
        with writing(failure, self._boot.link, "the next boot loads what they held before"):
            self._prepare()
            try:
                self._boot.write(revision, self.prepared.boot_texts(revision))
            except UnicodeEncodeError as error:
                raise StoreError(
                    f"{failure}: its text holds {error.object[error.start]!r}, which is not a byte"
                ) from error

    def read_boot_revision(self) -> int | None:
        """The number of the revision that the boot files hold; None if there are none, or if they are damaged."""
        try:
            return self._boot.read()
        except (OSError, DamagedError):
            return None

    def pending(self) -> PendingConfirmation | UnreadableNote | None:
        """The pending confirmation; None if there is none. `evaluate_pending` says what it means now."""
        return self._note(self._pending)

    def set_pending(self, pending: PendingConfirmation) -> None:
        """Keep this pending confirmation, in place of another. Raises StoreError."""
        meaning = f"after a restart nothing would undo revision {pending.number}"
        # The number is used from now on, or a note that cannot be removed later could name another ruleset.
        self._promised = max(self._promised, pending.number)
        with writing("the pending confirmation cannot be kept", self._pending.path, meaning):
            self._prepare()
            self._pending.write(pending)

    def clear_pending(self) -> None:
        """Keep no pending confirmation. Raises StoreError."""
        meaning = "after a restart the revision that was to be confirmed would be undone"
        with writing("the pending confirmation cannot be removed", self._pending.path, meaning):
            self._prepare()
            self._pending.remove()

    def held(self) -> HeldFiles | UnreadableNote | None:
        """The rule files that are not to be applied until a reload asks."""
        return self._note(self._held)

    def hold(self, digest: str, reason: str) -> None:
        """Hold the rule files with this digest, and no others. Raises StoreError."""
        meaning = "after a restart the rule files that were undone would be applied again"
        with writing("the held digest cannot be kept", self._held.path, meaning):
            self._prepare()
            self._held.write(HeldFiles(digest, reason))

    def release(self) -> None:
        """Hold nothing. Raises StoreError."""
        meaning = "after a restart the rule files would still be held"
        with writing("the held digest cannot be removed", self._held.path, meaning):
            self._prepare()
            self._held.remove()

    def touched(self) -> Owned | UnreadableNote:
        """The tables that an unfinished write was about to touch for the first time."""
        return self._note(self._touched) or frozenset()

    def touch(self, tables: Owned) -> None:
        """Record which tables a write is about to touch; none once it has ended. Raises StoreError."""
        meaning = "if fwguardd is killed during the write, they are not emptied"
        with writing("the tables to be written cannot be recorded", self._touched.path, meaning):
            self._prepare()
            self._touched.keep(tables)

    def others(self) -> Others | UnreadableNote:
        """The rules of other programs that are remembered."""
        return self._note(self._others) or ()

    def remember_others(self, others: Others) -> None:
        """Remember these rules of other programs, and no others. Raises StoreError."""
        with writing("rules of others cannot be kept", self._others.path, "after a restart they are reported again"):
            self._prepare()
            self._others.keep(others)

    def counters(self) -> CounterHistory | UnreadableNote:
        """What rules counted, as far as it was kept."""
        if not self._readable():
            return UnreadableNote(self._unread, lost=False)
        return self._notes.read_counters(self._damaged, self._report) or CounterHistory()

    def keep_counters(self, history: CounterHistory) -> None:
        """Keep what rules counted. Raises StoreError."""
        with writing("the counts of rules cannot be kept", self._notes.counters.path, "after a reboot they are lower"):
            self._prepare()
            self._notes.write_counters(history)

    def _note(self, note: SealedValue[Value]) -> Value | UnreadableNote | None:
        """What a small file says; one that the disk could not read is read again."""
        if not self._readable():
            return UnreadableNote(self._unread, lost=False)
        if isinstance(note.value, UnreadableNote) and not note.value.lost:
            fault = note.load(self._damaged)
            if fault is not None:
                self._report(fault)
        return note.value

    @property
    def _unread(self) -> str:
        return f"the state directory {self._state_dir} cannot be read"

    def _readable(self) -> bool:
        """Whether what the directory keeps is known; if not, it is read again. A missing directory keeps nothing."""
        if not self._loaded:
            try:
                check_trust(self._system, self._state_dir)
                self._load()
            except FileNotFoundError:
                return True
            except (OSError, StoreError):
                return False
        return True

    def _claim(self, sealed: Sealed) -> None:
        """Use up a number, also if the write fails: events have named it. Raises OSError and StoreError."""
        number = sealed.summary.number
        try:
            self._prepare()
        except (OSError, StoreError):
            if number > self._highest:
                self._highest, self._claimed = number, sealed
            raise
        kept = self._revisions.sealed(number)
        again = sealed in (kept, self._claimed) and kept in (sealed, None)
        if number <= self._highest and not again:
            raise StoreError(f"revision {number} cannot be kept: the number was used before")
        self._highest, self._claimed = max(number, self._highest), sealed

    def _needed(self) -> tuple[int, ...] | None:
        """The numbers of the revisions that the boot files and the pending confirmation name; None if not known."""
        pending = self._pending.value
        numbers: set[int | None] = set()
        try:
            with contextlib.suppress(DamagedError):
                numbers.add(self._boot.read())
        except OSError:
            return None
        if isinstance(pending, UnreadableNote):
            return None
        if pending is not None:
            numbers |= {pending.number, pending.back_to}
        return tuple(number for number in numbers if number is not None)

    def _report(self, fault: Fault) -> None:
        if fault in self._faults:
            return
        self._unreported.append(fault)
        self._faults[fault] = None
        if len(self._faults) > MOST_FAULTS:
            del self._faults[next(iter(self._faults))]

    def _open(self) -> None:
        try:
            self._prepare()
        except OSError as error:
            message = f"nothing can be kept in {self._state_dir}: {error.filename or 'fsync'}: {error.strerror}"
            self._report(Fault(FaultKind.INACCESSIBLE, message))
        if not self._loaded:
            with contextlib.suppress(OSError):
                check_trust(self._system, self._state_dir)
        if not self._readable():
            self._report(Fault(FaultKind.INACCESSIBLE, self._unread))

    def _prepare(self) -> None:
        """Make the directories, and be sure that they and what a killed process left are on the disk.

        Raises OSError, and StoreError for a directory that cannot be trusted.
        """
        made = make_directory(self._system, self._state_dir)
        check_trust(self._system, self._state_dir)
        made = make_directory(self._system, self._revisions.path) or made
        if made or not self._prepared:
            sync_directory(self._system, self._revisions.path)
            sync_directory(self._system, self._state_dir)
            # The directory above may be unreadable to this user.
            with contextlib.suppress(PermissionError):
                sync_directory(self._system, self._state_dir.parent)
            self._prepared = True
        if not self._loaded:
            self._load()

    def _load(self) -> None:
        """Read and check everything. Raises OSError where not even the names can be read."""
        names = names_in(self._system, self._state_dir)
        revisions = names_in(self._system, self._revisions.path)
        used = [number_in(name) for name in (*names, *revisions)]
        used += self._damaged.revisions()
        # What stays of an interrupted write, because the disk cannot be written, does no harm.
        temporary = {f"{path.name}{TEMPORARY}" for path in (self._boot.link, *self._notes.paths)}
        remove_all(self._system, self._state_dir, temporary.intersection(names))
        self._revisions.remove_temporary(revisions)
        self._load_boot()
        self._revisions.load(revisions)
        for fault in self._notes.load(self._damaged):
            self._report(fault)
        self._highest = max((self._highest, *used, *(self._needed() or ())))
        self._loaded = True

    def _load_boot(self) -> None:
        """Check the boot files, move a damaged set aside, and remove what an interrupted write left."""
        fault = self._boot.check(self._damaged)
        if fault is not None:
            self._report(fault)
        # Until the symlink is known to be on the disk, a power cut may bring back one that leads to another set.
        if self._prepared:
            self._boot.remove_others()
