"""What a plan does to chains that exist: which rules go, and before which of those that stay the new ones come.

This is the form in which nf_tables takes a change: a rule is removed by its handle, and a new one is put before the
rule with a handle, so that the work does not depend on the number of rules around it.

This module is pure.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import groupby
from operator import attrgetter
from typing import TYPE_CHECKING

from fwguardd.ruleset.model import ZERO, Rule, Ruleset, Table
from fwguardd.ruleset.operations import Append, Delete, DeleteNumber, Insert
from fwguardd.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from fwguardd.ruleset.model import Counters
    from fwguardd.ruleset.operations import Operation, Plan


class NoEditError(Exception):
    """A plan does more than to add and remove rules in chains that exist."""


@dataclass(frozen=True, slots=True)
class ChainEdit:
    """The change of one chain. ``final`` is the chain after it: the numbers of rules that stay, counted from 0 in the
    chain before it, and new rules. ``removed`` are the numbers of those that go."""

    table: str
    chain: str
    final: tuple[int | Rule, ...]
    removed: tuple[int, ...]

    @property
    def added(self) -> tuple[Rule, ...]:
        """The new rules, in order."""
        return tuple(each for each in self.final if isinstance(each, Rule))


def chain_edits(plan: Plan, live: Ruleset) -> tuple[ChainEdit, ...]:
    """What a plan does to the chains of ``live``.

    Raises NoEditError where it does more than to add and remove rules in chains that exist, or writes rules with
    counters.
    """
    by_chain = sorted(plan.operations, key=attrgetter("table", "chain"))  # Those on one chain stay in order.
    return tuple(
        _chain_edit(_rules(live, table, chain), table, chain, operations)
        for (table, chain), operations in groupby(by_chain, key=attrgetter("table", "chain"))
    )


def _rules(live: Ruleset, table: str, chain: str) -> tuple[Rule, ...]:
    """The rules of a chain. Raises NoEditError where it may not exist: iptables-save shows built-in chains that do not,
    as if they were empty."""
    try:
        found = live.tables[table].chains[chain]
    except KeyError:
        raise NoEditError from None
    if not found.rules and found.policy is not None:
        raise NoEditError
    return found.rules


def _chain_edit(rules: Sequence[Rule], table: str, chain: str, operations: Iterable[Operation]) -> ChainEdit:
    """What operations do to a chain with these rules. Raises NoEditError."""
    final: list[int | Rule] = list(range(len(rules)))
    for operation in operations:
        _carry_out(operation, final, rules)
    return ChainEdit(table, chain, tuple(final), tuple(sorted(set(range(len(rules))).difference(final))))


def _carry_out(operation: Operation, final: list[int | Rule], rules: Sequence[Rule]) -> None:
    """Change a chain as an operation does. Raises NoEditError."""
    match operation:
        case Append(_, _, text, counters):
            final.append(_new_rule(text, counters))
        case Insert(_, _, number, text, counters):
            _check(number, len(final) + 1)
            final.insert(number - 1, _new_rule(text, counters))
        case DeleteNumber(_, _, number):
            _check(number, len(final))
            del final[number - 1]
        case Delete(_, _, text):
            del final[_place_of(text, final, rules)]
        case _:
            raise NoEditError


def _check(number: int, last: int) -> None:
    if number > last:
        raise NoEditError


def _new_rule(text: str, counters: Counters) -> Rule:
    if counters != ZERO:
        raise NoEditError
    return Rule(text)


def _place_of(text: str, final: Sequence[int | Rule], rules: Sequence[Rule]) -> int:
    """Where the first rule with this text stands. Raises NoEditError where there is none."""
    for place, each in enumerate(final):
        if _rule(each, rules).text == text:
            return place
    raise NoEditError


def with_edit(live: Ruleset, edit: ChainEdit) -> Ruleset:
    """A ruleset after an edit of one of its chains. Rules that stay are the same objects, with their counters."""
    chains = live.tables[edit.table].chains
    rules = chains[edit.chain].rules
    final = tuple(_rule(each, rules) for each in edit.final)
    changed = Table(edit.table, {**chains, edit.chain: replace(chains[edit.chain], rules=final)})
    return Ruleset(live.family, {**live.tables, edit.table: changed})


def _rule(each: int | Rule, rules: Sequence[Rule]) -> Rule:
    if isinstance(each, Rule):
        return each
    return rules[each]
