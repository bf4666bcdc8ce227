"""Rulesets -> the text that iptables-restore takes, with the origin of every line; and the text that it prints, back.

Rendering a ruleset, reading the text and composing it gives the same ruleset again. Every line of the text knows the
origin that it came from, so that a complaint about line N ends at somebody's file.

Whose rule is it? The rules that a rehearsal printed -> the lines that they were made from.

Mostly one rule is made from one line. A list of addresses, or a name that has several, becomes a rule for each. Then
the tags tell (`fwguardd.ruleset.save_format`): the packet counters that the rules were loaded with.
ip6tables-nft-restore 1.8.9 loses counters, so there the rules that a list becomes are counted instead; behind a name
that only a resolver can count, origins are left open rather than guessed.

This module is pure.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from fwguardd.ruleset.model import ZERO, Chain, Counters, Family, Origin, Rule, Ruleset, Table
from fwguardd.ruleset.tokenizer import UnterminatedQuoteError, word_values

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from fwguardd.ruleset.model import Origin


INCOMPATIBLE = "is incompatible, use 'nft' tool."
"""What iptables-nft-save prints, as a comment and with exit code 0, in place of a table that it cannot show whole."""

_HIDDEN_TABLE = re.compile(rf"# Table `(.+)' {re.escape(INCOMPATIBLE)}$")
_SAVED_RULE = re.compile(r"\[([0-9]+):([0-9]+)\] -A ([^ ]+) ?(.*)$")
_SAVED_CHAIN = re.compile(r":([^ ]+) ([^ ]+) \[([0-9]+):([0-9]+)\]$")


@dataclass(frozen=True, slots=True)
class Rendered:
    """Text for iptables-restore, and for each of its lines the origin; None where a line is nobody's."""

    text: str
    origins: tuple[Origin | None, ...]

    def origin(self, line: int) -> Origin | None:
        """The origin of a line, counted from 1 as iptables-restore counts them."""
        return self.origins[line - 1] if 0 < line <= len(self.origins) else None


class IncompatibleTableError(Exception):
    """A live table holds what iptables cannot express, and loading rules would destroy it."""

    def __init__(self, family: Family, table: str) -> None:
        program = "iptables-save" if family is Family.IPV4 else "ip6tables-save"
        super().__init__(f"{program} cannot show a table whole (Table `{table}' {INCOMPATIBLE})")


class UnreadableSaveError(Exception):
    """iptables-save printed a line that is in no known form."""

    def __init__(self, line: str) -> None:
        super().__init__(f"iptables-save printed a line that is not understood: {line[:200]!r}")


@dataclass(frozen=True, slots=True)
class Saved:
    """What iptables-save printed of one family: the tables that it shows, and the names of those that it hides, because
    they hold what iptables cannot express."""

    shown: Ruleset
    hidden: frozenset[str] = frozenset()

    def showing(self, tables: Iterable[str]) -> Ruleset:
        """What is shown, for somebody who needs to see these tables. One that is not there at all hides nothing.

        Raises IncompatibleTableError where one of them is hidden.
        """
        for table in tables:
            if table in self.hidden:
                raise IncompatibleTableError(self.shown.family, table)
        return self.shown


def render(ruleset: Ruleset, *, tagged: bool = False, commit_every: int | None = None) -> Rendered:
    """The text of a ruleset for iptables-restore.

    ``tagged`` writes the number of each rule, counted over the whole ruleset from 0, as its packet counter: after a
    load with --counters and a save with -c, each rule that the kernel holds names the rule that it was made from, even
    where one became several. ``commit_every`` commits each so many rules, for a load with --noflush in a user
    namespace, whose socket buffer cannot take more at once.
    """
    lines: list[str] = []
    origins: list[Origin | None] = []
    for line, origin in _lines(ruleset, tagged=tagged, commit_every=commit_every):
        lines.append(line)
        origins.append(origin)
    return Rendered("".join(f"{line}\n" for line in lines), tuple(origins))


def rules_in_order(ruleset: Ruleset) -> tuple[Rule, ...]:
    """All rules in the order in which `render` numbers them."""
    return tuple(rule for _, chain in ruleset.chains() for rule in chain.rules)


def _lines(ruleset: Ruleset, *, tagged: bool, commit_every: int | None) -> Iterator[tuple[str, Origin | None]]:
    number = 0
    for table in ruleset.tables.values():
        yield f"*{table.name}", None
        for chain in table.chains.values():
            yield f":{chain.name} {chain.policy or '-'} {ZERO}", chain.origin
        written = 0
        for chain in table.chains.values():
            prefix = f"-A {chain.name}"
            for rule in chain.rules:
                if commit_every and written == commit_every:
                    yield from (("COMMIT", None), (f"*{table.name}", None))
                    written = 0
                tag = f"[{number}:0] " if tagged else ""
                yield f"{tag}{prefix} {rule.text}" if rule.text else f"{tag}{prefix}", rule.origin
                number += 1
                written += 1
        yield "COMMIT", None


def read_saved(family: Family, text: str) -> Saved:
    """What iptables-save -c printed, with counters and without origins.

    Raises UnreadableSaveError for any line in no known form: to guess at the state of a firewall would be worse than to
    stop.
    """
    tables: dict[str, Table] = {}
    hidden: set[str] = set()
    chains: dict[str, tuple[str | None, Counters, list[Rule]]] = {}
    name = ""
    for line in text.split("\n"):
        if match := _SAVED_RULE.match(line):
            packets, seen, chain, rule = match.groups()
            if chain not in chains:
                raise UnreadableSaveError(line)
            chains[chain][2].append(Rule(rule, None, Counters(int(packets), int(seen))))
        elif match := _SAVED_CHAIN.match(line):
            chain, policy, packets, seen = match.groups()
            chains[chain] = (None if policy == "-" else policy, Counters(int(packets), int(seen)), [])
        elif line.startswith("*"):
            name, chains = line[1:], {}
        elif line == "COMMIT":
            tables[name] = _saved_table(name, chains)
        elif match := _HIDDEN_TABLE.match(line):
            hidden.add(match[1])
        elif line and (not line.startswith("#") or INCOMPATIBLE in line):
            raise UnreadableSaveError(line)
    return Saved(Ruleset(family, tables), frozenset(hidden))


def _saved_table(name: str, chains: dict[str, tuple[str | None, Counters, list[Rule]]]) -> Table:
    return Table(
        name,
        {
            chain: Chain(chain, policy, tuple(rules), None, counters)
            for chain, (policy, counters, rules) in chains.items()
        },
    )


_ADDRESS_OPTIONS = frozenset({"-s", "--source", "--src", "-d", "--destination", "--dst"})
_LITERAL = frozenset("0123456789abcdefABCDEF.:/")


def with_origins(saved: Ruleset, source: Ruleset) -> Ruleset:
    """A ruleset that was loaded tagged and saved, with origins; only the tables that ``source`` has."""
    tables: dict[str, Table] = {}
    first = 0
    for table in source.tables.values():
        chains: dict[str, Chain] = {}
        for chain in table.chains.values():
            here = saved.tables[table.name].chains[chain.name]
            origins = _origins(here.rules, chain.rules, first)
            rules = tuple(Rule(rule.text, origin) for rule, origin in zip(here.rules, origins, strict=True))
            chains[chain.name] = Chain(chain.name, here.policy, rules, chain.origin)
            first += len(chain.rules)
        tables[table.name] = Table(table.name, chains)
    return Ruleset(saved.family, tables)


def _origins(saved: Sequence[Rule], written: Sequence[Rule], first: int) -> list[Origin | None]:
    if len(saved) == len(written):
        return [rule.origin for rule in written]
    if any(rule.counters.packets for rule in saved):
        return [written[rule.counters.packets - first].origin for rule in saved]
    counted = list(_counted(written))[: len(saved)]
    return counted + [None] * (len(saved) - len(counted))


def _counted(written: Sequence[Rule]) -> Iterator[Origin | None]:
    """Each origin as often as its rule becomes several, up to the first rule that cannot be counted."""
    for rule in written:
        count = _expansions(rule.text)
        if count is None:
            return
        for _ in range(count):
            yield rule.origin


def _expansions(text: str) -> int | None:
    """How many rules iptables makes of one: for each pair of a source and a destination. None with a host name."""
    try:
        words = word_values(text)
    except UnterminatedQuoteError:
        return None
    count = 1
    for option, value in pairwise(words):
        if option in _ADDRESS_OPTIONS:
            if not set(value) <= _LITERAL | {","}:
                return None
            count *= value.count(",") + 1
    return count
