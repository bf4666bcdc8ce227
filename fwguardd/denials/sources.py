"""The sources other than /dev/kmsg, in the form that the tail wants (`fwguardd.denials.pipeline.Source`).

Where denials are taken from, and from which place on: the source that was asked for, or the best one there is.

LOG rules write to the kernel log, so /dev/kmsg comes first. Where it is closed, the journal has what journald read from
it; but in a network namespace that is not the initial one, as in a container, LOG rules are silent by default
(net.netfilter.nf_log_all_netns), and NFLOG comes before the journal.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Final

from fwguardd.denials.grammar import kernel_escaped
from fwguardd.denials.packets import PacketReader
from fwguardd.kernel.journal_reader import Journal, JournalError, JournalReader, is_cursor
from fwguardd.kernel.kmsg import After, KernelLog, KernelLogError, Lost, StaleSequenceError, Start
from fwguardd.kernel.nflog import DeviceNames, PacketLog, PacketLogError
from fwguardd.kernel.privilege import in_initial_network_namespace

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from fwguardd.denials.checkpoint import Checkpoint
    from fwguardd.denials.model import Denial, Watched
    from fwguardd.denials.pipeline import Source


@dataclass(frozen=True, slots=True)
class JournalLine:
    """A message of the kernel's that the journal kept, in the spelling of /dev/kmsg. Its number there is not kept."""

    text: str
    when: float
    seq: None = None


class JournalSource:
    """The kernel's messages in the journal; the position is a cursor."""

    name = "journal"

    def __init__(self, log: JournalReader) -> None:
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
            entry if isinstance(entry, Lost) else JournalLine(escaped(entry.message), entry.when)
            for entry in self._log.read_available(limit)
        ]

    def close(self) -> None:
        """End the journalctl; a second time does nothing."""
        self._log.close()


def escaped(message: bytes) -> str:
    """A message as /dev/kmsg spelled it before journald took the escapes off."""
    if message.isascii() and b"\\" not in message and (text := message.decode("ascii")).isprintable():
        return text
    return kernel_escaped(message)


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


class SourceChoice(Enum):
    """Which source to take."""

    AUTO = "auto"
    KMSG = "kmsg"
    JOURNAL = "journal"
    NFLOG = "nflog"


class Backlog(Enum):
    """What to do about lines that were there before this process."""

    NONE = "none"
    """There are none: the source begins now."""
    SKIP = "skip"
    """The source has them, and they are to be passed over."""
    TELL = "tell"
    RESUME = "resume"


@dataclass(frozen=True, slots=True)
class OpenedSource:
    """An open source, and why it was taken: the end of a sentence, "" when it was asked for."""

    source: Source
    old_lines: Backlog
    why: str = ""


@dataclass(frozen=True, slots=True)
class ReadPosition:
    """Where to go on: the bookmark that was found, the present boot, and the group that NFLOG rules name."""

    checkpoint: Checkpoint | None
    boot_id: str
    group: int

    def position_in(self, source: str) -> str | None:
        """Where the reading of this source ended in this boot; None when it is not known."""
        mark = self.checkpoint
        return mark.position if mark is not None and (mark.boot_id, mark.source) == (self.boot_id, source) else None

    @property
    def is_after_reboot(self) -> bool:
        """Whether the reading ended in another boot, so that nothing of this one was told."""
        return self.checkpoint is not None and self.checkpoint.boot_id != self.boot_id


class NoSourceError(Exception):
    """Denials cannot be taken from anywhere that was asked for; the message says why."""


_LOCAL: Final[Mapping[SourceChoice, str]] = {
    SourceChoice.KMSG: "LOG rules write there",
    SourceChoice.JOURNAL: "journald keeps what LOG rules write",
    SourceChoice.NFLOG: "it is what is left; rules need -j NFLOG with this group",
}
_SWITCHED: Final = "from a network namespace that is not the initial one only while net.netfilter.nf_log_all_netns is 1"
_ELSEWHERE: Final[Mapping[SourceChoice, str]] = {
    SourceChoice.KMSG: f"LOG rules write there, {_SWITCHED}",
    SourceChoice.NFLOG: "LOG is silent in a network namespace that is not the initial one; rules need -j NFLOG",
    SourceChoice.JOURNAL: f"it is what is left; LOG rules write there {_SWITCHED}",
}


def open_source(choice: SourceChoice, place: ReadPosition) -> OpenedSource:
    """Open the source that was asked for, or the first that can be opened. Raises NoSourceError."""
    if choice is not SourceChoice.AUTO:
        try:
            return _open(choice, place, asked_for=True)
        except (KernelLogError, PacketLogError, OSError) as error:
            raise NoSourceError(str(error)) from error
    return open_first_source(_LOCAL if in_initial_network_namespace() else _ELSEWHERE, place)


def open_first_source(ways: Mapping[SourceChoice, str], place: ReadPosition) -> OpenedSource:
    """Open the first source that can be opened, of several in order with the reason for each. Raises NoSourceError."""
    refusals: list[str] = []
    for choice, reason in ways.items():
        try:
            taken = _open(choice, place, asked_for=False)
        except (KernelLogError, PacketLogError, OSError) as error:
            refusals.append(str(error))
        else:
            return OpenedSource(taken.source, taken.old_lines, _sentence(reason, refusals))
    raise NoSourceError("; ".join(refusals))


def _sentence(reason: str, refusals: Sequence[str]) -> str:
    return f"{reason} (not better: {'; '.join(refusals)})" if refusals else reason


def _open(choice: SourceChoice, place: ReadPosition, *, asked_for: bool) -> OpenedSource:
    if choice is SourceChoice.KMSG:
        return _open_kernel_log(place)
    if choice is SourceChoice.JOURNAL:
        return _open_journal(place, asked_for=asked_for)
    return _open_packet_log(place)


def _open_kernel_log(place: ReadPosition) -> OpenedSource:
    """The kernel log, after the bookmark; from the beginning of this boot, if the bookmark is from another; from the
    end, if there is none."""
    position = place.position_in("kmsg") or ""
    if position.isdecimal():
        with contextlib.suppress(StaleSequenceError):
            return OpenedSource(KernelLog(start=After(int(position))), Backlog.RESUME)
        return OpenedSource(KernelLog(start=Start.OLDEST), Backlog.TELL)
    old_lines = Backlog.TELL if place.is_after_reboot else Backlog.SKIP
    return OpenedSource(KernelLog(start=Start.OLDEST), old_lines)


def _open_journal(place: ReadPosition, *, asked_for: bool) -> OpenedSource:
    """The journal, from where `_open_kernel_log` would begin. Who did not ask for it gets only one that has messages
    of this boot's kernel: in some hosts journald does not read the kernel log."""
    journal = Journal(place.boot_id)
    position = place.position_in("journal")
    if position is not None and is_cursor(position):
        return OpenedSource(JournalSource(JournalReader(journal, position)), Backlog.RESUME)
    newest = journal.newest()
    if newest is None and not asked_for:
        raise JournalError("the journal has no message of the kernel's from this boot")
    if place.is_after_reboot:
        return OpenedSource(JournalSource(JournalReader(journal)), Backlog.TELL)
    return OpenedSource(JournalSource(JournalReader(journal, newest)), Backlog.NONE)


def _open_packet_log(place: ReadPosition) -> OpenedSource:
    log = PacketLog(place.group)
    try:
        devices = DeviceNames()
    except OSError:
        log.close()
        raise
    return OpenedSource(NflogSource(log, devices), Backlog.NONE)
