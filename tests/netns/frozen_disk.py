"""A daemon whose disk can be frozen: calls that change files wait, as on a file system that fsfreeze(8) has suspended.

The daemon is started by this file as a program, which installs the filter and becomes it.
"""

from __future__ import annotations

import os
import select
import sys
import threading
from typing import Final

from tests.netns.stopped_calls import answer, fetch_descriptor, install_filter, receive

WRITING: Final = frozenset(
    {"fsync", "mkdir", "mkdirat", "rename", "renameat", "renameat2"}
    | {"rmdir", "symlink", "symlinkat", "unlink", "unlinkat"}
)
"""Calls that wait for a frozen file system. Of those that a daemon makes, only its store makes these."""

LISTENER: Final = 1001
"""The descriptor that the daemon inherits, and that the test takes a copy of."""


class FreezableDisk:
    """Answers the calls of one daemon, or keeps them waiting."""

    enter = (sys.executable, "-m", "tests.netns.frozen_disk")

    def __init__(self, pid: int) -> None:
        self._listener = fetch_descriptor(pid, LISTENER)
        self._thawed = threading.Event()
        self._thawed.set()
        self._stop, self._stopping = os.pipe()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()
        self.waited = threading.Event()
        """Set once a call had to wait."""

    def freeze(self) -> None:
        """From now on calls that change files wait."""
        self._thawed.clear()

    def thaw(self) -> None:
        """Execute the calls that wait, and those to come."""
        self._thawed.set()

    def close(self) -> None:
        """End; a daemon that still runs has no disk any more."""
        self.thaw()
        os.close(self._stopping)
        self._thread.join()
        os.close(self._stop)
        os.close(self._listener)

    def _serve(self) -> None:
        ends = select.poll()
        ends.register(self._listener, select.POLLIN)
        ends.register(self._stop, select.POLLIN)
        while self._stop not in (ready := dict(ends.poll())):
            if not ready.get(self._listener, 0) & select.POLLIN:
                return
            received = receive(self._listener)
            if received is None:
                continue
            if not self._thawed.is_set():
                self.waited.set()
                self._thawed.wait()
            answer(self._listener, received.id)


def main() -> None:
    """Become the program in the arguments, with a filter."""
    os.dup2(install_filter(WRITING), LISTENER, inheritable=True)
    os.execv(sys.argv[1], sys.argv[1:])


if __name__ == "__main__":
    main()
