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


def wait_until(condition: Callable[[], bool], what: str, seconds: float = LONGEST, pause: float = 0.002) -> None:
    """Ask for a condition until it holds. Raises AssertionError, which names ``what``, if it never does."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited {seconds:g} s for {what}"
        time.sleep(pause)


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
