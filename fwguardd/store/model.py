"""What fwguardd keeps on disk, as values: a revision, its summary, a pending confirmation, held files, and faults.

What cannot be read is never taken for what is not there: `Reading` and `Note` have a case of their own for it.

`evaluate_pending` decides what a pending confirmation means at a given moment. Only the time since boot counts, because
the wall clock may be set, and a confirmation expires with the boot in which it was requested.

This module is pure.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

from fwguardd.ruleset.model import Family
from fwguardd.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fwguardd.kernel.iptables import Backend
    from fwguardd.ruleset.model import RuleFile, Ruleset


class StoreError(Exception):
    """Something could not be kept on disk. The message names the place, the fault, and the consequence."""


class DamagedError(Exception):
    """A file is not as it was written. The message is the predicate of a sentence that begins with the file's name."""


class FaultKind(Enum):
    """What is wrong with something on the disk: its content, or the access to it."""

    DAMAGED = "damaged"
    INACCESSIBLE = "inaccessible"


@dataclass(frozen=True, slots=True)
class Fault:
    """Something on the disk that is not as it should be, found while reading it.

    ``message`` is a sentence that names the file, the fault, what was done about it, and the consequence.
    """

    kind: FaultKind
    message: str

    def __str__(self) -> str:
        return self.message


class RevisionKind(Enum):
    """What a revision is: made of rule files, or the deliberate state in which everything is accepted."""

    RULES = "rules"
    OPEN = "open"


class FileChangeKind(Enum):
    """How a rule file differs from the one of the revision before."""

    ADDED = "added"
    CHANGED = "changed"
    REMOVED = "removed"


@dataclass(frozen=True, slots=True)
class FileChange:
    """A rule file that differs from the revision before: its name, how, and its owner, "" if that is not known."""

    name: str
    kind: FileChangeKind
    owner: str = ""


@dataclass(frozen=True, slots=True)
class RevisionSummary:
    """A revision as a list shows it. The fields are those of `Revision`, and three counts."""

    number: int
    when: float
    cause: str
    by: str
    backend: Backend
    tool_version: str
    kernel: str
    digest: str
    kind: RevisionKind
    ipv4_rules: int
    ipv6_rules: int
    file_count: int
    restored: int | None = None
    changes: tuple[FileChange, ...] = ()


@dataclass(frozen=True, slots=True)
class Revision:
    """A ruleset that was put in force, with everything that it was made of.

    ``number`` counts from 1, rises, and is never used again. ``when`` is in seconds of the wall clock since 1970.
    ``by`` names the user that asked for it, "" if none did; ``kernel`` is the kernel's release. ``digest`` is that of
    the rule files, in hex. ``rulesets`` holds the canonical form, each rule with its origin; counters are not kept.
    ``restored`` is the number of the revision that this one put in force again, None for a new ruleset. ``changes`` are
    the rule files that differ from those of the revision in force before.
    """

    number: int
    when: float
    cause: str
    by: str
    backend: Backend
    tool_version: str
    kernel: str
    digest: str
    files: tuple[RuleFile, ...]
    rulesets: Mapping[Family, Ruleset]
    kind: RevisionKind = RevisionKind.RULES
    restored: int | None = None
    changes: tuple[FileChange, ...] = ()

    @property
    def summary(self) -> RevisionSummary:
        """The same without files and rules."""
        counts = {Family.IPV4: 0, Family.IPV6: 0}
        for family, ruleset in self.rulesets.items():
            counts[family] = ruleset.rule_count
        return RevisionSummary(
            self.number,
            self.when,
            self.cause,
            self.by,
            self.backend,
            self.tool_version,
            self.kernel,
            self.digest,
            self.kind,
            counts[Family.IPV4],
            counts[Family.IPV6],
            len(self.files),
            self.restored,
            self.changes,
        )


@dataclass(frozen=True, slots=True)
class Kept:
    """A revision that was read."""

    revision: Revision


@dataclass(frozen=True, slots=True)
class NotKept:
    """No revision of this number is kept."""

    number: int


@dataclass(frozen=True, slots=True)
class Unreadable:
    """There was a revision of this number, and it cannot be read: its file is damaged, or the disk returned an error.

    Reading it again may succeed. ``reason`` is a sentence. The number is 0 where not even the names can be read.
    """

    number: int
    reason: str


Reading = Kept | NotKept | Unreadable


@dataclass(frozen=True, slots=True)
class UnreadableNote:
    """A small file that is there and cannot be read, so what it says is not known.

    ``lost`` says that its content is damaged; otherwise reading it again may succeed. ``reason`` is a sentence.
    """

    reason: str
    lost: bool


@dataclass(frozen=True, slots=True)
class PendingConfirmation:
    """Revision ``number`` is undone unless an administrator confirms it in time.

    ``back_to`` is the number of the revision that an undo puts in force, None where there was none. ``deadline`` is in
    seconds of CLOCK_BOOTTIME in the boot ``boot_id`` (/proc/sys/kernel/random/boot_id); ``wall_deadline`` is the same
    instant in seconds since 1970, for display only. ``digest`` is that of the rule files to hold after an undo.
    With ``opening`` the revision is an opening of the firewall for a time, which nobody can confirm.
    """

    number: int
    back_to: int | None
    deadline: float
    boot_id: str
    wall_deadline: float
    digest: str
    opening: bool = False


@dataclass(frozen=True, slots=True)
class Waiting:
    """There is still time to confirm: seconds, more than 0."""

    seconds_left: float


@dataclass(frozen=True, slots=True)
class Expired:
    """The revision was not confirmed in time and has to be undone. ``reason`` is a clause for messages."""

    reason: str


def evaluate_pending(pending: PendingConfirmation, boot_id: str, boottime: float) -> Waiting | Expired:
    """What a pending confirmation means in this boot, at this many seconds of CLOCK_BOOTTIME."""
    if pending.boot_id != boot_id:
        return Expired("the host was restarted before it was confirmed")
    left = pending.deadline - boottime
    if left > 0:
        return Waiting(left)
    return Expired("it was not confirmed in time")


@dataclass(frozen=True, slots=True)
class HeldFiles:
    """Rule files that are not applied until a reload asks, however they change. ``digest`` is that of the files when
    they were validated last."""

    digest: str
    reason: str
