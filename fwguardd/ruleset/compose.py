"""Rule files -> one ruleset for each family.

All files make one ruleset: they are read in byte order of their names, a table may be continued in any of them, and a
chain may be declared after its rules. Two different policies of one chain are refused, and so are rules for a chain
that no file declares.

This module is pure.
"""

from __future__ import annotations

from dataclasses import field, replace
from typing import TYPE_CHECKING

from fwguardd.ruleset.model import (
    BUILTIN_CHAINS,
    MOST_FINDINGS,
    NOT_STATED,
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
from fwguardd.ruleset.program_lookup import CHAINS_FOR_ADMINISTRATORS
from fwguardd.ruleset.rule_runs import RuleRun, RuleRuns, rules_of
from fwguardd.ruleset.set_names import SetNames
from fwguardd.ruleset.statements import (
    NOTHING_UNREAD,
    Addition,
    Declaration,
    Reading,
    TableStart,
    UnreadInput,
    lines_by_path,
)
from fwguardd.ruleset.suggestions import how_to_declare, nearest_name, tables_with
from fwguardd.values import dataclass
from fwguardd.wording import counted

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence


@dataclass(frozen=True, slots=True)
class Composition:
    """The result of composing: a candidate, which is incomplete if a finding is an error; and what was not read."""

    candidate: Candidate
    findings: Findings
    unread: UnreadInput = NOTHING_UNREAD

    def and_findings(self, findings: Findings) -> Composition:
        """The same with these findings too."""
        return replace(self, findings=Findings((*self.findings, *findings)))


MOST_CHAINS = 50_000
"""Chains of one table. Files that name more of them are a mistake."""


@dataclass(slots=True)
class _OpenChain:
    """A chain while rules are added to it. ``head`` holds the rules that were inserted at its head, last rule first, so
    that an insertion there takes no longer than an append."""

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

    @property
    def has_rules(self) -> bool:
        """Whether it has a rule."""
        return bool(self.head or self.rest)

    def insert(self, position: int, rule: Rule) -> bool:
        """Insert a rule at a position, counted from 1. False where the chain is too short for it."""
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


def compose(
    readings: Iterable[Reading], *, whole: bool = True, sets: Collection[str] = (), runs: RuleRuns | None = None
) -> Composition:
    """One ruleset for each family from all rule files, in byte order of their names.

    ``whole`` is False where there are files that could not be read at all. ``sets`` are the names of set files: a rule
    that names one of them names the kernel's set of its family. ``runs`` is what composing similar files has left.
    """
    ordered = sorted(readings, key=_name_as_bytes)
    findings: list[Finding] = []
    unread = UnreadInput(anything=not whole)
    for reading in ordered:
        findings += reading.findings
        unread |= reading.unread
    if not any(reading.says_anything for reading in ordered):
        return _without_statements(ordered, findings)
    opened: dict[Family, _OpenTables] = {Family.IPV4: {}, Family.IPV6: {}}
    try:
        findings += _add_all(opened, ordered, SetNames.of(sets), runs or RuleRuns())
    except _TooManyChainsError as error:
        return Composition(Candidate({}), Findings((*findings, error.finding)))
    candidate, undeclared = _closed(opened, unread)
    findings += undeclared.with_lines(lines_by_path(ordered))
    return Composition(candidate, Findings(findings), unread)


def _name_as_bytes(reading: Reading) -> bytes:
    return reading.path.encode("utf-8", "surrogateescape")


def _no_rules(readings: Sequence[Reading]) -> Finding:
    """Without a statement there is no ruleset: an empty directory is more likely a mistake than an open firewall."""
    accept = 'to accept everything, write "-P INPUT ACCEPT"'
    if readings:
        message, hint = "the rule files state no rule, chain or policy", f"write the rules into one of them; {accept}"
        return Finding("no-rules", message, Origin(readings[0].path, 0), hint=hint)
    return Finding("no-rules", "there is no rule file", hint=f'write one whose name ends in ".rules"; {accept}')


def _without_statements(readings: Sequence[Reading], findings: Sequence[Finding]) -> Composition:
    """No ruleset. An error explains why there are no statements; where there is none, a finding says so."""
    if Findings(findings).errors:
        return Composition(Candidate({}), Findings(findings))
    return Composition(Candidate({}), Findings((*findings, _no_rules(readings))))


def _add_all(
    opened: Mapping[Family, _OpenTables], readings: Iterable[Reading], sets: SetNames, runs: RuleRuns
) -> Iterator[Finding]:
    """Add all statements in order."""
    for statement in runs.of(readings, sets):
        match statement:
            case RuleRun():
                _append(opened, statement)
            case Addition():
                yield from _add_rule(opened, statement, sets)
            case Declaration():
                for family in statement.families:
                    yield from _declare(opened[family], statement)
            case TableStart():
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


def _append(opened: Mapping[Family, _OpenTables], run: RuleRun) -> None:
    said = run.appended
    for family in said.families:
        _chain_of(opened[family], said.table, said.chain, run.origin).rest.extend(run.rules_of(family))


def _add_rule(opened: Mapping[Family, _OpenTables], addition: Addition, sets: SetNames) -> Iterator[Finding]:
    """Insert a rule at its position."""
    for family, rule in rules_of(addition, sets).items():
        chain = _chain_of(opened[family], addition.table, addition.chain, addition.origin)
        if addition.position is not None and not chain.insert(addition.position, rule):
            yield _bad_position(addition, len(chain.rules))


def _bad_position(addition: Addition, count: int) -> Finding:
    """An insertion at a position that a chain with so many rules does not have."""
    rules, positions = counted(count, "rule"), f"a position from 1 to {count + 1}"
    if not count:
        rules, positions = "no rules", "position 1"
    message = f"{addition.chain} has {rules} before this line, so nothing can be inserted at {addition.position}"
    hint = f"write -A to append the rule, or {positions}"
    return Finding("bad-position", message, addition.origin, hint=hint)


def _declare(tables: _OpenTables, declaration: Declaration) -> Iterator[Finding]:
    chain = _chain_of(tables, declaration.table, declaration.chain, declaration.origin)
    chain.origin = chain.origin or declaration.origin
    if declaration.policy is None:
        return
    if chain.policy is None:
        chain.policy, chain.policy_origin = declaration.policy, declaration.origin
        chain.counters = declaration.counters
        return
    yield _second_policy(chain, declaration)


def _second_policy(chain: _OpenChain, declaration: Declaration) -> Finding:
    """The finding for a policy of a chain that has one already."""
    where = f"{declaration.chain} in {declaration.table}"
    if chain.policy != declaration.policy:
        message = f"the policy of {where} is {declaration.policy} here and {chain.policy} at {chain.policy_origin}"
        return Finding("policy-conflict", message, declaration.origin, hint="keep one of the two")
    message = f"the policy of {where} was already set at {chain.policy_origin}"
    return Finding("policy-twice", message, declaration.origin, Severity.WARNING, "keep one of the two")


def _undeclared_chains(opened: Mapping[Family, _OpenTables], family: Family, unread: UnreadInput) -> Sequence[Finding]:
    """Rules for a chain that is neither built in nor declared: one finding for each chain, at its first rule."""
    findings: list[Finding] = []
    for table, name, chain in _without_declaration(opened[family]):
        if unread.may_declare(name):
            continue
        origin = min(rule.origin for rule in chain.rules if rule.origin is not None)
        if len(findings) == MOST_FINDINGS:
            findings.append(_others_undeclared(origin, family))
            break
        message, hint = _how_undeclared(opened, family, table, name)
        findings.append(Finding("undeclared-chain", message, origin, hint=hint, family=family))
    return findings


def _others_undeclared(origin: Origin, family: Family) -> Finding:
    message = f"more than {MOST_FINDINGS} chains are not declared; the others are not listed"
    return Finding("too-many-errors", message, origin, family=family)


def _without_declaration(tables: _OpenTables) -> Iterator[tuple[str, str, _OpenChain]]:
    """The chains that have rules and have to be declared and are not, with the names of their tables."""
    for table, chains in tables.items():
        for name, chain in chains.items():
            if _lacks_declaration(table, name, chain):
                yield table, name, chain


def _lacks_declaration(table: str, name: str, chain: _OpenChain) -> bool:
    # A chain without rules is one whose insertions were all refused, which is reported already.
    return chain.origin is None and chain.has_rules and not _needs_no_declaration(table, name)


def _needs_no_declaration(table: str, name: str) -> bool:
    """Whether a chain is built in, or one that a known program makes for administrators."""
    return name in BUILTIN_CHAINS[table] or (table == "filter" and name in CHAINS_FOR_ADMINISTRATORS)


def _how_undeclared(opened: Mapping[Family, _OpenTables], family: Family, table: str, name: str) -> tuple[str, str]:
    """The message and the hint for rules for a chain that no file declares."""
    if tables_with(name):
        return f"table {table} has no chain {name}", _where_it_is_built_in(name)
    hint = _declare_or_correct(opened, family, table, name)
    return f"rule for chain {name}, which no file declares in table {table}", hint


def _where_it_is_built_in(name: str) -> str:
    tables = tables_with(name)
    likely = "nat"
    if "filter" in tables:
        likely = "filter"
    return f'it is built into {", ".join(tables)}: write *{likely} on a line above, or "-t {likely}" before -A'


def _declared_chains(tables: _OpenTables, table: str) -> list[str]:
    return [name for name in tables[table] if _is_declared(tables, table, name)]


def _declare_or_correct(opened: Mapping[Family, _OpenTables], family: Family, table: str, name: str) -> str:
    needed_by = None
    if any(_is_declared(tables, table, name) for tables in opened.values()):
        needed_by = family  # The other family has the chain.
    meant = nearest_name(name, (*BUILTIN_CHAINS[table], *_declared_chains(opened[family], table)))
    if meant:
        return f'write {meant} if you mean that, or declare the chain: "{how_to_declare(name, table, needed_by)}"'
    return f'declare it: "{how_to_declare(name, table, needed_by)}"'


def _is_declared(tables: _OpenTables, table: str, name: str) -> bool:
    return table in tables and name in tables[table] and tables[table][name].origin is not None


def _closed(opened: Mapping[Family, _OpenTables], unread: UnreadInput) -> tuple[Candidate, Findings]:
    """The rulesets, and findings about chains that are not declared."""
    candidate = Candidate({family: _close(family, tables) for family, tables in opened.items()})
    undeclared = (_undeclared_chains(opened, Family.IPV4, unread), _undeclared_chains(opened, Family.IPV6, unread))
    if max(map(len, undeclared)) > MOST_FINDINGS:
        candidate = Candidate({})  # Not all errors are listed; a rehearsal would add others to them.
    return candidate, Findings((*undeclared[0], *undeclared[1]))


def _close(family: Family, tables: _OpenTables) -> Ruleset:
    closed: dict[str, Table] = {}
    for name in BUILTIN_CHAINS:
        if name in tables:
            closed[name] = _close_table(name, tables[name])
    return Ruleset(family, closed)


def _close_table(name: str, chains: dict[str, _OpenChain]) -> Table:
    """All built-in chains first, then the user-defined ones."""
    closed: dict[str, Chain] = {}
    for chain in BUILTIN_CHAINS[name]:
        closed[chain] = _close_builtin_chain(chain, chains.get(chain, _OpenChain()))
    for chain, opened in chains.items():
        if chain not in closed:
            closed[chain] = _close_user_chain(chain, opened)
    return Table(name, closed)


def _close_builtin_chain(name: str, opened: _OpenChain) -> Chain:
    return Chain(name, opened.policy or NOT_STATED, opened.rules, opened.origin, opened.counters)


def _close_user_chain(name: str, opened: _OpenChain) -> Chain:
    rules = opened.rules
    if opened.origin is None and tables_with(name):
        rules = ()  # Rules for PREROUTING in filter: a finding says so, and the kernel need not refuse them again.
    return Chain(name, None, rules, opened.origin)
