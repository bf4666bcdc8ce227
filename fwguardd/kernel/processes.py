"""Runs the programs of iptables: their names and arguments, several at once, each with a timeout.

Standard input, output and error are memory files (memfd_create(2)), so no pipe can fill up and block one side, and
output and error messages stay separate. Waiting uses process descriptors (pidfd_open(2)), which need no polling and
cannot signal a process that has reused the id. The rehearsal worker imports this module and has to start fast, so it
imports only small modules.
"""

from __future__ import annotations

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


class ProgramMissingError(Exception):
    """The program to run is not installed, or cannot be executed."""


class ProgramTimeoutError(Exception):
    """A program exceeded its timeout, and was killed."""

    def __init__(self, argv: Sequence[str], seconds: float) -> None:
        super().__init__(f"{argv[0]} did not end within {round(seconds, 1):g} s and was killed")


class Running:
    """A started program. `finish` must be called for each, to reap it."""

    def __init__(self, command: Command) -> None:
        """Start it. Raises ProgramMissingError."""
        self.argv = command.argv
        self._files = [_memory_file(command.stdin), _memory_file(""), _memory_file("")]
        actions = [(os.POSIX_SPAWN_DUP2, fd, number) for number, fd in enumerate(self._files)]
        actions += [(os.POSIX_SPAWN_DUP2, fd, number) for number, fd in command.descriptors.items()]
        environment = {"PATH": PATH, "LC_ALL": "C", **command.variables}
        try:
            self.pid = os.posix_spawn(
                _find(command.argv[0]),
                list(command.argv),
                environment,
                file_actions=actions,
                setsigdef=[signal.SIGPIPE],
                setpgroup=0,  # Ctrl-C in a terminal must not end a load between two tables.
            )
        except OSError as error:
            self._close()
            raise ProgramMissingError(f"cannot run {command.argv[0]}: {error.strerror}") from error
        self._pidfd = os.pidfd_open(self.pid)

    def finish(self, deadline: float) -> Finished:
        """Wait for its end until ``deadline`` on the monotonic clock. Raises ProgramTimeoutError after killing it."""
        seconds = max(0.0, deadline - time.monotonic())
        poll = select.poll()
        poll.register(self._pidfd, select.POLLIN)
        ended = bool(poll.poll(seconds * 1000))
        if not ended:
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
        _, status = os.waitpid(self.pid, 0)
        os.close(self._pidfd)
        _, output, errors = self._files
        stdout, stderr = _read_all(output), _read_all(errors)
        self._close()
        if not ended:
            raise ProgramTimeoutError(self.argv, seconds)
        return Finished(self.argv, os.waitstatus_to_exitcode(status), stdout, stderr)

    def _close(self) -> None:
        for fd in self._files:
            os.close(fd)


def run_all(commands: Sequence[Command], timeout: float) -> list[Finished]:
    """Run all commands at the same time and wait for all of them, at most ``timeout`` seconds.

    Raises ProgramMissingError or ProgramTimeoutError, after all programs that were started have ended.
    """
    deadline = time.monotonic() + timeout
    running: list[Running] = []
    try:
        for command in commands:
            running.append(Running(command))  # noqa: PERF401 - after an error those that were started must be reaped.
    except ProgramMissingError:
        _finish_all(running, deadline)
        raise
    return _finish_all(running, deadline)


def _finish_all(running: Sequence[Running], deadline: float) -> list[Finished]:
    """Wait for all programs, then raise ProgramTimeoutError if one of them did not end in time."""
    finished: list[Finished] = []
    failure: ProgramTimeoutError | None = None
    for program in running:
        try:
            finished.append(program.finish(deadline))
        except ProgramTimeoutError as error:
            failure = failure or error
    if failure is not None:
        raise failure
    return finished


def run(command: Command, timeout: float) -> Finished:
    """Run one command. Raises ProgramMissingError or ProgramTimeoutError."""
    return run_all([command], timeout)[0]


def _find(name: str) -> str:
    if "/" in name:
        return name
    for folder in PATH.split(":"):
        path = f"{folder}/{name}"
        if os.access(path, os.X_OK):
            return path
    return name


def _memory_file(text: str) -> int:
    fd = os.memfd_create("fwguardd")
    if text:
        data = memoryview(text.encode("utf-8", "surrogateescape"))
        while data:
            data = data[os.write(fd, data) :]
        os.lseek(fd, 0, os.SEEK_SET)
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
