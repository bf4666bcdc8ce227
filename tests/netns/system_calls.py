"""Failing the system calls of a process and of all programs that it starts, by number: a real fault at any call.

A seccomp(2) filter with SECCOMP_RET_USER_NOTIF stops a thread at each call that is listed in `ERRORS`, and the test
decides whether the kernel executes it or whether it fails with an error. So calls are counted over the whole tree of
threads and programs that this thread starts, in the order in which they are made, and nothing in the program has to be
prepared for it. Where it is known which call fails, only calls of its name are stopped: a trial is faster for it.

The process reports to the test through a socket with the descriptor `REPORTS`, and where its threads are through a pipe
with the descriptor `STACKS`; calls on those never fail. A thread that stands still in a call is asked where it is by a
signal: `faulthandler` writes its stack, and the kernel makes the call anew. So the place in the code of a call is known
before the call is made.
"""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import os
import pickle
import select
import signal
import socket
import time
import traceback
from collections import Counter, deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

from tests.netns.call_kinds import object_of, place_in, program_of, takes_signal
from tests.netns.crashing import children
from tests.netns.stopped_calls import (
    ERRORS,
    REPORTS,
    STACKS,
    answer,
    fetch_descriptor,
    install_filter,
    interrupt,
    receive,
    wake_at_once,
)
from tests.waiting import LONGEST

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence

    from tests.netns.stopped_calls import Stopped

Result = TypeVar("Result")


MESSAGE: Final = 1 << 20
"""Bytes of the longest report, and of the longest stack."""


class Call(NamedTuple):
    """A system call that was made: its name, and whether a program made it that the process has started."""

    name: str
    in_program: bool

    def __str__(self) -> str:
        return f"{self.name} of a program" if self.in_program else self.name


@dataclass(frozen=True, slots=True)
class Source:
    """Where a call comes from: the process and the program that makes it, and what it is made on; of a call of the
    process itself the place in the code instead."""

    process: int = 0
    program: str = ""
    on: str = ""
    place: str = ""


@dataclass(frozen=True, slots=True)
class Fault:
    """Which calls fail: of those that are equal to ``call`` the one with this number, from 0, and ``for_good`` all
    calls of its name from then on. Without ``call`` none fails. With ``place`` only calls that are made there count.

    One that ``kills`` ends the process before this call, with the programs that it runs or without them.
    """

    call: Call | None
    number: int
    place: str = ""
    for_good: bool = False
    kills: bool = False
    with_programs: bool = False

    def __str__(self) -> str:
        if self.kills:
            return f"killed before {self.call} {self.number}"
        at = f" at {self.place}" if self.place else ""
        return f"{'from ' if self.for_good else ''}{self.call} {self.number}{at}{' on' if self.for_good else ''}"


NO_FAULT: Final = Fault(None, 0)


def fault_at(calls: Sequence[Call], place: int, *, for_good: bool = False) -> Fault:
    """The fault of the call at a place of all that were made."""
    return Fault(calls[place], calls[:place].count(calls[place]), for_good=for_good)


def kill_at(calls: Sequence[Call], place: int, *, with_programs: bool) -> Fault:
    """A kill before the call at a place of all that were made."""
    return Fault(calls[place], calls[:place].count(calls[place]), kills=True, with_programs=with_programs)


class Reports:
    """The process's end: what it reports, and when calls can fail."""

    def __init__(self, connection: socket.socket, names: Collection[str]) -> None:
        self._connection, self._names = connection, names

    def send(self, name: str, value: Any = None) -> None:
        """Report a value, and wait until the test has noted it."""
        self._connection.sendall(pickle.dumps((name, value)))
        assert self._connection.recv(1) == b"."

    def exposed(self, work: Callable[[], Result]) -> Result:
        """Do work in a thread whose calls can fail, and those of the threads and programs that it starts; the thread
        that asks for it is not affected. Possible once."""
        with ThreadPoolExecutor(1, initializer=self._install_filter) as pool:
            return pool.submit(work).result()

    def _install_filter(self) -> None:
        lowest = os.dup(0)
        os.close(lowest)
        self.send(LISTENER, lowest)
        assert install_filter(self._names) == lowest
        self.send(INSTALLED)


BEGIN, END = "begin", "end"
"""The reports between which calls are counted and fail."""

LISTENER, INSTALLED = "listener", "installed"
"""The reports of the number of the descriptor on which calls will be announced, and that it is there."""


class HangError(Exception):
    """A process with a fault does not end."""


class Faulty:
    """A process that is forked to do some work, with a fault in it. ``reported`` is called with each of its reports,
    while it waits."""

    def __init__(self, work: Callable[[Reports], None], fault: Fault, reported: Callable[[str, Any], None]) -> None:
        self.calls: list[Call] = []
        """The calls between `BEGIN` and `END`; where there is a fault, those of the name of its call."""
        self.sources: list[Source] = []
        """For each of them where it came from; none where there is a fault."""
        self.failed: Counter[Call] = Counter()
        """Those that failed."""
        self._fault, self._reported = fault, reported
        self._equal_calls = 0
        self._counting = False
        self._listener = -1
        self._ends = select.poll()
        self._running: set[int] = set()
        self._threads: set[int] = set()
        self._programs: dict[int, str] = {}
        self._waiting: deque[Stopped] = deque()
        names = ERRORS if fault.call is None else {fault.call.name}
        with _forked(work, names) as (self._pid, self._connection, self._stacks):
            try:
                self._serve()
            finally:
                if self._listener >= 0:
                    os.close(self._listener)

    def _serve(self) -> None:
        """Answer until the process has ended, and what it left when it was killed."""
        self._watch(os.pidfd_open(self._pid))
        self._ends.register(self._connection, select.POLLIN)
        end = time.monotonic() + LONGEST
        try:
            while self._running:
                ready = dict(self._ends.poll(LONGEST * 1000))
                if not ready or time.monotonic() > end:
                    raise HangError(f"{self._fault}: it did not end within {LONGEST:g} s, after {self.calls[-1:]}")
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
        if name == LISTENER:
            self._connection.sendall(b".")
            self._listener = fetch_descriptor(self._pid, value)
            wake_at_once(self._listener)
            self._ends.register(self._listener, select.POLLIN)
            return True
        self._reported(name, value)
        self._connection.sendall(b".")
        return True

    def _answer(self) -> None:
        """Let calls that are made be executed, or fail."""
        self._take_call()
        while self._waiting:
            stopped = self._waiting.popleft()
            failure = 0
            if self._counting:
                stopped, failure = self._judged(stopped)
            answer(self._listener, stopped.id, failure)

    def _take_call(self) -> None:
        stopped = receive(self._listener)
        if stopped is not None:
            self._waiting.append(stopped)

    def _judged(self, stopped: Stopped) -> tuple[Stopped, int]:
        """A call, which may have been announced anew, and the error that it fails with, or 0."""
        call = Call(stopped.name, not self._is_own(stopped.thread))
        place = ""
        if not call.in_program and self._asks_where(call) and takes_signal(stopped.thread, signal.SIGUSR1):
            stopped, place = self._where(stopped)
        if self._fault == NO_FAULT:
            self.sources.append(self._source(stopped, call, place))
        return stopped, self._decide(call, place)

    def _asks_where(self, call: Call) -> bool:
        """Whether the place of a call of the process matters."""
        if self._fault.place:
            return call == self._fault.call and not self.failed
        return self._fault == NO_FAULT

    def _where(self, stopped: Stopped) -> tuple[Stopped, str]:
        """A call as it is announced anew, and the place in the code where it is made. Others wait meanwhile."""
        interrupt(self._pid, stopped.thread, signal.SIGUSR1)
        again = None
        while again is None:
            if not select.select([self._listener], [], [], LONGEST)[0]:
                raise HangError(f"{stopped}: it was not announced again")
            self._take_call()
            if self._waiting and self._waiting[-1].thread == stopped.thread:
                again = self._waiting.pop()
        return again, place_in(os.read(self._stacks, MESSAGE).decode())

    def _source(self, stopped: Stopped, call: Call, place: str) -> Source:
        if not call.in_program:
            return Source(place=place)
        program = self._programs.setdefault(stopped.thread, program_of(stopped.thread))
        if stopped.name == "execve":
            del self._programs[stopped.thread]
        return Source(stopped.thread, program, object_of(stopped))

    def _is_own(self, thread: int) -> bool:
        """Whether a thread is one of the process, and not of a program that it runs."""
        if thread not in self._threads and os.path.exists(f"/proc/{self._pid}/task/{thread}"):  # noqa: PTH110 - often.
            self._threads.add(thread)
        return thread in self._threads

    def _decide(self, call: Call, place: str) -> int:
        """The error that a call fails with, or 0."""
        self.calls.append(call)
        equal = call == self._fault.call and place == self._fault.place
        chosen = equal and self._equal_calls == self._fault.number
        self._equal_calls += equal
        if chosen and self._fault.kills:
            self._kill()
            return 0
        if not chosen and not (self._fault.for_good and self.failed):
            return 0
        self.failed[call] += 1
        return ERRORS[call.name].error


@contextlib.contextmanager
def _forked(work: Callable[[Reports], None], names: Collection[str]) -> Iterator[tuple[int, socket.socket, int]]:
    """A process that does the work; its id, and the test's ends of the socket and of the pipe. At the end it has ended,
    with what it has started."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    stacks, their_stacks = os.pipe()
    pid = os.fork()
    if not pid:
        ours.close()
        os.dup2(their_stacks, STACKS)
        _do(work, theirs, names)
    theirs.close()
    os.close(their_stacks)
    try:
        yield pid, ours, stacks
    finally:
        ours.close()
        os.close(stacks)
        ended = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        left = [] if ended else children(pid)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        for child in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)


def _do(work: Callable[[Reports], None], connection: socket.socket, names: Collection[str]) -> None:
    """In the process."""
    code = 1
    gc.disable()  # A collection would copy the memory that the two processes share.
    try:
        faulthandler.register(signal.SIGUSR1, file=STACKS, all_threads=False)
        os.dup2(connection.fileno(), REPORTS)
        work(Reports(socket.socket(fileno=REPORTS), names))
        code = 0
    except BaseException:  # noqa: BLE001 - whatever happens, this process ends here.
        traceback.print_exc()
    finally:
        os._exit(code)
