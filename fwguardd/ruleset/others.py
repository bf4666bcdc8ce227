"""Rules of other programs in owned tables that no pattern recognizes: what is new, and what is remembered of it.

An added chain stands for its rules and for the jumps to it. Rules that differ in nothing are one entry.

This module is pure.
"""

from __future__ import annotations

from dataclasses import replace
from enum import StrEnum
from typing import TYPE_CHECKING

from fwguardd.ruleset.diff import ChangeKind
from fwguardd.ruleset.rule_view import jump_target
from fwguardd.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from fwguardd.ruleset.diff import Difference
    from fwguardd.ruleset.model import Family, Ruleset

MOST_REMEMBERED = 2000
"""Entries that are remembered; of more, the oldest are forgotten."""


class Standing(StrEnum):
    """What was decided about a rule of another program."""

    KEPT = "kept"
    """It stays: a service has added it, or an administrator wants it."""

    UNDECIDED = "undecided"
    """It stays until an administrator decides, because it is not known which process has added it."""

    REMOVED = "removed"
    """It goes with the first load: an administrator does not want it."""


@dataclass(frozen=True, slots=True)
class RuleOrChain:
    """A rule, or with the text None a user-defined chain with all that is in it."""

    family: Family
    table: str
    chain: str
    text: str | None = None

    @property
    def pattern(self) -> str:
        """The entry of the setting ``preserve`` that recognizes it. Characters that a pattern gives a meaning to stand
        in brackets (fnmatch(3))."""
        if self.text is None:
            return _literal(self.chain)
        return f"-t {self.table} -A {self.chain} {_literal(self.text)}"

    @property
    def setting(self) -> str:
        """The line for the settings file, below ``preserve:``."""
        quoted = self.pattern.replace("'", "''")
        return f"- '{quoted}'"

    def __str__(self) -> str:
        if self.text is None:
            return f"{self.family.value} {self.table} -N {self.chain}"
        return f"{self.family.value} {self.table} -A {self.chain} {self.text}"


@dataclass(frozen=True, slots=True)
class OtherRule:
    """A rule or chain of another program in an owned table, with its number in lists, who added it in words, and when
    it was found, in seconds since 1970."""

    number: int
    place: RuleOrChain
    who: str
    when: float
    standing: Standing


Others = tuple[OtherRule, ...]
"""What is remembered, in order of the numbers."""


def additions(differences: Iterable[Difference]) -> tuple[RuleOrChain, ...]:
    """What another program has added, each once."""
    chains: dict[RuleOrChain, None] = {}
    rules: dict[RuleOrChain, None] = {}
    for difference in differences:
        if difference.kind is ChangeKind.CHAIN_ADDED:
            chains[RuleOrChain(difference.family, difference.table, difference.chain)] = None
        elif difference.kind is ChangeKind.ADDED:
            rules[RuleOrChain(difference.family, difference.table, difference.chain, difference.text)] = None
    return (*chains, *(rule for rule in rules if not _belongs_to(rule, chains)))


def _belongs_to(rule: RuleOrChain, chains: Iterable[RuleOrChain]) -> bool:
    """Whether a rule stands in one of these chains, or jumps to one."""
    target = jump_target(rule.text or "")
    names = [name for name in (rule.chain, target) if name is not None]
    return any(RuleOrChain(rule.family, rule.table, name) in chains for name in names)


def remember(others: Others, places: Sequence[RuleOrChain], who: str, when: float, standing: Standing) -> Others:
    """What was remembered and these places, with the next numbers; one that was remembered gets the new standing."""
    number = max((other.number for other in others), default=0)
    known = [other for other in others if other.place not in places]
    for place in places:
        number += 1
        known.append(OtherRule(number, place, who, when, standing))
    return tuple(known[-MOST_REMEMBERED:])


def without_vanished(others: Others, live: Mapping[Family, Ruleset]) -> Others:
    """The entries without those to be decided about that the kernel does not hold any more."""
    return tuple(other for other in others if other.standing is not Standing.UNDECIDED or _is_in(other.place, live))


def _is_in(place: RuleOrChain, live: Mapping[Family, Ruleset]) -> bool:
    """Whether a place is there. Those of a family that was not read count as there."""
    ruleset = live.get(place.family)
    if ruleset is None:
        return True
    table = ruleset.tables.get(place.table)
    if table is None or place.chain not in table.chains:
        return False
    return place.text is None or any(rule.text == place.text for rule in table.chains[place.chain].rules)


def with_standing(others: Others, numbers: Iterable[int], standing: Standing) -> Others:
    """The same, where the entries with these numbers have this standing."""
    chosen = frozenset(numbers)
    changed: list[OtherRule] = []
    for other in others:
        if other.number in chosen:
            other = replace(other, standing=standing)  # noqa: PLW2901 - the entry in its new version.
        changed.append(other)
    return tuple(changed)


def of_standing(others: Others, standing: Standing) -> Others:
    """The entries with this standing."""
    return tuple(other for other in others if other.standing is standing)


def _literal(text: str) -> str:
    for special in "[*?":
        # "[" comes first: the brackets of the others stay.
        text = text.replace(special, f"[{special}]")
    return text
