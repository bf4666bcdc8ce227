"""The file of metrics for the node exporter: written after something was counted, and never while nothing happens.

The file is replaced by rename(2), so a reader sees it whole. It is removed when the daemon ends, because nothing
measures what it says from then on. A thread of its own writes, as the event loop must not wait for a disk.
"""

from __future__ import annotations

import contextlib
import os
import stat
from functools import partial
from typing import TYPE_CHECKING

from fwguardd import events
from fwguardd.threads import InOrder, ThreadNotStartedError

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable
    from pathlib import Path

    from fwguardd.control.documents import MetricsDocument
    from fwguardd.events import Emit

WRITE_GAP = 5.0
"""Seconds from a change to the write that has it, so that many changes are one write."""

CLOSE_WITHIN = 5.0
"""Seconds that the end of the daemon waits for the disk of the file."""

_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class TextFile:
    """Writes the metrics to a file. Belongs to the event loop; ``changed`` may be called from any thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop, document: Callable[[], MetricsDocument], emit: Emit) -> None:
        self._loop, self._document, self._emit = loop, document, emit
        self._path: Path | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._writer = InOrder()
        self._reported = ""

    def use(self, path: Path | None) -> None:
        """From now on write to this file; None writes none."""
        if path != self._path and self._path is not None:
            self._do(self._path, partial(remove, self._path))
        self._path = path
        self._schedule()

    def changed(self) -> None:
        """Something was counted. Never raises, never waits."""
        if self._path is not None and self._timer is None:
            with contextlib.suppress(RuntimeError):  # The event loop has ended.
                self._loop.call_soon_threadsafe(self._schedule)

    def close(self) -> None:
        """Remove the file."""
        path, self._path = self._path, None
        if self._timer is not None:
            self._timer.cancel()
        if path is not None:
            self._do(path, partial(remove, path))
        self._writer.finish(CLOSE_WITHIN)

    def _schedule(self) -> None:
        if self._path is not None and self._timer is None:
            self._timer = self._loop.call_later(WRITE_GAP, self._begin)

    def _begin(self) -> None:
        self._timer = None
        if self._path is not None:
            self._do(self._path, partial(self._write, self._path, self._document()))

    def _do(self, path: Path, work: Callable[[], None]) -> None:
        """Have the thread do some work."""
        try:
            self._writer.submit(work)
        except ThreadNotStartedError as error:
            self._report(path, str(error))

    def _write(self, path: Path, document: MetricsDocument) -> None:
        """In the thread of the writer."""
        try:
            # Imported here: the daemon runs without the library, and only this setting needs it.
            from fwguardd.metrics.exposition import text_of  # noqa: PLC0415

            replace(path, text_of(document["families"]))
            self._reported = ""
        except ModuleNotFoundError as error:
            self._report(path, f"{error.name} is not installed; install it with: apt install python3-prometheus-client")
        except OSError as error:
            self._report(path, str(error.strerror))

    def _report(self, path: Path, reason: str) -> None:
        if reason != self._reported:
            self._reported = reason
            self._emit(events.METRICS_FAILED, f"metrics cannot be written to {path}: {reason}", reason=reason)


def replace(path: Path, data: bytes) -> None:
    """Replace a file, which everybody may read. Raises OSError."""
    temporary = path.with_name(f".{path.name}.new")
    remove(temporary)
    fd = os.open(temporary, _NEW_FILE, 0o644)
    with os.fdopen(fd, "wb") as file:
        file.write(data)
        os.fchmod(fd, 0o644)  # Whatever the umask is.
    temporary.rename(path)


def remove(path: Path) -> None:
    """Remove a file or a symbolic link, if there is one. Raises OSError."""
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISDIR(path.lstat().st_mode):
            path.unlink()
