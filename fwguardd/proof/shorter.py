"""Rulesets made shorter: lines of rule files without which every packet is treated as before.

Each line is taken out of both families at once, the last one first, and stays out if both are proved to do the same
without it: the verdicts, NAT, logs, marks, and what matches count. What was taken out before stays out, so that of two
lines that make each other needless one is left.

This module is pure.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from fwguardd.errors import ReportedError
from fwguardd.proof.differences import are_equal
from fwguardd.proof.host_view import surroundings
from fwguardd.proof.model import Model
from fwguardd.proof.reading import RuleModeller
from fwguardd.ruleset.model import Ruleset

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

    from fwguardd.proof.answers import Asker
    from fwguardd.proof.fields import HostFacts
    from fwguardd.ruleset.model import Chain, Family, Origin, Rule, Table
    from fwguardd.ruleset.set_files import SetFile

    Rulesets = Mapping[Family, Ruleset]


@dataclass(slots=True)
class Shortening:
    """A search for lines that can be taken out. ``removed`` are those so far, each with its rules as they are loaded;
    ``left_out`` says why others were not tried, "" if all were."""

    rulesets: Rulesets
    sets: tuple[SetFile, ...]
    solver: Asker
    removed: dict[Origin, tuple[Rule, ...]] = field(default_factory=dict)
    left_out: str = ""
    _readers: dict[Family, RuleModeller] = field(default_factory=dict)

    def run(self) -> None:
        """Try each line. What was removed before the solver had no answer is proved all the same."""
        rules = rules_by_line(self.rulesets)
        try:
            for origin in sorted(rules, reverse=True):
                without = without_lines(self.rulesets, {origin})
                if self.is_equal(without):
                    self.rulesets = without
                    self.removed[origin] = tuple(rules[origin])
        except ReportedError as error:
            self.left_out = str(error)

    def is_equal(self, other: Rulesets) -> bool:
        """Whether other rulesets do the same as those that are left. Raises ReportedError."""
        for family, ruleset in self.rulesets.items():
            reader = self._reader(family)
            one, two = (Model.of(each, reader.known, reader) for each in (ruleset, other[family]))
            if not are_equal(one, two, self.solver):
                return False
        return True

    def _reader(self, family: Family) -> RuleModeller:
        """One that knows the rules that it has read."""
        if family not in self._readers:
            self._readers[family] = RuleModeller(self._known(family))
        return self._readers[family]

    def _known(self, family: Family) -> HostFacts:
        """Nothing of a host: what is proved holds on each."""
        return surroundings(family, [self.rulesets[family]], None, self.sets)


def rules_by_line(rulesets: Rulesets) -> dict[Origin, list[Rule]]:
    """The rules of both families by the line that they are written at."""
    found: dict[Origin, list[Rule]] = {}
    for rule in _rules(rulesets):
        if rule.origin is not None:
            found.setdefault(rule.origin, []).append(rule)
    return found


def _rules(rulesets: Rulesets) -> Iterator[Rule]:
    for ruleset in rulesets.values():
        for _, chain in ruleset.chains():
            yield from chain.rules


def without_lines(rulesets: Rulesets, lines: Collection[Origin]) -> Rulesets:
    """The rulesets without the rules of these lines."""
    found: dict[Family, Ruleset] = {}
    for family, ruleset in rulesets.items():
        tables = {name: _table_without(table, lines) for name, table in ruleset.tables.items()}
        found[family] = Ruleset(family, tables)
    return found


def _table_without(table: Table, lines: Collection[Origin]) -> Table:
    return replace(table, chains={name: _chain_without(chain, lines) for name, chain in table.chains.items()})


def _chain_without(chain: Chain, lines: Collection[Origin]) -> Chain:
    left = tuple(rule for rule in chain.rules if rule.origin not in lines)
    if len(left) == len(chain.rules):
        return chain
    return replace(chain, rules=left)


def text_without(text: str, lines: Iterable[Origin]) -> str:
    """The text of a rule file without these lines of it."""
    numbers = {origin.line for origin in lines}
    kept: list[str] = []
    for number, line in enumerate(text.split("\n"), 1):
        if number not in numbers:
            kept.append(line)
    return "\n".join(kept)
