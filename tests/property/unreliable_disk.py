"""A disk in memory that forgets, at a power cut, what was not forced to it; and a tap on the calls to any disk.

`MemoryDisk` promises no more than fsync(2) does: the bytes of a file are sure once the file was forced, the names in a
directory once the directory was forced. All that is not sure may be there after a power cut or not: each name in a
directory is what it was at any instant since the directory was forced, whatever the others are; of each file there is
any part of its bytes, or zeros in their place.
`tests/unit/test_durable.py` holds it to the real system.
"""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fwguardd.store.durable import System


class StoppedError(BaseException):
    """The process is no more. It is no Exception, so that nothing that it would not do any more is done."""


@dataclass(slots=True)
class _File:
    data: bytes = b""
    forced: bytes = b""


@dataclass(slots=True)
class _Link:
    target: str


@dataclass(slots=True)
class _Folder:
    mode: int = 0o700
    names: dict[str, _Node] = field(default_factory=dict)
    states: list[dict[str, _Node]] = field(default_factory=lambda: [{}])
    """What `names` was when it was forced last, and after each change since."""

    def changed(self) -> None:
        self.states.append(dict(self.names))


_Node = _File | _Link | _Folder


@dataclass(slots=True)
class _Open:
    node: _Node
    position: int = 0


def _error(code: int, path: Path) -> OSError:
    return OSError(code, os.strerror(code), str(path))


class MemoryDisk:
    """A disk in memory, as a `System`. Descriptors outlive no power cut."""

    def __init__(self) -> None:
        self._root = _Folder()
        self._open: dict[int, _Open] = {}
        self._next = 3

    def after_kill(self) -> MemoryDisk:
        """A disk as the next process finds it: all that was done is there."""
        disk = MemoryDisk()
        disk._root = _copy_folder(self._root, {})
        return disk

    def after_power_cut(self, choose: Callable[[int], int]) -> MemoryDisk:
        """A disk as the next boot finds it. ``choose(n)`` is asked for a number below n wherever nothing is sure."""
        disk = MemoryDisk()
        disk._root = _survived_folder(self._root, choose)
        return disk

    def files(self, path: Path) -> Iterator[Path]:
        """Every plain file below a directory."""
        for name, node in sorted(self._folder(path).names.items()):
            if isinstance(node, _Folder):
                yield from self.files(path / name)
            elif isinstance(node, _File):
                yield path / name

    def data(self, path: Path) -> bytes:
        """The bytes of a file."""
        node = self._node(path)
        assert isinstance(node, _File)
        return node.data

    def set_data(self, path: Path, data: bytes) -> None:
        """Let the bytes of a file be others, as a failing disk does."""
        node = self._node(path)
        assert isinstance(node, _File)
        node.data = node.forced = data

    def open(self, path: Path, flags: int, mode: int) -> int:
        """As `System` says. The mode of files is not kept."""
        assert mode in (0, 0o600)
        folder = self._folder(path.parent)
        node = self._root if path.parent == path else folder.names.get(path.name)
        if node is None and flags & os.O_CREAT:
            node = folder.names[path.name] = _File()
            folder.changed()
        if node is None:
            raise _error(errno.ENOENT, path)
        writing = flags & os.O_ACCMODE != os.O_RDONLY
        if isinstance(node, _Link):
            raise _error(errno.ELOOP, path)
        if isinstance(node, _Folder) and writing:
            raise _error(errno.EISDIR, path)
        if isinstance(node, _File) and flags & os.O_DIRECTORY:
            raise _error(errno.ENOTDIR, path)
        if isinstance(node, _File) and flags & os.O_TRUNC:
            node.data = b""
        self._next += 1
        self._open[self._next] = _Open(node)
        return self._next

    def read(self, fd: int, size: int) -> bytes:
        """As `System` says."""
        held = self._open[fd]
        if not isinstance(held.node, _File):
            raise OSError(errno.EISDIR, os.strerror(errno.EISDIR))
        data = held.node.data[held.position : held.position + size]
        held.position += len(data)
        return data

    def write(self, fd: int, data: memoryview) -> int:
        """As `System` says."""
        node = self._open[fd].node
        assert isinstance(node, _File)
        node.data += bytes(data)
        return len(data)

    def fsync(self, fd: int) -> None:
        """As `System` says."""
        node = self._open[fd].node
        if isinstance(node, _Folder):
            node.states = [dict(node.names)]
        elif isinstance(node, _File):
            node.forced = node.data

    def close(self, fd: int) -> None:
        """As `System` says."""
        del self._open[fd]

    def stat(self, path: Path) -> os.stat_result:
        """As `System` says."""
        node = self._node(path)
        return _status(self._node(path.parent / node.target) if isinstance(node, _Link) else node)

    def lstat(self, path: Path) -> os.stat_result:
        """As `System` says."""
        return _status(self._node(path))

    def fstat(self, fd: int) -> os.stat_result:
        """As `System` says."""
        return _status(self._open[fd].node)

    def listdir(self, path: Path) -> list[str]:
        """As `System` says."""
        return list(self._folder(path).names)

    def mkdir(self, path: Path, mode: int) -> None:
        """As `System` says."""
        self._add(path, _Folder(mode))

    def rename(self, source: Path, target: Path) -> None:
        """As `System` says."""
        node = self._node(source)
        here, there = self._folder(source.parent), self._folder(target.parent)
        old = there.names.get(target.name)
        if isinstance(old, _Folder):
            if not isinstance(node, _Folder):
                raise _error(errno.EISDIR, target)
            if old.names:
                raise _error(errno.ENOTEMPTY, target)
        elif old is not None and isinstance(node, _Folder):
            raise _error(errno.ENOTDIR, target)
        there.names[target.name] = here.names.pop(source.name)
        there.changed()
        if here is not there:
            here.changed()

    def symlink(self, target: str, path: Path) -> None:
        """As `System` says."""
        self._add(path, _Link(target))

    def readlink(self, path: Path) -> str:
        """As `System` says."""
        node = self._node(path)
        if not isinstance(node, _Link):
            raise _error(errno.EINVAL, path)
        return node.target

    def unlink(self, path: Path) -> None:
        """As `System` says."""
        if isinstance(self._node(path), _Folder):
            raise _error(errno.EISDIR, path)
        self._drop(path)

    def rmdir(self, path: Path) -> None:
        """As `System` says."""
        node = self._node(path)
        if not isinstance(node, _Folder):
            raise _error(errno.ENOTDIR, path)
        if node.names:
            raise _error(errno.ENOTEMPTY, path)
        self._drop(path)

    def _node(self, path: Path) -> _Node:
        node: _Node = self._root
        for name in PurePosixPath(path).parts[1:]:
            if not isinstance(node, _Folder):
                raise _error(errno.ENOTDIR, path)
            if name not in node.names:
                raise _error(errno.ENOENT, path)
            node = node.names[name]
        return node

    def _folder(self, path: Path) -> _Folder:
        node = self._node(path)
        if not isinstance(node, _Folder):
            raise _error(errno.ENOTDIR, path)
        return node

    def _add(self, path: Path, node: _Node) -> None:
        folder = self._folder(path.parent)
        if path.name in folder.names:
            raise _error(errno.EEXIST, path)
        folder.names[path.name] = node
        folder.changed()

    def _drop(self, path: Path) -> None:
        folder = self._folder(path.parent)
        del folder.names[path.name]
        folder.changed()


def _copy_folder(folder: _Folder, done: dict[int, _Node]) -> _Folder:
    made = _Folder(folder.mode, {name: _copy(node, done) for name, node in folder.names.items()}, [])
    made.states = [{name: _copy(node, done) for name, node in names.items()} for names in folder.states]
    return made


def _copy(node: _Node, done: dict[int, _Node]) -> _Node:
    """A copy, the same one wherever a node has several names in the states of folders."""
    if id(node) not in done:
        if isinstance(node, _Folder):
            done[id(node)] = _copy_folder(node, done)
        else:
            done[id(node)] = _File(node.data, node.forced) if isinstance(node, _File) else node
    return done[id(node)]


def _survived_folder(folder: _Folder, choose: Callable[[int], int]) -> _Folder:
    names: dict[str, _Node] = {}
    for name in sorted({name for state in folder.states for name in state}):
        node = folder.states[choose(len(folder.states))].get(name)
        if node is not None:
            names[name] = _survived(node, choose)
    return _Folder(folder.mode, names, [dict(names)])


def _survived(node: _Node, choose: Callable[[int], int]) -> _Node:
    if isinstance(node, _Folder):
        return _survived_folder(node, choose)
    if isinstance(node, _Link):
        return node
    data = node.data
    if node.forced != data:
        part = data[: choose(len(data) + 1)]
        data = (node.forced, data, part, bytes(len(data)))[choose(4)]
    return _File(data, data)


def _status(node: _Node) -> os.stat_result:
    size = len(node.data) if isinstance(node, _File) else 0
    mode = stat.S_IFREG | 0o600
    if isinstance(node, _Folder):
        mode = stat.S_IFDIR | node.mode
    elif isinstance(node, _Link):
        mode = stat.S_IFLNK | 0o777
    return os.stat_result((mode, 0, 0, 1, os.geteuid(), os.getegid(), size, 0, 0, 0))


class Tapped:
    """Any system, with a tap on it: ``reached(n, call)`` is asked before the n-th call, from 0, and may raise.

    A write takes at most 500 bytes, so that there are instants in the middle of a file. A close always closes.
    """

    def __init__(self, system: System, reached: Callable[[int, str], None]) -> None:
        self._system = system
        self._reached = reached
        self.calls: list[tuple[str, Path | None]] = []

    def _tap(self, call: str, path: Path | None = None) -> None:
        self.calls.append((call, path))
        self._reached(len(self.calls) - 1, call)

    def open(self, path: Path, flags: int, mode: int) -> int:
        """As `System` says."""
        self._tap("open", path)
        return self._system.open(path, flags, mode)

    def read(self, fd: int, size: int) -> bytes:
        """As `System` says."""
        self._tap("read")
        return self._system.read(fd, size)

    def write(self, fd: int, data: memoryview) -> int:
        """As `System` says."""
        self._tap("write")
        return self._system.write(fd, data[:500])

    def fsync(self, fd: int) -> None:
        """As `System` says."""
        self._tap("fsync")
        self._system.fsync(fd)

    def close(self, fd: int) -> None:
        """As `System` says."""
        self._system.close(fd)
        try:
            self._tap("close")
        except StoppedError:
            return  # Without a process there is nobody to tell.

    def stat(self, path: Path) -> os.stat_result:
        """As `System` says."""
        self._tap("stat", path)
        return self._system.stat(path)

    def lstat(self, path: Path) -> os.stat_result:
        """As `System` says."""
        self._tap("lstat", path)
        return self._system.lstat(path)

    def fstat(self, fd: int) -> os.stat_result:
        """As `System` says."""
        self._tap("fstat")
        return self._system.fstat(fd)

    def listdir(self, path: Path) -> list[str]:
        """As `System` says."""
        self._tap("listdir", path)
        return self._system.listdir(path)

    def mkdir(self, path: Path, mode: int) -> None:
        """As `System` says."""
        self._tap("mkdir", path)
        self._system.mkdir(path, mode)

    def rename(self, source: Path, target: Path) -> None:
        """As `System` says."""
        self._tap("rename", target)
        self._system.rename(source, target)

    def symlink(self, target: str, path: Path) -> None:
        """As `System` says."""
        self._tap("symlink", path)
        self._system.symlink(target, path)

    def readlink(self, path: Path) -> str:
        """As `System` says."""
        self._tap("readlink", path)
        return self._system.readlink(path)

    def unlink(self, path: Path) -> None:
        """As `System` says."""
        self._tap("unlink", path)
        self._system.unlink(path)

    def rmdir(self, path: Path) -> None:
        """As `System` says."""
        self._tap("rmdir", path)
        self._system.rmdir(path)


def stopping_at(number: int | None) -> Callable[[int, str], None]:
    """A tap that ends the process before the call with this number; None lets all pass."""

    def reached(call: int, _name: str) -> None:
        if number is not None and call >= number:
            raise StoppedError

    return reached


def failing_at(number: int, code: int, *, for_good: bool) -> Callable[[int, str], None]:
    """A tap that refuses the call with this number, or from then on every call, with this error."""

    def reached(call: int, _name: str) -> None:
        if call == number or (for_good and call > number):
            raise OSError(code, os.strerror(code))

    return reached
