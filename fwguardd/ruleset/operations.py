"""The operations that a plan consists of, and their text for ``iptables-restore --noflush --counters``.

Each operation is one line of that text (iptables-restore(8); the commands are those of iptables(8)). Rules and policies
carry the counters that they start with, so that what is written again keeps what it had counted.

This module is pure.
"""

from __future__ import annotations

from dataclasses import field, replace
from itertools import groupby
from operator import attrgetter
from typing import TYPE_CHECKING, NamedTuple

from fwguardd.ruleset.model import ZERO, Counters, Family, Ruleset
from fwguardd.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping


@dataclass(frozen=True, slots=True)
class SetPolicy:
    """Give a built-in chain a policy and its counters."""

    table: str
    chain: str
    policy: str
    counters: Counters = ZERO


@dataclass(frozen=True, slots=True)
class MakeChain:
    """Make a user-defined chain. It must not exist: iptables-restore would empty it."""

    table: str
    chain: str


@dataclass(frozen=True, slots=True)
class Append:
    """Append a rule to a chain."""

    table: str
    chain: str
    text: str
    counters: Counters = ZERO


@dataclass(frozen=True, slots=True)
class Insert:
    """Insert a rule, so that it becomes the one with this number, counted from 1."""

    table: str
    chain: str
    number: int
    text: str
    counters: Counters = ZERO


@dataclass(frozen=True, slots=True)
class Delete:
    """Delete the first rule with this text."""

    table: str
    chain: str
    text: str


@dataclass(frozen=True, slots=True)
class DeleteNumber:
    """Delete the rule with this number, counted from 1."""

    table: str
    chain: str
    number: int


@dataclass(frozen=True, slots=True)
class FlushChain:
    """Delete all rules of a chain."""

    table: str
    chain: str


@dataclass(frozen=True, slots=True)
class RemoveChain:
    """Remove a user-defined chain that is empty and that no rule jumps to."""

    table: str
    chain: str


Operation = SetPolicy | MakeChain | Append | Insert | Delete | DeleteNumber | FlushChain | RemoveChain


@dataclass(frozen=True, slots=True)
class Plan:
    """The operations on the tables of one family, in order: those on one table stand together, removals of chains last.

    Empty when nothing has to be written.
    """

    family: Family
    operations: tuple[Operation, ...]
    texts: list[str] = field(default_factory=list, compare=False, repr=False)
    """The texts of `render_plan`, once they were made ahead."""

    def render(self) -> None:
        """Make the texts ahead."""
        self.texts[:] = _rendered(self)


class LiveRule(NamedTuple):
    """A rule that the kernel holds: its chain, its place there, counted from 0, and its text."""

    table: str
    chain: str
    number: int
    text: str


def writes_policy(plan: Plan) -> bool:
    """Whether a plan writes a policy, which has to keep what it has counted."""
    return any(isinstance(operation, SetPolicy) for operation in plan.operations)


def written_again(plan: Plan, live: Ruleset) -> tuple[LiveRule, ...]:
    """The rules that are there already and that a plan may write again: they have to keep what they have counted."""
    written: dict[tuple[str, str], set[str]] = {}
    for operation in plan.operations:
        if isinstance(operation, (Append, Insert)):
            written.setdefault((operation.table, operation.chain), set()).add(operation.text)
    found: list[LiveRule] = []
    for (table, chain), texts in written.items():
        found += _rules_with(texts, live, table, chain)
    return tuple(found)


def _rules_with(texts: Collection[str], live: Ruleset, table: str, chain: str) -> Iterator[LiveRule]:
    if table not in live.tables or chain not in live.tables[table].chains:
        return
    for number, rule in enumerate(live.tables[table].chains[chain].rules):
        if rule.text in texts:
            yield LiveRule(table, chain, number, rule.text)


def with_counters(plan: Plan, counters: Mapping[tuple[str, str, str], Counters]) -> Plan:
    """The plan with other counters for the rules that it writes of these tables, chains and texts."""
    return replace(plan, operations=tuple(_counting(operation, counters) for operation in plan.operations))


def _counting(operation: Operation, counters: Mapping[tuple[str, str, str], Counters]) -> Operation:
    if not isinstance(operation, (Append, Insert)):
        return operation
    counted = counters.get((operation.table, operation.chain, operation.text))
    if counted is None:
        return operation
    return replace(operation, counters=counted)


def render_plan(plan: Plan) -> tuple[str, ...]:
    """The texts for iptables-restore, to be loaded one after the other.

    Chains are removed by a text of their own: nf_tables does not remove a chain that was referenced when the
    transaction began.
    """
    return tuple(plan.texts) or _rendered(plan)


def _rendered(plan: Plan) -> tuple[str, ...]:
    changes: list[Operation] = []
    removals: list[Operation] = []
    for operation in plan.operations:
        if isinstance(operation, RemoveChain):
            removals.append(operation)
        else:
            changes.append(operation)
    return tuple(_text(operations) for operations in (changes, removals) if operations)


def _text(operations: Iterable[Operation]) -> str:
    """One text, in which each table is one transaction of the kernel."""
    lines: list[str] = []
    for table, group in groupby(operations, key=attrgetter("table")):
        lines.append(f"*{table}")
        lines += map(_line, group)
        lines.append("COMMIT")
    return "".join(f"{line}\n" for line in lines)


def _line(operation: Operation) -> str:
    match operation:
        case Append(_, chain, text, counters):
            line = f"{counters} -A {chain} {text}"
        case Insert(_, chain, number, text, counters):
            line = f"{counters} -I {chain} {number} {text}"
        case Delete(_, chain, text):
            line = f"-D {chain} {text}"
        case DeleteNumber(_, chain, number):
            line = f"-D {chain} {number}"
        case SetPolicy(_, chain, policy, counters):
            line = f":{chain} {policy} {counters}"
        case MakeChain(_, chain):
            line = f":{chain} - {ZERO}"
        case FlushChain(_, chain):
            line = f"-F {chain}"
        case _:
            line = f"-X {operation.chain}"
    return line.rstrip(" ")  # A rule without any option has an empty text.
