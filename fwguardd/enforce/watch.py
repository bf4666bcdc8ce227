"""Watching the rules directory, with inotify(7) through the watchdog library, and the path that leads to it.

A notice does not say what changed: a pass reads the directory as it is. Reading files causes notices too (opened,
closed without a write). These are ignored, or every pass would cause the next.

A path can come to lead to another directory without any change in the one that is watched: a directory above is
renamed, a symbolic link is replaced, a file system is mounted over one of them. So every component of the path is
watched itself (`fwguardd.kernel.inotify`), and so is the list of mounts: poll(2) on /proc/self/mountinfo returns
POLLPRI when it changes (proc(5)). All this is done in a thread of its own: looking at a path can hang with its disk.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import threading
from typing import TYPE_CHECKING

from fwguardd.kernel.inotify import APPEARS, ITSELF, Inotify
from fwguardd.left_out import imported_when_used
from fwguardd.ruleset.set_names import is_set_file

# The library imports it and does not use it. That takes 2 ms, and imports what makes archives and temporary files.
with imported_when_used("ctypes.util"):
    from watchdog.events import FileSystemEvent, FileSystemEventHandler
    from watchdog.observers import Observer
    from watchdog.observers.inotify_c import Inotify as LibraryInotify
from fwguardd.threads import start_in_time

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

MOST_LINKS = 40
"""Symbolic links that one path may lead through (path_resolution(7))."""

START_WITHIN = 5.0
"""Seconds that a start waits for the first watch; the disk may hang."""

_CHANGES = frozenset({"created", "modified", "moved", "deleted", "closed"})
_MOUNTS = "/proc/self/mountinfo"


def _only_once(close: Callable[[LibraryInotify], None]) -> Callable[[LibraryInotify], None]:
    """The first call of a method for each object. Where a watched directory is removed, the library closes the
    descriptor of its watch twice (2.2.1, which Debian 12 has), and the second time that may be one of ours by then."""

    def once(self: LibraryInotify) -> None:
        if vars(self).setdefault("closes", threading.Lock()).acquire(blocking=False):
            close(self)

    return once


LibraryInotify.close = _only_once(LibraryInotify.close)


class DirectoryWatch:
    """Watches one directory, and calls ``on_change`` at each change in it and when its path leads to another directory,
    but ``on_sets`` where only set files have changed.

    ``on_refused`` is called with the reason when the kernel refuses a watch, once until a watch succeeds again. Both
    are called from threads of their own. A refused watch is tried again with each `renew`.
    """

    def __init__(
        self,
        directory: Path,
        on_change: Callable[[], object],
        on_sets: Callable[[], object],
        on_refused: Callable[[str], object],
    ) -> None:
        self._directory, self._on_change, self._on_refused = directory, on_change, on_refused
        self._notice = _Notice(on_change, on_sets)
        self._observer = Observer()
        start_in_time(self._observer.start)
        self._watched: tuple[int, int] | None = None
        self._refusal = ""
        self._path = _PathWatch(directory)
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._closing = False
        self._begun = threading.Event()
        self._thread = threading.Thread(target=self._run, name="directory-watch", daemon=True)
        start_in_time(self._thread.start)
        self._begun.wait(START_WITHIN)

    def renew(self) -> None:
        """Look again which directory the path leads to, and try a refused watch again. Does not wait for it."""
        os.eventfd_write(self._wake, 1)

    def close(self) -> None:
        """End the threads. One that waits for a disk is left behind."""
        self._closing = True
        self.renew()
        self._thread.join(timeout=5)
        self._observer.stop()
        self._observer.join(timeout=5)
        if not self._thread.is_alive():
            self._path.close()
            os.close(self._wake)

    def _run(self) -> None:
        with _mounts() as mounts:
            poll = select.poll()
            poll.register(self._wake, select.POLLIN)
            path = self._path.fileno()
            if path is not None:
                poll.register(path, select.POLLIN)
            if mounts is not None:
                poll.register(mounts, select.POLLPRI | select.POLLERR)
            while not self._closing:
                self._follow()
                self._begun.set()
                poll.poll()
                self._path.discard()
                with contextlib.suppress(BlockingIOError):
                    os.eventfd_read(self._wake)

    def _follow(self) -> None:
        """Watch the path as it is now, and report why that was refused, if it was for another reason than before."""
        refusal = self._refusal_to_watch()
        if refusal and refusal != self._refusal:
            self._on_refused(refusal)
        self._refusal = refusal

    def _refusal_to_watch(self) -> str:
        """Try to watch; why that was refused, "" if it was not."""
        try:
            return self._watch_anew()
        except OSError as error:
            return reason_of(error)
        except (MemoryError, RuntimeError) as error:  # The library found no memory, or no thread.
            return f"{type(error).__name__}: {error}"

    def _watch_anew(self) -> str:
        """Watch the path, and the directory at its end if it is another one than before; why that was refused, ""
        if it was not. Raises OSError, RuntimeError, MemoryError."""
        refusal = self._path.renew()
        here = _identity(self._directory)
        if here != self._watched:
            changed = self._begun.is_set()
            refusal = self._watch(here) or refusal
            if changed:
                self._on_change()
        return refusal

    def _watch(self, here: tuple[int, int] | None) -> str:
        """Watch the directory; why it was refused, "" if it was not."""
        self._observer.unschedule_all()
        self._watched = None
        if here is None:
            return ""
        try:
            # The library does not follow a symbolic link.
            self._observer.schedule(self._notice, os.path.realpath(self._directory))
        except FileNotFoundError:
            return ""  # It was removed just now, which wakes this thread again.
        except OSError as error:
            return reason_of(error)
        self._watched = here
        return ""


class _PathWatch:
    """Watches each component of a path. Belongs to one thread, but for its descriptor."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._numbers: set[int] = set()
        self._inotify: Inotify | None = None
        self._error = ""
        try:
            self._inotify = Inotify()
        except OSError as error:
            self._error = reason_of(error)

    def fileno(self) -> int | None:
        """Readable when the path may lead elsewhere; None where the kernel refused to watch anything."""
        if self._inotify is None:
            return None
        return self._inotify.fileno()

    def renew(self) -> str:
        """Watch the components that the path has now; why that was refused, "" if it was not."""
        if self._inotify is None:
            return self._error
        numbers: set[int] = set()
        refusal = ""
        for component, is_there in components(str(self._path.absolute())):
            mask = ITSELF
            if not is_there:
                mask |= APPEARS
            try:
                numbers.add(self._inotify.watch(component, mask))
            except (FileNotFoundError, NotADirectoryError):
                break  # Removed just now: what is above it reports that.
            except OSError as error:
                refusal = reason_of(error)
                break
        for number in self._numbers - numbers:
            self._inotify.forget(number)
        self._numbers = numbers
        return refusal

    def discard(self) -> None:
        """Drop what was reported: all is looked at again."""
        if self._inotify is not None:
            self._inotify.discard()

    def close(self) -> None:
        """End all watches."""
        if self._inotify is not None:
            self._inotify.close()


class _Notice(FileSystemEventHandler):  # type: ignore[misc]
    def __init__(self, on_change: Callable[[], object], on_sets: Callable[[], object]) -> None:
        super().__init__()
        self._on_change, self._on_sets = on_change, on_sets

    def on_any_event(self, event: FileSystemEvent) -> None:
        """Something happened in the directory. Called in watchdog's thread."""
        if event.event_type not in _CHANGES:
            return
        if _is_about_sets(event):
            self._on_sets()
        else:
            self._on_change()


def _is_about_sets(event: FileSystemEvent) -> bool:
    """Whether the content of a set file has changed. A set that comes or goes may change what rules mean: not here."""
    if event.event_type == "moved":
        # Written beside it under a hidden name, then renamed over it.
        return is_set_file(_file_name(event.dest_path)) and _file_name(event.src_path).startswith(".")
    return event.event_type in ("modified", "closed") and is_set_file(_file_name(event.src_path))


def _file_name(path: bytes | str) -> str:
    return os.fsdecode(path).rpartition("/")[2]


def components(path: str) -> Iterator[tuple[str, bool]]:
    """Each file that an absolute path leads through, symbolic links and what they lead to, and whether the next one is
    there. After one that is not there nothing comes."""
    left = [name for name in reversed(path.split("/")) if name]
    at, links = "/", 0
    while left:
        following = os.path.join(at, left.pop())  # noqa: PTH118 - "..", below a link, must stay.
        is_there = os.path.lexists(following)
        yield at, is_there
        if not is_there:
            return
        at = following
        if os.path.islink(at):  # noqa: PTH114 - Path.is_symlink() raises where the path cannot be looked at.
            links += 1
            yield at, True
            if links > MOST_LINKS:
                return
            target = os.readlink(at)
            left += [name for name in reversed(target.split("/")) if name]
            at = os.path.dirname(at)  # noqa: PTH120
            if target.startswith("/"):
                at = "/"
    yield at, True


def reason_of(error: OSError) -> str:
    """Why the kernel refused a watch, with the setting that limits it (inotify(7))."""
    limits = {
        errno.ENOSPC: "fs.inotify.max_user_watches",
        errno.EMFILE: "fs.inotify.max_user_instances, or the limit of open files",
    }
    limit = limits.get(error.errno or 0)
    if limit is None:
        return str(error.strerror)
    return f"{error.strerror}: {limit} is reached"


@contextlib.contextmanager
def _mounts() -> Iterator[int | None]:
    """The list of mounts, to be polled; None where there is no /proc."""
    try:
        fd = os.open(_MOUNTS, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        yield None
        return
    try:
        yield fd
    finally:
        os.close(fd)


def _identity(directory: Path) -> tuple[int, int] | None:
    try:
        status = directory.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino
