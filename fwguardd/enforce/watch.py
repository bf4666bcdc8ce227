"""Watching the rules directory for changes, with inotify(7) through the watchdog library.

A notice does not say what changed: a pass reads the directory as it is. Reading files causes notices too (opened,
closed without a write). These are ignored, or every pass would cause the next.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from watchdog.events import FileSystemEvent, FileSystemEventHandler
from watchdog.observers import Observer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_CHANGES = frozenset({"created", "modified", "moved", "deleted", "closed"})


class DirectoryWatch:
    """Watches one directory and calls ``on_change``, from a thread of its own, at each change in it.

    When the directory is removed the kernel's watch ends; `renew` watches the one that was made in its place.
    """

    def __init__(self, directory: Path, on_change: Callable[[], object]) -> None:
        self._directory = directory
        self._notice = _Notice(on_change)
        self._observer = Observer()
        self._observer.start()
        self._watched: tuple[int, int] | None = None

    def renew(self) -> None:
        """Watch the directory that has the name now, if it is not the one that is watched already."""
        here = _identity(self._directory)
        if here == self._watched:
            return
        self._observer.unschedule_all()
        self._watched = None
        if here is not None:
            try:
                self._observer.schedule(self._notice, str(self._directory))
            except OSError:
                return  # It was removed just now; the next call finds what is there then.
            self._watched = here

    def close(self) -> None:
        """End the thread."""
        self._observer.stop()
        self._observer.join(timeout=5)


class _Notice(FileSystemEventHandler):  # type: ignore[misc]
    def __init__(self, on_change: Callable[[], object]) -> None:
        super().__init__()
        self._on_change = on_change

    def on_any_event(self, event: FileSystemEvent) -> None:
        """Something happened in the directory. Called in watchdog's thread."""
        if event.event_type in _CHANGES:
            self._on_change()


def _identity(directory: Path) -> tuple[int, int] | None:
    try:
        status = directory.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino
