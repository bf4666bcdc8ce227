"""The difference between two rulesets, as policies, chains and rules."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from fwguardd.ruleset.align import align
from fwguardd.ruleset.model import Chain, Family, Origin, Rule, Ruleset, Table

if TYPE_CHECKING:
    from collections.abc import Iterator


class Kind(Enum):
    """How something differs."""

    MISSING = "missing"
    ADDED = "added"
    MOVED = "moved"
    POLICY = "policy"
    CHAIN_MISSING = "chain missing"
    CHAIN_ADDED = "chain added"


_SIGNS = {
    Kind.MISSING: "-",
    Kind.ADDED: "+",
    Kind.MOVED: "~",
    Kind.POLICY: "!",
    Kind.CHAIN_MISSING: "-",
    Kind.CHAIN_ADDED: "+",
}


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that differs from what is wanted. ``text`` is the rule, or the policies, or empty."""

    family: Family
    table: str
    chain: str
    kind: Kind
    text: str = ""
    origin: Origin | None = None

    @property
    def place(self) -> str:
        """The chain that differs, as in "ipv4 filter INPUT"."""
        return f"{self.family.value} {self.table} {self.chain}"

    def __str__(self) -> str:
        where = f" ({self.origin})" if self.origin else ""
        head = f"{_SIGNS[self.kind]} {self.family.value} {self.table} "
        if self.kind is Kind.POLICY:
            return f"{head}-P {self.chain} {self.text}{where}"
        if self.kind in (Kind.CHAIN_MISSING, Kind.CHAIN_ADDED):
            return f"{head}-N {self.chain}{where}"
        return f"{head}-A {self.chain} {self.text}{where}"


def compare(wanted: Ruleset, actual: Ruleset) -> tuple[Difference, ...]:
    """How ``actual`` differs from ``wanted``, in the tables that ``wanted`` has. Empty means that it is as wanted."""
    return tuple(_differences(wanted, actual))


def changes(before: Ruleset, after: Ruleset) -> tuple[Difference, ...]:
    """What a write changes on the way from ``before`` to ``after``, in the tables that ``after`` has: what it adds is
    ADDED, with the origin, and what it removes is MISSING."""
    tables = {name: before.tables.get(name, Table(name, {})) for name in after.tables}
    return tuple(_differences(Ruleset(before.family, tables), after))


def _differences(wanted: Ruleset, actual: Ruleset) -> Iterator[Difference]:
    for name, table in wanted.tables.items():
        here = actual.tables.get(name)
        live = here.chains if here is not None else {}
        for chain in table.chains.values():
            other = live.get(chain.name)
            if other != chain:
                yield from _chain_differences(wanted.family, name, chain, other)
        for chain in live.values():
            if chain.name not in table.chains:
                yield from _chain_differences(wanted.family, name, None, chain)


def _chain_differences(family: Family, table: str, wanted: Chain | None, actual: Chain | None) -> Iterator[Difference]:
    """Differences of one chain. A built-in chain that one side does not have is one that accepts everything."""
    known = wanted or actual
    assert known is not None
    builtin = known.policy is not None
    if wanted is None:
        if not builtin:
            yield Difference(family, table, known.name, Kind.CHAIN_ADDED, "", known.origin)
        wanted = Chain(known.name, "ACCEPT" if builtin else None)
    elif actual is None and not builtin:
        yield Difference(family, table, known.name, Kind.CHAIN_MISSING, "", known.origin)
    if actual is None:
        actual = Chain(known.name, "ACCEPT" if builtin else None)
    if wanted.policy != actual.policy:
        text = f"{actual.policy} instead of {wanted.policy}"
        yield Difference(family, table, known.name, Kind.POLICY, text, wanted.origin or actual.origin)
    for kind, rule in _rule_differences(wanted.rules, actual.rules):
        yield Difference(family, table, known.name, kind, rule.text, rule.origin)


def _rule_differences(wanted: tuple[Rule, ...], actual: tuple[Rule, ...]) -> Iterator[tuple[Kind, Rule]]:
    """Missing and added rules, and the fewest that were moved for the others to stand as they do."""
    gone, new = _not_aligned(wanted, actual)
    found = Counter(rule.text for rule in new)
    moved: list[Rule] = []
    for rule in gone:
        if found[rule.text]:
            found[rule.text] -= 1
            moved.append(rule)
        else:
            yield Kind.MISSING, rule
    elsewhere = Counter(rule.text for rule in moved)
    for rule in new:
        if elsewhere[rule.text]:
            elsewhere[rule.text] -= 1
        else:
            yield Kind.ADDED, rule
    yield from ((Kind.MOVED, rule) for rule in moved)


def _not_aligned(wanted: tuple[Rule, ...], actual: tuple[Rule, ...]) -> tuple[list[Rule], list[Rule]]:
    """The rules of either side that stand in no common order with the other side's."""
    stays = align([rule.text for rule in wanted], [rule.text for rule in actual])
    here, there = {place for place, _ in stays}, {place for _, place in stays}
    return (
        [rule for place, rule in enumerate(wanted) if place not in here],
        [rule for place, rule in enumerate(actual) if place not in there],
    )
