"""Waiting for events. No test asserts how long something takes: each end below is only there so that a test fails at
last where an event never comes, on the busiest machine."""

from __future__ import annotations

import signal
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

LONGEST: Final = 120.0
"""Seconds after which an event that has not come yet counts as one that never comes."""

LONGEST_PAUSE: Final = 0.25
"""Seconds between two questions that are dear."""


def wait_until(condition: Callable[[], bool], what: str, seconds: float = LONGEST, pause: float = 0.002) -> None:
    """Ask for a condition until it holds. Raises AssertionError, which names ``what``, if it never does.

    The pause between two questions is ``pause`` seconds, or twice what the first of them took, up to `LONGEST_PAUSE`:
    one that runs a program shall not take the processor that it waits for.
    """
    asked = time.monotonic()
    end = asked + seconds
    while not condition():
        answered = time.monotonic()
        assert answered < end, f"waited {seconds:g} s for {what}"
        time.sleep(max(pause, min(2 * (answered - asked), LONGEST_PAUSE)))
        asked = time.monotonic()


@contextmanager
def must_end(what: str, seconds: float = LONGEST) -> Iterator[None]:
    """Raise AssertionError if the block does not end: for work that takes a moment, or hours if it is quadratic."""

    def give_up(_number: int, _frame: FrameType | None) -> None:
        raise AssertionError(f"{what} did not end within {seconds:g} s")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)
