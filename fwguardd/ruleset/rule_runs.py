"""The rules that a file appends to chains, made once for as long as the file stays as it is.

A rule of a file that has not changed is the same object in each ruleset that is composed of it. So what depends on a
rule alone need not be found out again, and what has changed in a chain is found without a look at each text.

This module is pure.
"""

from __future__ import annotations

from dataclasses import field
from itertools import chain as chain_together
from itertools import groupby
from typing import TYPE_CHECKING

from fwguardd.ruleset.model import Family, Origin, Rule
from fwguardd.ruleset.set_names import SetNames
from fwguardd.ruleset.statements import Addition, Appended
from fwguardd.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from fwguardd.ruleset.statements import Reading, Statement

    _Place = tuple[str, str, frozenset[Family]]


@dataclass(frozen=True, slots=True)
class RuleRun:
    """Rules that a file appends to one chain, one after the other. ``for_ipv6`` are the same as IPv6 gets them."""

    appended: Appended
    for_ipv6: tuple[Rule, ...]

    @property
    def origin(self) -> Origin:
        """The place of the first rule."""
        return self.appended.rules[0].origin or Origin("", 0)

    def rules_of(self, family: Family) -> tuple[Rule, ...]:
        """The rules as a family gets them."""
        if family is Family.IPV6:
            return self.for_ipv6
        return self.appended.rules


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
                known = _FileRuns(reading, tuple(_runs(reading.said, sets)))
            self.files[reading.path] = known
            yield from known.runs


def _runs(said: Iterable[Statement | Appended], sets: SetNames) -> Iterator[RuleRun | Statement]:
    for place, group in groupby(said, _place_of):
        if place is None:
            yield from (part for part in group if not isinstance(part, Appended))
        else:
            yield _run(_joined(place, list(group)), sets)


def _place_of(part: Statement | Appended) -> _Place | None:
    """Where a statement appends rules; None for any other."""
    if isinstance(part, Appended) or (isinstance(part, Addition) and part.position is None):
        return part.table, part.chain, part.families
    return None


def _rules_in(part: Statement | Appended) -> tuple[Rule, ...]:
    """The rules that a statement appends."""
    if isinstance(part, Appended):
        return part.rules
    if isinstance(part, Addition):
        return (Rule(part.text, part.origin, part.counters),)
    return ()


def _joined(place: _Place, parts: Sequence[Statement | Appended]) -> Appended:
    """The rules of statements that append to the same chain."""
    first = parts[0]
    if len(parts) == 1 and isinstance(first, Appended):
        return first
    return Appended(*place, tuple(chain_together.from_iterable(map(_rules_in, parts))))


def _run(appended: Appended, sets: SetNames) -> RuleRun:
    for_ipv6 = appended.rules
    if Family.IPV6 in appended.families:
        for_ipv6 = _for_ipv6(appended.rules, sets)
    return RuleRun(appended, for_ipv6)


def _for_ipv6(rules: tuple[Rule, ...], sets: SetNames) -> tuple[Rule, ...]:
    """The same rules for IPv6: the same objects, but for those that name a set of a set file."""
    if not any(sets.may_be_in(rule.text) for rule in rules):
        return rules
    return tuple(_rule_for_ipv6(rule, sets) for rule in rules)


def _rule_for_ipv6(rule: Rule, sets: SetNames) -> Rule:
    if sets.may_be_in(rule.text):
        return Rule(sets.for_ipv6(rule.text), rule.origin, rule.counters)
    return rule


def rules_of(addition: Addition, sets: SetNames) -> Mapping[Family, Rule]:
    """The rule that a statement adds to each family: one object in both, unless it names a set of a set file."""
    (rule,) = _rules_in(addition)
    rules = dict.fromkeys(addition.families, rule)
    if Family.IPV6 in rules:
        rules[Family.IPV6] = _rule_for_ipv6(rule, sets)
    return rules
