"""Events to systemd-journald by its native protocol: one datagram an entry, every field as a journal field.

The journal is never waited for. What it cannot take at once waits in a bounded queue; what does not fit there is
dropped and counted, and the count is told with the next entry that goes through.

Source: systemd's documentation of the native journal protocol (JOURNAL_NATIVE_PROTOCOL). A value that holds a newline
is framed by its length: ended by a newline it would begin a field of its own, or an entry.
"""

from __future__ import annotations

import array
import errno
import fcntl
import os
import socket
import threading
from collections import deque
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from fwguardd.events import DROPPED

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from fwguardd.events import EventKind

SOCKET_PATH = "/run/systemd/journal/socket"
LONGEST_QUEUE = 4096
"""Entries that wait for a slow journald; about 4 MB."""

_LATER = frozenset({errno.EAGAIN, errno.ENOBUFS, errno.ECONNREFUSED, errno.ENOENT, errno.ENOTCONN, errno.ENOMEM})
_GONE = frozenset({errno.ENOTCONN, errno.ECONNREFUSED, errno.EDESTADDRREQ})
_OWN_NAMES = {"event": "FWGUARD_EVENT", "message": "MESSAGE", "message_id": "MESSAGE_ID", "priority": "PRIORITY"}


def encode_entry(fields: Mapping[str, Any]) -> bytes:
    """One entry in the native protocol. A list gives its field once for each element; what is None or empty gives no
    field."""
    lines: list[str] = []
    framed: list[bytes] = []
    for key, value in fields.items():
        if type(value) is int or (type(value) is str and value and "\n" not in value):
            # Nearly all fields, and a flood has no time to lose.
            lines.append(f"{_field_name(key)}={value}\n")
            continue
        for single in value if isinstance(value, (list, tuple)) else (value,):
            if single is None or single == "":
                continue
            text = str(single)
            if "\n" in text:
                data = _bytes(text)
                framed.append(b"%s\n%s%s\n" % (_field_name(key).encode(), len(data).to_bytes(8, "little"), data))
            else:
                lines.append(f"{_field_name(key)}={text}\n")
    return _bytes("".join(lines)) + b"".join(framed)


def _bytes(text: str) -> bytes:
    """UTF-8. Bytes of file names that are not UTF-8 come back as they were; other lone surrogates are escaped."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return text.encode("utf-8", "backslashreplace")


@lru_cache(maxsize=512)
def _field_name(key: str) -> str:
    """``event`` -> FWGUARD_EVENT, ``message`` -> MESSAGE; ``icmp_type`` -> FWGUARD_ICMP_TYPE."""
    return _OWN_NAMES.get(key) or (key if key.isupper() else f"FWGUARD_{key.upper()}")


class JournalSocket:
    """The way to journald. Safe to use from several threads; never blocks, never raises for a journald that is away."""

    def __init__(self, path: str = SOCKET_PATH) -> None:
        self.on_waiting: Callable[[], None] | None = None
        """Called when the queue begins to fill, from whichever thread tells an event: somebody must `flush` later."""
        self.dropped = 0
        """Entries that were dropped since the start."""
        self._path = path
        self._lock = threading.Lock()
        self._waiting: deque[bytes] = deque()
        self._dropped = 0
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._socket.setblocking(False)  # noqa: FBT003 - the standard library's signature.

    def send(self, entry: bytes) -> None:
        """Send an entry, or queue it."""
        with self._lock:
            waited = bool(self._waiting)
            if len(self._waiting) >= LONGEST_QUEUE:
                self._drop()
            else:
                self._waiting.append(entry)
            self._flush()
            if self._waiting and not waited and self.on_waiting is not None:
                self.on_waiting()

    def flush(self) -> int:
        """Try to send what waits; the number of entries that still do."""
        with self._lock:
            self._flush()
            return len(self._waiting)

    def close(self) -> None:
        """Give the socket back; what still waits is lost."""
        self._socket.close()

    def _flush(self) -> None:
        while self._waiting:
            if not self._send(self._waiting[0]):
                return
            self._waiting.popleft()
            if self._dropped and self._send(self._loss_entry()):
                self._dropped = 0

    def _drop(self) -> None:
        self._dropped += 1
        self.dropped += 1

    def _loss_entry(self) -> bytes:
        message = f"{self._dropped} events were dropped because journald did not take them"
        return entry_of(DROPPED, message, {"count": self._dropped})

    def _send(self, entry: bytes) -> bool:
        """Whether the entry is on its way. An entry that can never be sent counts as dropped, and is out of the way."""
        try:
            self._transmit(entry)
        except OSError as error:
            if error.errno == errno.EMSGSIZE:
                return self._send_as_file(entry)
            if error.errno in _LATER:
                return False
            self._drop()
        return True

    def _transmit(self, entry: bytes) -> None:
        """Send to the socket that was found before; look for it anew when it is gone. Raises OSError."""
        try:
            self._socket.send(entry)
        except OSError as error:
            if error.errno not in _GONE:
                raise
            self._socket.connect(self._path)
            self._socket.send(entry)

    def _send_as_file(self, entry: bytes) -> bool:
        """An entry too large for a datagram goes as a sealed memory file whose descriptor is sent instead."""
        fd = os.memfd_create("fwguardd-journal", os.MFD_ALLOW_SEALING | os.MFD_CLOEXEC)
        try:
            view = memoryview(entry)
            while view:
                view = view[os.write(fd, view) :]
            seals = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
            # Not socket.send_fds: before Python 3.12 it forgets the address.
            descriptor = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))
            self._socket.sendmsg([b""], [descriptor], 0, self._path)
        except OSError as error:
            if error.errno in _LATER:
                return False
            self._drop()
        finally:
            os.close(fd)
        return True


def entry_of(kind: EventKind, message: str, fields: Mapping[str, Any]) -> bytes:
    """An event as a journal entry."""
    head = {
        "message": message,
        "priority": kind.priority,
        "SYSLOG_IDENTIFIER": "fwguardd",
        "event": kind.name,
        "message_id": kind.message_id,
    }
    return encode_entry({**head, **fields})
