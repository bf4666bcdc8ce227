"""A directory on a file system that can cease to answer: a small server of FUSE (fuse(4), linux/fuse.h)."""

from __future__ import annotations

import ctypes
import os
import select
import struct
import threading
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

_HEADER: Final = struct.Struct("=IIQQIIIHH")
_ANSWER: Final = struct.Struct("=IiQ")
_ATTRIBUTES: Final = struct.Struct("=6Q10I")
_LOOKUP, _GETATTR, _OPEN, _READ, _INIT, _OPENDIR, _READDIR = 1, 3, 14, 15, 26, 27, 28
_EMPTY: Final = frozenset({18, 25, 29, 34})
"""FUSE_RELEASE, FLUSH, RELEASEDIR and ACCESS: done, and nothing to say."""
_UNANSWERED: Final = frozenset({2, 36, 42})
"""FUSE_FORGET, INTERRUPT and BATCH_FORGET have no answer."""
_NO_SUCH_FILE, _NOT_HERE = -2, -38
_ROOT: Final = 1
_MNT_DETACH: Final = 2
_libc: Final = ctypes.CDLL(None, use_errno=True)


class StallingDirectory:
    """Files of a directory, as long as it answers."""

    def __init__(self, path: Path, files: Mapping[str, str]) -> None:
        self._path = os.fsencode(path)
        self._names = [name.encode() for name in files]
        self._data = [text.encode() for text in files.values()]
        self._device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
        options = f"fd={self._device},rootmode=40755,user_id=0,group_id=0,allow_other".encode()
        if _libc.mount(b"fuse", self._path, b"fuse", 0, options) != 0:
            raise OSError(ctypes.get_errno(), "mount of a FUSE file system")
        self._answers = threading.Event()
        self._answers.set()
        self._stop, self._stopping = os.pipe()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def stall(self) -> None:
        """From now on nothing is answered."""
        self._answers.clear()

    def resume(self) -> None:
        """Answer what waits, and what comes."""
        self._answers.set()

    def close(self) -> None:
        """Unmount; whatever waits ends with an error."""
        _libc.umount2(self._path, _MNT_DETACH)
        os.close(self._stopping)
        self._answers.set()
        self._thread.join()
        for descriptor in (self._device, self._stop):
            os.close(descriptor)

    def _serve(self) -> None:
        ends = select.poll()
        ends.register(self._device, select.POLLIN)
        ends.register(self._stop, select.POLLIN)
        while True:
            ready = dict(ends.poll())
            self._answers.wait()
            if self._stop in ready or ready.get(self._device, 0) & select.POLLERR:
                return
            self._answer(os.read(self._device, 1 << 17))

    def _answer(self, request: bytes) -> None:
        _, kind, unique, node, *_ = _HEADER.unpack_from(request)
        if kind in _UNANSWERED:
            return
        answer = _ANSWERS.get(kind, _not_here)(self, node, request[_HEADER.size :])
        if kind in _EMPTY:
            answer = b""
        error, body = 0, b""
        if isinstance(answer, int):
            error = answer
        else:
            body = answer
        os.write(self._device, _ANSWER.pack(_ANSWER.size + len(body), error, unique) + body)

    def _attributes(self, node: int) -> bytes:
        size, mode = 0, 0o40755
        if node != _ROOT:
            size, mode = len(self._data[node - 2]), 0o100644
        return _ATTRIBUTES.pack(node, size, 1, 0, 0, 0, 0, 0, 0, mode, 1, 0, 0, 0, 4096, 0)

    def _begin(self, _node: int, _body: bytes) -> bytes:
        return struct.pack("=IIIIHHIIHHI7I", 7, 31, 0, 0, 1, 1, 4096, 1, 1, 0, 0, *[0] * 7)

    def _lookup(self, _node: int, body: bytes) -> bytes | int:
        name = body.rstrip(b"\0")
        if name not in self._names:
            return _NO_SUCH_FILE
        node = self._names.index(name) + 2
        return struct.pack("=4Q2I", node, 0, 0, 0, 0, 0) + self._attributes(node)

    def _look(self, node: int, _body: bytes) -> bytes:
        return struct.pack("=QII", 0, 0, 0) + self._attributes(node)

    def _open(self, _node: int, _body: bytes) -> bytes:
        return struct.pack("=QII", 0, 0, 0)

    def _read(self, node: int, body: bytes) -> bytes:
        _, offset, size = struct.unpack_from("=QQI", body)
        return self._data[node - 2][offset : offset + size]

    def _list(self, _node: int, body: bytes) -> bytes:
        _, offset, _ = struct.unpack_from("=QQI", body)
        entries = b""
        for number, name in enumerate(self._names[offset:], offset + 1):
            entry = struct.pack("=QQII", number + 1, number, len(name), 8) + name
            entries += entry + bytes(-len(entry) % 8)
        return entries


def _not_here(_directory: StallingDirectory, _node: int, _body: bytes) -> int:
    return _NOT_HERE


_ANSWERS: Mapping[int, Callable[[StallingDirectory, int, bytes], bytes | int]] = {
    _INIT: StallingDirectory._begin,
    _LOOKUP: StallingDirectory._lookup,
    _GETATTR: StallingDirectory._look,
    _OPEN: StallingDirectory._open,
    _OPENDIR: StallingDirectory._open,
    _READ: StallingDirectory._read,
    _READDIR: StallingDirectory._list,
}
