"""What looks at the live tables have shown, and whether they still show it.

The kernel counts the commits to nf_tables: the generation. A look that no commit fell into, at a generation that is
still the current one, shows what the kernel holds now, but for counters, and iptables-save need not run again. Tables
of legacy iptables have no such number, and tables that no packet traverses (dormant ones) are always read.

iptables prints the same rules in other words after an upgrade, so a look counts only while the programs are the same.
"""

from __future__ import annotations

from dataclasses import field
from typing import TYPE_CHECKING

from fwguardd.kernel.generations import GenerationNoticesError, current_generation
from fwguardd.kernel.program_stamp import program_stamp
from fwguardd.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from fwguardd.kernel.program_stamp import Stamp
    from fwguardd.ruleset.model import Family, Ruleset
    from fwguardd.ruleset.save_format import Saved


@dataclass(frozen=True, slots=True)
class Moment:
    """When a look was taken: the generation of nf_tables, and the programs of iptables."""

    generation: int
    programs: Stamp


def present(backend: str) -> Moment | None:
    """The present moment; None where the backend ("nft", "legacy") has no generations, or they cannot be read."""
    if backend != "nft":
        return None
    try:
        return Moment(current_generation(), program_stamp(backend))
    except (GenerationNoticesError, OSError):
        return None


@dataclass(slots=True)
class LastLooks:
    """The last look at each family, and when it was taken; no moment where a commit fell into it."""

    looks: dict[Family, Saved] = field(default_factory=dict)
    moments: dict[Family, Moment] = field(default_factory=dict)
    written: set[Family] = field(default_factory=set)
    """The families that were written here since: they may show less, because that is wanted."""

    @property
    def hidden(self) -> frozenset[tuple[Family, str]]:
        """The tables that iptables could not show."""
        return frozenset((family, name) for family, saved in self.looks.items() for name in saved.hidden)

    @property
    def shown(self) -> Mapping[Family, Ruleset]:
        """What iptables showed, of the families that were not written since."""
        return {family: saved.shown for family, saved in self.looks.items() if family not in self.written}

    def before(self, family: Family) -> Ruleset | None:
        """What was shown of a family last, whatever was written since; None before the first look."""
        saved = self.looks.get(family)
        if saved is None:
            return None
        return saved.shown

    def is_doubtful(self, found: Saved) -> bool:
        """Whether a look has to be taken twice: it is the first one of its family, or it shows less than the last."""
        family = found.shown.family
        last = self.looks.get(family)
        if last is None:
            return True
        return family not in self.written and found.shows_less_than(last.shown)

    def keep(self, saved: Mapping[Family, Saved], began: Moment | None, ended: Moment | None) -> None:
        """Keep a look that began and ended at these moments; None where they are not known."""
        for family, found in saved.items():
            self.looks[family] = found
            self.written.discard(family)
            self.moments.pop(family, None)
            if began is not None and began == ended and not found.dormant:
                self.moments[family] = began

    def at(self, families: Collection[Family], now: Moment | None) -> Mapping[Family, Saved] | None:
        """What a look at these families would show at this moment; None where that is not known."""
        known: dict[Family, Saved] = {}
        for family in families:
            if now is None or self.moments.get(family) != now:
                return None
            known[family] = self.looks[family]
        return known
