r"""The kernel log from /dev/kmsg: records, and an exact count of those that were lost.

One read returns one record (Documentation/ABI/testing/dev-kmsg). `parse_record` is pure; `KernelLog` is the thin
reader around it. Neither knows what a line means, and neither ever waits: an event loop watches `fileno()`.

Only records of facility 0 are returned. User space can write to the log too, but never as facility 0 (devkmsg_write()
in kernel/printk/printk.c), so every returned record came from the kernel.

The text keeps the kernel's escapes: bytes below 0x20, bytes from 0x7f, and the backslash are `\xHH`. They are lossless
and printable ASCII, so no device name can put a line break or a control sequence into a log or a terminal.
`fwguardd.denials` reads these escapes.

A daemon without access to /dev/kmsg gets a descriptor from fwguardd-kmsg.socket. systemd runs `main` on each connection
to it, with CAP_SYSLOG and little else: it opens /dev/kmsg, sends the descriptor (unix(7), SCM_RIGHTS), and ends. The
kernel checks the permission when the log is opened, not when it is read (devkmsg_open()), so the daemon needs no
capability and no device.
"""

from __future__ import annotations

import array
import errno
import os
import re
import socket
import stat
import sys
from contextlib import AbstractContextManager
from enum import Enum
from pathlib import Path
from typing import Final, NamedTuple, TypeAlias

from fwguardd.values import dataclass

KERNEL_FACILITY: Final = 0

_BUFFER: Final = 8192
"""Bytes. The kernel skips a record that is longer than the buffer (EINVAL)."""

DEVICE: Final = "/dev/kmsg"
_NUMBERS: Final = (1, 11)
"""Major and minor number of /dev/kmsg (Documentation/admin-guide/devices.txt)."""

KMSG_SOCKET = Path("/run/fwguard/kmsg.sock")
"""Where fwguardd-kmsg.socket listens. Only root may connect."""
_SOCKET_SECONDS: Final = 5.0
"""How long the descriptor may take to arrive; the program that sends it starts in a tenth of a second."""

_HEADER: Final = re.compile(rb"([0-9]{1,10}),([0-9]{1,20}),([0-9]{1,20}),[^;\n]*;([^\n]*)")


class Start(Enum):
    """Where reading begins."""

    OLDEST = "oldest"
    """With the oldest record that the kernel still has, from before this process started."""
    END = "end"
    """With the first record after the opening."""


@dataclass(frozen=True, slots=True)
class After:
    """Begin after the record with this sequence number, which must be of the current boot."""

    seq: int


class Record(NamedTuple):
    """One record of the kernel log.

    `seq` counts all records since boot, those of user space too. `usec` is the printk clock, in microseconds since boot
    without the time spent suspended: for live lines the time of arrival is more accurate. `text` is the first line,
    without the continuation lines of device properties.
    """

    facility: int
    level: int
    seq: int
    usec: int
    text: str

    @property
    def when(self) -> None:
        """None: the log does not contain the time of day."""


@dataclass(frozen=True, slots=True)
class Lost:
    """The number of records, of any facility, that were overwritten before they were read, or could not be read."""

    count: int


Reading: TypeAlias = Record | Lost


class KernelLogError(Exception):
    """The kernel log cannot be read; the message says why and what to do."""


class KernelLogNotPermittedError(KernelLogError):
    """The process is not permitted to read the kernel log."""


class KernelLogMissingError(KernelLogError):
    """There is no kernel log at this path."""


class StaleSequenceError(KernelLogError):
    """The sequence number to begin after is larger than the newest one: it is from another boot."""


def parse_record(data: bytes) -> Record | None:
    """One record as read from /dev/kmsg; None when it is not in the device's format. Never raises.

    Bytes above 0x7f, which the kernel always escapes, would be escaped here.
    """
    match = _HEADER.match(data)
    if match is None:
        return None
    priority, seq, usec, text = match.groups()
    number = int(priority)
    return Record(number >> 3, number & 7, int(seq), int(usec), text.decode("ascii", "backslashreplace"))


class KernelLog(AbstractContextManager["KernelLog"]):
    """The kernel log, opened for reading without waiting.

    `read_available` returns each facility-0 record once, in order, and before the first record after a gap a `Lost`
    with the number of records in the gap. Records of other facilities are skipped, but count in the sequence.

    Call it once after opening, before the first wait: a record that was read while searching for the beginning is kept
    for it, and does not make the descriptor readable.

    Raises `KernelLogNotPermittedError`, `KernelLogMissingError`, `StaleSequenceError`; OSError for anything else.
    """

    def __init__(self, path: str | os.PathLike[str] = DEVICE, start: Start | After = Start.OLDEST) -> None:
        self._fd = _open(path)
        self._expected: int | None = None
        self._waiting: list[Reading] = []
        try:
            if start is not Start.OLDEST:
                self._skip(start)
        except (KernelLogError, OSError):
            self.close()
            raise

    @property
    def name(self) -> str:
        """The name of this source in events and settings."""
        return "kmsg"

    @property
    def group(self) -> None:
        """None: these are lines, not packets of an NFLOG group."""

    @property
    def position(self) -> str | None:
        """The number of the last record that was read, of any facility, for `After` in the same boot; None before the
        first."""
        if self._expected is None:
            return None
        return str(self._expected - 1)

    def watch(self, watched: object) -> None:
        """Nothing depends on the watched prefixes: all records of the kernel are returned."""

    def fileno(self) -> int:
        """The descriptor, for an event loop to watch for reading. -1 after `close`."""
        return self._fd

    def close(self) -> None:
        """Close the log; a second time does nothing."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __exit__(self, *_: object) -> None:
        self.close()

    def read_available(self, limit: int) -> list[Reading]:
        """What has arrived, in order, after at most `limit` reads.

        The list is empty when there is nothing, and also when all records read were of other facilities; the descriptor
        stays readable while there is more. Raises OSError when the log can no longer be read, after everything that was
        read has been returned.
        """
        readings, self._waiting = self._waiting, []
        for _ in range(limit):
            try:
                data = self._read()
            except OSError:
                if readings:
                    break
                raise
            if data is None:
                break
            record = parse_record(data)
            if record is not None and record.seq == self._expected and record.facility == KERNEL_FACILITY:
                # During a flood nearly every record takes this branch.
                self._expected += 1
                readings.append(record)
            else:
                readings += self._account(record)
        return readings

    def _read(self) -> bytes | None:
        """The next record; b"" for a read that only reported a loss, None when there is no record yet."""
        try:
            return os.read(self._fd, _BUFFER) or None
        except BlockingIOError:
            return None
        except BrokenPipeError:
            # The kernel reports this once when records were overwritten. The next read returns the oldest one that is
            # left, and its sequence number shows how many were lost.
            return b""
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            # A record longer than the buffer: the kernel has skipped it, and the next sequence number shows that.
            return b""

    def _account(self, record: Record | None) -> list[Reading]:
        if record is None:
            # Its number is unknown. The next record's number will show that one is missing.
            return []
        readings: list[Reading] = []
        if self._expected is not None and record.seq > self._expected:
            readings.append(Lost(record.seq - self._expected))
        self._expected = record.seq + 1
        if record.facility == KERNEL_FACILITY:
            readings.append(record)
        return readings

    def _skip(self, start: Start | After) -> None:
        """Read up to the beginning. The sequence number that losses are counted from is known only by reading."""
        if isinstance(start, After):
            self._skip_to(start.seq)
            return
        while (data := self._read()) is not None:
            record = parse_record(data)
            if record is not None:
                self._expected = record.seq + 1

    def _skip_to(self, after: int) -> None:
        """Read up to the record with this number, or the first one behind it. Raises StaleSequenceError."""
        last = after
        while (data := self._read()) is not None:
            record = parse_record(data)
            if record is None:
                continue
            last = record.seq
            if last >= after:
                self._expected = after + 1
                if last > after:
                    self._waiting = self._account(record)
                return
        if last != after:
            raise StaleSequenceError(f"the newest kernel record is {last}; number {after} is from another boot")
        self._expected = after + 1


def _open(path: str | os.PathLike[str]) -> int:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        fd = _received(path, error)
    status = os.fstat(fd)
    if stat.S_ISCHR(status.st_mode) and (os.major(status.st_rdev), os.minor(status.st_rdev)) != _NUMBERS:
        # With ProtectKernelLogs= systemd puts another device there, which can be opened and never has a record.
        os.close(fd)
        raise KernelLogMissingError(f"{os.fspath(path)} is another device; is ProtectKernelLogs= set?")
    return fd


def _received(path: str | os.PathLike[str], error: OSError) -> int:
    """The descriptor of the device from fwguardd-kmsg.socket, in the place of one that could not be opened."""
    received = None
    if os.fspath(path) == DEVICE:
        received = _receive_descriptor()
    if received is None:
        raise _refusal(path, error) from error
    return received


def _receive_descriptor() -> int | None:
    """A descriptor of the kernel log from fwguardd-kmsg.socket, which never waits; None if there is none."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(_SOCKET_SECONDS)
        try:
            connection.connect(str(KMSG_SOCKET))
            _, descriptors, _, _ = socket.recv_fds(connection, 1, 1)
        except OSError:
            return None
    if not descriptors:
        return None
    return descriptors[0]


def _refusal(path: str | os.PathLike[str], error: OSError) -> Exception:
    name = os.fspath(path)
    if isinstance(error, PermissionError):
        return KernelLogNotPermittedError(
            f"{name}: not permitted; with kernel.dmesg_restrict=1 reading it needs CAP_SYSLOG, or fwguardd-kmsg.socket"
        )
    if error.errno not in {errno.ENOENT, errno.ENXIO, errno.ENODEV, errno.ENOTDIR}:
        return error
    return KernelLogMissingError(f"{name}: no such device, and fwguardd-kmsg.socket has sent no descriptor of it")


def main() -> int:
    """Open /dev/kmsg and send the descriptor to the client on standard input; for fwguardd-kmsg@.service."""
    with socket.socket(fileno=os.dup(0)) as connection:
        try:
            log = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            print(f"fwguardd: cannot open /dev/kmsg for the daemon: {error.strerror}", file=sys.stderr)
            return 1
        connection.sendmsg([b"k"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [log]))])
    return 0


if __name__ == "__main__":
    sys.exit(main())
