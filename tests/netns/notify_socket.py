"""The other end of $NOTIFY_SOCKET, sd_notify(3), for tests that stand in for systemd."""

from __future__ import annotations

import contextlib
import socket
import time
from typing import TYPE_CHECKING

from tests.waiting import LONGEST

if TYPE_CHECKING:
    from pathlib import Path


class NotifySocket:
    """The socket that the daemon sends its notifications to."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))

    def wait_for(self, wanted: str) -> str:
        """Wait for a notification with a line that starts like this; the whole of it."""
        deadline = time.monotonic() + LONGEST
        while True:
            self._socket.settimeout(max(0.01, deadline - time.monotonic()))
            message = self._socket.recv(4096).decode()
            if any(line.startswith(wanted) for line in message.splitlines()):
                return message

    def arrived(self, wanted: str) -> bool:
        """Whether one of the notifications that are there now has a line that starts like this; reads them all."""
        self._socket.setblocking(False)  # noqa: FBT003 - the standard library's signature.
        lines: list[str] = []
        with contextlib.suppress(BlockingIOError):
            while True:
                lines += self._socket.recv(4096).decode().splitlines()
        return any(line.startswith(wanted) for line in lines)

    def is_full(self) -> bool:
        """Whether a sender would have to wait."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sender:
            try:
                sender.sendto(b"FILL=1", str(self.path))
            except BlockingIOError:
                return True
        return False

    def close(self) -> None:
        """Stop listening."""
        self._socket.close()
