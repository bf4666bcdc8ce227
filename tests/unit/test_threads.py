"""Work in a thread of its own: its result, its error, and a thread that never begins."""

from __future__ import annotations

import _thread
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from fwguardd import threads
from fwguardd.enforce.run_beside import RunBeside
from fwguardd.progress import Progress
from fwguardd.settings import Settings
from fwguardd.threads import InOrder, ThreadNotStartedError, in_thread, start_in_time
from fwguardd.worker_report import Orders
from fwguardd.worker_thread import WorkerThread
from tests.waiting import LONGEST, must_end

if TYPE_CHECKING:
    from collections.abc import Callable


def test_the_result_and_the_error_of_the_work() -> None:
    """The work is done in another thread; what it returns or raises is the result of the future."""
    assert in_thread(threading.get_ident).result(LONGEST) != threading.get_ident()
    with pytest.raises(ZeroDivisionError):
        in_thread(lambda: 1 // 0).result(LONGEST)


def _ends_silently(_run: Callable[[], None], _args: tuple[()]) -> int:
    """What the caller sees of a thread that found no memory to begin."""
    return 1


def _refused(_run: Callable[[], None], _args: tuple[()]) -> int:
    raise RuntimeError("can't start new thread")


@pytest.mark.parametrize(("start", "said"), [(_ends_silently, "did not begin"), (_refused, "can't start new thread")])
def test_a_thread_that_never_begins(monkeypatch: pytest.MonkeyPatch, start: Any, said: str) -> None:
    """Whether the kernel refuses the thread, or it ends before its first instruction: an error says so, and the wait
    for it ends."""
    monkeypatch.setattr(_thread, "start_new_thread", start)
    monkeypatch.setattr(threads, "BEGINS_WITHIN", 0.01)
    with must_end("the start"), pytest.raises(ThreadNotStartedError, match=said):
        in_thread(pytest.fail)


def test_a_thread_that_begins_too_late_does_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Work that was given up is not done when its thread begins after all."""
    late: list[Callable[[], None]] = []
    monkeypatch.setattr(_thread, "start_new_thread", lambda run, _args: late.append(run))
    monkeypatch.setattr(threads, "BEGINS_WITHIN", 0.01)
    with pytest.raises(ThreadNotStartedError):
        in_thread(pytest.fail)
    late[0]()


def test_work_is_done_in_its_order() -> None:
    """Pieces of work are done one after the other, one that fails as well; what waits can be cancelled, and later work
    is done by a new thread."""
    queue, done, goes_on = InOrder(), list[int](), threading.Event()
    first = queue.submit(partial(goes_on.wait, LONGEST))
    futures = [queue.submit(partial(done.append, number)) for number in range(3)]
    failing = queue.submit(lambda: 1 // 0)
    goes_on.set()
    assert first.result(LONGEST)
    assert [future.result(LONGEST) for future in futures] == [None] * 3
    assert done == [0, 1, 2]
    assert isinstance(failing.exception(LONGEST), ZeroDivisionError)
    queue.finish(LONGEST)
    waits = threading.Event()
    running, waiting = queue.submit(partial(waits.wait, LONGEST)), queue.submit(pytest.fail)
    queue.close(0)
    assert waiting.cancelled()
    waits.set()
    assert running.result(LONGEST)


@pytest.mark.parametrize("start", [_ends_silently, _refused])
def test_a_queue_without_a_thread(monkeypatch: pytest.MonkeyPatch, start: Any) -> None:
    """Where no thread can be started the caller is told so, the work is not done later either, and the next piece of
    work finds a thread if there is one again."""
    queue = InOrder()
    with monkeypatch.context() as refused:
        refused.setattr(_thread, "start_new_thread", start)
        refused.setattr(threads, "BEGINS_WITHIN", 0.01)
        with must_end("the start"), pytest.raises(ThreadNotStartedError):
            queue.submit(pytest.fail)
    assert queue.submit(lambda: 7).result(LONGEST) == 7


@pytest.mark.parametrize("start", [_ends_silently, _refused])
def test_what_runs_beside_runs_before_where_there_is_no_thread(monkeypatch: pytest.MonkeyPatch, start: Any) -> None:
    """A rehearsal needs no second thread: without one it is done first, and what it raises is raised later."""
    monkeypatch.setattr(_thread, "start_new_thread", start)
    monkeypatch.setattr(threads, "BEGINS_WITHIN", 0.01)
    with must_end("the start"), RunBeside(lambda: 7) as seven, RunBeside(lambda: 1 // 0) as failing:
        assert seven.result() == 7
        with pytest.raises(ZeroDivisionError):
            failing.result()


def _no_memory() -> None:
    raise MemoryError


def test_a_start_by_the_standard_library_that_does_not_return(monkeypatch: pytest.MonkeyPatch) -> None:
    """`threading.Thread.start` waits for a thread that has ended before its first instruction; who starts one in time
    is told so. What the start returns or is refused with comes out."""
    assert start_in_time(lambda: 7) == 7
    with pytest.raises(ThreadNotStartedError, match="no memory"):
        start_in_time(_no_memory)
    never = threading.Event()
    monkeypatch.setattr(threads, "BEGINS_WITHIN", 0.01)
    with must_end("the start"), pytest.raises(ThreadNotStartedError):
        start_in_time(partial(never.wait, LONGEST))
    never.set()


def test_a_worker_whose_thread_does_not_begin(monkeypatch: pytest.MonkeyPatch) -> None:
    """The daemon ends with an error then, and does not wait for ever."""
    never = threading.Event()
    monkeypatch.setattr(ThreadPoolExecutor, "submit", lambda *_: never.wait(LONGEST))
    monkeypatch.setattr(threads, "BEGINS_WITHIN", 0.01)
    with must_end("the start"), pytest.raises(ThreadNotStartedError):
        WorkerThread(pytest.fail, Orders(Settings()), Progress())
    never.set()
