"""Canonical rulesets: rules spelled as iptables-save prints them, the only form that is loaded and compared.

The text that a person writes is not canonical: ``-s 192.0.2.1`` comes back from a kernel as ``-s 192.0.2.1/32``. There
are four sources of canonical text, and `Canonical` has one constructor for each. Emptying a table opens it, so the
fourth one takes an `Emptying`, which only ``fwguardctl open`` and the release of tables make.
tests/unit/test_canonical.py holds which function may call which constructor.

This module is pure.
"""

from __future__ import annotations

from dataclasses import field, replace
from enum import Enum
from typing import TYPE_CHECKING

from fwguardd.ruleset.copies import without_twins
from fwguardd.ruleset.model import BUILTIN_CHAINS, NO_FINDINGS, NOT_STATED, Chain, Family, Findings, Ruleset, Table
from fwguardd.ruleset.preserve import without_copies
from fwguardd.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from fwguardd.ruleset.copies import Rulesets
    from fwguardd.ruleset.model import Origin
    from fwguardd.ruleset.preserve import Preserve

Owned = frozenset[tuple[Family, str]]
"""Tables that fwguardd owns, by family and name."""


Chains = frozenset[tuple[Family, str, str]]
"""Chains, by family, table and name."""


@dataclass(frozen=True, slots=True)
class RulePlace:
    """A rule, by its text, and the chain that it stands in."""

    family: Family
    table: str
    chain: str
    text: str


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
    """Tables to empty, and why. Use the named constructors: a test holds who may call them.

    ``policies`` are the built-in chains that get the policy ACCEPT, as family, table and chain, where nothing states
    another one: those for which DROP was stated before.
    """

    tables: Owned
    reason: EmptyingReason
    policies: Chains = frozenset()

    @classmethod
    def for_open(cls, tables: Owned) -> Emptying:
        """All tables that fwguardd owns, because an administrator asked to accept everything."""
        return cls(tables, EmptyingReason.OPEN, builtin_chains(tables))

    @classmethod
    def for_release(cls, owned: Owned, wanted: Owned, policies: Chains) -> Emptying:
        """The owned tables that the ruleset to be loaded does not name any more, and the chains for which the policy
        DROP was stated before."""
        return cls(owned - wanted, EmptyingReason.RELEASE, policies)


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
        """What a kernel made of a candidate in a scratch namespace, at once or rule by rule, each with its origin."""
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
        """The named tables without rules. The policies of `Emptying` are ACCEPT, the others stay."""
        tables: dict[Family, dict[str, Table]] = {}
        for family, name in sorted(emptying.tables, key=str):
            tables.setdefault(family, {})[name] = _emptied(family, name, emptying.policies)
        rulesets = {family: Ruleset(family, emptied) for family, emptied in tables.items()}
        return cls(rulesets, Provenance.EMPTIED)

    @property
    def owned(self) -> Owned:
        """The tables that it names: those that fwguardd owns once it is in force."""
        return owned_tables(self.rulesets)

    @property
    def closed_policies(self) -> Chains:
        """The built-in chains for which it states a policy other than ACCEPT."""
        closed: set[tuple[Family, str, str]] = set()
        for family, ruleset in self.rulesets.items():
            for table, chain in ruleset.chains():
                if chain.policy not in (None, NOT_STATED, "ACCEPT"):
                    closed.add((family, table.name, chain.name))
        return Chains(closed)

    @property
    def restricts(self) -> bool:
        """Whether there is any rule, or any policy other than ACCEPT."""
        for ruleset in self.rulesets.values():
            for _, chain in ruleset.chains():
                if chain.rules or chain.policy_after("ACCEPT") not in (None, "ACCEPT"):
                    return True
        return False

    def same_tables(self, other: Canonical) -> bool:
        """Whether both name the same tables with the same contents."""
        return _with_tables(self.rulesets) == _with_tables(other.rulesets)

    def without_copies(self, preserve: Preserve) -> Canonical:
        """The same without copies of what known programs make for themselves."""
        rulesets = {family: without_copies(ruleset, preserve) for family, ruleset in self.rulesets.items()}
        return replace(self, rulesets=rulesets)

    def without_twins(self, live: Rulesets, loaded: Rulesets, preserve: Preserve) -> tuple[Canonical, Findings]:
        """The same without the rules that the kernel (``live``) holds as another program's, and warnings about them.
        ``loaded`` is what fwguardd loaded."""
        left = without_twins(self.rulesets, live, loaded, preserve)
        return replace(self, rulesets=left.rulesets), left.findings

    def of_family(self, family: Family) -> Canonical:
        """The same for one of its families."""
        return replace(self, rulesets={family: self.rulesets[family]})

    def without_rules(self, unwanted: Collection[RulePlace]) -> Canonical:
        """The same without these rules."""
        return self._chosen(lambda place: place not in unwanted)

    def with_only(self, wanted: Collection[RulePlace]) -> Canonical:
        """The same chains, with these of the rules."""
        return self._chosen(lambda place: place in wanted)

    def _chosen(self, wanted: Callable[[RulePlace], bool]) -> Canonical:
        rulesets: dict[Family, Ruleset] = {}
        for family, ruleset in self.rulesets.items():
            tables = {name: _table_with(wanted, family, table) for name, table in ruleset.tables.items()}
            rulesets[family] = replace(ruleset, tables=tables)
        return replace(self, rulesets=rulesets)

    def without_origins(self, ended: Collection[Origin]) -> Canonical:
        """The same without the rules, and the policies, of these lines of rule files."""
        rulesets: dict[Family, Ruleset] = {}
        for family, ruleset in self.rulesets.items():
            tables = {name: _table_without_origins(ended, table) for name, table in ruleset.tables.items()}
            rulesets[family] = replace(ruleset, tables=tables)
        return replace(self, rulesets=rulesets)


def owned_tables(rulesets: Mapping[Family, Ruleset]) -> Owned:
    """The tables that these rulesets name."""
    return Owned((family, name) for family, ruleset in rulesets.items() for name in ruleset.tables)


def builtin_chains(tables: Owned) -> Chains:
    """The built-in chains of these tables."""
    return Chains((family, table, chain) for family, table in tables for chain in BUILTIN_CHAINS[table])


def _with_tables(rulesets: Rulesets) -> dict[Family, Ruleset]:
    """The rulesets that have tables."""
    return {family: ruleset for family, ruleset in rulesets.items() if ruleset.tables}


def _table_with(wanted: Callable[[RulePlace], bool], family: Family, table: Table) -> Table:
    """A table with the rules that are wanted."""
    chains: dict[str, Chain] = {}
    for name, chain in table.chains.items():
        kept = tuple(rule for rule in chain.rules if wanted(RulePlace(family, table.name, name, rule.text)))
        chains[name] = replace(chain, rules=kept)
    return replace(table, chains=chains)


def _table_without_origins(ended: Collection[Origin], table: Table) -> Table:
    """A table without what these lines say. A policy that one of them stated is not stated any more."""
    chains: dict[str, Chain] = {}
    for name, chain in table.chains.items():
        policy = chain.policy
        if policy is not None and chain.origin in ended:
            policy = NOT_STATED
        kept = tuple(rule for rule in chain.rules if rule.origin not in ended)
        chains[name] = replace(chain, policy=policy, rules=kept)
    return replace(table, chains=chains)


def with_released_policies(ruleset: Ruleset, policies: Chains) -> Ruleset:
    """A ruleset in which the policy of these chains is ACCEPT, where it is not stated."""
    tables = {name: _table_with_released(policies, ruleset.family, table) for name, table in ruleset.tables.items()}
    return Ruleset(ruleset.family, tables)


def _table_with_released(policies: Chains, family: Family, table: Table) -> Table:
    chains = dict(table.chains)
    for chain in table.chains.values():
        if chain.policy == NOT_STATED and (family, table.name, chain.name) in policies:
            chains[chain.name] = replace(chain, policy="ACCEPT")
    return Table(table.name, chains)


def _emptied(family: Family, table: str, policies: Chains) -> Table:
    chains: dict[str, Chain] = {}
    for chain in BUILTIN_CHAINS[table]:
        policy = NOT_STATED
        if (family, table, chain) in policies:
            policy = "ACCEPT"
        chains[chain] = Chain(chain, policy)
    return Table(table, chains)


def _accepting(table: str) -> Table:
    """A table without rules whose built-in chains accept everything."""
    return Table(table, {chain: Chain(chain, "ACCEPT") for chain in BUILTIN_CHAINS[table]})
