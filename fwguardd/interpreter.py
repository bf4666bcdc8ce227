"""The interpreter and the heap of the process, set for a daemon with two threads that lives for months."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

SWITCH_INTERVAL = 0.001
"""Seconds after which a thread lets another one run; after the 5 ms of Python the author of a change may be gone."""

_ARENA_MAX, _MMAP_THRESHOLD, _TRIM_THRESHOLD = -8, -3, -1
"""Parameters of mallopt(3), from malloc.h."""

WHOLE_SEARCHES = 100
"""Steps after which all objects are searched for those without references to them."""

_BLOCK = 128 * 1024
"""Bytes: what glibc begins with; unless they are set, it raises both thresholds when large blocks are freed."""

STEP_ALLOCATIONS = 1_000_000
"""Objects that a step of the worker may make before they are searched for cycles. Rules and what holds them form none.
With 10,000 new rules the searches took 40 ms of a pass."""


@contextlib.contextmanager
def few_searches_for_garbage() -> Iterator[None]:
    """Search rarely for objects that refer to each other and that nothing else refers to, while a step runs that makes
    many objects at once."""
    usual = gc.get_threshold()
    gc.set_threshold(STEP_ALLOCATIONS, *usual[1:])
    try:
        yield
    finally:
        gc.set_threshold(*usual)


def set_up_process() -> None:
    """To be called before the first thread is started.

    Where the C library has mallopt, all threads share one arena of the heap, and large free blocks go back to the
    kernel. A pass reads and writes texts of several MiB in the worker thread; with 10,000 rules 7 of 53 MiB were free
    after it, in an arena of its own, and stayed with the process.

    Objects without references to them are searched for from now on, but not among those that the imports have made.
    """
    gc.freeze()
    gc.enable()
    sys.setswitchinterval(SWITCH_INTERVAL)
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        for parameter, value in ((_ARENA_MAX, 1), (_MMAP_THRESHOLD, _BLOCK), (_TRIM_THRESHOLD, _BLOCK)):
            mallopt(parameter, value)


class SettledObjects:
    """The objects that stay for long, such as rules in force: they are not searched in each pass.

    A search for cycles looks at all of them: of 50,000 rules it took a sixth of the time of a pass. What ends up among
    them without references, which is little, is found by a whole search now and then.
    """

    def __init__(self) -> None:
        self._steps = 0

    def settle(self) -> None:
        """To be called when nothing waits for this process: what is there now stays for long."""
        self._steps += 1
        if self._steps % WHOLE_SEARCHES:
            gc.collect(1)
        else:
            gc.unfreeze()
            gc.collect()
        gc.freeze()
