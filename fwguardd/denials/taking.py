"""Where denials are taken from, and from which place on: the source that was asked for, or the best one there is.

LOG rules write to the kernel log, so /dev/kmsg comes first. Where it is closed, the journal has what journald read from
it; but in a network namespace that is not the initial one, as in a container, LOG rules are silent by default
(net.netfilter.nf_log_all_netns), and NFLOG comes before the journal.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Final

from fwguardd.denials.sources import JournalSource, NflogSource
from fwguardd.kernel.devices import DeviceNames
from fwguardd.kernel.journal_log import Journal, JournalError, JournalLog, is_cursor
from fwguardd.kernel.kmsg import After, KernelLog, KernelLogError, StaleSequenceError, Start
from fwguardd.kernel.nflog import PacketLog, PacketLogError
from fwguardd.kernel.privilege import in_initial_network_namespace

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fwguardd.denials.bookmark import Bookmark
    from fwguardd.denials.tail import Source


class Choice(Enum):
    """Which source to take."""

    AUTO = "auto"
    KMSG = "kmsg"
    JOURNAL = "journal"
    NFLOG = "nflog"


class OldLines(Enum):
    """What to do about lines that were there before this process."""

    NONE = "none"
    """There are none: the source begins now."""
    SKIP = "skip"
    """The source has them, and they are to be passed over."""
    TELL = "tell"
    RESUME = "resume"


@dataclass(frozen=True, slots=True)
class Taken:
    """An open source, and why it was taken: the end of a sentence, "" when it was asked for."""

    source: Source
    old_lines: OldLines
    why: str = ""


@dataclass(frozen=True, slots=True)
class Place:
    """Where to go on: the bookmark that was found, the present boot, and the group that NFLOG rules name."""

    bookmark: Bookmark | None
    boot_id: str
    group: int

    def position_in(self, source: str) -> str | None:
        """Where the reading of this source ended in this boot; None when it is not known."""
        mark = self.bookmark
        return mark.position if mark is not None and (mark.boot_id, mark.source) == (self.boot_id, source) else None

    @property
    def is_after_reboot(self) -> bool:
        """Whether the reading ended in another boot, so that nothing of this one was told."""
        return self.bookmark is not None and self.bookmark.boot_id != self.boot_id


class NoSourceError(Exception):
    """Denials cannot be taken from anywhere that was asked for; the message says why."""


_LOCAL: Final[Mapping[Choice, str]] = {
    Choice.KMSG: "LOG rules write there",
    Choice.JOURNAL: "journald keeps what LOG rules write",
    Choice.NFLOG: "it is what is left; rules need -j NFLOG with this group",
}
_SWITCHED: Final = "from a network namespace that is not the initial one only while net.netfilter.nf_log_all_netns is 1"
_ELSEWHERE: Final[Mapping[Choice, str]] = {
    Choice.KMSG: f"LOG rules write there, {_SWITCHED}",
    Choice.NFLOG: "LOG is silent in a network namespace that is not the initial one; rules need -j NFLOG",
    Choice.JOURNAL: f"it is what is left; LOG rules write there {_SWITCHED}",
}


def take(choice: Choice, place: Place) -> Taken:
    """Open the source that was asked for, or the first that can be opened. Raises NoSourceError."""
    if choice is not Choice.AUTO:
        try:
            return _open(choice, place, asked_for=True)
        except (KernelLogError, PacketLogError, OSError) as error:
            raise NoSourceError(str(error)) from error
    return take_first(_LOCAL if in_initial_network_namespace() else _ELSEWHERE, place)


def take_first(ways: Mapping[Choice, str], place: Place) -> Taken:
    """Open the first source that can be opened, of several in order with the reason for each. Raises NoSourceError."""
    refusals: list[str] = []
    for choice, reason in ways.items():
        try:
            taken = _open(choice, place, asked_for=False)
        except (KernelLogError, PacketLogError, OSError) as error:
            refusals.append(str(error))
        else:
            return Taken(taken.source, taken.old_lines, _sentence(reason, refusals))
    raise NoSourceError("; ".join(refusals))


def _sentence(reason: str, refusals: Sequence[str]) -> str:
    return f"{reason} (not better: {'; '.join(refusals)})" if refusals else reason


def _open(choice: Choice, place: Place, *, asked_for: bool) -> Taken:
    if choice is Choice.KMSG:
        return _open_kernel_log(place)
    if choice is Choice.JOURNAL:
        return _open_journal(place, asked_for=asked_for)
    return _open_packet_log(place)


def _open_kernel_log(place: Place) -> Taken:
    """The kernel log, after the bookmark; from the beginning of this boot, if the bookmark is from another; from the
    end, if there is none."""
    position = place.position_in("kmsg") or ""
    if position.isdecimal():
        with contextlib.suppress(StaleSequenceError):
            return Taken(KernelLog(start=After(int(position))), OldLines.RESUME)
        return Taken(KernelLog(start=Start.OLDEST), OldLines.TELL)
    old_lines = OldLines.TELL if place.is_after_reboot else OldLines.SKIP
    return Taken(KernelLog(start=Start.OLDEST), old_lines)


def _open_journal(place: Place, *, asked_for: bool) -> Taken:
    """The journal, from where `_open_kernel_log` would begin. Who did not ask for it gets only one that has messages
    of this boot's kernel: in some hosts journald does not read the kernel log."""
    journal = Journal(place.boot_id)
    position = place.position_in("journal")
    if position is not None and is_cursor(position):
        return Taken(JournalSource(JournalLog(journal, position)), OldLines.RESUME)
    newest = journal.newest()
    if newest is None and not asked_for:
        raise JournalError("the journal has no message of the kernel's from this boot")
    if place.is_after_reboot:
        return Taken(JournalSource(JournalLog(journal)), OldLines.TELL)
    return Taken(JournalSource(JournalLog(journal, newest)), OldLines.NONE)


def _open_packet_log(place: Place) -> Taken:
    log = PacketLog(place.group)
    try:
        devices = DeviceNames()
    except OSError:
        log.close()
        raise
    return Taken(NflogSource(log, devices), OldLines.NONE)
