"""Opening a file or directory only if no other user could have chosen what it is.

Who can write a directory can replace everything below it. So each directory from / to the file must belong to root or
to the daemon's own user and be writable by no other user, as sshd demands with StrictModes (safe_path() in OpenSSH's
misc.c). The path is walked one component at a time, relative to the directory that was checked just before. A symbolic
link is replaced by its target, and the directories of the target are checked in the same way.

In a directory with the sticky bit that all may write, such as /tmp, another user can make names, but cannot move or
remove those of root (inode(7)). Below it only a directory is accepted: another user may be able to move or link a file
or a symbolic link of root there (link(2)), but nobody can link a directory, and to move one its owner must permit it
(rename(2)).
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING

from fwguardd.escaping import printable_name
from fwguardd.ruleset.model import Finding, Origin
from fwguardd.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Iterator

MOST_LINKS = 40
"""Symbolic links that one path may lead through (path_resolution(7))."""

_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


class UntrustedPathError(Exception):
    """Another user could choose what the path leads to. ``finding`` says where."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(str(finding))
        self.finding = finding


@dataclass(frozen=True, slots=True)
class TrustedPlace:
    """Where a path leads: a checked directory by its descriptor, and a name in it that is not a symbolic link.

    ``resolved`` is the path without symbolic links.
    """

    directory: int
    name: str
    resolved: str

    def open(self, flags: int) -> int:
        """Open the file of this name, which must not have become a symbolic link. Raises OSError."""
        return os.open(self.name, flags | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self.directory)

    def status(self) -> os.stat_result:
        """The status of the file of this name. Raises OSError."""
        return os.stat(self.name, dir_fd=self.directory, follow_symlinks=False)


@contextlib.contextmanager
def trusted_place(path: Path) -> Iterator[TrustedPlace]:
    """Where a path leads. Every directory above the last component is checked; the last one is left to the caller.

    Raises UntrustedPathError, and OSError where a component is missing or cannot be read.
    """
    # Not Path.absolute() or normpath(): they drop "..", which leads elsewhere below a symbolic link.
    walk = _Walk(str(Path.cwd() / path))
    try:
        yield walk.to_the_end()
    finally:
        walk.close()


def distrust(status: os.stat_result, shown: str, origin: str = "") -> Finding | None:
    """Why the owner or mode of a file or directory cannot be trusted; None if they can.

    ``shown`` is its path, and ``origin`` the path that the finding is about where that is another one.
    """
    place, name = Origin(origin or shown, 0), ""
    if origin not in ("", shown):
        name = f"the path leads through {shown}, "
    if status.st_uid not in (0, os.geteuid()):
        message = f"{name}owned by user {status.st_uid}, who could change the rules"
        return Finding("untrusted-owner", message, place, hint=f"chown root {shown}")
    if status.st_mode & _OTHERS_WRITE:
        mode = f"mode {stat.S_IMODE(status.st_mode):04o}"
        message = f"{mode} lets users other than the owner write to it"
        if name:
            message = f"{name}{mode}, which lets users other than the owner write to it"
        return Finding("untrusted-mode", message, place, hint=f"chmod go-w {shown}")
    return None


class _Walk:
    """One walk from / along a path. ``_at`` is the descriptor of the directory that it has come to."""

    def __init__(self, path: str) -> None:
        self._origin = printable_name(path)
        self._left = deque(_components(path))
        self._links = 0
        self._at = -1
        self._resolved = "/"
        self._sticky = False

    def close(self) -> None:
        if self._at >= 0:
            os.close(self._at)
            self._at = -1

    def to_the_end(self) -> TrustedPlace:
        """Go to the last directory. Raises UntrustedPathError, OSError."""
        self._enter(os.open("/", _DIRECTORY), "/")
        while self._left:
            name = self._left.popleft()
            status = os.stat(name, dir_fd=self._at, follow_symlinks=False)
            resolved = os.path.normpath(f"{self._resolved}/{name}")
            if self._sticky and not stat.S_ISDIR(status.st_mode):
                raise UntrustedPathError(_in_sticky(printable_name(resolved), self._origin))
            if stat.S_ISLNK(status.st_mode):
                self._follow(os.readlink(name, dir_fd=self._at))
            elif self._left:
                self._enter(os.open(name, _DIRECTORY, dir_fd=self._at), resolved)
            else:
                return TrustedPlace(self._at, name, resolved)
        return TrustedPlace(self._at, ".", self._resolved)

    def _follow(self, target: str) -> None:
        self._links += 1
        if self._links > MOST_LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        self._left.extendleft(reversed(_components(target)))
        if target.startswith("/"):
            self._enter(os.open("/", _DIRECTORY), "/")

    def _enter(self, fd: int, resolved: str) -> None:
        self.close()
        self._at, self._resolved = fd, resolved
        status = os.fstat(fd)
        self._sticky = bool(status.st_mode & stat.S_ISVTX) and bool(status.st_mode & _OTHERS_WRITE)
        problem = distrust(status, printable_name(resolved), self._origin)
        if problem is not None and not (self._sticky and problem.code == "untrusted-mode"):
            raise UntrustedPathError(problem)


def _components(path: str) -> list[str]:
    return [name for name in path.split("/") if name not in ("", ".")]


def _in_sticky(shown: str, origin: str) -> Finding:
    message = f"the path leads to {shown}, in a directory to which all users may write"
    return Finding("untrusted-mode", message, Origin(origin, 0), hint="move it to a directory that only root can write")
