"""Warnings about chains that nothing leads to, and loops among them.

This module is pure.
"""

from __future__ import annotations

from operator import attrgetter
from typing import TYPE_CHECKING

from fwguardd.ruleset.chain_graph import loop_closed_by
from fwguardd.ruleset.model import BUILTIN_CHAINS, VERDICTS, Chain, Family, Finding, Severity, Table
from fwguardd.ruleset.read_rules import kinds_of
from fwguardd.ruleset.rule_view import jump_target

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

    from fwguardd.ruleset.preserve import Preserve
    from fwguardd.ruleset.read_rules import ReadChains

    _Jumps = Mapping[str, Collection[str]]
    """The chains of a table that the rules of each chain jump to."""


def lint_unused_chains(read: Iterable[tuple[Table, ReadChains, Family]], preserve: Preserve) -> Iterator[Finding]:
    """User-defined chains that no packet gets to, in either family; and loops among them. A loop that packets get to is
    refused by the kernel."""
    tables = [(table, _jumps_of(chains)) for table, chains, _ in read if _has_user_chains(table)]
    used: dict[str, set[str]] = {}
    for table, jumps in tables:
        used.setdefault(table.name, set()).update(_chains_in_use(table, jumps, preserve))
    for table, jumps in tables:
        yield from _lint_unused(table, jumps, used[table.name])


def _has_user_chains(table: Table) -> bool:
    return not table.chains.keys() <= set(BUILTIN_CHAINS[table.name])


def _jumps_of(chains: ReadChains) -> _Jumps:
    """The chains that the rules of each chain jump to."""
    jumps: dict[str, Collection[str]] = {}
    for name, rules in chains.items():
        targets = set(map(attrgetter("target"), kinds_of(rules)))
        jumps[name] = targets.intersection(chains).difference(VERDICTS)
    return jumps


def _chains_in_use(table: Table, jumps: _Jumps, preserve: Preserve) -> set[str]:
    waiting = [name for name in table.chains if name in BUILTIN_CHAINS[table.name] or preserve.keeps_name(name)]
    reached = set(waiting)
    while waiting:
        new = set(jumps[waiting.pop()]) - reached
        reached |= new
        waiting += new
    return reached


def _lint_unused(table: Table, jumps: _Jumps, used: Collection[str]) -> Iterator[Finding]:
    called: set[str] = set()
    for name in table.chains.keys() - used:
        called.update(jumps[name])
    for chain in table.chains.values():
        # A chain that no file declares is an error of its own.
        if chain.name not in used and chain.origin is not None:
            yield _unused(table, chain, is_called=chain.name in called)
            yield from _loops(table, chain)


def _unused(table: Table, chain: Chain, *, is_called: bool) -> Finding:
    message = f"no rule of table {table.name} jumps to chain {chain.name}"
    if is_called:
        message = f"no packet gets to chain {chain.name}: only chains that are not used themselves jump to it"
    hint = f'add a rule with "-j {chain.name}", or remove the chain'
    upper = chain.name.upper()
    if upper != chain.name and upper in table.chains:
        hint = f"write {upper} if you mean that chain: names are case-sensitive"
    return Finding("unused-chain", message, chain.origin, Severity.WARNING, hint)


def _loops(table: Table, chain: Chain) -> Iterator[Finding]:
    """The first rule of an unused chain that closes a loop."""
    tried: set[str | None] = set()
    for rule in chain.rules:
        target = jump_target(rule.text)
        if target in tried:
            continue
        tried.add(target)
        loop = loop_closed_by(table, chain.name, rule.text)
        if loop:
            message = f"the jump closes a loop of chains: {' → '.join(loop)}"
            yield Finding("chain-loop", message, rule.origin, Severity.WARNING, "remove one of the jumps")
            return
