"""The rules that a file appends to chains, made once for as long as the file stays as it is.

A rule of a file that has not changed is the same object in each ruleset that is composed of it. So what depends on a
rule alone need not be found out again, and what has changed in a chain is found without a look at each text.

This module is pure.
"""

from __future__ import annotations

from dataclasses import field
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING

from fwguardd.ruleset.model import Family, Origin, Rule
from fwguardd.ruleset.set_names import SetNames
from fwguardd.ruleset.statements import Addition
from fwguardd.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from fwguardd.ruleset.statements import Reading, Statement


@dataclass(frozen=True, slots=True)
class RuleRun:
    """Rules that a file appends to one chain, one after the other, for each family. ``origin`` is that of the first."""

    table: str
    chain: str
    origin: Origin
    rules: Mapping[Family, tuple[Rule, ...]]


@dataclass(frozen=True, slots=True)
class _FileRuns:
    """A file that was read, and what it says."""

    reading: Reading
    runs: Sequence[RuleRun | Statement]


@dataclass(slots=True)
class RuleRuns:
    """The runs of the files that were composed last, and the names of set files of then."""

    sets: SetNames = field(default_factory=SetNames)
    files: dict[str, _FileRuns] = field(default_factory=dict)

    def of(self, readings: Iterable[Reading], sets: SetNames) -> Iterator[RuleRun | Statement]:
        """What these files say, in order: appended rules as runs, all else as statements. Files that are the same
        objects as before say the same."""
        before = self.files
        if sets != self.sets:
            before = {}
        self.files, self.sets = {}, sets
        for reading in readings:
            known = before.get(reading.path)
            if known is None or known.reading is not reading:
                known = _FileRuns(reading, tuple(_runs(reading.statements, sets)))
            self.files[reading.path] = known
            yield from known.runs


def _runs(statements: Iterable[Statement], sets: SetNames) -> Iterator[RuleRun | Statement]:
    for place, group in groupby(statements, _place_of):
        if place is None:
            yield from group
        else:
            yield _run([each for each in group if isinstance(each, Addition)], sets)


def _place_of(statement: Statement) -> tuple[str, str, frozenset[Family]] | None:
    """Where a statement appends a rule; None for any other."""
    if isinstance(statement, Addition) and statement.position is None:
        return statement.table, statement.chain, statement.families
    return None


def _run(additions: Sequence[Addition], sets: SetNames) -> RuleRun:
    first = additions[0]
    added = [rules_of(each, sets) for each in additions]
    rules: dict[Family, tuple[Rule, ...]] = {}
    for family in first.families:
        rules[family] = tuple(map(itemgetter(family), added))
    return RuleRun(first.table, first.chain, first.origin, rules)


def rules_of(addition: Addition, sets: SetNames) -> Mapping[Family, Rule]:
    """The rule that a statement adds to each family: one object in both, unless it names a set of a set file."""
    rules = dict.fromkeys(addition.families, Rule(addition.text, addition.origin, addition.counters))
    if sets.may_be_in(addition.text) and Family.IPV6 in rules:
        rules[Family.IPV6] = Rule(sets.for_ipv6(addition.text), addition.origin, addition.counters)
    return rules
