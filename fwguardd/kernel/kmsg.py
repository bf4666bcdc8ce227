r"""The kernel log through /dev/kmsg: records, and an exact count of those that were lost.

One read gives one record (Documentation/ABI/testing/dev-kmsg). `parse_record` is pure; `KernelLog` is the thin
reader around it. Neither knows what a line means, and neither ever waits: an event loop watches `fileno()`.

Only records of facility 0 are handed out. User space can write to the log too, but never as facility 0
(devkmsg_write() in kernel/printk/printk.c), so what is handed out came from the kernel.

The text is left as the kernel spells it: bytes below 0x20, from 0x7f, and the backslash as `\xHH`. It is lossless
and printable ASCII, so that no device name can carry a line break or a control sequence into a log or a terminal.
`fwguardd.denials` reads this spelling.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from dataclasses import dataclass
from enum import Enum
from typing import Final, NamedTuple, TypeAlias

from fwguardd.kernel.closing import Closing
from fwguardd.kernel.kmsg_fd import borrow

KERNEL_FACILITY: Final = 0

_BUFFER: Final = 8192
"""Bytes. A smaller buffer than a record needs makes the kernel skip the record (EINVAL)."""

DEVICE: Final = "/dev/kmsg"
_NUMBERS: Final = (1, 11)
"""Major and minor number of /dev/kmsg (Documentation/admin-guide/devices.txt)."""

_HEADER: Final = re.compile(rb"([0-9]{1,10}),([0-9]{1,20}),([0-9]{1,20}),[^;\n]*;([^\n]*)")


class Start(Enum):
    """Where to begin reading."""

    OLDEST = "oldest"
    """With everything the kernel still has, of this boot and before this process."""
    END = "end"
    """With what comes from now on."""


@dataclass(frozen=True, slots=True)
class After:
    """Begin after the record with this sequence number, which must be of the present boot."""

    seq: int


class Record(NamedTuple):
    """One record of the kernel log.

    `seq` counts all records since boot, whoever wrote them. `usec` is the printk clock, in microseconds since boot
    less the time spent suspended: for live lines the time of arrival is the better one. `text` is the first line,
    without the continuation lines of device properties.
    """

    facility: int
    level: int
    seq: int
    usec: int
    text: str

    @property
    def when(self) -> None:
        """The log does not tell the time of day."""


@dataclass(frozen=True, slots=True)
class Lost:
    """So many records, of any facility, were overwritten before they could be read, or could not be read."""

    count: int


Reading: TypeAlias = Record | Lost


class KernelLogError(Exception):
    """The kernel log cannot be read; the message says what to do."""


class KernelLogNotPermittedError(KernelLogError):
    """The kernel log may not be read by this process."""


class KernelLogMissingError(KernelLogError):
    """There is no kernel log at this path."""


class StaleSequenceError(KernelLogError):
    """The sequence number to begin after lies in the future: it is from another boot."""


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


class KernelLog(Closing):
    """The kernel log, opened for reading without waiting.

    `read_available` gives each facility-0 record once, in order, and before the first record after a gap a `Lost`
    with the number of records in the gap. Records of other facilities are skipped, but count in the sequence.

    Call it once after opening, before the first wait: a record met while looking for the beginning is kept for it,
    and does not make the descriptor readable.

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
        """What people call this source."""
        return "kmsg"

    @property
    def position(self) -> str | None:
        """The number of the last record that was read, of any facility; None before the first. It is good for `After`,
        in the same boot."""
        return None if self._expected is None else str(self._expected - 1)

    def watch(self, watched: object) -> None:
        """All records of the kernel are handed out, whatever is watched."""

    def fileno(self) -> int:
        """The descriptor, for an event loop to watch for reading. -1 after `close`."""
        return self._fd

    def close(self) -> None:
        """Close the log; a second time does nothing."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def read_available(self, limit: int) -> list[Reading]:
        """What has arrived, in order, after at most `limit` reads; an empty list when there is nothing.

        The list may be empty too when all that was read was of other facilities; the descriptor stays readable
        while there is more. Raises OSError where the log cannot be read any more, but not before all that was read is
        handed out.
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
                # Nearly all of them, under a flood.
                self._expected += 1
                readings.append(record)
            else:
                readings += self._account(record)
        return readings

    def _read(self) -> bytes | None:
        """The next record's bytes, nothing for a read that only told of a loss, None when there is no record yet."""
        try:
            return os.read(self._fd, _BUFFER) or None
        except BlockingIOError:
            return None
        except BrokenPipeError:
            # Said once when records were overwritten; the next read gives the oldest that is left, and its sequence
            # number tells how many are gone.
            return b""
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            # A record longer than the buffer: the kernel has passed over it, and the sequence will show it.
            return b""

    def _account(self, record: Record | None) -> list[Reading]:
        if record is None:
            # Its number is unknown, so the next record's number will tell that one is missing.
            return []
        readings: list[Reading] = []
        if self._expected is not None and record.seq > self._expected:
            readings.append(Lost(record.seq - self._expected))
        self._expected = record.seq + 1
        if record.facility == KERNEL_FACILITY:
            readings.append(record)
        return readings

    def _skip(self, start: Start | After) -> None:
        """Read up to where to begin. Only reading tells the sequence number that losses are counted from."""
        after = start.seq if isinstance(start, After) else None
        last = after
        while (data := self._read()) is not None:
            record = parse_record(data)
            if record is None:
                continue
            last = record.seq
            if after is not None and last >= after:
                self._expected = after + 1
                self._waiting = self._account(record) if last > after else []
                return
        if after is not None and last != after:
            raise StaleSequenceError(f"the newest kernel record is {last}; number {after} is from another boot")
        self._expected = None if last is None else last + 1


def _open(path: str | os.PathLike[str]) -> int:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        lent = borrow() if os.fspath(path) == DEVICE else None
        if lent is None:
            raise _refusal(path, error) from error
        fd = lent
    status = os.fstat(fd)
    if stat.S_ISCHR(status.st_mode) and (os.major(status.st_rdev), os.minor(status.st_rdev)) != _NUMBERS:
        # systemd's ProtectKernelLogs= may put another device in its place, which opens and stays silent for ever.
        os.close(fd)
        raise KernelLogMissingError(f"{os.fspath(path)}: another device is in its place; is ProtectKernelLogs= set?")
    return fd


def _refusal(path: str | os.PathLike[str], error: OSError) -> Exception:
    name = os.fspath(path)
    if isinstance(error, PermissionError):
        return KernelLogNotPermittedError(
            f"{name}: not permitted; with kernel.dmesg_restrict=1 reading it needs CAP_SYSLOG, or fwguardd-kmsg.socket"
        )
    if error.errno not in {errno.ENOENT, errno.ENXIO, errno.ENODEV, errno.ENOTDIR}:
        return error
    return KernelLogMissingError(f"{name}: no such device here, and fwguardd-kmsg.socket lends none")
