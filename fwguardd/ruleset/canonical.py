"""Canonical rulesets: rules spelled as iptables-save prints them, the only form that is loaded and compared.

The text that a person writes is not canonical: ``-s 192.0.2.1`` comes back from a kernel as ``-s 192.0.2.1/32``. There
are four sources of canonical text, and `Canonical` has one constructor for each. Emptying a table opens it, so the
fourth one takes an `Emptying`, which only ``fwguardctl open`` and the release of tables make.
tests/unit/test_canonical.py holds which function may call which constructor.

This module is pure.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import Enum
from typing import TYPE_CHECKING

from fwguardd.ruleset.model import BUILTIN_CHAINS, NO_FINDINGS, Chain, Family, Findings, Ruleset, Table
from fwguardd.ruleset.preserve import own_part

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fwguardd.ruleset.preserve import Preserve

Owned = frozenset[tuple[Family, str]]
"""Tables that fwguardd owns, by family and name."""


class Provenance(Enum):
    """The source of a canonical ruleset."""

    REHEARSAL = "rehearsal"
    REVISION = "revision"
    KERNEL = "kernel"
    EMPTIED = "emptied"


class EmptyingReason(Enum):
    """Why tables are emptied: an administrator opened the firewall, or nothing names the tables any more."""

    OPEN = "open"
    RELEASE = "release"


@dataclass(frozen=True, slots=True)
class Emptying:
    """Tables to empty, and why. Use the named constructors: a test holds who may call them."""

    tables: Owned
    reason: EmptyingReason

    @classmethod
    def for_open(cls, tables: Owned) -> Emptying:
        """All tables that fwguardd owns, because an administrator asked to accept everything."""
        return cls(tables, EmptyingReason.OPEN)

    @classmethod
    def for_release(cls, owned: Owned, wanted: Owned) -> Emptying:
        """The owned tables that the ruleset to be loaded does not name any more."""
        return cls(owned - wanted, EmptyingReason.RELEASE)


@dataclass(frozen=True, slots=True)
class Canonical:
    """Rulesets in canonical form, and where they come from. Use the named constructors.

    Two are equal when their rulesets are, wherever they come from. ``warnings`` are what a rehearsal could not check.
    """

    rulesets: Mapping[Family, Ruleset]
    provenance: Provenance = field(compare=False)
    warnings: Findings = field(default=NO_FINDINGS, compare=False)

    @classmethod
    def rehearsed(cls, rulesets: Mapping[Family, Ruleset], warnings: Findings = NO_FINDINGS) -> Canonical:
        """What a kernel made of a candidate in a scratch namespace, each rule with its origin."""
        return cls(rulesets, Provenance.REHEARSAL, warnings)

    @classmethod
    def from_revision(cls, rulesets: Mapping[Family, Ruleset]) -> Canonical:
        """The rulesets that a revision was recorded with. They were canonical when it was put in force."""
        return cls(rulesets, Provenance.REVISION)

    @classmethod
    def from_kernel(cls, own: Mapping[Family, Ruleset], wanted: Mapping[Family, Ruleset]) -> Canonical:
        """What the kernel held in the tables that ``wanted`` names. ``own`` is the owned part of the live rulesets.

        A table that the kernel did not have yet accepted everything, and is recorded as such.
        """
        rulesets = {}
        for family, ruleset in wanted.items():
            live = own[family].tables
            tables = {name: live.get(name, _accepting(name)) for name in ruleset.tables}
            rulesets[family] = Ruleset(family, tables)
        return cls(rulesets, Provenance.KERNEL)

    @classmethod
    def emptied(cls, emptying: Emptying) -> Canonical:
        """The named tables without rules, and with the policy ACCEPT."""
        tables: dict[Family, dict[str, Table]] = {}
        for family, name in sorted(emptying.tables, key=str):
            tables.setdefault(family, {})[name] = _accepting(name)
        rulesets = {family: Ruleset(family, emptied) for family, emptied in tables.items()}
        return cls(rulesets, Provenance.EMPTIED)

    @property
    def owned(self) -> Owned:
        """The tables that it names: those that fwguardd owns once it is in force."""
        return owned_tables(self.rulesets)

    @property
    def restricts(self) -> bool:
        """Whether there is any rule, or any policy other than ACCEPT."""
        for ruleset in self.rulesets.values():
            for _, chain in ruleset.chains():
                if chain.rules or chain.policy not in (None, "ACCEPT"):
                    return True
        return False

    def same_tables(self, other: Canonical) -> bool:
        """Whether both name the same tables with the same contents."""
        mine = {family: ruleset for family, ruleset in self.rulesets.items() if ruleset.tables}
        return mine == {family: ruleset for family, ruleset in other.rulesets.items() if ruleset.tables}

    def without_others(self, preserve: Preserve) -> Canonical:
        """The same without the chains and rules that belong to other programs."""
        rulesets = {family: own_part(ruleset, preserve) for family, ruleset in self.rulesets.items()}
        return replace(self, rulesets=rulesets)


def owned_tables(rulesets: Mapping[Family, Ruleset]) -> Owned:
    """The tables that these rulesets name."""
    return Owned((family, name) for family, ruleset in rulesets.items() for name in ruleset.tables)


def _accepting(table: str) -> Table:
    """A table without rules whose built-in chains accept everything."""
    return Table(table, {chain: Chain(chain, "ACCEPT") for chain in BUILTIN_CHAINS[table]})
