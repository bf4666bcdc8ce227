"""Reads of a directory whose file system may not answer, such as one on a network, with a limit of time.

A read that is not answered keeps its thread, since no signal ends it. Until it ends, the directory is not read again:
whoever asks is told so at once, and goes on without it.
"""

from __future__ import annotations

import errno
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotYetError
from typing import TYPE_CHECKING, Any, Final, TypeVar

from fwguardd.ruleset.model import Finding, Origin
from fwguardd.threads import ThreadNotStartedError, in_thread

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Result = TypeVar("Result")

WITHIN: Final = 5.0
"""Seconds that a read may take; 16 MiB of rules take 20 ms from a disk."""

HANGS = "file-system-hangs"
"""The code of the finding about a directory whose file system does not answer."""

_unanswered: dict[str, Future[Any]] = {}
"""The reads that were not answered in time, by their directories."""


class NotAnsweringError(OSError):
    """The file system of a directory does not answer."""

    def __init__(self) -> None:
        super().__init__(errno.ETIMEDOUT, f"its file system has not answered for more than {WITHIN:g} s")

    def finding(self, directory: str) -> Finding:
        """The finding about the directory."""
        message = f"the rules directory cannot be read: {self.strerror}"
        return Finding(HANGS, message, Origin(directory, 0), hint="see what keeps it from answering: dmesg, findmnt")


def answered(directory: Path, read: Callable[[], Result]) -> Result:
    """The result of a read of the directory. Raises NotAnsweringError, and what the read raises; OSError with EAGAIN
    where there is no thread for it."""
    before = _unanswered.get(str(directory))
    if before is not None and not before.done():
        raise NotAnsweringError
    try:
        reading = in_thread(read)
    except ThreadNotStartedError as error:
        raise OSError(errno.EAGAIN, str(error)) from error
    try:
        return reading.result(WITHIN)
    except NotYetError:
        if reading.done():
            raise
    _unanswered[str(directory)] = reading
    raise NotAnsweringError
