"""Opens the source of denials: the one in the settings, or the first that can be opened; at the right position.

LOG rules write to the kernel log, so /dev/kmsg comes first. Where it cannot be opened, the journal has what journald
read from it. In a network namespace that is not the initial one, as in a container, LOG rules write nothing by default
(net.netfilter.nf_log_all_netns), and NFLOG comes before the journal.

The sources other than /dev/kmsg are adapted here to `fwguardd.denials.pipeline.Source`.
"""

from __future__ import annotations

import contextlib
from enum import Enum
from typing import TYPE_CHECKING, Final

from fwguardd.denials.grammar import kernel_escaped
from fwguardd.denials.packets import PacketReader
from fwguardd.kernel.journal_reader import Journal, JournalError, JournalReader, is_cursor
from fwguardd.kernel.kmsg import After, KernelLog, KernelLogError, Lost, StaleSequenceError, Start
from fwguardd.kernel.nflog import DeviceNames, PacketLog, PacketLogError
from fwguardd.kernel.privilege import in_initial_network_namespace
from fwguardd.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from fwguardd.denials.checkpoint import Checkpoint
    from fwguardd.denials.model import Denial, Watched
    from fwguardd.denials.source import Source


@dataclass(frozen=True, slots=True)
class JournalLine:
    """A kernel message from the journal, in the spelling of /dev/kmsg. The journal does not keep its number there."""

    text: str
    when: float
    seq: None = None
    usec: None = None


class JournalSource:
    """The kernel messages in the journal; the position is a cursor."""

    name = "journal"
    group = None

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
        """Does nothing: every kernel message is returned."""

    def read_available(self, limit: int) -> list[JournalLine | Lost]:
        """What has arrived. Raises JournalError."""
        found: list[JournalLine | Lost] = []
        for entry in self._log.read_available(limit):
            if isinstance(entry, Lost):
                found.append(entry)
            else:
                found.append(JournalLine(escaped(entry.message), entry.when))
        return found

    def close(self) -> None:
        """End the journalctl process; a second call does nothing."""
        self._log.close()


def escaped(message: bytes) -> str:
    """A message as /dev/kmsg spelled it before journald decoded the escapes."""
    if message.isascii() and b"\\" not in message:
        text = message.decode("ascii")
        if text.isprintable():
            return text
    return kernel_escaped(message)


class NflogSource:
    """The packets of one NFLOG group. Packets that came before it was opened cannot be read."""

    name = "nflog"
    position = None

    def __init__(self, log: PacketLog, devices: DeviceNames, group: int) -> None:
        self._log, self._devices, self.group = log, devices, group
        self._reader = PacketReader((), devices.name)

    def fileno(self) -> int:
        """The descriptor, for an event loop to watch for reading."""
        return self._log.fileno()

    def watch(self, watched: Iterable[Watched]) -> None:
        """Return packets with these prefixes from now on."""
        self._reader = PacketReader(watched, self._devices.name)

    def read_available(self, limit: int) -> list[Denial | Lost]:
        """What has arrived. Raises OSError."""
        found: list[Denial | Lost] = []
        items = self._log.read_available(limit)
        if items and self._devices.refresh():
            self._reader.forget_devices()
        for item in items:
            if isinstance(item, Lost):
                found.append(item)
            elif (denial := self._reader.read(item)) is not None:
                found.append(denial)
        return found

    def close(self) -> None:
        """Leave the group; a second call does nothing."""
        self._log.close()
        self._devices.close()


class SourceChoice(Enum):
    """The setting ``source``."""

    AUTO = "auto"
    KMSG = "kmsg"
    JOURNAL = "journal"
    NFLOG = "nflog"


class Backlog(Enum):
    """What to do with lines from before this process started."""

    NONE = "none"
    """The source has none: it begins now."""
    SKIP = "skip"
    """The source has them, and they are to be skipped: an earlier process has reported them, or none was running."""
    REPORT = "report"
    """The source has them from the start of this boot, and they are to be reported."""
    RESUME = "resume"
    """The source continues after the last line that was read."""


@dataclass(frozen=True, slots=True)
class OpenedSource:
    """An open source, and why it was chosen: the end of a sentence, "" when the settings name it."""

    source: Source
    backlog: Backlog
    why: str = ""


@dataclass(frozen=True, slots=True)
class ReadPosition:
    """Where to continue: the checkpoint that was found, the present boot, and the group of the NFLOG rules."""

    checkpoint: Checkpoint | None
    boot_id: str
    group: int

    def position_in(self, source: str) -> str | None:
        """The last position in this source in this boot; None when it is not known."""
        found = self.checkpoint
        if found is None or (found.boot_id, found.source) != (self.boot_id, source):
            return None
        return found.position

    @property
    def is_after_reboot(self) -> bool:
        """Whether the checkpoint is of another boot, so that nothing of this one was reported."""
        return self.checkpoint is not None and self.checkpoint.boot_id != self.boot_id


class NoSourceError(Exception):
    """No source that the settings allow can be opened; the message says why."""


_INITIAL_NAMESPACE: Final[Mapping[SourceChoice, str]] = {
    SourceChoice.KMSG: "LOG rules write there",
    SourceChoice.JOURNAL: "journald keeps what LOG rules write",
    SourceChoice.NFLOG: "no other source can be opened; use -j NFLOG with this group",
}
_SWITCHED: Final = "those of this network namespace only while net.netfilter.nf_log_all_netns is 1"
_OTHER_NAMESPACE: Final[Mapping[SourceChoice, str]] = {
    SourceChoice.KMSG: f"LOG rules write there, {_SWITCHED}",
    SourceChoice.NFLOG: "LOG rules write nothing in a network namespace that is not the initial one; use -j NFLOG",
    SourceChoice.JOURNAL: f"no other source can be opened; LOG rules write there, {_SWITCHED}",
}


def open_source(choice: SourceChoice, place: ReadPosition) -> OpenedSource:
    """Open the source that the settings name, or the first that can be opened. Raises NoSourceError."""
    if choice is not SourceChoice.AUTO:
        try:
            return _open(choice, place, named=True)
        except (KernelLogError, PacketLogError, OSError) as error:
            raise NoSourceError(str(error)) from error
    if in_initial_network_namespace():
        return open_first_source(_INITIAL_NAMESPACE, place)
    return open_first_source(_OTHER_NAMESPACE, place)


def open_first_source(choices: Mapping[SourceChoice, str], place: ReadPosition) -> OpenedSource:
    """Open the first of several sources that can be opened; each has the reason to choose it. Raises NoSourceError."""
    refusals: list[str] = []
    for choice, reason in choices.items():
        try:
            opened = _open(choice, place, named=False)
        except (KernelLogError, PacketLogError, OSError) as error:
            refusals.append(str(error))
        else:
            return OpenedSource(opened.source, opened.backlog, _sentence(reason, refusals))
    raise NoSourceError("; ".join(refusals))


def _sentence(reason: str, refusals: Sequence[str]) -> str:
    if not refusals:
        return reason
    return f"{reason} (the sources before it cannot be opened: {'; '.join(refusals)})"


def _open(choice: SourceChoice, place: ReadPosition, *, named: bool) -> OpenedSource:
    if choice is SourceChoice.KMSG:
        return _open_kernel_log(place)
    if choice is SourceChoice.JOURNAL:
        return _open_journal(place, named=named)
    return _open_packet_log(place)


def _open_kernel_log(place: ReadPosition) -> OpenedSource:
    """The kernel log, after the checkpoint; from the start of this boot, if the checkpoint is of another boot; from the
    end, if there is no checkpoint."""
    position = place.position_in("kmsg") or ""
    if position.isdecimal():
        with contextlib.suppress(StaleSequenceError):
            return OpenedSource(KernelLog(start=After(int(position))), Backlog.RESUME)
        return OpenedSource(KernelLog(start=Start.OLDEST), Backlog.REPORT)
    if place.is_after_reboot:
        return OpenedSource(KernelLog(start=Start.OLDEST), Backlog.REPORT)
    return OpenedSource(KernelLog(start=Start.OLDEST), Backlog.SKIP)


def _open_journal(place: ReadPosition, *, named: bool) -> OpenedSource:
    """The journal, from where `_open_kernel_log` would begin. Unless the settings name it, it is opened only if it has
    kernel messages of this boot: on some hosts journald does not read the kernel log."""
    journal = Journal(place.boot_id)
    position = place.position_in("journal")
    if position is not None and is_cursor(position):
        return OpenedSource(JournalSource(JournalReader(journal, position)), Backlog.RESUME)
    newest = journal.newest()
    if newest is None and not named:
        raise JournalError("the journal has no kernel message of this boot")
    if place.is_after_reboot:
        return OpenedSource(JournalSource(JournalReader(journal)), Backlog.REPORT)
    return OpenedSource(JournalSource(JournalReader(journal, newest)), Backlog.NONE)


def _open_packet_log(place: ReadPosition) -> OpenedSource:
    log = PacketLog(place.group)
    try:
        devices = DeviceNames()
    except OSError:
        log.close()
        raise
    return OpenedSource(NflogSource(log, devices, place.group), Backlog.NONE)
