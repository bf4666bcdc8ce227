"""Stopping chosen system calls of a thread and of all that it starts: seccomp(2), SECCOMP_RET_USER_NOTIF.

Another process decides about each call that is stopped: whether the kernel executes it, or with which error it fails.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import platform
import struct
from typing import TYPE_CHECKING, Final, NamedTuple

from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Collection

REPORTS, STACKS = 1000, 1001
"""Descriptors; calls whose first argument is one of them are not stopped."""


class Listed(NamedTuple):
    """A system call that can fail: its number on x86_64 and on aarch64 (-1: there is none), and its error."""

    x86_64: int
    aarch64: int
    error: int


ERRORS: Final = {
    "read": Listed(0, 63, errno.EIO),
    "write": Listed(1, 64, errno.ENOSPC),
    "open": Listed(2, -1, errno.EIO),
    "stat": Listed(4, -1, errno.EIO),
    "fstat": Listed(5, 80, errno.EIO),
    "lstat": Listed(6, -1, errno.EIO),
    "poll": Listed(7, -1, errno.ENOMEM),
    "lseek": Listed(8, 62, errno.EIO),
    "mmap": Listed(9, 222, errno.ENOMEM),
    "pread64": Listed(17, 67, errno.EIO),
    "access": Listed(21, -1, errno.EACCES),
    "dup": Listed(32, 23, errno.EMFILE),
    "dup2": Listed(33, -1, errno.EMFILE),
    "socket": Listed(41, 198, errno.EMFILE),
    "sendto": Listed(44, 206, errno.ENOBUFS),
    "recvfrom": Listed(45, 207, errno.ENOBUFS),
    "sendmsg": Listed(46, 211, errno.ENOBUFS),
    "recvmsg": Listed(47, 212, errno.ENOBUFS),
    "bind": Listed(49, 200, errno.EADDRINUSE),
    "setsockopt": Listed(54, 208, errno.ENOMEM),
    "getsockopt": Listed(55, 209, errno.ENOMEM),
    "clone": Listed(56, 220, errno.EAGAIN),
    "fork": Listed(57, -1, errno.EAGAIN),
    "vfork": Listed(58, -1, errno.EAGAIN),
    "execve": Listed(59, 221, errno.ENOMEM),
    "flock": Listed(73, 32, errno.ENOLCK),
    "fsync": Listed(74, 82, errno.EIO),
    "rename": Listed(82, -1, errno.EROFS),
    "mkdir": Listed(83, -1, errno.ENOSPC),
    "rmdir": Listed(84, -1, errno.EROFS),
    "unlink": Listed(87, -1, errno.EROFS),
    "symlink": Listed(88, -1, errno.ENOSPC),
    "readlink": Listed(89, -1, errno.EIO),
    "getdents64": Listed(217, 61, errno.EIO),
    "openat": Listed(257, 56, errno.EIO),
    "mkdirat": Listed(258, 34, errno.ENOSPC),
    "newfstatat": Listed(262, 79, errno.EIO),
    "unlinkat": Listed(263, 35, errno.EROFS),
    "renameat": Listed(264, 38, errno.EROFS),
    "symlinkat": Listed(266, 36, errno.ENOSPC),
    "readlinkat": Listed(267, 78, errno.EIO),
    "faccessat": Listed(269, 48, errno.EACCES),
    "ppoll": Listed(271, 73, errno.ENOMEM),
    "dup3": Listed(292, 24, errno.EMFILE),
    "renameat2": Listed(316, 276, errno.EROFS),
    "memfd_create": Listed(319, 279, errno.ENOMEM),
    "statx": Listed(332, 291, errno.EIO),
    "pidfd_open": Listed(434, 434, errno.EMFILE),
    "clone3": Listed(435, 435, errno.EAGAIN),
    "faccessat2": Listed(439, 439, errno.EACCES),
}
"""The calls that fail, each with an error that a host without room, memory, processes or a disk gives. Those that end
or wait for something (close, munmap, wait4, exit, futex) have no error that a program could meet."""

_NUMBERS: Final = {
    numbered: name for name, listed in ERRORS.items() if (numbered := getattr(listed, platform.machine())) >= 0
}
_ARCHITECTURE: Final = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}[platform.machine()]
_SECCOMP: Final = {"x86_64": 317, "aarch64": 277}[platform.machine()]
_PIDFD_GETFD: Final = 438

_SET_MODE_FILTER, _NEW_LISTENER = 1, 1 << 3
_ALLOW, _NOTIFY = 0x7FFF0000, 0x7FC00000
_LOAD, _EQUAL, _RETURN = 0x20, 0x15, 0x06
_RECEIVE, _SEND = 0xC0502100, 0xC0182101
_SET_FLAGS, _SYNCHRONOUS = 0x40082104, 1
_CONTINUE: Final = 1
_NOTIFICATION: Final = struct.Struct("=QIIiIQ6Q")
_ANSWER: Final = struct.Struct("=QqiI")

_libc = ctypes.CDLL(None, use_errno=True)


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))


def _filter(names: Collection[str]) -> bytes:
    """The classic BPF program: calls of these names, but those on `REPORTS` or `STACKS`, wait for the test."""
    numbers = sorted(number for number, name in _NUMBERS.items() if name in names)
    to_allow = len(numbers) + 1
    code = [
        (_LOAD, 0, 0, 4),  # seccomp_data.arch
        (_EQUAL, 0, to_allow + 3, _ARCHITECTURE),
        (_LOAD, 0, 0, 16),  # The lower half of the first argument.
        (_EQUAL, to_allow + 1, 0, REPORTS),
        (_EQUAL, to_allow, 0, STACKS),
        (_LOAD, 0, 0, 0),  # seccomp_data.nr
        *((_EQUAL, len(numbers) - place, 0, number) for place, number in enumerate(numbers)),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _NOTIFY),
    ]
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in code)


def install_filter(names: Collection[str]) -> int:
    """From here on calls of these names wait for the test; the descriptor on which they are announced, which is the
    lowest that is free."""
    code = ctypes.create_string_buffer(_filter(names))
    program = _Program((len(code) - 1) // 8, ctypes.addressof(code))
    listener: int = _libc.syscall(_SECCOMP, _SET_MODE_FILTER, _NEW_LISTENER, ctypes.byref(program))
    if listener < 0:
        raise OSError(ctypes.get_errno(), "seccomp")
    return listener


def fetch_descriptor(pid: int, number: int) -> int:
    """A copy of a descriptor of another process (pidfd_getfd(2)), as soon as it has one of this number."""
    process, found = os.pidfd_open(pid), [-1]

    def fetched() -> bool:
        found[0] = _libc.syscall(_PIDFD_GETFD, process, number, 0)
        return found[0] >= 0

    try:
        wait_until(fetched, "the listener")
    finally:
        os.close(process)
    return found[0]


class Stopped(NamedTuple):
    """A call that waits: its id, the thread that makes it, its name, and its arguments."""

    id: int
    thread: int
    name: str
    arguments: tuple[int, ...]


def receive(listener: int) -> Stopped | None:
    """The next call that waits; None where the thread was killed or interrupted."""
    buffer = bytearray(_NOTIFICATION.size)
    try:
        fcntl.ioctl(listener, _RECEIVE, buffer)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.EINTR):
            return None
        raise
    call_id, thread, _, number, _, _, *arguments = _NOTIFICATION.unpack(buffer)
    return Stopped(call_id, thread, _NUMBERS[number], tuple(arguments))


def interrupt(pid: int, thread: int, number: int) -> None:
    """Send a signal to one thread of a process. A call of it that waits is announced anew when the handler has run."""
    _libc.tgkill(pid, thread, number)


def wake_at_once(listener: int) -> None:
    """Have the kernel go on with the other process at once (Linux 6.6 or newer): both take turns."""
    with contextlib.suppress(OSError):
        fcntl.ioctl(listener, _SET_FLAGS, _SYNCHRONOUS)


def answer(listener: int, call_id: int, failure: int = 0) -> None:
    """Let a call that waits be executed, or fail with an error."""
    with contextlib.suppress(FileNotFoundError):  # The thread was killed.
        fcntl.ioctl(listener, _SEND, _ANSWER.pack(call_id, 0, -failure, 0 if failure else _CONTINUE))
