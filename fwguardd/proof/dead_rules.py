"""Rules that no packet meets, proved, each with the rules before it that take all packets that it matches.

This module is pure.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Final

from fwguardd.proof.directions import sets_of_directions
from fwguardd.proof.fields import packet_variables
from fwguardd.proof.formulas import all_of, any_of, negation, without
from fwguardd.proof.parts import RuleEffect
from fwguardd.proof.questions import Questions, least

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fwguardd.proof.answers import Asker
    from fwguardd.proof.formulas import Formula
    from fwguardd.proof.model import Model
    from fwguardd.proof.packet_sets import PacketSet
    from fwguardd.proof.reading import ModelledRule
    from fwguardd.proof.walk import Visit

    Place = tuple[str, str, int]
    """A table, a chain, and a position in it."""


_ENDING: Final = frozenset(
    {RuleEffect.ACCEPT, RuleEffect.DROP, RuleEffect.REJECT, RuleEffect.RETURN, RuleEffect.GOTO, RuleEffect.DNAT}
)
"""Effects of rules behind which a packet that matched does not go on in the chain."""


@dataclass(frozen=True, slots=True)
class DeadRule:
    """A rule that no packet meets. ``takers`` are the rules before it that take all that it matches; none where no
    packet that comes to its chain matches it."""

    table: str
    chain: str
    rule: ModelledRule
    takers: tuple[ModelledRule, ...]


def dead_rules(model: Model, solver: Asker) -> list[DeadRule]:
    """The rules that no packet meets, in the chains that rules lead to. Raises ReportedError."""
    searches = [_Search(model, packets, solver) for packets in sets_of_directions(model.known)]
    left: dict[Place, ModelledRule] = {}
    for search in searches:
        left |= search.rules()
    for search in searches:
        search.leave_out_met(left)
    takers: dict[Place, tuple[ModelledRule, ...]] = dict.fromkeys(left, ())
    for search in searches:
        takers |= search.takers([place for place, found in takers.items() if not found])
    return [DeadRule(place[0], place[1], rule, takers[place]) for place, rule in left.items()]


@dataclass(slots=True)
class _Search:
    """The packets of one direction."""

    model: Model
    packets: PacketSet
    solver: Asker
    _at: dict[Place, list[tuple[Visit, int]]] = field(default_factory=dict)
    _questions: Questions | None = None

    def rules(self) -> dict[Place, ModelledRule]:
        """The rules of all chains that rules lead to."""
        found: dict[Place, ModelledRule] = {}
        for visit in self._visits():
            for number, meeting in enumerate(visit.meetings):
                place = visit.table, visit.chain, meeting.rule.position
                found[place] = meeting.rule
                self._at.setdefault(place, []).append((visit, number))
        return found

    def _visits(self) -> tuple[Visit, ...]:
        family = self.model.known.family
        scope = self.packets.scope(family)
        condition = self.packets.condition(scope, family)
        visits = self.model.outcome(self.packets, scope).visits
        self._questions = Questions(scope, self.solver, packet_variables(family).values(), condition)
        return visits

    def leave_out_met(self, rules: dict[Place, ModelledRule]) -> None:
        """Leave out the rules that packets meet."""
        assert self._questions is not None
        self._questions.begin()
        asked = {place: any_of([_met(*each) for each in self._at[place]]) for place in rules if place in self._at}
        names = {place: self._questions.name(formula) for place, formula in asked.items() if formula is not False}
        for place, name in names.items():
            if self._questions.ask([name]):
                del rules[place]

    def takers(self, places: Sequence[Place]) -> dict[Place, tuple[ModelledRule, ...]]:
        """For each rule that no packet meets, those before it that take what it matches."""
        assert self._questions is not None
        self._questions.begin()
        found: dict[Place, tuple[ModelledRule, ...]] = {}
        for place in places:
            for visit, number in self._at.get(place, ())[:1]:
                found[place] = self._takers_in(visit, number, self._questions)
        return found

    def _takers_in(self, visit: Visit, number: int, questions: Questions) -> tuple[ModelledRule, ...]:
        meeting = visit.meetings[number]
        matched = questions.name(all_of((visit.entered(), meeting.matches)))
        if not questions.ask([matched]):
            return ()
        escapes: dict[str, ModelledRule] = {}
        for earlier, later in zip(visit.meetings, visit.meetings[1 : number + 1], strict=False):
            taken = without(earlier.comes, later.comes)
            if earlier.rule.meaning.target.effect in _ENDING:
                taken = earlier.matches
            if taken is not False:
                escapes[questions.name(negation(taken))] = earlier.rule
        names = least(list(escapes), [], partial(_is_impossible, questions, matched))
        return tuple(map(escapes.__getitem__, names))


def _met(visit: Visit, number: int) -> Formula:
    """When a packet meets a rule, and the rule matches it."""
    meeting = visit.meetings[number]
    return all_of((visit.entered(), meeting.comes, meeting.matches))


def _is_impossible(questions: Questions, matched: str, escapes: Sequence[str]) -> bool:
    return not questions.ask([matched, *escapes])
