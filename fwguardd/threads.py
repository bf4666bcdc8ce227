"""Threads whose start never waits for ever: one for one piece of work, and one for work that comes in order.

`threading.Thread.start`, and so `concurrent.futures.ThreadPoolExecutor`, waits for the new thread to say that it runs.
One that finds no memory to do so ends without a word, and the wait does not (CPython's issue 140746).
"""

from __future__ import annotations

import _thread
import threading
from collections import deque
from concurrent.futures import Future, wait
from typing import TYPE_CHECKING, Any, TypeVar

from fwguardd.errors import ReportedError, failure_of

if TYPE_CHECKING:
    from collections.abc import Callable

_Result = TypeVar("_Result")

BEGINS_WITHIN = 5.0
"""Seconds within which a thread begins, also on a busy host."""


class ThreadNotStartedError(ReportedError):
    """No thread could be started: the host is short of memory or processes. Nothing of its work was done."""


def in_thread(work: Callable[[], _Result]) -> Future[_Result]:
    """Begin some work in a thread of its own; its result. Raises ThreadNotStartedError."""
    future: Future[_Result] = Future()
    begun = threading.Event()

    def run() -> None:
        if future.set_running_or_notify_cancel():
            begun.set()
            finish(future, work)

    try:
        _thread.start_new_thread(run, ())
    except (RuntimeError, MemoryError) as error:
        raise ThreadNotStartedError(f"no thread could be started: {error}") from error
    if not begun.wait(BEGINS_WITHIN) and future.cancel():
        raise ThreadNotStartedError(f"a thread was started and did not begin within {BEGINS_WITHIN:g} s")
    return future


def start_in_time(start: Callable[[], _Result]) -> _Result:
    """What a call returns that starts threads by the standard library; one that does not return is left behind. Raises
    ThreadNotStartedError."""
    try:
        return in_thread(start).result(BEGINS_WITHIN)
    except TimeoutError as error:
        raise ThreadNotStartedError(f"a thread was started and did not begin within {BEGINS_WITHIN:g} s") from error
    except (RuntimeError, MemoryError) as error:
        raise ThreadNotStartedError(f"no thread could be started: {str(error) or 'no memory'}") from error


def finish(future: Future[_Result], work: Callable[[], _Result]) -> None:
    """Do some work, and give its result or its error to whoever asks the future for it."""
    results: list[_Result] = []
    failure = failure_of(lambda: results.append(work()))
    if failure is None:
        future.set_result(results[0])
    else:
        future.set_exception(failure)


class InOrder:
    """Does pieces of work one after the other, in a thread that is there while there is work. From any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: deque[tuple[Future[Any], Callable[[], Any]]] = deque()
        self._thread: Future[None] | None = None
        self._goes_on = False

    def submit(self, work: Callable[[], _Result]) -> Future[_Result]:
        """Queue some work; its result. Raises ThreadNotStartedError; then it is not done."""
        future: Future[_Result] = Future()
        with self._lock:
            self._waiting.append((future, work))
            begins, self._goes_on = not self._goes_on, True
        if begins:
            self._begin()
        return future

    def close(self, seconds: float) -> None:
        """Cancel what has not begun, and wait so long for what has."""
        for future, _ in self._taken():
            future.cancel()
        self.finish(seconds)

    def finish(self, seconds: float) -> None:
        """Wait so long for all work."""
        if self._thread is not None:
            wait([self._thread], seconds)

    def _begin(self) -> None:
        try:
            self._thread = in_thread(self._work)
        except ThreadNotStartedError as error:
            for future, _ in self._taken(ends=True):
                if future.set_running_or_notify_cancel():
                    future.set_exception(error)
            raise

    def _taken(self, *, ends: bool = False) -> list[tuple[Future[Any], Callable[[], Any]]]:
        """What waits, which is taken out of the queue."""
        with self._lock:
            taken = list(self._waiting)
            self._waiting.clear()
            self._goes_on = self._goes_on and not ends
        return taken

    def _work(self) -> None:
        while (following := self._next()) is not None:
            future, work = following
            if future.set_running_or_notify_cancel():
                finish(future, work)

    def _next(self) -> tuple[Future[Any], Callable[[], Any]] | None:
        with self._lock:
            if self._waiting:
                return self._waiting.popleft()
            self._goes_on = False
            return None
