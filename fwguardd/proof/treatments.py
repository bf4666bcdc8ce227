"""What two rulesets do with packets, side by side: verdicts, NAT, and what rules do on the way.

This module is pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import starmap
from typing import TYPE_CHECKING, Final

from fwguardd.packets.model import Verdict
from fwguardd.proof.formulas import all_of, any_of, both, differ, holds, negation
from fwguardd.proof.parts import RuleEffect
from fwguardd.proof.walk import named

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from fwguardd.proof.formulas import Formula, Variable
    from fwguardd.proof.reading import ModelledRule
    from fwguardd.proof.traversal import Outcome
    from fwguardd.proof.walk import Visit

_NAT: Final = frozenset({"SNAT", "MASQUERADE", "NETMAP", "DNAT", "REDIRECT"})
_REPORTS: Final = frozenset({RuleEffect.CONTINUE, RuleEffect.MARK, RuleEffect.FREE_MARK, RuleEffect.NOTRACK})


@dataclass(frozen=True, slots=True)
class Treatment:
    """What becomes of packets: the verdict, and the targets of NAT and REJECT that they meet, as written."""

    verdict: Verdict
    translations: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Ways:
    """What one ruleset does: when each verdict, each target of NAT or REJECT, and each thing done on the way."""

    verdicts: Mapping[Verdict, Formula]
    translations: Mapping[str, Formula]
    reports: Mapping[str, Formula]

    def at(self, values: Mapping[Variable, int]) -> tuple[Treatment, Formula]:
        """The treatment of one packet, and when a packet has the same verdict."""
        for verdict, formula in self.verdicts.items():
            if holds(formula, values):
                met = [text for text, meets in self.translations.items() if holds(meets, values)]
                return Treatment(verdict, tuple(met)), formula
        raise AssertionError("a packet with all its values has a verdict")


@dataclass(frozen=True, slots=True)
class Sides:
    """Two rulesets: ``before`` and ``after`` a change."""

    before: _Ways
    after: _Ways

    @classmethod
    def of(cls, before: Outcome, after: Outcome, *, with_reports: bool = False) -> Sides:
        """The two, with logs, marks and the like as part of the treatment, or without."""
        return cls(_ways(before, with_reports=with_reports), _ways(after, with_reports=with_reports))

    def _pairs(self) -> Iterator[tuple[Formula, Formula]]:
        """What is to be the same, besides verdicts."""
        for one, other in (
            (self.before.translations, self.after.translations),
            (self.before.reports, self.after.reports),
        ):
            for name in dict.fromkeys((*one, *other)):
                yield one.get(name, False), other.get(name, False)

    def differ(self) -> Formula:
        """When the two treat a packet otherwise."""
        verdicts = [(self.before.verdicts[one], self.after.verdicts[one]) for one in Verdict]
        return any_of(list(starmap(differ, (*verdicts, *self._pairs()))))

    def same_as(self, values: Mapping[Variable, int]) -> tuple[Treatment, Treatment, Formula]:
        """What the two do with one packet, and when they do the same with another one."""
        before, when_before = self.before.at(values)
        after, when_after = self.after.at(values)
        same = [when_before, when_after]
        if before.verdict is not after.verdict:
            return Treatment(before.verdict), Treatment(after.verdict), all_of(same)
        for one, other in self._pairs():
            if differ(one, other) is not False:
                same += [_as_in(one, values), _as_in(other, values)]
        return before, after, all_of(same)

    def formulas(self) -> Iterator[Formula]:
        """All formulas of both."""
        for side in (self.before, self.after):
            yield from side.verdicts.values()
        for pair in self._pairs():
            yield from pair


def _as_in(formula: Formula, values: Mapping[Variable, int]) -> Formula:
    if holds(formula, values):
        return formula
    return negation(formula)


def _ways(outcome: Outcome, *, with_reports: bool) -> _Ways:
    verdicts = {Verdict.ACCEPT: outcome.accept, Verdict.DROP: outcome.drop, Verdict.REJECT: outcome.reject}
    translations: dict[str, Formula] = {}
    for text, met in _met(outcome.visits, _translation).items():
        translations[text] = both(any_of((outcome.accept, outcome.reject)), met)
    reports: dict[str, Formula] = {}
    if with_reports:
        reports = _met(outcome.visits, _report)
    return _Ways(verdicts, translations, reports)


def _met(visits: Iterable[Visit], name_of: object) -> dict[str, Formula]:
    """When a packet meets a rule of each name that the function gives; "" is none."""
    assert callable(name_of)
    found: dict[str, list[Formula]] = {}
    for visit in visits:
        entered: Formula | None = None
        for meeting in visit.meetings:
            name = name_of(meeting.rule, visit)
            if name:
                if entered is None:
                    entered = visit.entered()
                found.setdefault(name, []).append(all_of((entered, meeting.comes, meeting.matches)))
    return {name: any_of(formulas) for name, formulas in found.items()}


def _translation(rule: ModelledRule, visit: Visit) -> str:
    target = rule.meaning.target
    if target.effect is not RuleEffect.REJECT and (visit.table != "nat" or target.name not in _NAT):
        return ""
    return rule.rule.text[rule.rule.text.rfind("-j ") + 3 :]


def _report(rule: ModelledRule, visit: Visit) -> str:
    """A name of what a rule does to a packet besides a verdict: of a match that counts, too."""
    target = rule.meaning.target
    if target.effect in _REPORTS or rule.is_unsteady or target.name == "TARPIT":
        return f"{visit.table}.{visit.hook}.{visit.chain} {named(rule)}"
    return ""
