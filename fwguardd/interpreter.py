"""The interpreter and the heap of the process, set for a daemon with two threads that lives for months."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import sys

SWITCH_INTERVAL = 0.001
"""Seconds after which a thread lets another one run; after the 5 ms of Python the author of a change may be gone."""

_ARENA_MAX, _MMAP_THRESHOLD, _TRIM_THRESHOLD = -8, -3, -1
"""Parameters of mallopt(3), from malloc.h."""

_BLOCK = 128 * 1024
"""Bytes: what glibc begins with; unless they are set, it raises both thresholds when large blocks are freed."""


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
