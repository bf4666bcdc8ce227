"""The folder of revisions: one file ``NNNNNN.json`` for each, and the summaries of all of them in memory."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fwguardd.store.codec import REVISION_FORM, decode_revision, decode_summary, encode_revision
from fwguardd.store.durable import HostSystem, NotSyncedError, replace_file
from fwguardd.store.model import DamagedError, Fault, FaultKind
from fwguardd.store.sealed_files import DamagedFiles, revision_number, scan, seal, unseal

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator
    from pathlib import Path

    from fwguardd.store.durable import System
    from fwguardd.store.model import Revision, RevisionSummary


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
    """The revisions in one folder. ``report`` is called for each file that is damaged or cannot be read."""

    def __init__(self, system: System, path: Path, damaged: DamagedFiles, report: Callable[[Fault], None]) -> None:
        self.path = path
        self._system = system
        self._damaged = damaged
        self._report = report
        self._entries: dict[int, Sealed] = {}

    def file(self, number: int) -> Path:
        """The path of a revision's file."""
        return self.path / f"{number:06d}.json"

    def load(self, names: Iterable[str]) -> None:
        """Read and check the revisions among these names, and keep the summaries of those that are whole."""
        self._entries = {}
        for name in sorted(names):
            number = revision_number(name)
            if number is None or self.file(number).name != name:
                continue
            with self._reporting(number):
                scanned = scan(self._system, self.file(number), REVISION_FORM)
                summary = decode_summary(scanned.lead)
                if summary.number != number:
                    raise DamagedError(f"holds revision {summary.number}")
                self._entries[number] = Sealed(summary, scanned.header)

    def summaries(self) -> tuple[RevisionSummary, ...]:
        """The summaries, by number."""
        return tuple(self._entries[number].summary for number in sorted(self._entries))

    def sealed(self, number: int) -> Sealed | None:
        """What is kept in memory of a revision; None if it is not kept."""
        return self._entries.get(number)

    def read(self, number: int) -> Revision | None:
        """A revision; None if it is not kept, or cannot be read, or is damaged, which takes it out of the folder."""
        if number in self._entries:
            with self._reporting(number):
                return decode_revision(unseal(self._system, self.file(number), REVISION_FORM))
        return None

    def write(self, sealed: Sealed, data: bytes) -> None:
        """Keep a revision. Raises OSError, and NotSyncedError where it is in the folder."""
        number = sealed.summary.number
        try:
            replace_file(self._system, self.file(number), data)
        except NotSyncedError:
            self._entries[number] = sealed
            raise
        self._entries[number] = sealed

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
            self._report(Fault(FaultKind.DAMAGED, self._damaged.take(path, str(damage))))
        except OSError as error:
            self._report(Fault(FaultKind.INACCESSIBLE, f"{path} cannot be read: {error.strerror}"))


def read_revision(state_dir: Path, number: int) -> Revision:
    """A revision from its file, without a store: it changes nothing, and any thread may call it.

    Raises DamagedError, and OSError where there is no such file or it cannot be read.
    """
    path = state_dir / "revisions" / f"{number:06d}.json"
    return decode_revision(unseal(HostSystem(), path, REVISION_FORM))
