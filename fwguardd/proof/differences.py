"""Which packets two rulesets treat otherwise, as few and large classes.

A packet is asked for that they treat otherwise. What it has is then taken away piece by piece, as long as all packets
with the rest are treated in the same way as this one; the rest describes a class. Then a packet outside of all classes
is asked for, until there is none. A free part of a rule is taken as a field of the packet with a value of its own: if
that cannot be taken away, the class depends on it.

This module is pure.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from fwguardd.errors import ReportedError
from fwguardd.proof.answers import Values
from fwguardd.proof.changes import regions, same_nat
from fwguardd.proof.directions import preferences, sets_of_directions
from fwguardd.proof.fields import packet_variables
from fwguardd.proof.formulas import all_of, negation
from fwguardd.proof.intervals import single
from fwguardd.proof.model import Model
from fwguardd.proof.needed import Needed, asked_variable, conditions
from fwguardd.proof.packet_classes import PacketClass, limits_of, merged
from fwguardd.proof.questions import Questions
from fwguardd.proof.smtlib import CHECK, Script
from fwguardd.proof.traversal import HAS_NAT
from fwguardd.proof.treatments import Sides

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from fwguardd.proof.answers import Asker
    from fwguardd.proof.changes import Region
    from fwguardd.proof.fields import HostFacts, PacketField
    from fwguardd.proof.formulas import Formula, FreePart, Node, Scope, Variable
    from fwguardd.proof.intervals import Intervals
    from fwguardd.proof.packet_sets import PacketSet
    from fwguardd.proof.treatments import Treatment

MOST_CLASSES: Final = 40
"""Classes of one direction and family that are looked for."""


@dataclass(frozen=True, slots=True)
class Differences:
    """The classes of packets that are treated otherwise. ``left_out`` says why there may be others; "" for none."""

    classes: tuple[PacketClass, ...]
    left_out: str = ""


def differences(before: Model, after: Model, solver: Asker, *, with_reports: bool = False) -> Differences:
    """How two rulesets of one family differ for packets, without those of connections that have NAT already. Raises
    ReportedError."""
    found = _Found()
    for packets in sets_of_directions(before.known):
        found.begin(packets, before.known)
        for region in regions(before.rules, after.rules, with_nat=False):
            search = _search(before, after, packets, region, solver, with_reports=with_reports)
            if search is not None and not found.is_over:
                found.take(search)
    return found.differences()


@dataclass(slots=True)
class _Found:
    """What was found in all directions so far."""

    classes: list[PacketClass] = field(default_factory=list)
    left_out: str = ""
    is_over: bool = False
    _first: int = 0
    _domains: Mapping[PacketField, Intervals] = field(default_factory=dict)

    def begin(self, packets: PacketSet, known: HostFacts) -> None:
        """Begin with a direction."""
        scope = packets.scope(known.family)
        self._first = len(self.classes)
        self._domains = {name: scope.domain(variable) for name, variable in packet_variables(known.family).items()}

    def take(self, search: _Search) -> None:
        """Search. Raises ReportedError, unless something was found before."""
        of_search: list[PacketClass] = []
        try:
            for each in search.classes():
                of_search.append(each)  # noqa: PERF402 - what was found before an error counts.
        except ReportedError as error:
            if not (self.classes or of_search):
                raise
            self.left_out, self.is_over = str(error), True
        if search.is_cut:
            self.left_out = f"the search ends after {MOST_CLASSES} classes of packets"
        self.classes[self._first :] = merged([*self.classes[self._first :], *of_search], self._domains)

    def differences(self) -> Differences:
        """All of it."""
        return Differences(tuple(self.classes), self.left_out)


def are_equal(before: Model, after: Model, solver: Asker) -> bool:
    """Whether two rulesets treat all packets alike, with logs, marks and counting matches. Raises ReportedError."""
    one, other = same_nat(before.rules, after.rules)
    before, after = Model(one, before.known), Model(other, before.known)
    found = regions(one, other, with_nat=True)
    for packets in sets_of_directions(before.known):
        for region in found:
            search = _search(before, after, packets, region, solver, with_reports=True, with_nat=True)
            if search is not None and search.has_any():
                return False
    return True


def _search(
    before: Model,
    after: Model,
    packets: PacketSet,
    region: Region,
    solver: Asker,
    *,
    with_reports: bool,
    with_nat: bool = False,
) -> _Search | None:
    """A search among these packets; None where nothing differs for any of them."""
    narrowed = packets.narrowed(region)
    if narrowed.is_empty:
        return None
    scope = narrowed.scope(before.known.family)
    if not with_nat:
        scope.domains[HAS_NAT] = single(0)
    sides = Sides.of(before.outcome(narrowed, scope), after.outcome(narrowed, scope), with_reports=with_reports)
    differ = sides.differ()
    if differ is False:
        return None
    return _Search(before.known, packets, narrowed, scope, sides, differ, solver)


@dataclass(slots=True)
class _Search:
    known: HostFacts
    whole: PacketSet
    packets: PacketSet
    scope: Scope
    sides: Sides
    differ: Formula
    solver: Asker
    is_cut: bool = False

    def has_any(self) -> bool:
        """Whether there is a packet that is treated otherwise."""
        family = self.known.family
        script = Script(self.scope)
        text = [script.declare(packet_variables(family).values())]
        text.append(script.add((self.differ, self.packets.condition(self.scope, family))))
        answer = self.solver.ask("\n".join(["(reset)", *text, CHECK]))
        if "unknown" in answer:
            raise ReportedError("the solver found no answer")
        return "unsat" not in answer

    def _questions(self) -> Questions:
        variables = packet_variables(self.known.family).values()
        return Questions(self.scope, self.solver, variables, self.packets.condition(self.scope, self.known.family))

    def classes(self) -> Iterator[PacketClass]:
        """All classes. Raises ReportedError."""
        if not self.has_any():
            return
        questions = self._questions()
        outside = [questions.name(self.differ)]
        formulas = list(self.sides.formulas())
        for formula in formulas:
            questions.name(formula)
        asked = conditions(formulas, self.scope, self.known.family)
        for nodes in asked.values():
            questions.name(all_of(nodes))
        wishes = list(map(questions.name, preferences(self.known, self.packets, self.scope)))
        needed_of = Needed(questions, asked, self.known.family)
        values = _wished(questions, outside, wishes)
        while values is not None and len(outside) <= MOST_CLASSES:
            before, after, same = self.sides.same_as(values)
            needed = needed_of.of(values, questions.name(negation(same)))
            yield self._class(needed, before, after, values)
            outside.append(questions.name(negation(all_of(needed))))
            values = _wished(questions, outside, wishes)
        self.is_cut = values is not None

    def _class(
        self, needed: Sequence[Node], before: Treatment, after: Treatment, values: Mapping[Variable, int]
    ) -> PacketClass:
        family = self.known.family
        of_packets: list[Node] = []
        depends: dict[FreePart, bool] = {}
        for node in needed:
            part = asked_variable(node).part
            if part is None:
                of_packets.append(node)
            else:
                depends[part] = values[asked_variable(node)] == 1
        limits, bits = limits_of(of_packets, self.scope, family)
        region = {name: numbers for name, numbers in self.packets.limits.items() if self._is_narrow(name)}
        fields = {name: values[variable] for name, variable in packet_variables(family).items()}
        free = {variable: number for variable, number in values.items() if variable.part is not None}
        return PacketClass(
            family, self.packets.direction, region | limits, bits, tuple(depends.items()), before, after,
            Values(fields, free),
        )  # fmt: skip

    def _is_narrow(self, name: PacketField) -> bool:
        """Whether a field has fewer values in this region than in all packets of the direction."""
        return self.packets.limits[name] != self.whole.limits.get(name)


def _wished(questions: Questions, names: Sequence[str], wishes: Sequence[str]) -> Mapping[Variable, int] | None:
    """Values with which all of these hold, and as many wishes as possible, the first ones first."""
    if not questions.ask(names):
        return None
    granted = list(names)
    for wish in wishes:
        if questions.ask((*granted, wish)):
            granted.append(wish)
    return questions.find(granted)
