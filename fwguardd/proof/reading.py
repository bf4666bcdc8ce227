"""The rules of a ruleset, read: what each asks and does, and the names of the answers that nothing here knows.

This module is pure.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING, Final

from fwguardd.proof.formulas import FreePart
from fwguardd.proof.matches import parts_of
from fwguardd.proof.parts import Opposite, RuleEffect, RuleMeaning, Some, UnmodelledMatch
from fwguardd.proof.targets import CHANGING, target_of
from fwguardd.ruleset.rule_view import RuleView
from fwguardd.ruleset.rule_view import target_of as word_after_jump

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from fwguardd.proof.fields import HostFacts
    from fwguardd.proof.parts import Part
    from fwguardd.ruleset.model import Rule, Ruleset, Table

_TRANSLATING: Final = frozenset({RuleEffect.DNAT, RuleEffect.UNKNOWN})
_OWN_ANSWERS: Final = frozenset({RuleEffect.UNKNOWN, RuleEffect.PROGRAM, RuleEffect.FREE_MARK, RuleEffect.DNAT})
"""Effects of which something may be free."""


@dataclass(frozen=True, slots=True)
class ModelledRule:
    """A rule, its position in its chain from 1, and what it means. ``number`` counts the rules of the same text in the
    ruleset from 1. ``is_unsteady`` says that an answer of it is its own each time that a packet meets it."""

    rule: Rule
    position: int
    meaning: RuleMeaning
    number: int
    is_unsteady: bool

    def free_part(self, words: str) -> FreePart:
        """A part of it that is not modelled."""
        return FreePart(words, self.rule.origin)


ReadChains = dict[str, tuple[ModelledRule, ...]]


@dataclass(frozen=True, slots=True)
class ReadTables:
    """The rules of each table by chain. ``is_changing``: targets change what matches ask for and nothing here models,
    so that the same match may have two answers about one packet."""

    ruleset: Ruleset
    tables: Mapping[str, ReadChains]
    is_changing: bool

    @property
    def translates(self) -> bool:
        """Whether a rule gives packets another destination or port."""
        rules = chain.from_iterable(self.tables.get("nat", {}).values())
        return any(rule.meaning.target.effect in _TRANSLATING for rule in rules)


@dataclass(slots=True)
class RuleModeller:
    """Reads rules of one family. Rules of the same text are read once, also of several rulesets."""

    known: HostFacts
    _meanings: dict[tuple[str, bool], RuleMeaning] = field(default_factory=dict)

    def read(self, ruleset: Ruleset) -> ReadTables:
        """The rules of a ruleset. Never raises."""
        numbers: Counter[str] = Counter()
        tables = {name: self._table(table, numbers) for name, table in ruleset.tables.items()}
        return ReadTables(ruleset, tables, any(map(self._has_changing, ruleset.tables.values())))

    def _table(self, table: Table, numbers: Counter[str]) -> ReadChains:
        chains: ReadChains = {}
        for each in table.chains.values():
            chains[each.name] = tuple(self._rules(each.rules, table.chains, numbers))
        return chains

    def _rules(self, rules: Sequence[Rule], chains: Collection[str], numbers: Counter[str]) -> list[ModelledRule]:
        found: list[ModelledRule] = []
        for position, rule in enumerate(rules, 1):
            numbers[rule.text] += 1
            meaning = self.meaning(rule.text, chains)
            found.append(ModelledRule(rule, position, meaning, numbers[rule.text], _is_unsteady(meaning)))
        return found

    def meaning(self, text: str, chains: Collection[str]) -> RuleMeaning:
        """What a rule of this text means in a table with these chains."""
        key = text, word_after_jump(text) in chains
        meaning = self._meanings.get(key)
        if meaning is None:
            view = RuleView.of(text)
            meaning = RuleMeaning(tuple(parts_of(view, self.known)), target_of(view, self.known.family, chains))
            self._meanings[key] = meaning
        return meaning

    def _has_changing(self, table: Table) -> bool:
        for each in table.chains.values():
            for rule in each.rules:
                if word_after_jump(rule.text) in CHANGING:
                    return True
        return False


def _is_unsteady(meaning: RuleMeaning) -> bool:
    if meaning.target.effect is RuleEffect.CONTINUE:
        return False
    return meaning.target.effect in _OWN_ANSWERS or any(map(_has_own_answer, meaning.parts))


def _has_own_answer(part: Part) -> bool:
    match part:
        case Opposite(inner):
            return _has_own_answer(inner)
        case Some(parts):
            return any(map(_has_own_answer, parts))
        case UnmodelledMatch(_, is_steady):
            return not is_steady
    return False
