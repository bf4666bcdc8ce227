"""Where damaged files go: a folder inside the state directory, with room for a few, so that a person can look at them.

A damaged file is never a reason not to start, and never deleted at once. When the folder is full the oldest goes, but
never the revision with the highest number, because a number that was used must stay known.
"""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING

from fwguardd.store.durable import make_directory, remove_tree, sync_directory

if TYPE_CHECKING:
    from pathlib import Path

    from fwguardd.store.durable import System

MOST_KEPT = 20
"""Entries that the folder holds at most."""

_ENTRY = re.compile(r"([0-9]{6,})-(.+)")
_REVISION = re.compile(r"([0-9]{6,})\.json|boot-([0-9]{6,})-[0-9]+")


def revision_number(name: str) -> int | None:
    """The number of the revision that a file or a boot directory of this name is for; None for any other name."""
    match = _REVISION.fullmatch(name)
    number = int(match[1] or match[2]) if match else 0
    return number if number > 0 else None


class DamagedFolder:
    """The folder of damaged files. Entries are named ``NNNNNN-NAME``, in the order in which they came."""

    def __init__(self, system: System, path: Path) -> None:
        self._system = system
        self._path = path

    def take(self, damaged: Path, fault: str) -> str:
        """Move a file or directory here. A sentence that names it, the fault, and where it is now; raises nothing."""
        try:
            make_directory(self._system, self._path)
            target = self._path / f"{self._next():06d}-{damaged.name}"
            self._system.rename(damaged, target)
        except OSError as error:
            return f"{damaged} {fault}; it could not be moved aside: {error.strerror}"
        # Should the move be undone by a power cut, or the room not be made, the next start does it again.
        with contextlib.suppress(OSError):
            sync_directory(self._system, self._path)
            sync_directory(self._system, damaged.parent)
            self._make_room()
        return f"{damaged} {fault}; moved to {target}"

    def revisions(self) -> tuple[int, ...]:
        """The numbers of the revisions that were moved here. Raises OSError."""
        numbers = (revision_number(name) for _, name in self._entries())
        return tuple(number for number in numbers if number is not None)

    def _next(self) -> int:
        return max((place for place, _ in self._entries()), default=0) + 1

    def _entries(self) -> list[tuple[int, str]]:
        """The entries, oldest first."""
        with contextlib.suppress(FileNotFoundError):
            matches = (_ENTRY.fullmatch(name) for name in self._system.listdir(self._path))
            return sorted((int(match[1]), match[2]) for match in matches if match)
        return []

    def _make_room(self) -> None:
        entries = self._entries()
        highest = max(entries, key=lambda entry: (revision_number(entry[1]) or 0, entry[0]))
        for place, name in [entry for entry in entries if entry != highest][: max(0, len(entries) - MOST_KEPT)]:
            remove_tree(self._system, self._path / f"{place:06d}-{name}")
