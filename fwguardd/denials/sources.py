"""The sources other than /dev/kmsg, in the form that the tail wants (`fwguardd.denials.tail.Source`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fwguardd.denials.packets import PacketReader
from fwguardd.denials.spelling import kernel_spelling
from fwguardd.kernel.kmsg import Lost

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fwguardd.denials.model import Denial, Watched
    from fwguardd.kernel.devices import DeviceNames
    from fwguardd.kernel.journal_log import JournalLog
    from fwguardd.kernel.nflog import PacketLog


@dataclass(frozen=True, slots=True)
class JournalLine:
    """A message of the kernel's that the journal kept, in the spelling of /dev/kmsg. Its number there is not kept."""

    text: str
    when: float
    seq: None = None


class JournalSource:
    """The kernel's messages in the journal; the position is a cursor."""

    name = "journal"

    def __init__(self, log: JournalLog) -> None:
        self._log = log

    @property
    def position(self) -> str | None:
        """The cursor of the last message; None before the first."""
        return self._log.cursor

    def fileno(self) -> int:
        """The descriptor, for an event loop to watch for reading."""
        return self._log.fileno()

    def watch(self, watched: object) -> None:
        """All messages of the kernel are handed out, whatever is watched."""

    def read_available(self, limit: int) -> list[JournalLine | Lost]:
        """What has arrived. Raises JournalError."""
        return [
            entry if isinstance(entry, Lost) else JournalLine(spelled(entry.message), entry.when)
            for entry in self._log.read_available(limit)
        ]

    def close(self) -> None:
        """End the journalctl; a second time does nothing."""
        self._log.close()


def spelled(message: bytes) -> str:
    """A message as /dev/kmsg spelled it before journald took the escapes off."""
    if message.isascii() and b"\\" not in message and (text := message.decode("ascii")).isprintable():
        return text
    return kernel_spelling(message)


class NflogSource:
    """The packets of one NFLOG group. There is no way back to those that came before."""

    name = "nflog"
    position = None

    def __init__(self, log: PacketLog, devices: DeviceNames) -> None:
        self._log, self._devices = log, devices
        self._reader = PacketReader((), devices.name)

    def fileno(self) -> int:
        """The descriptor, for an event loop to watch for reading."""
        return self._log.fileno()

    def watch(self, watched: Iterable[Watched]) -> None:
        """Packets with these prefixes are handed out from now on."""
        self._reader = PacketReader(watched, self._devices.name)

    def read_available(self, limit: int) -> list[Denial | Lost]:
        """What has arrived. Raises OSError."""
        found: list[Denial | Lost] = []
        items = self._log.read_available(limit)
        if items and self._devices.refresh():
            self._reader.forget_devices()
        for item in items:
            read = item if isinstance(item, Lost) else self._reader.read(item)
            if read is not None:
                found.append(read)
        return found

    def close(self) -> None:
        """Give the group back; a second time does nothing."""
        self._log.close()
        self._devices.close()
