"""What fwguardd keeps on disk, all of it in the state directory and nothing anywhere else.

::

    /var/lib/fwguard/          its owner's alone
      revisions/000041.json    one revision, whole in itself: rule files, canonical rulesets, when, why, by whom
      boot -> boot-000041-1/   ipv4.rules, ipv6.rules, manifest: for the boot loader (`fwguardd.store.boot_files`)
      pending.json             the confirmation that is waited for
      held.json                the digest of rule files that were undone
      touched.json             the tables that a write is about to touch for the first time
      damaged/                 what was found to be not as it was written

The promises, and what serves each:

1. A crash or a power cut at any instant leaves the old or the new, whole: `fwguardd.store.durable`.
2. Whatever is not as it was written is noticed, set aside and told, and is no reason not to start: every file carries
   a checksum over all of its bytes (`fwguardd.store.sealed_files`), and opening the store reads them all.
3. A number is never used twice: the next one is above every number that any name or file in the directory tells of.
4. A disk that cannot be written can still be read; each write that fails is a `StoreError` that says what it means.
5. Memory is bounded by the largest revision: of the others only the summaries are held.

There is no index that could disagree with the files: the directory is the index. One process at a time may use a
store; the daemon's lock sees to that.
"""

from __future__ import annotations

import contextlib
import os
import stat
from typing import TYPE_CHECKING

from fwguardd.store import codec
from fwguardd.store.boot_files import BootFiles
from fwguardd.store.durable import TEMPORARY, HostSystem, NotSyncedError, make_directory, remove_tree, sync_directory
from fwguardd.store.folder import RevisionFolder, seal_revision
from fwguardd.store.model import (
    DamagedError,
    Expired,
    HeldFiles,
    PendingConfirmation,
    Revision,
    RevisionKind,
    RevisionSummary,
    StoreError,
    Waiting,
    evaluate_pending,
)
from fwguardd.store.sealed_files import DamagedFiles, SealedValue, revision_number

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fwguardd.store.durable import System
    from fwguardd.store.folder import Sealed
    from fwguardd.store.model import Touched

__all__ = [
    "Expired",
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

_UNKNOWN_PENDING = "if a revision was waiting to be confirmed, nobody knows now which one, and nothing will undo it"
_UNKNOWN_TOUCHED = "tables that a write left half done may keep what it put there"
_UNKNOWN_HELD = "rule files that were undone may be applied again"


class RevisionStore:
    """The store in one state directory. Opening it makes what is missing, and reads and checks what is there.

    ``keep`` is how many revisions stay; the newest, and those that the boot files or a pending confirmation name, stay
    in any case. Opening raises StoreError only where the directory cannot be trusted: not a directory, not ours, or
    writable by others. Everything else that is amiss is in `take_faults`. After a StoreError from a write the store
    tells what a reader of the disk would find: what was there before, or what was written where only its last sync
    failed.
    """

    def __init__(self, state_dir: Path, keep: int = 50, *, system: System | None = None) -> None:
        self.keep = keep
        self._state_dir = state_dir
        self._system: System = system or HostSystem()
        self._faults: dict[str, None] = {}
        self._damaged = DamagedFiles(self._system, state_dir / "damaged")
        self._revisions = RevisionFolder(self._system, state_dir / "revisions", self._damaged, self._tell)
        self._boot = BootFiles(self._system, state_dir)
        path, code = state_dir / "pending.json", (codec.PENDING_FORM, codec.encode_pending, codec.decode_pending)
        self._pending = SealedValue(self._system, path, *code, _UNKNOWN_PENDING)
        path, form = state_dir / "held.json", codec.HELD_FORM
        self._held = SealedValue(self._system, path, form, codec.encode_held, codec.decode_held, _UNKNOWN_HELD)
        path, form = state_dir / "touched.json", codec.TOUCHED_FORM
        self._touched = SealedValue(
            self._system, path, form, codec.encode_touched, codec.decode_touched, _UNKNOWN_TOUCHED
        )
        self._highest = 0
        self._claimed: Sealed | None = None
        self._prepared = self._loaded = False
        self._open()

    def take_faults(self) -> tuple[str, ...]:
        """What was found to be amiss since the last call: sentences that name the file, the fault, and what was done.
        None of it hinders the store.
        """
        faults = tuple(self._faults)
        self._faults.clear()
        return faults

    def next_number(self) -> int:
        """The number for the next revision: above every number that was ever used, as far as the disk tells."""
        return self._highest + 1

    def summaries(self) -> tuple[RevisionSummary, ...]:
        """The revisions that are kept, oldest first, without reading them."""
        return self._revisions.summaries()

    def get(self, number: int) -> Revision | None:
        """A revision; None if it is not kept. One that is found damaged is set aside and counts as not kept."""
        return self._revisions.read(number)

    def latest(self) -> Revision | None:
        """The newest revision that can be read; None if there is none."""
        read = (self.get(summary.number) for summary in reversed(self.summaries()))
        return next((revision for revision in read if revision is not None), None)

    def record(self, revision: Revision) -> None:
        """Keep a revision, and let go of the oldest beyond ``keep``. When this returns it is on the disk.

        The number must not have been used, not even by a revision that could not be kept; only the very same revision
        may be recorded again. Raises StoreError.
        """
        sealed, data = seal_revision(revision)
        failure = f"revision {revision.number} cannot be kept"
        meaning = "rollback, history and the next boot know only what was kept before"
        with self._writing(failure, self._revisions.file(revision.number), meaning):
            self._claim(sealed)
            self._revisions.write(sealed, data)
        self._revisions.prune(self.keep, self._needed())

    def write_boot_files(self, revision: Revision) -> None:
        """Make the boot files hold a revision, in one step. Raises StoreError; then they hold what they held."""
        failure = f"the boot files of revision {revision.number} cannot be written"
        with self._writing(failure, self._boot.link, "the next boot loads what they held before"):
            self._prepare()
            try:
                self._boot.write(revision)
            except UnicodeEncodeError as error:
                raise StoreError(
                    f"{failure}: its text holds {error.object[error.start]!r}, which is no byte"
                ) from error

    def read_boot_revision(self) -> int | None:
        """The number of the revision that the boot files hold; None if there are none, or if they are damaged."""
        try:
            return self._boot.read()
        except (OSError, DamagedError):
            return None

    def pending(self) -> PendingConfirmation | None:
        """The confirmation that is waited for. What it means now is for `evaluate_pending` to say."""
        return self._pending.value

    def set_pending(self, pending: PendingConfirmation) -> None:
        """Wait for this confirmation, and for no other. Raises StoreError."""
        meaning = f"after a restart nothing would undo revision {pending.number}"
        with self._writing("the pending confirmation cannot be kept", self._pending.path, meaning):
            self._prepare()
            self._pending.write(pending)

    def clear_pending(self) -> None:
        """Wait for no confirmation any more. Raises StoreError."""
        meaning = "after a restart the revision that was to be confirmed would be undone"
        with self._writing("the pending confirmation cannot be removed", self._pending.path, meaning):
            self._prepare()
            self._pending.remove()

    def held(self) -> HeldFiles | None:
        """The rule files that are not to be applied until they change or a reload asks."""
        return self._held.value

    def hold(self, digest: str, reason: str) -> None:
        """Hold the rule files with this digest, and no others. Raises StoreError."""
        meaning = "after a restart the rule files that were undone would be applied again"
        with self._writing("the held digest cannot be kept", self._held.path, meaning):
            self._prepare()
            self._held.write(HeldFiles(digest, reason))

    def release(self) -> None:
        """Hold nothing. Raises StoreError."""
        meaning = "after a restart the rule files would still be held"
        with self._writing("the held digest cannot be removed", self._held.path, meaning):
            self._prepare()
            self._held.remove()

    def touched(self) -> Touched:
        """The tables that a write was about to touch for the first time, and of which no end was told."""
        return self._touched.value or frozenset()

    def touch(self, tables: Touched) -> None:
        """Write down what is about to be touched; nothing, once it is over. Raises StoreError."""
        meaning = "should fwguardd be killed in the middle, these tables are not let go"
        with self._writing("the tables to be written cannot be noted", self._touched.path, meaning):
            self._prepare()
            if tables:
                self._touched.write(tables)
            else:
                self._touched.remove()

    @contextlib.contextmanager
    def _writing(self, failure: str, path: Path, meaning: str) -> Iterator[None]:
        """Turn an OSError into a StoreError that says what failed, where, why, and what that means."""
        try:
            yield
        except NotSyncedError as error:
            doubt = "it is written, but a power cut may take it back"
            raise StoreError(f"{failure} for sure: {path}: {error.strerror}; {doubt}") from error
        except OSError as error:
            raise StoreError(f"{failure}: {error.filename or path}: {error.strerror}; {meaning}") from error

    def _claim(self, sealed: Sealed) -> None:
        """Use up a number, though the write may fail: it was told to people. Raises OSError and StoreError."""
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

    def _needed(self) -> tuple[int, ...]:
        pending = self._pending.value
        promised = (pending.number, pending.back_to) if pending else ()
        numbers = (self.read_boot_revision(), *promised)
        return tuple(number for number in numbers if number is not None)

    def _tell(self, fault: str) -> None:
        self._faults[fault] = None

    def _open(self) -> None:
        try:
            self._prepare()
        except OSError as error:
            self._tell(f"nothing can be kept in {self._state_dir}: {error.filename or 'fsync'}: {error.strerror}")
        if not self._loaded:
            with contextlib.suppress(OSError):
                self._distrust()
                self._load()

    def _prepare(self) -> None:
        """Make the directories, and be sure that they and what a killed process left are on the disk.

        Raises OSError, and StoreError for a directory that cannot be trusted.
        """
        made = make_directory(self._system, self._state_dir)
        self._distrust()
        made = make_directory(self._system, self._revisions.path) or made
        if made or not self._prepared:
            sync_directory(self._system, self._revisions.path)
            sync_directory(self._system, self._state_dir)
            # One may be allowed to use a directory without being allowed to read the one above.
            with contextlib.suppress(PermissionError):
                sync_directory(self._system, self._state_dir.parent)
            self._prepared = True
        if not self._loaded:
            self._load()

    def _distrust(self) -> None:
        """Raise StoreError if anybody else may have written here; and OSError."""
        status = self._system.stat(self._state_dir)
        refusal = f"the state directory {self._state_dir} cannot be trusted"
        if not stat.S_ISDIR(status.st_mode):
            raise StoreError(f"{refusal}: it is no directory; remove what has its name")
        if status.st_uid not in (0, os.geteuid()):
            raise StoreError(f"{refusal}: user {status.st_uid} owns it; chown root it, after a look at what is in it")
        if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            mode = f"mode {stat.S_IMODE(status.st_mode):04o} lets others write to it"
            raise StoreError(f"{refusal}: {mode}; chmod 700 it, after a look at what is in it")

    def _load(self) -> None:
        """Read and check everything. Raises OSError where not even the names can be read."""
        names = self._names(self._state_dir)
        revisions = self._names(self._revisions.path)
        told = [*names, *(name.removesuffix(TEMPORARY) for name in revisions)]
        used = [*(revision_number(name) or 0 for name in told), *self._damaged.revisions()]
        self._remove_temporary(names, revisions)
        self._revisions.load(revisions)
        self._load_boot()
        for fault in (note.load(self._damaged) for note in (self._pending, self._held, self._touched)):
            if fault is not None:
                self._tell(fault)
        self._highest = max((self._highest, *used, *self._needed()))
        self._loaded = True

    def _names(self, directory: Path) -> list[str]:
        with contextlib.suppress(FileNotFoundError):
            return self._system.listdir(directory)
        return []

    def _remove_temporary(self, names: list[str], revisions: list[str]) -> None:
        """Remove what an interrupted write left. What stays, because the disk cannot be written, does no harm."""
        ours = {
            f"{path.name}{TEMPORARY}"
            for path in (self._boot.link, self._pending.path, self._held.path, self._touched.path)
        }
        left = [self._state_dir / name for name in names if name in ours]
        left += [
            self._revisions.path / name
            for name in revisions
            if name.endswith(TEMPORARY) and revision_number(name.removesuffix(TEMPORARY))
        ]
        for path in left:
            with contextlib.suppress(OSError):
                remove_tree(self._system, path)

    def _load_boot(self) -> None:
        """Check the boot files, set a damaged set aside, and remove what an interrupted write left."""
        fault = self._boot.check(self._damaged)
        if fault is not None:
            self._tell(fault)
        # Unless it is sure to be on the disk which set the symlink leads to, a power cut may want another one.
        if self._prepared:
            self._boot.remove_others()
