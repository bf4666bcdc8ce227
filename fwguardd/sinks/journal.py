"""Events to systemd-journald by its native protocol: one datagram for each entry, every field a journal field.

The daemon never waits for journald. What journald cannot take at once waits in a bounded queue; what does not fit there
is dropped and counted, and the count is sent with the next entry that goes through.

Source: systemd's documentation of the native journal protocol (JOURNAL_NATIVE_PROTOCOL). A value that holds a newline
is framed by its length; ended by a newline it would begin a field of its own, or an entry.
"""

from __future__ import annotations

import array
import errno
import fcntl
import os
import socket
import threading
import time
from collections import Counter, deque
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from fwguardd.events import DROPPED
from fwguardd.sinks.sink import Statistics
from fwguardd.wording import counted

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from fwguardd.events import EventKind

SOCKET_PATH = "/run/systemd/journal/socket"
LONGEST_QUEUE = 4096
"""Entries that wait for a slow journald; about 4 MB."""

CLOSE_PAUSE = 0.02
"""Seconds between two tries to send what is in the queue when the daemon ends."""

_LATER = frozenset({errno.EAGAIN, errno.ENOBUFS, errno.ECONNREFUSED, errno.ENOENT, errno.ENOTCONN, errno.ENOMEM})
_GONE = frozenset({errno.ENOTCONN, errno.ECONNREFUSED, errno.EDESTADDRREQ})
_OWN_NAMES = {"event": "FWGUARD_EVENT", "message": "MESSAGE", "message_id": "MESSAGE_ID", "priority": "PRIORITY"}


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


def encode_entry(fields: Mapping[str, Any]) -> bytes:
    """One entry in the native protocol. A list gives its field once for each element; None and the empty text give no
    field."""
    lines: list[str] = []
    framed: list[bytes] = []
    for key, value in fields.items():
        # Nearly all values are of this kind, and under a flood every event goes through here.
        if type(value) is int or (type(value) is str and value and "\n" not in value):
            lines.append(f"{_field_name(key)}={value}\n")
        elif isinstance(value, (list, tuple)):
            for element in value:
                _encode(key, element, lines, framed)
        else:
            _encode(key, value, lines, framed)
    return _bytes("".join(lines)) + b"".join(framed)


def _encode(key: str, value: object, lines: list[str], framed: list[bytes]) -> None:
    if value is None or value == "":
        return
    text = str(value)
    if "\n" in text:
        data = _bytes(text)
        framed.append(b"%s\n%s%s\n" % (_field_name(key).encode(), len(data).to_bytes(8, "little"), data))
    else:
        lines.append(f"{_field_name(key)}={text}\n")


def _bytes(text: str) -> bytes:
    """UTF-8. Bytes of file names that are not UTF-8 come back as they were; other lone surrogates are escaped."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return text.encode("utf-8", "backslashreplace")


@lru_cache(maxsize=512)
def _field_name(key: str) -> str:
    """``event`` -> FWGUARD_EVENT, ``message`` -> MESSAGE; ``icmp_type`` -> FWGUARD_ICMP_TYPE."""
    if key in _OWN_NAMES:
        return _OWN_NAMES[key]
    if key.isupper():
        return key
    return f"FWGUARD_{key.upper()}"


class JournalSink:
    """Sends each event to journald. structlog would add nothing here but the time, which journald has itself."""

    def __init__(self, journal: JournalSocket) -> None:
        self._journal = journal

    def emit(self, kind: EventKind, message: str, /, **fields: Any) -> None:
        """Send one event, or queue it."""
        self._journal.send(entry_of(kind, message, fields), kind.name)

    def flush(self) -> int:
        """Try again to send the entries in the queue; the number that is left in it."""
        return self._journal.flush()

    def close(self, seconds: float) -> None:
        """Give the entries in the queue this long to be sent."""
        deadline = time.monotonic() + seconds
        while self._journal.flush() and time.monotonic() < deadline:
            time.sleep(CLOSE_PAUSE)

    def statistics(self) -> Sequence[Statistics]:
        """The counts of the socket."""
        return (self._journal.statistics(),)

    def on_waiting(self, call: Callable[[], None]) -> None:
        """Call this, from any thread, when the queue begins to fill."""
        self._journal.on_waiting = call


class JournalSocket:
    """The socket of journald. Safe to use from several threads; never blocks, and never raises when journald is not
    running."""

    def __init__(self, path: str = SOCKET_PATH) -> None:
        self.on_waiting: Callable[[], None] | None = None
        """Called when the queue begins to fill, from the thread that sends: the queue must be flushed later."""
        self._path = path
        self._lock = threading.Lock()
        self._queue: deque[tuple[str, bytes]] = deque()
        self._passed: Counter[str] = Counter()
        self._dropped: Counter[str] = Counter()
        self._unreported = 0
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._socket.setblocking(False)  # noqa: FBT003 - the standard library's signature.

    def send(self, entry: bytes, event: str = "") -> None:
        """Send an entry, or queue it. ``event`` is the name that it is counted by."""
        with self._lock:
            waited = bool(self._queue)
            if len(self._queue) >= LONGEST_QUEUE:
                self._drop(event)
            else:
                self._queue.append((event, entry))
            self._flush()
            if self._queue and not waited and self.on_waiting is not None:
                self.on_waiting()

    def flush(self) -> int:
        """Try again to send the entries in the queue; the number that is left in it."""
        with self._lock:
            self._flush()
            return len(self._queue)

    def statistics(self) -> Statistics:
        """The entries that journald took, and those that were dropped, by event."""
        with self._lock:
            return Statistics("journal", dict(self._passed), dict(self._dropped))

    def close(self) -> None:
        """Close the socket; entries in the queue are lost."""
        self._socket.close()

    def _flush(self) -> None:
        while self._queue:
            if not self._send(*self._queue[0]):
                return
            self._queue.popleft()
            if self._unreported and self._send(DROPPED.name, self._loss_entry()):
                self._unreported = 0

    def _loss_entry(self) -> bytes:
        message = f"{_events(self._unreported)} dropped because journald did not accept them"
        return entry_of(DROPPED, message, {"count": self._unreported})

    def _send(self, event: str, entry: bytes) -> bool:
        """Whether the entry can leave the queue: it was sent, or it can never be sent and is counted as dropped."""
        try:
            self._transmit(entry)
        except OSError as error:
            if error.errno in _LATER:
                return False
            self._drop(event)
        else:
            self._passed[event] += 1
        return True

    def _drop(self, event: str) -> None:
        self._dropped[event] += 1
        self._unreported += 1

    def _transmit(self, entry: bytes) -> None:
        """Send to the socket that is connected; connect again if journald was restarted. Raises OSError."""
        try:
            self._socket.send(entry)
        except OSError as error:
            if error.errno == errno.EMSGSIZE:
                self._send_as_file(entry)
            elif error.errno in _GONE:
                self._connect_and_send(entry)
            else:
                raise

    def _connect_and_send(self, entry: bytes) -> None:
        self._socket.connect(self._path)
        try:
            self._socket.send(entry)
        except OSError as error:
            if error.errno != errno.EMSGSIZE:
                raise
            self._send_as_file(entry)

    def _send_as_file(self, entry: bytes) -> None:
        """Send an entry that is too large for a datagram as a sealed memory file, by its descriptor. Raises OSError."""
        fd = os.memfd_create("fwguardd-journal", os.MFD_ALLOW_SEALING | os.MFD_CLOEXEC)
        try:
            view = memoryview(entry)
            while view:
                view = view[os.write(fd, view) :]
            seals = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
            # Not socket.send_fds: before Python 3.12 it does not pass the address on.
            descriptor = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))
            self._socket.sendmsg([b""], [descriptor], 0, self._path)
        finally:
            os.close(fd)


def _events(number: int) -> str:
    return counted(number, "event was", "events were")
