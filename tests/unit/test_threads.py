"""Work in a thread of its own: its result, its error, and a thread that never begins."""

from __future__ import annotations

import _thread
import threading
from typing import TYPE_CHECKING, Any

import pytest

from fwguardd import threads
from fwguardd.threads import ThreadNotStartedError, in_thread
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
