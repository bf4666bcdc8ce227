"""Runs the programs of iptables: their names and arguments, several at once, each with a timeout.

Standard input, output and error are memory files (memfd_create(2)), so no pipe can fill up and block one side, and
output and error messages stay separate. Waiting uses process descriptors (pidfd_open(2)), which need no polling and
cannot signal a process that has reused the id. The rehearsal worker imports this module and has to start fast, so it
imports only small modules.
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import select
import signal
import time
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


BACKENDS = ("nft", "legacy")

_PREFIX = {4: "iptables", 6: "ip6tables"}


def program(backend: str, family: int, verb: str) -> str:
    """The program of one backend ("nft", "legacy") and family (4, 6) for a verb ("restore", "save").

    Raises ValueError for anything else: the values may come from a socket.
    """
    if backend not in BACKENDS or family not in _PREFIX or verb not in ("restore", "save"):
        raise ValueError(f"no program for backend {backend!r}, family {family!r}, verb {verb!r}")
    return f"{_PREFIX[family]}-{backend}-{verb}"


def restore_argv(backend: str, family: int, *, noflush: bool, lock_seconds: int) -> list[str]:
    """Arguments to load a ruleset from standard input, with counters, waiting for the lock at most ``lock_seconds``."""
    argv = [program(backend, family, "restore"), "--counters", "-w", str(lock_seconds)]
    if noflush:
        argv.append("--noflush")
    return argv


def save_argv(backend: str, family: int) -> list[str]:
    """Arguments to print all tables with counters."""
    return [program(backend, family, "save"), "-c"]


PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""Where programs are searched for; the PATH of the environment is not used."""


class Command(NamedTuple):
    """A program to run: its arguments, its standard input, and variables for its otherwise minimal environment.

    ``descriptors`` are open files that it inherits, by their number in the program (3 and up).
    """

    argv: Sequence[str]
    stdin: str = ""
    variables: Mapping[str, str] = {}
    descriptors: Mapping[int, int] = {}


class Finished(NamedTuple):
    """A program that has ended. ``code`` is its exit code, or the negative number of the signal that killed it."""

    argv: Sequence[str]
    code: int
    stdout: str
    stderr: str


TRANSIENT = frozenset({errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.EINTR})
"""Errors of system calls for want of memory, processes or descriptors: they pass when others let go of some."""

_WAIT = 0.005
"""Seconds between two checks whether a program has ended, where the kernel gives no descriptor to wait on."""


class ProgramError(Exception):
    """A program could not be run to its end."""


class ProgramMissingError(ProgramError):
    """The program to run is not installed, or cannot be executed."""


class ProgramNotStartedError(ProgramError):
    """The program was not started, because memory, processes or descriptors are short."""


class ProgramOutputError(ProgramError):
    """A program was run, and what it printed could not be read."""


class ProgramTimeoutError(ProgramError):
    """A program exceeded its timeout, and was killed."""

    def __init__(self, argv: Sequence[str], seconds: float) -> None:
        super().__init__(f"{argv[0]} did not end within {round(seconds, 1):g} s and was killed")


class Running:
    """A started program. `finish` must be called for each, to reap it."""

    def __init__(self, command: Command) -> None:
        """Start it. Raises ProgramMissingError and ProgramNotStartedError."""
        self.argv = command.argv
        self._files: list[int] = []
        self._status: int | None = None
        with contextlib.ExitStack() as unless_started:
            unless_started.callback(self._close)
            try:
                self.pid = self._start(command)
            except OSError as error:
                message = f"cannot run {command.argv[0]}: {error.strerror}"
                if error.errno in TRANSIENT:
                    raise ProgramNotStartedError(message) from error
                raise ProgramMissingError(message) from error
            unless_started.pop_all()

    def _start(self, command: Command) -> int:
        """Start the program; its process id. Raises OSError."""
        for text in (command.stdin, "", ""):
            self._files.append(_memory_file(text))
        actions = [(os.POSIX_SPAWN_DUP2, fd, number) for number, fd in enumerate(self._files)]
        actions += [(os.POSIX_SPAWN_DUP2, fd, number) for number, fd in command.descriptors.items()]
        environment = {"PATH": PATH, "LC_ALL": "C", **command.variables}
        return os.posix_spawn(
            find_program(command.argv[0]),
            list(command.argv),
            environment,
            file_actions=actions,
            setsigdef=[signal.SIGPIPE],
            setpgroup=0,  # Ctrl-C in a terminal must not end a load between two tables.
        )

    def finish(self, deadline: float) -> Finished:
        """Wait for its end until ``deadline`` on the monotonic clock.

        Raises ProgramTimeoutError after killing it, and ProgramOutputError.
        """
        seconds = max(0.0, deadline - time.monotonic())
        try:
            status = self._status = self._wait(deadline)
            if status is None:
                raise ProgramTimeoutError(self.argv, seconds)
            stdout, stderr = self._read_output()
        finally:
            self.end()
        return Finished(self.argv, os.waitstatus_to_exitcode(status), stdout, stderr)

    def end(self) -> None:
        """Kill it if it was not waited for, whatever prevented that: a load must not go on while it is undone. A second
        call does nothing."""
        if self._status is None:
            os.kill(self.pid, signal.SIGKILL)  # It is a child that was not reaped: no other process has its id.
            _, self._status = os.waitpid(self.pid, 0)
        self._close()

    def _read_output(self) -> tuple[str, str]:
        """What it printed. Raises ProgramOutputError."""
        try:
            return _read_all(self._files[1]), _read_all(self._files[2])
        except OSError as error:
            raise ProgramOutputError(f"cannot read what {self.argv[0]} printed: {error.strerror}") from error

    def _wait(self, deadline: float) -> int | None:
        """Its exit status; None if it has not ended at the deadline.

        A started program is waited for even where no descriptor can be had: by looking again and again.
        """
        try:
            pidfd = os.pidfd_open(self.pid)
        except OSError:
            return self._wait_without_descriptor(deadline)
        try:
            poll = select.poll()
            poll.register(pidfd, select.POLLIN)
            if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
                return None
        except OSError:
            return self._wait_without_descriptor(deadline)
        finally:
            os.close(pidfd)
        return os.waitpid(self.pid, 0)[1]

    def _wait_without_descriptor(self, deadline: float) -> int | None:
        while True:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                return status
            if time.monotonic() >= deadline:
                return None
            time.sleep(_WAIT)

    def _close(self) -> None:
        for fd in self._files:
            os.close(fd)
        self._files = []


_RESERVED_DESCRIPTORS = 16
"""Two programs at once take 8, and the dumps of the kernel's tables and the lock 2 more."""

_RESERVED_BYTES = 32 << 20
"""What reading, comparing and rendering 10,000 rules takes."""


class Reserve:
    """Descriptors and address space that are had before a write, and given back where undoing it needs them.

    The memory is not touched, so it costs none: it counts against limits of address space, which make calls fail.
    """

    def __init__(self) -> None:
        """Raises OSError and MemoryError where they cannot be had."""
        self._files: list[int] = []
        self._memory: mmap.mmap | None = None
        with contextlib.ExitStack() as unless_had:
            unless_had.callback(self.give_back)
            for _ in range(_RESERVED_DESCRIPTORS):
                self._files.append(os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC))
            self._memory = _untouched(_RESERVED_BYTES)
            unless_had.pop_all()

    def give_back(self) -> None:
        """Give all back. A second call does nothing."""
        for fd in self._files:
            os.close(fd)
        self._files = []
        if self._memory is not None:
            self._memory.close()
        self._memory = None


def _untouched(size: int) -> mmap.mmap:
    """Address space without memory behind it, which a bytearray would fill with zeros. Raises MemoryError."""
    try:
        return mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except OSError as error:
        raise MemoryError(error.strerror) from error


def run_all(commands: Sequence[Command], timeout: float) -> list[Finished]:
    """Run all commands at the same time and wait for all of them, at most ``timeout`` seconds.

    Raises what `Running` does; the other programs are killed then.
    """
    deadline = time.monotonic() + timeout
    with contextlib.ExitStack() as started:
        running: list[Running] = []
        for command in commands:
            running.append(Running(command))
            started.callback(running[-1].end)
        return [program.finish(deadline) for program in running]


def run(command: Command, timeout: float) -> Finished:
    """Run one command. Raises as `run_all` does."""
    return run_all([command], timeout)[0]


def find_program(name: str) -> str:
    """The path of a program; the name itself where it is not found."""
    if "/" in name:
        return name
    for folder in PATH.split(":"):
        path = f"{folder}/{name}"
        if os.access(path, os.X_OK):
            return path
    return name


def _memory_file(text: str) -> int:
    """A file in memory with this text, to be read from its beginning. Raises OSError."""
    data = memoryview(text.encode("utf-8", "surrogateescape"))
    fd = os.memfd_create("fwguardd")
    with contextlib.ExitStack() as unless_written:
        unless_written.callback(os.close, fd)
        while data:
            data = data[os.write(fd, data) :]
        os.lseek(fd, 0, os.SEEK_SET)
        unless_written.pop_all()
    return fd


def _read_all(fd: int) -> str:
    size = os.fstat(fd).st_size
    data = bytearray()
    while len(data) < size:
        chunk = os.pread(fd, size - len(data), len(data))
        if not chunk:
            break
        data += chunk
    return data.decode("utf-8", "surrogateescape")
