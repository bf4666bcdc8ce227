"""Files that are whole or not there: the few operations that survive a crash at any instant.

A file is written under a temporary name in its own directory, forced to the disk, renamed, and the rename is forced to
the disk too (rename(2), fsync(2)). A reader of the name sees the old bytes or the new ones.
When a function here returns, what it did is on the disk. When it raises OSError, the name holds what it held, with one
exception that has a class of its own: `NotSyncedError`.

All calls to the system go through a `System`, so that a test can refuse any one of them or stop before it. Nothing
here knows what the bytes mean, and nothing here locks: one process at a time writes to a state directory.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

TEMPORARY = ".tmp"
"""The suffix of a file that is being written. After a crash such a file has no meaning and can be removed."""

LARGEST_FILE = 1 << 30
"""Bytes of a file whose size nothing states that is read: a damaged file system may show any size."""

CHUNK = 1 << 18
"""Bytes that are read at once."""

_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
# O_NONBLOCK: were the name a FIFO, open(2) would wait for a writer for ever.
_OLD_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class System(Protocol):
    """The system calls that are made, each under its own name; each raises OSError as that does."""

    def open(self, path: Path, flags: int, mode: int) -> int:
        """A descriptor."""

    def read(self, fd: int, size: int) -> bytes:
        """At most ``size`` bytes; none at the end."""

    def write(self, fd: int, data: memoryview) -> int:
        """The number of bytes that were taken, from the front."""

    def fsync(self, fd: int) -> None:
        """Force a file or a directory to the disk."""

    def close(self, fd: int) -> None:
        """Close a descriptor."""

    def stat(self, path: Path) -> os.stat_result:
        """The status of the file that a name leads to."""

    def lstat(self, path: Path) -> os.stat_result:
        """The status of a name itself, also of a symlink."""

    def fstat(self, fd: int) -> os.stat_result:
        """The status of an open file."""

    def listdir(self, path: Path) -> list[str]:
        """The names in a directory, in any order."""

    def mkdir(self, path: Path, mode: int) -> None:
        """Make a directory."""

    def rename(self, source: Path, target: Path) -> None:
        """Rename a file, in place of what had the new name."""

    def symlink(self, target: str, path: Path) -> None:
        """Make a symlink at ``path``."""

    def readlink(self, path: Path) -> str:
        """The target of a symlink."""

    def unlink(self, path: Path) -> None:
        """Remove a name that is not a directory."""

    def rmdir(self, path: Path) -> None:
        """Remove an empty directory."""


class HostSystem:
    """The system that this process runs on."""

    def open(self, path: Path, flags: int, mode: int) -> int:
        """As `System` says."""
        return os.open(path, flags, mode)

    def read(self, fd: int, size: int) -> bytes:
        """As `System` says."""
        return os.read(fd, size)

    def write(self, fd: int, data: memoryview) -> int:
        """As `System` says."""
        return os.write(fd, data)

    def fsync(self, fd: int) -> None:
        """As `System` says."""
        os.fsync(fd)

    def close(self, fd: int) -> None:
        """As `System` says."""
        os.close(fd)

    def stat(self, path: Path) -> os.stat_result:
        """As `System` says."""
        return path.stat()

    def lstat(self, path: Path) -> os.stat_result:
        """As `System` says."""
        return path.lstat()

    def fstat(self, fd: int) -> os.stat_result:
        """As `System` says."""
        return os.fstat(fd)

    def listdir(self, path: Path) -> list[str]:
        """As `System` says."""
        return [entry.name for entry in path.iterdir()]

    def mkdir(self, path: Path, mode: int) -> None:
        """As `System` says."""
        path.mkdir(mode)

    def rename(self, source: Path, target: Path) -> None:
        """As `System` says."""
        source.rename(target)

    def symlink(self, target: str, path: Path) -> None:
        """As `System` says."""
        path.symlink_to(target)

    def readlink(self, path: Path) -> str:
        """As `System` says."""
        return os.readlink(path)

    def unlink(self, path: Path) -> None:
        """As `System` says."""
        path.unlink()

    def rmdir(self, path: Path) -> None:
        """As `System` says."""
        path.rmdir()


class NotSyncedError(OSError):
    """The change is made and every reader sees it, but the disk did not confirm it: a power cut may take it back."""


class NotRegularError(Exception):
    """Where a regular file should be there is a symlink, a directory, or something else."""


def replace_file(system: System, path: Path, data: bytes) -> None:
    """Replace the contents of a file. Raises OSError, and NotSyncedError if the new bytes are in place all the same."""
    temporary = path.with_name(path.name + TEMPORARY)
    try:
        write_new(system, temporary, data)
        system.rename(temporary, path)
    except OSError:
        # What was written takes room on a disk that may be full.
        with contextlib.suppress(OSError):
            system.unlink(temporary)
        raise
    _confirm(system, path.parent)


def write_new(system: System, path: Path, data: bytes) -> None:
    """Write a file and force its bytes to the disk; its name is not forced. Raises OSError, and may leave a part."""
    fd = system.open(path, _NEW_FILE, 0o600)
    try:
        left = memoryview(data)
        while left:
            left = left[system.write(fd, left) :]
        system.fsync(fd)
    finally:
        system.close(fd)


def replace_symlink(system: System, path: Path, target: str) -> None:
    """Make ``path`` a symlink to ``target``, in place of the one that it is. Raises as `replace_file` does."""
    temporary = path.with_name(path.name + TEMPORARY)
    try:
        with contextlib.suppress(FileNotFoundError):
            system.unlink(temporary)
        system.symlink(target, temporary)
        # What the symlink leads to must not be newer on the disk than the symlink.
        sync_directory(system, path.parent)
        system.rename(temporary, path)
    except OSError:
        with contextlib.suppress(OSError):
            system.unlink(temporary)
        raise
    _confirm(system, path.parent)


def remove_file(system: System, path: Path) -> None:
    """Remove a file that may be gone already. Raises OSError, and NotSyncedError if it is gone all the same."""
    with contextlib.suppress(FileNotFoundError):
        system.unlink(path)
    _confirm(system, path.parent)


def make_directory(system: System, path: Path) -> bool:
    """Make a directory for its owner alone; whether it was made now. Its name is not forced. Raises OSError."""
    # On a file system that is frozen mkdir(2) waits, also where the directory exists.
    with contextlib.suppress(FileNotFoundError):
        system.lstat(path)
        return False
    try:
        system.mkdir(path, 0o700)
    except FileExistsError:
        return False
    return True


def names_in(system: System, path: Path) -> list[str]:
    """The names in a directory, which may be missing. Raises OSError."""
    with contextlib.suppress(FileNotFoundError):
        return system.listdir(path)
    return []


def sync_directory(system: System, path: Path) -> None:
    """Force the names in a directory to the disk. Raises OSError."""
    fd = system.open(path, _DIRECTORY, 0)
    try:
        system.fsync(fd)
    except OSError as error:
        # Some file systems cannot force a directory and return EINVAL (fsync(2), "ERRORS").
        if error.errno != errno.EINVAL:
            raise
    finally:
        system.close(fd)


def remove_tree(system: System, path: Path) -> None:
    """Remove a file, a symlink, or a directory and all in it. Raises OSError half-way; what is left can be tried again.

    Symlinks are not followed. Nothing is forced: what comes back after a power cut is removed the next time.
    """
    if not stat.S_ISDIR(system.lstat(path).st_mode):
        system.unlink(path)
        return
    for name in system.listdir(path):
        remove_tree(system, path / name)
    system.rmdir(path)


def remove_all(system: System, folder: Path, names: Iterable[str]) -> None:
    """Remove these names from a directory. What cannot be removed stays; raises nothing."""
    for name in names:
        with contextlib.suppress(OSError):
            remove_tree(system, folder / name)


def _open_to_read(system: System, path: Path) -> int:
    """A descriptor of a file that is not a symlink. Raises NotRegularError, or OSError."""
    try:
        return system.open(path, _OLD_FILE, 0)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise NotRegularError(path) from error
        raise


def read_chunks(system: System, path: Path) -> Iterator[bytes]:
    """The bytes of a regular file, piece by piece. Raises NotRegularError, or OSError."""
    fd = _open_to_read(system, path)
    try:
        if not stat.S_ISREG(system.fstat(fd).st_mode):
            raise NotRegularError(path)
        while chunk := system.read(fd, CHUNK):
            yield chunk
    finally:
        system.close(fd)


def read_file(system: System, path: Path) -> bytes:
    """All bytes of a regular file. Raises NotRegularError, or OSError; EFBIG for one with more than `LARGEST_FILE`."""
    if system.lstat(path).st_size > LARGEST_FILE:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), str(path))
    return b"".join(read_chunks(system, path))


def _confirm(system: System, directory: Path) -> None:
    try:
        sync_directory(system, directory)
    except OSError as error:
        raise NotSyncedError(error.errno, error.strerror, str(directory)) from error
