"""What the kernel holds after a plan was written: the rules of other programs with the wanted ones between them.

This module is pure.
"""

from __future__ import annotations

from collections import defaultdict, deque
from dataclasses import replace
from typing import TYPE_CHECKING

from fwguardd.ruleset.model import Chain, Rule, Ruleset, Table, texts_of
from fwguardd.ruleset.operations import (
    Append,
    Delete,
    DeleteNumber,
    FlushChain,
    Insert,
    MakeChain,
    Operation,
    Plan,
    RemoveChain,
    SetPolicy,
)
from fwguardd.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence


@dataclass(slots=True)
class _Chain:
    """A chain that is being changed."""

    policy: str | None
    rules: list[Rule]


_Chains = dict[tuple[str, str], _Chain]


def after_plan(live: Ruleset, plan: Plan, wanted: Ruleset) -> Ruleset:
    """The ruleset that ``live`` becomes by a plan. Rules and policies that ``wanted`` has get the origins there."""
    chains: _Chains = {}
    for table, chain in live.chains():
        chains[table.name, chain.name] = _Chain(chain.policy, list(chain.rules))
    for operation in plan.operations:
        _apply(chains, operation)
    tables: dict[str, dict[str, Chain]] = {name: {} for name in (*live.tables, *wanted.tables)}
    for (table_name, name), changed in chains.items():
        tables[table_name][name] = Chain(name, changed.policy, tuple(changed.rules))
    rulesets = {name: _with_origins(Table(name, made), wanted.tables.get(name)) for name, made in tables.items()}
    return Ruleset(live.family, rulesets)


def _apply(chains: _Chains, operation: Operation) -> None:
    place = (operation.table, operation.chain)
    if isinstance(operation, RemoveChain):
        del chains[place]
        return
    chain = chains.setdefault(place, _Chain(None, []))
    match operation:
        case SetPolicy():
            chain.policy = operation.policy
        case Append():
            chain.rules.append(Rule(operation.text))
        case Insert():
            chain.rules.insert(operation.number - 1, Rule(operation.text))
        case Delete() | DeleteNumber():
            _delete(chain.rules, operation)
        case MakeChain() | FlushChain():
            chain.rules.clear()


def _delete(rules: list[Rule], operation: Delete | DeleteNumber) -> None:
    if isinstance(operation, DeleteNumber):
        del rules[operation.number - 1]
    else:
        del rules[texts_of(rules).index(operation.text)]


def _with_origins(table: Table, wanted: Table | None) -> Table:
    if wanted is None:
        return table
    chains: dict[str, Chain] = {}
    for chain in table.chains.values():
        source = wanted.chains.get(chain.name)
        if source is None:
            chains[chain.name] = chain
            continue
        origin = None
        if source.policy == chain.policy:
            origin = source.origin
        chains[chain.name] = replace(chain, rules=tuple(_placed(chain.rules, source.rules)), origin=origin)
    return Table(table.name, chains)


def _placed(rules: Sequence[Rule], wanted: Sequence[Rule]) -> Iterable[Rule]:
    """The rules, each with the origin of the first wanted rule of the same text that has not given its own yet."""
    if texts_of(rules) == texts_of(wanted):
        return wanted
    return _placed_singly(rules, wanted)


def _placed_singly(rules: Iterable[Rule], wanted: Iterable[Rule]) -> Iterator[Rule]:
    left: Mapping[str, deque[Rule]] = defaultdict(deque)
    for rule in wanted:
        left[rule.text].append(rule)
    for rule in rules:
        if left[rule.text]:
            yield left[rule.text].popleft()
        else:
            yield rule
