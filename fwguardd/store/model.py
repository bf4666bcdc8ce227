"""The nouns of what fwguardd keeps on disk: a revision, its summary, a pending confirmation, a held digest.

All are frozen values. What a pending confirmation means at a given moment is decided here too, by a pure function:
only the time since boot counts, because the wall clock may be set, and a confirmation does not outlive the boot in
which it was promised.

This module is pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, TypeAlias

from fwguardd.ruleset.model import Family

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fwguardd.kernel.iptables import Backend
    from fwguardd.ruleset.model import RuleFile, Ruleset


class StoreError(Exception):
    """Something could not be kept on disk. The message names the place, the fault, and what that means."""


class DamagedError(Exception):
    """A file is not as it was written. The message is the predicate of a sentence that begins with the file's name."""


class RevisionKind(Enum):
    """What a revision is: made of rule files, or the deliberate state in which everything is accepted."""

    RULES = "rules"
    OPEN = "open"


@dataclass(frozen=True, slots=True)
class RevisionSummary:
    """What a list of revisions tells of each. The fields are those of `Revision`, and three counts."""

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


@dataclass(frozen=True, slots=True)
class Revision:
    """A ruleset that was put in force, with everything that it was made of.

    ``number`` counts from 1, rises, and is never used again. ``when`` is in seconds of the wall clock since 1970.
    ``by`` names whoever asked for it, "" if nobody did; ``kernel`` is the kernel's release. ``digest`` is the one of
    the rule files, in hex. ``rulesets`` holds the canonical form, each rule with its origin; counters are not kept.
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

    @property
    def summary(self) -> RevisionSummary:
        """The same without files and rules."""
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
            self._rules_of(Family.IPV4),
            self._rules_of(Family.IPV6),
            len(self.files),
        )

    def _rules_of(self, family: Family) -> int:
        return self.rulesets[family].rule_count if family in self.rulesets else 0


@dataclass(frozen=True, slots=True)
class PendingConfirmation:
    """A promise to undo revision ``number`` unless somebody confirms it in time.

    ``back_to`` is the number of the revision that an undo puts in force, None where there was none. ``deadline`` is in
    seconds of CLOCK_BOOTTIME in the boot ``boot_id`` (/proc/sys/kernel/random/boot_id); ``wall_deadline`` is the same
    instant in seconds since 1970, to be shown and for nothing else. ``digest`` is the one of the rule files to hold.
    """

    number: int
    back_to: int | None
    deadline: float
    boot_id: str
    wall_deadline: float
    digest: str


@dataclass(frozen=True, slots=True)
class Waiting:
    """There is still time to confirm: seconds, more than 0."""

    seconds_left: float


@dataclass(frozen=True, slots=True)
class Expired:
    """Nobody confirmed in time, and the revision is to be undone. ``reason`` is a clause for people."""

    reason: str


def evaluate_pending(pending: PendingConfirmation, boot_id: str, boottime: float) -> Waiting | Expired:
    """What a pending confirmation means in this boot, at this many seconds of CLOCK_BOOTTIME."""
    if pending.boot_id != boot_id:
        return Expired("the host was restarted before anybody confirmed")
    left = pending.deadline - boottime
    if left > 0:
        return Waiting(left)
    return Expired("nobody confirmed in time")


Touched: TypeAlias = "frozenset[tuple[Family, str]]"
"""Tables, by family and name, that are written for the first time: to be let go if that write was never finished."""


@dataclass(frozen=True, slots=True)
class HeldFiles:
    """Rule files that were undone: those with this digest are not applied until they change or a reload asks."""

    digest: str
    reason: str
