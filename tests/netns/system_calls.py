"""Failing the system calls of a process and of all programs that it starts, by number: a real fault at any call.

A seccomp(2) filter with SECCOMP_RET_USER_NOTIF stops the process at each call that is listed in `ERRORS`, and the test
decides whether the kernel executes it or whether it fails with an error. So calls are counted over the whole tree of
processes in the order in which they are made, and nothing in the program has to be prepared for it.

The process reports to the test through a socket with the descriptor `REPORTS`; calls on that descriptor never fail.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import pickle
import platform
import select
import signal
import socket
import struct
import traceback
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from tests.netns.crashing import children
from tests.waiting import LONGEST, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

REPORTS: Final = 1000
"""The descriptor of the process's end of the socket."""

MESSAGE: Final = 1 << 20
"""Bytes of the longest report."""


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
_CONTINUE: Final = 1
_NOTIFICATION: Final = struct.Struct("=QIIiIQ6Q")
_ANSWER: Final = struct.Struct("=QqiI")

_libc = ctypes.CDLL(None, use_errno=True)


class Call(NamedTuple):
    """A system call that was made: its name, and whether a program made it that the process has started."""

    name: str
    in_program: bool

    def __str__(self) -> str:
        return f"{self.name} of a program" if self.in_program else self.name


@dataclass(frozen=True, slots=True)
class Fault:
    """Which calls fail: the one with this number, from 0, or from it on all calls of the same name.

    One that ``kills`` ends the process before this call, with the programs that it runs or without them.
    """

    at: int
    for_good: bool = False
    kills: bool = False
    with_programs: bool = False

    def __str__(self) -> str:
        if self.kills:
            return f"killed before call {self.at}"
        return f"{'from call' if self.for_good else 'call'} {self.at}{' on' if self.for_good else ''}"


NO_FAULT: Final = Fault(-1)


class Reports:
    """The process's end: what it reports, and when calls can fail."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    def send(self, name: str, value: Any = None) -> None:
        """Report a value, and wait until the test has noted it."""
        self._connection.sendall(pickle.dumps((name, value)))
        assert self._connection.recv(1) == b"."


BEGIN, END = "begin", "end"
"""The reports between which calls are counted and fail."""


class Faulty:
    """A process that is forked to do some work, with a fault in it. ``reported`` is called with each of its reports,
    while it waits."""

    def __init__(self, work: Callable[[Reports], None], fault: Fault, reported: Callable[[str, Any], None]) -> None:
        self.calls: list[Call] = []
        """The calls between `BEGIN` and `END`."""
        self.failed: Counter[Call] = Counter()
        """Those that failed."""
        self._fault, self._reported = fault, reported
        self._counting = False
        self._name = ""
        self._ends = select.poll()
        self._running: set[int] = set()
        self._threads: set[int] = set()
        with _forked(work) as (self._pid, self._connection):
            self._listener = _listener(self._pid, self._connection)
            try:
                self._serve()
            finally:
                os.close(self._listener)

    def _serve(self) -> None:
        """Answer until the process has ended, and what it left when it was killed."""
        self._watch(os.pidfd_open(self._pid))
        for end in (self._listener, self._connection.fileno()):
            self._ends.register(end, select.POLLIN)
        try:
            while self._running:
                ready = dict(self._ends.poll(LONGEST * 1000))
                assert ready, f"{self._fault}: nothing was done for {LONGEST:g} s after {self.calls[-1:]}"
                if ready.get(self._listener, 0) & select.POLLIN:
                    self._answer()
                    continue
                if self._connection.fileno() in ready and not self._take_report():
                    self._ends.unregister(self._connection)
                for ended in self._running & ready.keys():
                    self._ends.unregister(ended)
                    os.close(ended)
                    self._running.remove(ended)
        finally:
            for process in self._running:
                os.close(process)

    def _watch(self, process: int) -> None:
        self._running.add(process)
        self._ends.register(process, select.POLLIN)

    def _kill(self) -> None:
        """Kill -9 the process at this instant, its programs with it or not."""
        os.kill(self._pid, signal.SIGSTOP)
        for child in children(self._pid):
            process = os.pidfd_open(child)
            self._watch(process)
            if self._fault.with_programs:
                signal.pidfd_send_signal(process, signal.SIGKILL)
        os.kill(self._pid, signal.SIGKILL)

    def _take_report(self) -> bool:
        data = self._connection.recv(MESSAGE)
        if not data:
            return False
        name, value = pickle.loads(data)
        self._counting = name != END and (name == BEGIN or self._counting)
        self._reported(name, value)
        self._connection.sendall(b".")
        return True

    def _answer(self) -> None:
        """Let a call that is made be executed, or fail."""
        received = receive(self._listener)
        if received is None:
            return
        call_id, pid, name = received
        failure = self._decide(Call(name, not self._is_own(pid))) if self._counting else 0
        answer(self._listener, call_id, failure)

    def _is_own(self, thread: int) -> bool:
        """Whether a thread is one of the process, and not of a program that it runs."""
        if thread not in self._threads and os.path.exists(f"/proc/{self._pid}/task/{thread}"):  # noqa: PTH110 - often.
            self._threads.add(thread)
        return thread in self._threads

    def _decide(self, call: Call) -> int:
        """The error that a call fails with, or 0."""
        number = len(self.calls)
        self.calls.append(call)
        if number == self._fault.at:
            self._name = call.name
            if self._fault.kills:
                self._kill()
                return 0
        elif not self._fault.for_good or call.name != self._name:
            return 0
        self.failed[call] += 1
        return ERRORS[call.name].error


@contextlib.contextmanager
def _forked(work: Callable[[Reports], None]) -> Iterator[tuple[int, socket.socket]]:
    """A process that waits for its filter, and then does the work; its id, and the test's end of the socket. At the end
    it has ended, with what it has started."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pid = os.fork()
    if not pid:
        ours.close()
        _do(work, theirs)
    theirs.close()
    try:
        yield pid, ours
    finally:
        ours.close()
        left = children(pid)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        for child in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)


def _do(work: Callable[[Reports], None], connection: socket.socket) -> None:
    """In the process."""
    code = 1
    try:
        os.dup2(connection.fileno(), REPORTS)
        reports = Reports(socket.socket(fileno=REPORTS))
        _install_whole_filter(reports)
        work(reports)
        code = 0
    except BaseException:  # noqa: BLE001 - whatever happens, this process ends here.
        traceback.print_exc()
    finally:
        os._exit(code)


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))


def _filter(names: Collection[str]) -> bytes:
    """The classic BPF program: calls of these names, but those on `REPORTS`, wait for the test."""
    numbers = sorted(number for number, name in _NUMBERS.items() if name in names)
    to_allow = len(numbers) + 1
    code = [
        (_LOAD, 0, 0, 4),  # seccomp_data.arch
        (_EQUAL, 0, to_allow + 2, _ARCHITECTURE),
        (_LOAD, 0, 0, 16),  # The lower half of the first argument.
        (_EQUAL, to_allow, 0, REPORTS),
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


def _install_whole_filter(reports: Reports) -> None:
    lowest = os.dup(0)
    os.close(lowest)
    reports.send("listener", lowest)
    assert install_filter(ERRORS) == lowest


def _listener(pid: int, connection: socket.socket) -> int:
    """The descriptor on which the calls of the process are announced, as soon as it has installed its filter."""
    data = connection.recv(MESSAGE)
    assert data, "the process ended before its filter was installed"
    _, number = pickle.loads(data)
    connection.sendall(b".")
    return fetch_descriptor(pid, number)


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


def receive(listener: int) -> tuple[int, int, str] | None:
    """The next call that waits: its id, the thread that makes it, and its name; None where the thread was killed."""
    buffer = bytearray(_NOTIFICATION.size)
    try:
        fcntl.ioctl(listener, _RECEIVE, buffer)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.EINTR):
            return None
        raise
    call_id, pid, _, number, *_ = _NOTIFICATION.unpack(buffer)
    return call_id, pid, _NUMBERS[number]


def answer(listener: int, call_id: int, failure: int = 0) -> None:
    """Let a call that waits be executed, or fail with an error."""
    with contextlib.suppress(FileNotFoundError):  # The thread was killed.
        fcntl.ioctl(listener, _SEND, _ANSWER.pack(call_id, 0, -failure, 0 if failure else _CONTINUE))
