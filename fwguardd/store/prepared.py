"""The files of a revision, made before they are written: a load waits for programs meanwhile."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fwguardd.store.boot_files import boot_texts
from fwguardd.store.folder import seal_revision
from fwguardd.values import dataclass

if TYPE_CHECKING:
    from fwguardd.store.folder import Sealed
    from fwguardd.store.model import Revision


@dataclass(frozen=True, slots=True)
class _Files:
    """A revision, its file in the folder of revisions, and its boot files by name."""

    revision: Revision
    sealed: tuple[Sealed, bytes]
    boot: dict[str, bytes]


class PreparedFiles:
    """The files of the revision that is recorded next, if they were made ahead; otherwise they are made when they are
    asked for."""

    def __init__(self) -> None:
        self._files: _Files | None = None

    def make(self, revision: Revision) -> None:
        """Make the files ahead. Raises UnicodeEncodeError for rule text that no kernel could have printed."""
        self._files = _Files(revision, seal_revision(revision), boot_texts(revision))

    def forget(self) -> None:
        """The revision is recorded, or will not be."""
        self._files = None

    def sealed(self, revision: Revision) -> tuple[Sealed, bytes]:
        """As `fwguardd.store.folder.seal_revision`."""
        files = self._files
        if files is not None and files.revision is revision:
            return files.sealed
        return seal_revision(revision)

    def boot_texts(self, revision: Revision) -> dict[str, bytes]:
        """As `fwguardd.store.boot_files.boot_texts`."""
        files = self._files
        if files is not None and files.revision is revision:
            return files.boot
        return boot_texts(revision)
