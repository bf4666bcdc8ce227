"""The folder of revisions: one file ``NNNNNN.json`` for each, and the summaries of all of them in memory."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from fwguardd.store.codec import REVISION_FORM, decode_revision, decode_summary, encode_revision
from fwguardd.store.durable import TEMPORARY, HostSystem, NotSyncedError, remove_all, replace_file
from fwguardd.store.model import DamagedError, Fault, FaultKind, Kept, NotKept, Unreadable
from fwguardd.store.sealed_files import DamagedFiles, number_in, revision_number, scan, seal, unseal
from fwguardd.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator
    from pathlib import Path

    from fwguardd.store.durable import System
    from fwguardd.store.model import Reading, Revision, RevisionSummary


@dataclass(frozen=True, slots=True)
class Sealed:
    """What is kept in memory of a revision's file. The header holds a checksum, so no two different files share one."""

    summary: RevisionSummary
    header: bytes


def seal_revision(revision: Revision) -> tuple[Sealed, bytes]:
    """The file of a revision: what is kept of it in memory, and its bytes."""
    data = seal(REVISION_FORM, encode_revision(revision))
    return Sealed(revision.summary, data.partition(b"\n")[0]), data


class RevisionFolder:
    """The revisions in one folder. ``report`` is called for each file that is damaged or cannot be read.

    A revision that could not be read is remembered as such, and reading it is tried again each time that it is wanted.
    """

    def __init__(self, system: System, path: Path, damaged: DamagedFiles, report: Callable[[Fault], None]) -> None:
        self.path = path
        self._system = system
        self._damaged = damaged
        self._report = report
        self._entries: dict[int, Sealed] = {}
        self._unreadable: dict[int, str] = {}

    def file(self, number: int) -> Path:
        """The path of a revision's file."""
        return self.path / f"{number:06d}.json"

    def load(self, names: Iterable[str]) -> None:
        """Read and check the revisions among these names, and keep the summaries of those that are whole.

        Raises OSError where the names of damaged files cannot be read.
        """
        self._entries, self._unreadable = {}, {}
        for moved in self._damaged.revisions():
            self._unreadable[moved] = f"{self.file(moved)} was damaged, and was moved aside"
        for name in sorted(names):
            number = revision_number(name)
            if number is not None and self.file(number).name == name:
                self._load_summary(number)

    def remove_temporary(self, names: Iterable[str]) -> None:
        """Remove what an interrupted write left among these names, as far as that is possible."""
        ours = [name for name in names if name.endswith(TEMPORARY) and number_in(name)]
        remove_all(self._system, self.path, ours)

    def _load_summary(self, number: int) -> None:
        self._unreadable.pop(number, None)
        with self._reporting(number):
            scanned = scan(self._system, self.file(number), REVISION_FORM)
            summary = decode_summary(scanned.lead)
            _check_number(summary.number, number)
            self._entries[number] = Sealed(summary, scanned.header)

    def summaries(self) -> tuple[RevisionSummary, ...]:
        """The summaries, by number."""
        return tuple(self._entries[number].summary for number in sorted(self._entries))

    def sealed(self, number: int) -> Sealed | None:
        """What is kept in memory of a revision; None if it is not kept."""
        return self._entries.get(number)

    def read(self, number: int) -> Reading:
        """A revision. One that is found damaged is moved aside."""
        if number not in self._entries and number not in self._unreadable:
            return NotKept(number)
        if number not in self._entries and not self.is_there(number):
            return Unreadable(number, self._unreadable[number])
        with self._reporting(number):
            return Kept(self._load_revision(number))
        return Unreadable(number, self._unreadable[number])

    def _load_revision(self, number: int) -> Revision:
        """Raises DamagedError and OSError."""
        revision = decode_revision(unseal(self._system, self.file(number), REVISION_FORM))
        _check_number(revision.number, number)
        if number not in self._entries:
            self._entries[number] = seal_revision(revision)[0]
        self._unreadable.pop(number, None)
        return revision

    def is_there(self, number: int) -> bool:
        """Whether there is a file to be read again, as far as is known."""
        try:
            self._system.lstat(self.file(number))
        except FileNotFoundError:
            return False
        except OSError:
            return True
        return True

    def newest(self) -> int:
        """The highest number of which there was ever a revision, readable or not; 0 if there was none."""
        return max((*self._entries, *self._unreadable), default=0)

    def write(self, sealed: Sealed, data: bytes) -> None:
        """Keep a revision. Raises OSError, and NotSyncedError where it is in the folder."""
        number = sealed.summary.number
        try:
            replace_file(self._system, self.file(number), data)
        except NotSyncedError:
            self._enter(sealed)
            raise
        self._enter(sealed)

    def _enter(self, sealed: Sealed) -> None:
        self._entries[sealed.summary.number] = sealed
        self._unreadable.pop(sealed.summary.number, None)

    def prune(self, keep: int, needed: Collection[int]) -> None:
        """Remove the oldest until ``keep`` are left, but neither the newest nor those needed. Raises nothing."""
        spare = sorted(set(sorted(self._entries)[:-1]).difference(needed))
        for number in spare[: max(0, len(self._entries) - max(keep, 1))]:
            # What cannot be removed now is tried again with the next revision.
            with contextlib.suppress(OSError):
                with contextlib.suppress(FileNotFoundError):
                    self._system.unlink(self.file(number))
                del self._entries[number]

    @contextlib.contextmanager
    def _reporting(self, number: int) -> Iterator[None]:
        path = self.file(number)
        try:
            yield
        except DamagedError as damage:
            self._entries.pop(number, None)
            self._unreadable[number] = self._damaged.take(path, str(damage))
            self._report(Fault(FaultKind.DAMAGED, self._unreadable[number]))
        except OSError as error:
            self._unreadable[number] = f"{path} cannot be read: {error.strerror}"
            self._report(Fault(FaultKind.INACCESSIBLE, self._unreadable[number]))


def _check_number(found: int, number: int) -> None:
    """Raises DamagedError if a file holds another revision than its name says."""
    if found != number:
        raise DamagedError(f"holds revision {found}")


def read_revision(state_dir: Path, number: int) -> Revision:
    """A revision from its file, without a store: it changes nothing, and any thread may call it.

    Raises DamagedError, and OSError where there is no such file or it cannot be read.
    """
    path = state_dir / "revisions" / f"{number:06d}.json"
    return decode_revision(unseal(HostSystem(), path, REVISION_FORM))
