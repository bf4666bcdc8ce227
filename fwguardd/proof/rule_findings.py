"""What the model proves about the rules of files, as warnings for their author.

This module is pure.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from fwguardd.errors import ReportedError
from fwguardd.proof.class_words import family_names, port_words
from fwguardd.proof.dead_rules import DeadRule, dead_rules
from fwguardd.proof.fields import TCP
from fwguardd.proof.host_view import surroundings
from fwguardd.proof.model import Model
from fwguardd.proof.one_family import OneFamily, open_in_one_family
from fwguardd.proof.shorter import Shortening, rules_by_line
from fwguardd.ruleset.model import FAMILIES, Family, Finding, Ruleset, Severity

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from fwguardd.proof.answers import Asker
    from fwguardd.proof.reading import ModelledRule
    from fwguardd.ruleset.model import Origin
    from fwguardd.ruleset.set_files import SetFile

    Rulesets = Mapping[Family, Ruleset]

DEAD, NEEDLESS, ONE_FAMILY, NOT_PROVED = "dead-rule", "needless-rule", "one-family-open", "not-proved"
_ALIKE: Final = frozenset({"unreachable-rule", "duplicate-rule"})
"""Warnings of the lint that say the same."""


@dataclass(slots=True)
class RuleProofs:
    """Proofs about these rulesets. ``known`` are findings that there are already."""

    rulesets: Rulesets
    sets: tuple[SetFile, ...]
    known: tuple[Finding, ...]
    solver: Asker
    _reported: set[Origin | None] = field(default_factory=set)

    def findings(self) -> Iterator[Finding]:
        """All warnings; a last one where the solver has no answer in time."""
        for finding in self.known:
            if finding.code in _ALIKE:
                self._reported.add(finding.origin)
        try:
            yield from self._dead()
            yield from self._one_family()
            yield from self._needless()
        except ReportedError as error:
            yield _not_proved(str(error))

    def _models(self) -> dict[Family, Model]:
        """The models of both families, which hold on each host."""
        found: dict[Family, Model] = {}
        for family in FAMILIES:
            ruleset = self.rulesets.get(family) or Ruleset(family, {})
            found[family] = Model.of(ruleset, surroundings(family, [ruleset], None, self.sets))
        return found

    def _dead(self) -> Iterator[Finding]:
        """The lines of which no rule of either family is met by a packet."""
        dead: dict[Origin, list[DeadRule]] = {}
        for model in self._models().values():
            for each in dead_rules(model, self.solver):
                if each.rule.rule.origin is not None:
                    dead.setdefault(each.rule.rule.origin, []).append(each)
        rules = rules_by_line(self.rulesets)
        for origin, found in dead.items():
            if len(found) == len(rules[origin]) and origin not in self._reported:
                self._reported.add(origin)
                yield _dead_finding(origin, found[0])

    def _one_family(self) -> Iterator[Finding]:
        models = self._models()
        if all("filter" in model.rules.tables for model in models.values()):
            yield from map(_one_family_finding, open_in_one_family(models, self.solver))

    def _needless(self) -> Iterator[Finding]:
        """The lines that a shortened ruleset does not have, but for those that are dead."""
        search = Shortening(self.rulesets, self.sets, self.solver)
        search.run()
        for origin in search.removed:
            if origin not in self._reported:
                message = "without this rule, every packet is treated as before"
                hint = "remove it; fwguardctl minimise removes all such lines"
                yield Finding(NEEDLESS, message, origin, Severity.WARNING, hint)
        if search.left_out:
            yield _not_proved(search.left_out)


def _dead_finding(origin: Origin, dead: DeadRule) -> Finding:
    message = f"no packet meets this rule: no packet that comes to {dead.chain} is one that it matches"
    if dead.takers:
        message = f"no packet meets this rule: what it matches is taken by {_rules_in_words(dead.takers)}"
    return Finding(DEAD, message, origin, Severity.WARNING, "remove it, or move it to where its packets come")


def _rules_in_words(rules: Iterable[ModelledRule]) -> str:
    words: dict[str, None] = {}
    for each in rules:
        words[f"the {each.meaning.target.name} at {each.rule.origin or each.rule.text}"] = None
    return " and ".join(words)


def _one_family_finding(found: OneFamily) -> Finding:
    protocol = {True: "TCP", False: "UDP"}[found.protocol == TCP]
    (other,) = set(FAMILIES) - {found.family}
    message = (
        f"{protocol} {port_words(found.ports)} of this host can be reached from most addresses by "
        f"{family_names([found.family])}, and not by {family_names([other])}; accepted by {found.decided.words}"
    )
    hint = "write the rule for both families, or deny it in both"
    return Finding(ONE_FAMILY, message, found.decided.origin, Severity.WARNING, hint, family=found.family)


def _not_proved(reason: str) -> Finding:
    return Finding(NOT_PROVED, f"not all rules were proved: {reason}", None, Severity.WARNING)
