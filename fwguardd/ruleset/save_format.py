"""Rulesets as text for iptables-restore, and what iptables-save prints as rulesets.

Rendering a ruleset, reading the text and composing it gives the same ruleset again. Each line of a rendered text has
the origin that it came from, so that an error in line N of it is reported with a rule file and its line.

`with_origins` finds the origin of each rule that a rehearsal printed. A rule with a list of addresses, or with a name
that resolves to several, becomes a rule for each. The rules are therefore loaded with their numbers as packet counters,
and each one that iptables-save prints carries the number of the rule that it was made from. ip6tables-nft-restore 1.8.9
loses counters; there the rules that a list becomes are counted. Behind a name the number is unknown, and the origins
are left open.

This module is pure.
"""

from __future__ import annotations

import re
from dataclasses import field, replace
from typing import TYPE_CHECKING

from fwguardd.ruleset.model import (
    BUILTIN_CHAINS,
    NOT_STATED,
    ZERO,
    Chain,
    Counters,
    Family,
    Origin,
    Rule,
    Ruleset,
    Table,
)
from fwguardd.ruleset.rule_view import RuleView
from fwguardd.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence


INCOMPATIBLE = "is incompatible, use 'nft' tool."
"""What iptables-nft-save prints, as a comment and with exit code 0, in place of a table that it cannot show whole."""

_HIDDEN_TABLE = re.compile(rf"# Table `(.+)' {re.escape(INCOMPATIBLE)}$")
_SAVED_RULE = re.compile(r"\[([0-9]+):([0-9]+)\] -A ([^ ]+) ?(.*)$")
_AT_A_TIME = 64 * 1024
"""Characters of a text that are cut into lines at once."""

_TAG = re.compile(r"^\[[0-9]+:[0-9]+\] -A", re.MULTILINE)
_SAVED_CHAIN = re.compile(r":([^ ]+) ([^ ]+) \[([0-9]+):([0-9]+)\]$")


@dataclass(frozen=True, slots=True)
class Rendered:
    """Text for iptables-restore, and for each of its lines the origin; None for a line that came from no file."""

    text: str
    origins: tuple[Origin | None, ...]

    def origin(self, line: int) -> Origin | None:
        """The origin of a line, counted from 1 as iptables-restore counts them."""
        if 0 < line <= len(self.origins):
            return self.origins[line - 1]
        return None


class IncompatibleTableError(Exception):
    """A live table holds rules that iptables cannot express. Loading rules would destroy them."""

    def __init__(self, family: Family, table: str) -> None:
        program = "iptables-save"
        if family is Family.IPV6:
            program = "ip6tables-save"
        super().__init__(f"{program} cannot show all rules of a table (Table `{table}' {INCOMPATIBLE})")


class UnreadableSaveError(Exception):
    """iptables-save printed a line of unknown form."""

    def __init__(self, line: str) -> None:
        super().__init__(f"iptables-save printed a line of unknown form: {line[:200]!r}")


class IncompleteSaveError(Exception):
    """What iptables-save printed is only a part of what it had to print. It exits with 0 even then."""


@dataclass(frozen=True, slots=True)
class Saved:
    """What iptables-save printed of one family: the tables that it shows, and the names of those that it hides because
    they hold rules that iptables cannot express. No packet traverses the ``dormant`` tables, which iptables-save prints
    like any other: their names come from the kernel."""

    shown: Ruleset
    hidden: frozenset[str] = frozenset()
    dormant: frozenset[str] = frozenset()

    def shows_less_than(self, before: Ruleset) -> bool:
        """Whether a table is gone that was shown before, or a chain of it, or some of the rules of a chain."""
        for name, table in before.tables.items():
            if name in self.hidden:
                continue
            shown = self.shown.tables.get(name)
            if shown is None or _shows_fewer_rules(shown, table):
                return True
        return False

    def showing(self, tables: Iterable[str]) -> Ruleset:
        """The tables that are shown.

        Raises IncompatibleTableError if one of the named tables is hidden. One that does not exist is not hidden.
        """
        for table in tables:
            if table in self.hidden:
                raise IncompatibleTableError(self.shown.family, table)
        return self.shown


def _shows_fewer_rules(shown: Table, before: Table) -> bool:
    """Whether a chain is gone that a table had before, or some of its rules."""
    for name, chain in before.chains.items():
        if name not in shown.chains or len(shown.chains[name].rules) < len(chain.rules):
            return True
    return False


def render(ruleset: Ruleset, *, tagged: bool = False, commit_every: int | None = None) -> Rendered:
    """The text of a ruleset for iptables-restore.

    ``tagged`` writes the number of each rule, counted over the whole ruleset from 0, as its packet counter: after a
    load with --counters and a save with -c, each rule that the kernel holds names the rule that it was made from, even
    where one became several. ``commit_every`` commits each so many rules, for a load with --noflush in a user
    namespace, whose socket buffer cannot take more at once.
    """
    lines: list[str] = []
    origins: list[Origin | None] = []
    first = 0
    for table in ruleset.tables.values():
        rules = list(_rule_lines(table, first, tagged=tagged))
        first += len(rules)
        for line, origin in _table_lines(table, rules, commit_every or len(rules)):
            lines.append(line)
            origins.append(origin)
    lines.append("")
    return Rendered("\n".join(lines), tuple(origins))


def rules_in_order(ruleset: Ruleset) -> tuple[Rule, ...]:
    """All rules in the order in which `render` numbers them."""
    return tuple(rule for _, chain in ruleset.chains() for rule in chain.rules)


_Line = tuple[str, "Origin | None"]


def _table_lines(table: Table, rules: Sequence[_Line], commit_every: int) -> Iterator[_Line]:
    """The lines of a table: its name, its chains, and these lines of its rules with a commit after each so many."""
    start: _Line = (f"*{table.name}", None)
    commit: _Line = ("COMMIT", None)
    yield start
    for chain in table.chains.values():
        yield f":{chain.name} {chain.policy_after('ACCEPT') or '-'} {ZERO}", chain.origin
    yield from rules[:commit_every]
    for place in range(commit_every, len(rules), commit_every or 1):
        yield commit
        yield start
        yield from rules[place : place + commit_every]
    yield commit


def _rule_lines(table: Table, number: int, *, tagged: bool) -> Iterator[_Line]:
    """The lines of the rules of a table, the first of which has this number."""
    for chain in table.chains.values():
        prefix = f"-A {chain.name}"
        for rule in chain.rules:
            line = prefix
            if rule.text:
                line = f"{prefix} {rule.text}"
            if tagged:
                line = f"[{number}:0] {line}"
                number += 1
            yield line, rule.origin


def read_saved(family: Family, text: str, before: Ruleset | None = None, like: Ruleset | None = None) -> Saved:
    """What iptables-save -c printed, with counters and without origins.

    Rules that were printed ``before``, and have counted nothing, are the same objects again: that saves most of the
    time and the memory. Their texts are the same objects as those of equal rules in ``like``.

    A chain of nf_tables without a hook, under the name of a built-in one (``nft add chain ip filter INPUT``), is
    printed as a user-defined chain. No packet traverses it, so it is read as a built-in one that accepts everything.

    Raises IncompleteSaveError where a table lacks its COMMIT, or the last line its end, and UnreadableSaveError for a
    line of unknown form. The state of a firewall is never guessed.
    """
    if text and not text.endswith("\n"):
        raise IncompleteSaveError(f"its output ends inside a line: {text[-80:].splitlines()[-1]!r}")
    reader, known = _SaveReader({}, set()), _known_rules(before, like)
    # What the next rule of the same chain begins with, if it has counted nothing: nearly every line does.
    beginning, rules = "\n", list[Rule]()
    for line in _lines(text):
        if line.startswith(beginning):
            rule = line[len(beginning) :]
            rules.append(known.get(rule) or Rule(rule))
            continue
        match = _SAVED_RULE.match(line)
        if match is not None and match[3] in reader.rules:
            packets, octets, chain, rule = match.groups()
            rules = reader.rules[chain]
            rules.append(_rule(rule, packets, octets, known))
            beginning = f"[0:0] -A {chain} "
        else:
            reader.read(line)
            beginning = "\n"
    reader.close()
    return Saved(Ruleset(family, reader.tables), frozenset(reader.hidden))


def _rule(text: str, packets: str, octets: str, known: Mapping[str, Rule]) -> Rule:
    if packets == octets == "0":
        return known.get(text) or Rule(text)
    return Rule(text, None, Counters(int(packets), int(octets)))


def _lines(text: str) -> Iterator[str]:
    """The lines of a text, of which few are in memory at a time."""
    begin = 0
    while begin <= len(text):
        end = text.find("\n", begin + _AT_A_TIME)
        if end < 0:
            end = len(text)
        yield from text[begin:end].split("\n")
        begin = end + 1


def _known_rules(before: Ruleset | None, like: Ruleset | None) -> dict[str, Rule]:
    """Rules that have counted nothing, by their texts: those of ``before``, with texts that are objects of ``like``."""
    known: dict[str, Rule] = {}
    if before is not None:
        for _, chain in before.chains():
            known |= {rule.text: rule for rule in chain.rules if rule.counters is ZERO}
    if like is not None:
        for rule in rules_in_order(like):
            found = known.get(rule.text)
            if found is None or found.text is not rule.text:
                known[rule.text] = Rule(rule.text)
    return known


@dataclass(slots=True)
class _SaveReader:
    """The tables that were read, and the chains of the one that is being read."""

    tables: dict[str, Table]
    hidden: set[str]
    table: str = ""
    chains: dict[str, Chain] = field(default_factory=dict)
    rules: dict[str, list[Rule]] = field(default_factory=dict)
    hookless: set[str] = field(default_factory=set)

    def read(self, line: str) -> None:
        """Take in a line that is not a rule. Raises UnreadableSaveError."""
        if line.startswith("*"):
            self.close()
            self.table = line[1:]
        elif self.table:
            self._read_in_table(line)
        elif line:
            self._read_comment(line)

    def _read_in_table(self, line: str) -> None:
        match = _SAVED_CHAIN.match(line)
        if match is not None:
            self._declare(*match.groups())
        elif line == "COMMIT":
            self._end_table()
        elif line:
            self._read_comment(line)

    def close(self) -> None:
        """The table that was read last has ended. Raises IncompleteSaveError where it lacks its COMMIT."""
        if self.table:
            raise IncompleteSaveError(f"its output ends inside the table {self.table}, which lacks its COMMIT")

    def _end_table(self) -> None:
        chains = {name: replace(chain, rules=tuple(self.rules[name])) for name, chain in self.chains.items()}
        for name in self.hookless:
            chains[name] = Chain(name, "ACCEPT")
        self.tables[self.table] = Table(self.table, chains)
        self.table, self.chains, self.rules = "", {}, {}
        self.hookless.clear()

    def _declare(self, name: str, policy: str, packets: str, octets: str) -> None:
        chain = Chain(name, policy, counters=Counters(int(packets), int(octets)))
        if policy == "-":
            chain = replace(chain, policy=None)
            if name in BUILTIN_CHAINS.get(self.table, ()):
                self.hookless.add(name)
        self.chains[name], self.rules[name] = chain, []

    def _read_comment(self, line: str) -> None:
        """Take in a line that must be a comment; one of them names a hidden table. Raises UnreadableSaveError."""
        match = _HIDDEN_TABLE.match(line)
        if match is not None:
            self.hidden.add(match[1])
        elif not line.startswith("#") or INCOMPATIBLE in line:
            raise UnreadableSaveError(line)


_LITERAL_LIST = re.compile(r"[0-9a-fA-F.:/,]*")


def read_rehearsed(source: Ruleset, text: str) -> Ruleset:
    """What iptables-save -c printed of a ruleset that was loaded with tags, as `with_origins` gives it.

    The tags are read only where a rule has become several: without them most lines need no object but the rule. Raises
    what `read_saved`, `Saved.showing` and `with_origins` raise.
    """
    shown = read_saved(source.family, _TAG.sub("[0:0] -A", text)).showing(source.tables)
    if shown.rule_count != source.rule_count:
        shown = read_saved(source.family, text).showing(source.tables)
    return with_origins(shown, source)


def with_origins(saved: Ruleset, source: Ruleset) -> Ruleset:
    """A ruleset that was loaded with tags and saved, with origins; only the tables that ``source`` has.

    Raises IncompleteSaveError where a table or chain of it was not saved, or fewer rules than were loaded.
    """
    tables: dict[str, Table] = {}
    first = 0
    for name, table in source.tables.items():
        tables[name] = _table_with_origins(saved.tables.get(name, Table(name, {})), table, first)
        first += sum(len(chain.rules) for chain in table.chains.values())
    return Ruleset(saved.family, tables)


def _table_with_origins(saved: Table, source: Table, first: int) -> Table:
    """A table whose first rule has the number ``first``. Raises IncompleteSaveError."""
    chains: dict[str, Chain] = {}
    for chain in source.chains.values():
        here = saved.chains.get(chain.name)
        if here is None or len(here.rules) < len(chain.rules):
            raise IncompleteSaveError(f"the chain {chain.name} of the table {source.name} was not printed whole")
        chains[chain.name] = _chain_with_origins(here, chain, first)
        first += len(chain.rules)
    return Table(source.name, chains)


def _chain_with_origins(saved: Chain, written: Chain, first: int) -> Chain:
    origins = _origins(saved.rules, written.rules, first)
    rules = tuple(map(Rule, _texts_like(saved.rules, written.rules), origins))
    policy = saved.policy
    if written.policy == NOT_STATED:
        policy = NOT_STATED
    return Chain(written.name, policy, rules, written.origin)


def _texts_like(saved: Sequence[Rule], written: Sequence[Rule]) -> Iterator[str]:
    """The saved texts. One that was written as it is saved is the same object."""
    as_written = {rule.text: rule.text for rule in written}
    for rule in saved:
        yield as_written.get(rule.text, rule.text)


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
    """How many rules iptables makes of one: one for each pair of a source and a destination. None with a host name."""
    count = 1
    for option in RuleView.of(text).options:
        if option.name in ("-s", "-d"):
            if not _LITERAL_LIST.fullmatch(option.value):
                return None
            count *= option.value.count(",") + 1
    return count
