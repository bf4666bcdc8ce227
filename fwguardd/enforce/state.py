"""What one pass hands to the next: what is in force, what was refused, what waits to be confirmed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING

from fwguardd.ruleset.canonical import Canonical, Emptying, Owned
from fwguardd.ruleset.model import FAMILIES, Findings
from fwguardd.store.model import RevisionKind

if TYPE_CHECKING:
    from fwguardd.ruleset.diff import Difference
    from fwguardd.store.revisions import HeldFiles, PendingConfirmation


@dataclass(frozen=True, slots=True)
class InForce:
    """What is in force by fwguardd's doing. ``digest`` is that of its files, "" if they are to be judged anew."""

    revision: int
    digest: str
    canonical: Canonical
    since: float
    cause: str
    kind: RevisionKind = RevisionKind.RULES

    @property
    def owned(self) -> Owned:
        """The tables that it owns."""
        return self.canonical.owned

    @property
    def rules(self) -> dict[str, int]:
        """Rules of each family."""
        return {
            family.value: self.canonical.rulesets[family].rule_count if family in self.canonical.rulesets else 0
            for family in FAMILIES
        }

    @property
    def rule_count(self) -> int:
        """Rules in all tables of both families."""
        return sum(self.rules.values())


@dataclass(frozen=True, slots=True)
class RefusedFiles:
    """Files that cannot be put in force: their digest, when they were judged (seconds since 1970), and why."""

    digest: str
    when: float
    findings: Findings


class UnverifiedState(Enum):
    """What is not known while the kernel cannot be looked at: whether anything drifted, whether a ruleset that was
    written whole is still there, or whether a load that failed left anything, which then has to be undone. HIDDEN is
    the look at a table of ours with something that iptables cannot express: no calm helps there, only somebody who
    removes it."""

    LOOK = "look"
    WRITTEN = "written"
    UNDO = "undo"
    HIDDEN = "hidden"


@dataclass(frozen=True, slots=True)
class State:
    """The state between two passes.

    ``refused`` files are not judged again until they change; ``held`` ones were undone, and are not applied again until
    they change or a reload asks; ``drift`` was told and left alone, and is not told again until it changes; ``touched``
    are tables that a pass which was cut short had begun to write for the first time; ``unverified`` is what the last
    pass could not see."""

    in_force: InForce | None = None
    refused: RefusedFiles | None = None
    drift: tuple[Difference, ...] = ()
    held: HeldFiles | None = None
    pending: PendingConfirmation | None = None
    touched: Owned = frozenset()
    unverified: UnverifiedState | None = None

    @property
    def owned(self) -> Owned:
        """All tables that fwguardd answers for: those in force, and those that a killed pass has begun to write."""
        return (self.in_force.owned if self.in_force else Owned()) | self.touched

    def release(self, wanted: Owned) -> Emptying:
        """The tables of ours that the ruleset to be put in force does not name: they are emptied with it."""
        return Emptying.for_release(self.owned, wanted)

    def judged_anew(self) -> State:
        """The same, with the files to be judged again though they did not change: what they name may have."""
        in_force = replace(self.in_force, digest="") if self.in_force else None
        return replace(self, in_force=in_force, refused=None)

    def settles(self, digest: str) -> bool:
        """Whether files with this digest need no judging: they are in force, or refused, or held."""
        known = (
            self.in_force and self.in_force.digest,
            self.refused and self.refused.digest,
            self.held and self.held.digest,
        )
        return digest in known

    @property
    def sentence(self) -> str:
        """The state in one sentence, for people and for STATUS= of sd_notify(3)."""
        return "; ".join((self._in_force_words(), *self._worries()))

    def _in_force_words(self) -> str:
        if self.in_force is None:
            return "nothing in force by fwguardd"
        if self.in_force.kind is RevisionKind.OPEN:
            return f"OPEN: everything is accepted (revision {self.in_force.revision}) until a reload"
        return f"revision {self.in_force.revision} in force, {self.in_force.rule_count} rules"

    def _worries(self) -> tuple[str, ...]:
        worries = []
        if self.pending is not None:
            worries.append(f"revision {self.pending.number} waits to be confirmed")
        if self.refused is not None:
            worries.append("the files in the rules directory are refused")
        elif self.held is not None and (self.in_force is None or self.in_force.kind is not RevisionKind.OPEN):
            worries.append(f"the files in the rules directory are held: {self.held.reason}")
        if self.drift:
            count = "1 difference" if len(self.drift) == 1 else f"{len(self.drift)} differences"
            worries.append(f"{count} left alone")
        if self.unverified is UnverifiedState.HIDDEN:
            worries.append("not guarded: a table holds what iptables cannot show; nft list ruleset shows it")
        elif self.unverified is not None:
            worries.append("the kernel cannot be looked at, because others change it without pause")
        return tuple(worries)
