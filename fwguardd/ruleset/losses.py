"""What other programs lose where somebody empties a chain with rules of theirs in it.

A program may remove its own rules, and that is no loss. So only chains count in which rules of fwguardd are missing
too, and in the tables of those also the chains that lost all their rules.

This module is pure.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from fwguardd.ruleset.diff import ChangeKind
from fwguardd.ruleset.model import texts_of
from fwguardd.ruleset.program_lookup import owner_of_rule
from fwguardd.values import dataclass
from fwguardd.wording import counted

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

    from fwguardd.ruleset.diff import Difference
    from fwguardd.ruleset.model import Family, Rule, Ruleset

    Rulesets = Mapping[Family, Ruleset]


@dataclass(frozen=True, slots=True)
class Loss:
    """Rules that a program has lost, as iptables-save prints them, and the command that makes it put them back; "" if
    that is not known."""

    program: str
    rules: tuple[str, ...]
    restore: str

    def __str__(self) -> str:
        clause = f"{self.program} has lost {counted(len(self.rules), 'rule')}: {self.rules[0]}"
        if len(self.rules) > 1:
            clause = f"{clause}, …"
        if self.restore:
            return f"{clause}; to get them back: {self.restore}"
        return f"{clause}; restart it to get them back"


def losses(drift: Iterable[Difference], before: Rulesets, own: Rulesets, after: Rulesets) -> tuple[Loss, ...]:
    """What other programs have lost between two looks. ``own`` is what fwguardd owned of the live rules ``before``."""
    emptied = {(one.family, one.table, one.chain) for one in drift if one.kind is ChangeKind.MISSING}
    lost: dict[tuple[str, str], list[str]] = {}
    for family, table in _tables_of(emptied):
        versions = before[family], own[family], after[family]
        for chain, text in _lost_with_chains(versions, table, emptied):
            owner = _owner(text, table, chain)
            lost.setdefault(owner, []).append(f"{family.value} {table} -A {chain} {text}")
    return tuple(Loss(program, tuple(rules), restore) for (program, restore), rules in lost.items())


def _lost_with_chains(
    versions: tuple[Ruleset, Ruleset, Ruleset], table: str, emptied: Collection[tuple[Family, str, str]]
) -> Iterator[tuple[str, str]]:
    """The rules that a table has lost, with their chains, where the chain has lost rules of ours too or has none."""
    after = versions[-1]
    for chain, text in _lost_in_table(versions, table):
        if (after.family, table, chain) in emptied or not _rules(after, table, chain):
            yield chain, text


def _tables_of(chains: Iterable[tuple[Family, str, str]]) -> list[tuple[Family, str]]:
    """The tables of the chains, in order, each once."""
    return sorted({(family, table) for family, table, _ in chains}, key=str)


def _owner(text: str, table: str, chain: str) -> tuple[str, str]:
    """The name of the program that writes such a rule, and the command that makes it put the rule back."""
    program = owner_of_rule(text, table, chain)
    if program is None:
        return "another program", ""
    return program.title, program.restore


def _lost_in_table(versions: tuple[Ruleset, Ruleset, Ruleset], table: str) -> Iterator[tuple[str, str]]:
    before, own, after = versions
    if table not in before.tables:
        return
    for chain in before.tables[table].chains.values():
        ours = _rules(own, table, chain.name)
        if len(ours) == len(chain.rules):
            continue  # They are a part of these, so nothing belongs to others.
        theirs = Counter(texts_of(chain.rules)) - Counter(texts_of(ours))
        for text in theirs - Counter(texts_of(_rules(after, table, chain.name))):
            yield chain.name, text


def _rules(ruleset: Ruleset, table: str, chain: str) -> tuple[Rule, ...]:
    if table not in ruleset.tables or chain not in ruleset.tables[table].chains:
        return ()
    return ruleset.tables[table].chains[chain].rules
