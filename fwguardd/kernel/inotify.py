"""inotify(7) for files and directories themselves: whether the file that a path leads to is moved, removed, unmounted.

The watchdog library reports what happens in a directory. That the directory itself is renamed, is replaced, or
disappears with its file system, it does not report.
"""

from __future__ import annotations

import contextlib
import ctypes
import os

ITSELF = 0x00000400 | 0x00000800
"""IN_DELETE_SELF and IN_MOVE_SELF. IN_UNMOUNT and IN_IGNORED come without being asked for."""

APPEARS = 0x00000080 | 0x00000100
"""IN_MOVED_TO and IN_CREATE: a name appears in a directory."""

_DONT_FOLLOW, _CLOSE_ON_EXEC, _NONBLOCK = 0x02000000, os.O_CLOEXEC, os.O_NONBLOCK
_LARGEST_READ = 1 << 16

_libc = ctypes.CDLL(None, use_errno=True)


class Inotify:
    """One inotify instance."""

    def __init__(self) -> None:
        """Raises OSError: EMFILE where this user has too many instances (fs.inotify.max_user_instances)."""
        self._fd = _checked(_libc.inotify_init1(_CLOSE_ON_EXEC | _NONBLOCK))

    def fileno(self) -> int:
        """Readable when something has happened."""
        return self._fd

    def watch(self, path: str, mask: int) -> int:
        """Watch the file of this name, a symbolic link itself; the same number for the same file.

        Raises OSError: ENOSPC where this user watches too many files (fs.inotify.max_user_watches).
        """
        return _checked(_libc.inotify_add_watch(self._fd, os.fsencode(path), ctypes.c_uint32(mask | _DONT_FOLLOW)))

    def forget(self, number: int) -> None:
        """End a watch, which may have ended with its file."""
        _libc.inotify_rm_watch(self._fd, number)

    def discard(self) -> None:
        """Read all that has happened, and drop it: that something has happened is all that matters here."""
        with contextlib.suppress(BlockingIOError):
            while os.read(self._fd, _LARGEST_READ):
                pass

    def close(self) -> None:
        """End all watches."""
        os.close(self._fd)


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
