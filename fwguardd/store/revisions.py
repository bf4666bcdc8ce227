"""The state directory: everything that fwguardd keeps on disk is in it.

::

    /var/lib/fwguard/          mode 0700
      revisions/000041.json    one revision, complete: rule files, canonical rulesets, time, cause, user
      boot -> boot-000041-1/   ipv4.rules, ipv6.rules, manifest: for the boot loader (`fwguardd.store.boot_files`)
      pending.json             the confirmation that is pending
      held.json                the digest of rule files that were undone
      touched.json             the tables that a write is about to touch for the first time
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
    Fault,
    FaultKind,
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

    from fwguardd.ruleset.canonical import Owned
    from fwguardd.store.durable import System
    from fwguardd.store.folder import Sealed

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

_UNKNOWN_PENDING = "a revision that was waiting to be confirmed is not undone any more"
_UNKNOWN_TOUCHED = "tables that an interrupted write had begun to fill are not emptied"
_UNKNOWN_HELD = "rule files that were undone may be applied again"


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
        return self._highest + 1

    def summaries(self) -> tuple[RevisionSummary, ...]:
        """The revisions that are kept, oldest first, without reading them."""
        return self._revisions.summaries()

    def get(self, number: int) -> Revision | None:
        """A revision; None if it is not kept. One that is found damaged is moved aside and counts as not kept."""
        return self._revisions.read(number)

    def latest(self) -> Revision | None:
        """The newest revision that can be read; None if there is none."""
        for summary in reversed(self.summaries()):
            revision = self.get(summary.number)
            if revision is not None:
                return revision
        return None

    def record(self, revision: Revision) -> None:
        """Keep a revision, and remove the oldest beyond ``keep``. When this returns it is on the disk.

        The number must not have been used, not even by a revision that could not be kept; only the same revision may be
        recorded again. Raises StoreError.
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
                    f"{failure}: its text holds {error.object[error.start]!r}, which is not a byte"
                ) from error

    def read_boot_revision(self) -> int | None:
        """The number of the revision that the boot files hold; None if there are none, or if they are damaged."""
        try:
            return self._boot.read()
        except (OSError, DamagedError):
            return None

    def pending(self) -> PendingConfirmation | None:
        """The pending confirmation; None if there is none. `evaluate_pending` says what it means now."""
        return self._pending.value

    def set_pending(self, pending: PendingConfirmation) -> None:
        """Keep this pending confirmation, in place of another. Raises StoreError."""
        meaning = f"after a restart nothing would undo revision {pending.number}"
        with self._writing("the pending confirmation cannot be kept", self._pending.path, meaning):
            self._prepare()
            self._pending.write(pending)

    def clear_pending(self) -> None:
        """Keep no pending confirmation. Raises StoreError."""
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

    def touched(self) -> Owned:
        """The tables that an unfinished write was about to touch for the first time."""
        return self._touched.value or frozenset()

    def touch(self, tables: Owned) -> None:
        """Record which tables a write is about to touch; none once it has ended. Raises StoreError."""
        meaning = "if fwguardd is killed during the write, these tables are not emptied"
        with self._writing("the tables to be written cannot be recorded", self._touched.path, meaning):
            self._prepare()
            if tables:
                self._touched.write(tables)
            else:
                self._touched.remove()

    @contextlib.contextmanager
    def _writing(self, failure: str, path: Path, meaning: str) -> Iterator[None]:
        """Turn an OSError into a StoreError that says what failed, where, why, and the consequence."""
        try:
            yield
        except NotSyncedError as error:
            doubt = "it is written, but a power cut may undo that"
            raise StoreError(f"{failure} durably: {path}: {error.strerror}; {doubt}") from error
        except OSError as error:
            raise StoreError(f"{failure}: {error.filename or path}: {error.strerror}; {meaning}") from error

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

    def _needed(self) -> tuple[int, ...]:
        """The numbers of the revisions that the boot files and the pending confirmation name."""
        numbers = {self.read_boot_revision()}
        pending = self._pending.value
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
                self._check_trust()
                self._load()

    def _prepare(self) -> None:
        """Make the directories, and be sure that they and what a killed process left are on the disk.

        Raises OSError, and StoreError for a directory that cannot be trusted.
        """
        made = make_directory(self._system, self._state_dir)
        self._check_trust()
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

    def _check_trust(self) -> None:
        """Raise StoreError if another user may have written here; and OSError."""
        status = self._system.stat(self._state_dir)
        refusal = f"the state directory {self._state_dir} cannot be trusted"
        if not stat.S_ISDIR(status.st_mode):
            raise StoreError(f"{refusal}: it is not a directory; remove it")
        if status.st_uid not in (0, os.geteuid()):
            raise StoreError(f"{refusal}: user {status.st_uid} owns it; check its contents, then chown root it")
        if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            mode = f"mode {stat.S_IMODE(status.st_mode):04o} lets others write to it"
            raise StoreError(f"{refusal}: {mode}; check its contents, then chmod 700 it")

    def _load(self) -> None:
        """Read and check everything. Raises OSError where not even the names can be read."""
        names = self._names(self._state_dir)
        revisions = self._names(self._revisions.path)
        used = [revision_number(name.removesuffix(TEMPORARY)) or 0 for name in (*names, *revisions)]
        used += self._damaged.revisions()
        self._remove_temporary(names, revisions)
        self._revisions.load(revisions)
        self._load_boot()
        for kept in (self._pending, self._held, self._touched):
            fault = kept.load(self._damaged)
            if fault is not None:
                self._report(fault)
        self._highest = max((self._highest, *used, *self._needed()))
        self._loaded = True

    def _names(self, directory: Path) -> list[str]:
        with contextlib.suppress(FileNotFoundError):
            return self._system.listdir(directory)
        return []

    def _remove_temporary(self, names: list[str], revisions: list[str]) -> None:
        """Remove what an interrupted write left. What stays, because the disk cannot be written, does no harm."""
        for path in (self._boot.link, self._pending.path, self._held.path, self._touched.path):
            name = f"{path.name}{TEMPORARY}"
            if name in names:
                self._remove(path.with_name(name))
        for name in revisions:
            if name.endswith(TEMPORARY) and revision_number(name.removesuffix(TEMPORARY)):
                self._remove(self._revisions.path / name)

    def _remove(self, path: Path) -> None:
        with contextlib.suppress(OSError):
            remove_tree(self._system, path)

    def _load_boot(self) -> None:
        """Check the boot files, move a damaged set aside, and remove what an interrupted write left."""
        fault = self._boot.check(self._damaged)
        if fault is not None:
            self._report(fault)
        # Until the symlink is known to be on the disk, a power cut may bring back one that leads to another set.
        if self._prepared:
            self._boot.remove_others()
