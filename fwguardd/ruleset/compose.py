"""Rule files -> one ruleset for each family.

All files are one ruleset: they are taken in byte order of their names, a table may be continued in any of them, and
chains need no particular order. Composing refuses what has two meanings (a policy said twice, differently) and what
can have none (a rule for a chain that no file declares).

This module is pure.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING

from fwguardd.ruleset.model import (
    BUILTIN_CHAINS,
    FAMILIES,
    MOST_FINDINGS,
    ZERO,
    Candidate,
    Chain,
    Counters,
    Family,
    Finding,
    Findings,
    Origin,
    Rule,
    Ruleset,
    Severity,
    Table,
)
from fwguardd.ruleset.statements import NOTHING_UNREAD, Addition, Declaration, Reading, TableStart, UnreadInput
from fwguardd.ruleset.suggestions import how_to_declare, nearest_name, tables_with

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence


@dataclass(frozen=True, slots=True)
class Composition:
    """The outcome of composing: a candidate, which is worth a rehearsal only if no finding is an error."""

    candidate: Candidate
    findings: Findings
    unread: UnreadInput = NOTHING_UNREAD


MOST_CHAINS = 50_000
"""Chains of one table; files that name more were made by a mistake."""


@dataclass(slots=True)
class _OpenChain:
    """A chain while files are still being added to it. ``head`` holds what was inserted at its head, last rule first,
    so that many insertions take no longer than as many appends."""

    origin: Origin | None = None
    policy: str | None = None
    policy_origin: Origin | None = None
    counters: Counters = ZERO
    head: list[Rule] = field(default_factory=list)
    rest: list[Rule] = field(default_factory=list)

    @property
    def rules(self) -> tuple[Rule, ...]:
        """All rules, in order."""
        return (*reversed(self.head), *self.rest)

    def insert(self, position: int, rule: Rule) -> bool:
        """Insert a rule at a position, counted from 1. Whether the chain is long enough for that."""
        if position <= len(self.head) + 1:
            self.head.insert(len(self.head) - position + 1, rule)
        elif position <= len(self.head) + len(self.rest) + 1:
            self.rest.insert(position - 1 - len(self.head), rule)
        else:
            return False
        return True


class _TooManyChainsError(Exception):
    """More chains than a table may have; it never leaves this module."""

    def __init__(self, origin: Origin) -> None:
        super().__init__()
        hint = "use an ipset, or fewer chains with more rules"
        message = f"more than {MOST_CHAINS:,} chains in one table"
        self.finding = Finding("too-many-chains", message, origin, hint=hint)


_OpenTables = dict[str, dict[str, _OpenChain]]


def compose(readings: Iterable[Reading], *, whole: bool = True) -> Composition:
    """One ruleset for each family from all rule files, in byte order of their names.

    ``whole`` is False where there are files that could not be read at all.
    """
    ordered = sorted(readings, key=lambda reading: reading.path.encode("utf-8", "surrogateescape"))
    findings = [finding for reading in ordered for finding in reading.findings]
    if not any(reading.statements for reading in ordered):
        if not findings:
            findings.append(_nothing_said(ordered))
        return Composition(Candidate({}), Findings(findings))
    opened: dict[Family, _OpenTables] = {family: {} for family in FAMILIES}
    unread = UnreadInput(anything=not whole)
    for reading in ordered:
        unread |= reading.unread
    try:
        findings += _add_all(opened, ordered)
    except _TooManyChainsError as error:
        return Composition(Candidate({}), Findings((*findings, error.finding)))
    rulesets = {}
    for family, tables in opened.items():
        undeclared = tuple(_undeclared_chains(opened, family, ordered, unread))
        findings += undeclared
        if len(undeclared) >= MOST_FINDINGS:
            return Composition(Candidate({}), Findings(findings))
        rulesets[family] = _close(family, tables)
    return Composition(Candidate(rulesets), Findings(findings), unread)


def _nothing_said(readings: Sequence[Reading]) -> Finding:
    """No file, or nothing but comments, is never an empty firewall."""
    accept = 'to accept everything, say so with "-P INPUT ACCEPT"'
    if readings:
        message, hint = "no rule file says anything but comments", f"write the rules into it; {accept}"
        return Finding("no-rules", message, Origin(readings[0].path, 0), hint=hint)
    return Finding("no-rules", "there is no rule file", hint=f'put a file there whose name ends in ".rules"; {accept}')


def _add_all(opened: Mapping[Family, _OpenTables], readings: Iterable[Reading]) -> Iterator[Finding]:
    """Take all statements in order; what is for both families is made once and goes to both."""
    for reading in readings:
        for statement in reading.statements:
            if isinstance(statement, Addition):
                rule = Rule(statement.text, statement.origin, statement.counters)
                for family in statement.families:
                    finding = _add_rule(opened[family], statement, rule)
                    if finding is not None:
                        yield finding
            elif isinstance(statement, Declaration):
                for family in statement.families:
                    yield from _declare(opened[family], statement)
            else:
                for family in statement.families:
                    _start(opened[family], statement)


def _start(tables: _OpenTables, statement: TableStart) -> None:
    tables.setdefault(statement.table, {})


def _chain_of(tables: _OpenTables, table: str, chain: str, origin: Origin) -> _OpenChain:
    chains = tables.get(table)
    if chains is None:
        chains = tables[table] = {}
    opened = chains.get(chain)
    if opened is None:
        if len(chains) >= MOST_CHAINS:
            raise _TooManyChainsError(origin)
        opened = chains[chain] = _OpenChain()
    return opened


def _add_rule(tables: _OpenTables, addition: Addition, rule: Rule) -> Finding | None:
    chain = _chain_of(tables, addition.table, addition.chain, addition.origin)
    if addition.position is None:
        chain.rest.append(rule)
    elif not chain.insert(addition.position, rule):
        count = len(chain.rules)
        rules = f"{count} rule{'s' * (count != 1)}" if count else "no rule"
        message = f"{addition.chain} has {rules} up to here, so nothing can be inserted at {addition.position}"
        hint = f"write -A to append it, or {'a place from 1 to' if count else 'place'} {count + 1}"
        return Finding("bad-position", message, addition.origin, hint=hint)
    return None


def _declare(tables: _OpenTables, declaration: Declaration) -> Iterator[Finding]:
    chain = _chain_of(tables, declaration.table, declaration.chain, declaration.origin)
    chain.origin = chain.origin or declaration.origin
    if declaration.policy is None:
        return
    if chain.policy is None:
        chain.policy, chain.policy_origin = declaration.policy, declaration.origin
        chain.counters = declaration.counters
        return
    where = f"{declaration.chain} in {declaration.table}"
    if chain.policy != declaration.policy:
        message = f"the policy of {where} is {declaration.policy} here and {chain.policy} at {chain.policy_origin}"
        yield Finding("policy-conflict", message, declaration.origin, hint="keep one of the two")
    else:
        message = f"the policy of {where} was already said at {chain.policy_origin}"
        yield Finding("policy-twice", message, declaration.origin, Severity.WARNING, "keep one of the two")


def _undeclared_chains(
    opened: Mapping[Family, _OpenTables], family: Family, readings: Sequence[Reading], unread: UnreadInput
) -> Iterator[Finding]:
    """Rules for a chain that is neither built in nor declared: one finding for each chain, at its first rule."""
    undeclared = (
        (table, name, min(rule.origin for rule in chain.rules if rule.origin is not None))
        for table, chains in opened[family].items()
        for name, chain in chains.items()
        # A chain without rules is one whose insertions were all refused: that is told already.
        if _is_undeclared(table, name, chain) and (chain.head or chain.rest) and not unread.may_declare(name)
    )
    by_path = {reading.path: reading for reading in readings}
    for table, name, origin in islice(undeclared, MOST_FINDINGS):
        message, hint = _how_undeclared(opened, family, table, name)
        line = by_path[origin.path].line(origin.line)
        yield Finding("undeclared-chain", message, origin, hint=hint, line_text=line, family=family)


def _is_undeclared(table: str, name: str, chain: _OpenChain) -> bool:
    return chain.origin is None and name not in BUILTIN_CHAINS[table]


def _how_undeclared(opened: Mapping[Family, _OpenTables], family: Family, table: str, name: str) -> tuple[str, str]:
    """What to tell about rules for a chain that no file declares, and what to do."""
    homes = tables_with(name)
    if homes:
        home = "nat" if "nat" in homes else "filter"
        hint = f'{", ".join(homes)} have it: write *{home} on a line above, or "-t {home}" before -A'
        return f"table {table} has no chain {name}", hint
    message = f"rule for chain {name}, which no file declares in table {table}"
    chains = opened[family][table]
    meant = nearest_name(name, (*BUILTIN_CHAINS[table], *(known for known in chains if chains[known].origin)))
    # Where the other family has the chain, this one alone needs it.
    has_it = any(name in tables.get(table, ()) and tables[table][name].origin for tables in opened.values())
    how = f'"{how_to_declare(name, table, family if has_it else None)}"'
    if meant:
        return message, f"write {meant} if you mean that, or declare the chain: {how}"
    return message, f"declare it: {how}"


def _close(family: Family, tables: _OpenTables) -> Ruleset:
    return Ruleset(family, {name: _close_table(name, tables[name]) for name in BUILTIN_CHAINS if name in tables})


def _close_table(name: str, chains: dict[str, _OpenChain]) -> Table:
    """Built-in chains first, every one of them, so that the kernel's default never decides a policy."""
    builtin = {chain: chains.get(chain, _OpenChain()) for chain in BUILTIN_CHAINS[name]}
    closed = {
        chain: Chain(chain, opened.policy or "ACCEPT", opened.rules, opened.origin, opened.counters)
        for chain, opened in builtin.items()
    }
    for chain, opened in chains.items():
        if chain not in closed:
            # Rules for PREROUTING in filter are told to be in the wrong table; the kernel need not tell it again.
            rules = () if opened.origin is None and tables_with(chain) else opened.rules
            closed[chain] = Chain(chain, None, rules, opened.origin)
    return Table(name, closed)
