"""Which rules of a ruleset a kernel refuses: found by loading parts of it.

``refuses`` loads a ruleset in a temporary namespace and says whether the kernel there refuses it. Rules are numbered in
the order in which they are rendered. This module is pure but for what ``refuses`` does.
"""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING

from fwguardd.patterns import pattern
from fwguardd.ruleset.canonical import RulePlace
from fwguardd.ruleset.model import Chain, Ruleset, Table
from fwguardd.ruleset.save_format import rules_in_order

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from fwguardd.ruleset.model import Rule

    Refuses = Callable[[Ruleset], bool]

_NUMBER = pattern("[0-9]+")

MOST_LOADS = 200
"""Loads of one search for all refused rules."""

MOST_RULES_LOADED = 300_000
"""Rules that these loads may have in all: about ten seconds."""


def first_refused(ruleset: Ruleset, refuses: Refuses) -> int | None:
    """The first rule that makes the rules up to it be refused. None if a ruleset without rules is refused too."""
    good, bad = 0, ruleset.rule_count
    if refuses(first_rules(ruleset, 0)):
        return None
    while bad - good > 1:
        middle = (good + bad) // 2
        if refuses(first_rules(ruleset, middle)):
            bad = middle
        else:
            good = middle
    if not bad:
        return None
    return bad - 1


def all_refused(ruleset: Ruleset, refuses: Refuses) -> frozenset[int]:
    """The rules without which the ruleset loads.

    Blocks of rules are added to what loads already, large ones first. One that is refused is halved. Rules that differ
    only in numbers are neighbours in a block, as those that name one missing ipset often do. What is not known once the
    limits are reached counts as refused, so that the rest can be loaded; by then these blocks are small.
    """
    taken: frozenset[int] = frozenset()
    refused: list[int] = []
    loads_left, rules_left = MOST_LOADS, MOST_RULES_LOADED
    blocks = deque([_by_shape(ruleset)])
    while blocks:
        block = blocks.popleft()
        more = taken.union(block)
        loads_left -= 1
        rules_left -= len(more)
        if loads_left < 0 or rules_left < 0:
            refused += block
        elif not refuses(_with_rules(ruleset, more)):
            taken = more
        elif len(block) > 1:
            middle = len(block) // 2
            blocks += (block[:middle], block[middle:])
        else:
            refused += block
    return frozenset(refused)


def _by_shape(ruleset: Ruleset) -> list[int]:
    """The numbers of all rules, ordered by the texts of the rules without numbers."""
    shapes = [_NUMBER.sub("", rule.text) for rule in rules_in_order(ruleset)]
    return sorted(range(len(shapes)), key=shapes.__getitem__)


def places_of(ruleset: Ruleset, numbers: Collection[int]) -> Iterator[RulePlace]:
    """The rules with these numbers, with the chains that they stand in."""
    number = 0
    for table, chain in ruleset.chains():
        for rule in chain.rules:
            if number in numbers:
                yield RulePlace(ruleset.family, table.name, chain.name, rule.text)
            number += 1


def first_rules(ruleset: Ruleset, count: int) -> Ruleset:
    """The same with so many rules."""
    return _with_rules(ruleset, range(count))


def without_rule(ruleset: Ruleset, unwanted: int) -> Ruleset:
    """The same without one rule."""
    return _with_rules(ruleset, frozenset(range(ruleset.rule_count)) - {unwanted})


def _with_rules(ruleset: Ruleset, numbers: Collection[int]) -> Ruleset:
    """The same with the rules of these numbers only."""
    number = 0
    tables: dict[str, Table] = {}
    for table in ruleset.tables.values():
        chains: dict[str, Chain] = {}
        for chain in table.chains.values():
            rules = tuple(_kept_rules(chain, number, numbers))
            number += len(chain.rules)
            chains[chain.name] = replace(chain, rules=rules)
        tables[table.name] = Table(table.name, chains)
    return Ruleset(ruleset.family, tables)


def _kept_rules(chain: Chain, first: int, numbers: Collection[int]) -> Iterator[Rule]:
    """The rules of these numbers; ``first`` is the number of the first one."""
    for number, rule in enumerate(chain.rules, first):
        if number in numbers:
            yield rule
