"""The state between two passes: what is in force, which files were refused or are held, what could not be verified."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING

from fwguardd.ruleset.canonical import Canonical, Emptying, Owned
from fwguardd.ruleset.model import FAMILIES, Findings
from fwguardd.store.model import RevisionKind
from fwguardd.wording import counted

if TYPE_CHECKING:
    from fwguardd.ruleset.diff import Difference
    from fwguardd.store.revisions import HeldFiles, PendingConfirmation, Revision


@dataclass(frozen=True, slots=True)
class InForce:
    """The revision that fwguardd put in force last.

    ``digest`` is that of its files, "" if the files have to be validated again. ``since`` is in seconds since 1970, and
    ``loaded_at`` in seconds of CLOCK_BOOTTIME; None if another process put it in force.
    """

    revision: int
    digest: str
    canonical: Canonical
    since: float
    cause: str
    kind: RevisionKind = RevisionKind.RULES
    loaded_at: float | None = None

    @property
    def owned(self) -> Owned:
        """The tables that it owns."""
        return self.canonical.owned

    @property
    def rules(self) -> dict[str, int]:
        """The number of rules of each family, by the family's name in events."""
        counts = {family.value: 0 for family in FAMILIES}
        for family, ruleset in self.canonical.rulesets.items():
            counts[family.value] = ruleset.rule_count
        return counts

    @property
    def rule_count(self) -> int:
        """The number of rules in all tables of both families."""
        return sum(self.rules.values())


@dataclass(frozen=True, slots=True)
class RefusedFiles:
    """Files with errors: their digest, when they were validated (seconds since 1970), and the findings."""

    digest: str
    when: float
    findings: Findings


class UnverifiedState(Enum):
    """What is not known while the kernel cannot be compared with the revision in force.

    In the first three states the kernel cannot be read at the moment: other programs change it without pause, or the
    system lacks memory, or iptables-save does not print all. The comparison is tried again. In the last one retrying
    does not help: the administrator has to remove the unsupported rule.
    """

    LOOK = "look"
    """Whether anything drifted."""

    WRITTEN = "written"
    """Whether a ruleset that was loaded without an error is still there."""

    UNDO = "undo"
    """Whether a load that failed left anything. If it did, that has to be undone."""

    HIDDEN = "hidden"
    """Whether anything drifted, because a table of ours holds a rule that iptables cannot show."""


class Unknown(Enum):
    """What the state directory holds and could not be read. Each pass tries to read it again."""

    REVISION = "revision"
    """The newest revision: what the kernel holds is kept."""

    PENDING = "pending"
    """Whether a revision waits to be confirmed: changed files are applied only by a reload."""

    HELD = "held"
    """Which files are held: those that were there at the start are."""


@dataclass(frozen=True, slots=True)
class State:
    """The state between two passes.

    ``refused`` files are not validated again until they change. ``held`` files were undone, and are not applied until
    they change or a reload asks. ``drift`` was reported and left alone, and is not reported again until it changes.
    ``touched`` are tables that an interrupted pass had begun to write for the first time. ``unverified`` says what the
    last pass could not verify, ``unknown`` what could not be read of the state directory. ``fallback`` is a copy, in
    memory, of the revision that an undo of the pending one puts in force. ``unrecorded`` is the revision in force if it
    could not be written to the disk.
    """

    in_force: InForce | None = None
    refused: RefusedFiles | None = None
    drift: tuple[Difference, ...] = ()
    held: HeldFiles | None = None
    pending: PendingConfirmation | None = None
    touched: Owned = frozenset()
    unverified: UnverifiedState | None = None
    unknown: frozenset[Unknown] = frozenset()
    fallback: InForce | None = None
    unrecorded: Revision | None = None

    @property
    def owned(self) -> Owned:
        """All tables that are ours: those of the revision in force, and those that an interrupted pass wrote to."""
        if self.in_force is None:
            return self.touched
        return self.in_force.owned | self.touched

    @property
    def revision(self) -> int:
        """The number of the revision in force, 0 if there is none."""
        if self.in_force is None:
            return 0
        return self.in_force.revision

    @property
    def is_open(self) -> bool:
        """Whether everything is accepted on purpose."""
        return self.in_force is not None and self.in_force.kind is RevisionKind.OPEN

    def release(self, wanted: Owned) -> Emptying:
        """The tables of ours that the ruleset to be put in force does not name: they are emptied with it."""
        return Emptying.for_release(self.owned, wanted)

    def to_validate_again(self) -> State:
        """The same, with the files to be validated again though they did not change: what they name may have."""
        state = replace(self, refused=None)
        if state.in_force is not None:
            state = replace(state, in_force=replace(state.in_force, digest=""))
        return state

    def knows(self, digest: str) -> bool:
        """Whether files with this digest need no validation: they are in force, or refused, or held."""
        return any(known is not None and known.digest == digest for known in (self.in_force, self.refused, self.held))

    @property
    def sentence(self) -> str:
        """The state in one sentence, for people and for STATUS= of sd_notify(3)."""
        return "; ".join((self._in_force_clause(), *self._problems()))

    def _in_force_clause(self) -> str:
        if self.in_force is None and Unknown.REVISION in self.unknown:
            return "the newest revision cannot be read; what the kernel holds is kept"
        if self.in_force is None:
            return "nothing in force by fwguardd"
        if self.is_open:
            return f"OPEN: everything is accepted (revision {self.in_force.revision}) until a reload"
        return f"revision {self.in_force.revision} in force, {counted(self.in_force.rule_count, 'rule')}"

    def _problems(self) -> tuple[str, ...]:
        problems = []
        if self.pending is not None:
            problems.append(f"revision {self.pending.number} waits to be confirmed")
        if Unknown.PENDING in self.unknown:
            problems.append("whether a revision waits to be confirmed cannot be read")
        if self.refused is not None:
            problems.append("the files in the rules directory are refused")
        elif self.held is not None and not self.is_open:
            problems.append(f"the files in the rules directory are held: {self.held.reason}")
        if self.drift:
            problems.append(f"{counted(len(self.drift), 'difference')} not repaired")
        if self.unverified is UnverifiedState.HIDDEN:
            problems.append("not verified: a table holds a rule that iptables cannot show; nft list ruleset shows it")
        elif self.unverified is not None:
            problems.append("not verified: the kernel cannot be read at the moment; fwguardd tries again")
        return tuple(problems)
