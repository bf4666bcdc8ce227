"""A thread for one piece of work, whose start never waits for ever.

`threading.Thread.start`, and so `concurrent.futures.ThreadPoolExecutor`, waits for the new thread to say that it runs.
One that finds no memory to do so ends without a word, and the wait does not (CPython's issue 140746).
"""

from __future__ import annotations

import _thread
import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING, TypeVar

from fwguardd.errors import failure_of

if TYPE_CHECKING:
    from collections.abc import Callable

_Result = TypeVar("_Result")

BEGINS_WITHIN = 5.0
"""Seconds within which a thread begins, also on a busy host."""


class ThreadNotStartedError(Exception):
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


def finish(future: Future[_Result], work: Callable[[], _Result]) -> None:
    """Do some work, and give its result or its error to whoever asks the future for it."""
    results: list[_Result] = []
    failure = failure_of(lambda: results.append(work()))
    if failure is None:
        future.set_result(results[0])
    else:
        future.set_exception(failure)
