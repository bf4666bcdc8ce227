"""Which rules of a chain a check of their texts is about, without another check of those that were there before.

A chain of many thousands of rules is looked at several times in a pass, and mostly nothing of it, or one rule, is new.

This module is pure.
"""

from __future__ import annotations

from dataclasses import field
from typing import TYPE_CHECKING, Final

from fwguardd.ruleset.diff import common_ends
from fwguardd.ruleset.model import texts_of
from fwguardd.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Callable

    from fwguardd.ruleset.model import Family, Rule, Ruleset

    Place = tuple[Family, str, str]

_MOST_CHAINS: Final = 4096
"""Chains that are remembered: some programs make a chain of another name each time."""


@dataclass(frozen=True, slots=True)
class _Checked:
    """Rules of a chain, and the texts among them that the check is about."""

    rules: tuple[Rule, ...] = ()
    found: frozenset[str] = frozenset()


_NOTHING: Final = _Checked()


@dataclass(slots=True)
class CheckedTexts:
    """What a check has found in each chain last. The check of a chain is always the same one."""

    chains: dict[Place, _Checked] = field(default_factory=dict)

    def found(
        self, place: Place, rules: tuple[Rule, ...], check: Callable[[str], bool], others: CheckedTexts
    ) -> frozenset[str]:
        """The texts of these rules that the check is about. ``others`` has the same chain at another place, such as the
        kernel or the rule files, and was filled by the same check."""
        mine, theirs = self.chains.get(place, _NOTHING), others.chains.get(place, _NOTHING)
        if mine.rules is rules:
            return mine.found
        found = theirs.found
        if theirs.rules is not rules:
            found = _found(rules, check, mine, theirs)
        if len(self.chains) >= _MOST_CHAINS:
            self.chains.clear()
        self.chains[place] = _Checked(rules, found)
        return found

    def forget_all_but(self, ruleset: Ruleset) -> None:
        """Forget the chains of a family that this ruleset does not have: some programs, and some people, give chains
        another name each time."""
        gone: list[Place] = []
        for place in list(self.chains):  # Another thread may add chains meanwhile.
            family, table, chain = place
            if family is ruleset.family and (table not in ruleset.tables or chain not in ruleset.tables[table].chains):
                gone.append(place)
        for place in gone:
            self.chains.pop(place, None)


def _found(rules: tuple[Rule, ...], check: Callable[[str], bool], mine: _Checked, theirs: _Checked) -> frozenset[str]:
    texts = texts_of(rules)
    new = _new_texts(texts, texts_of(mine.rules))
    if new:
        new.difference_update(texts_of(theirs.rules))
    found = set(filter(check, new))
    known = mine.found | theirs.found
    if known:
        found |= known.intersection(texts)
    return frozenset(found)


def _new_texts(texts: list[str], before: list[str]) -> set[str]:
    """Those of the texts that were not there before, and perhaps some that were."""
    head, tail = common_ends(texts, before)
    return set(texts[head : len(texts) - tail]).difference(before[head : len(before) - tail])
