"""Questions about all packets of a set, and answers: proved, a packet that shows the opposite, or what it depends on.

`decide` asks whether a formula, built in a scope, holds for any packet. Variables that no packet decides are free. A
packet for which it holds whatever they are is a `Counterexample`. Where there is none, but one for which it may hold,
the answer is `Possible`, with the parts of rules on which that depends. The solver is given by the caller.

This module is pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from fwguardd.errors import ReportedError
from fwguardd.proof.fields import packet_variables
from fwguardd.proof.formulas import negation
from fwguardd.proof.intervals import intersection
from fwguardd.proof.smtlib import CHECK, Script

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from fwguardd.proof.fields import PacketField
    from fwguardd.proof.formulas import Formula, FreePart, Scope, Variable
    from fwguardd.proof.intervals import Intervals
    from fwguardd.ruleset.model import Family

    Build = Callable[[Scope], Formula]
    Preference = Sequence[Mapping[PacketField, Intervals]]

MOST_ROUNDS: Final = 8
"""How often a packet is looked for for which the free parts do not matter."""


class Asker(Protocol):
    """A solver that reads SMT-LIB 2. `fwguardd.kernel.z3_solver.Solver` is the real one."""

    def ask(self, text: str) -> str:
        """What it prints. Raises ReportedError where it has no answer in time."""
        ...


@dataclass(frozen=True, slots=True)
class Values:
    """A packet: the numbers in its fields, and the values of the free variables with which the formula holds for it."""

    fields: Mapping[PacketField, int]
    free: Mapping[Variable, int]


@dataclass(frozen=True, slots=True)
class Proved:
    """The formula holds for no packet."""


@dataclass(frozen=True, slots=True)
class Counterexample:
    """It holds for this packet, whatever is not modelled."""

    values: Values


@dataclass(frozen=True, slots=True)
class Possible:
    """It holds for this packet or not: that depends on these parts of rules."""

    values: Values
    depends: tuple[FreePart, ...]


Answer = Proved | Counterexample | Possible


def decide(build: Build, scope: Scope, family: Family, solver: Asker, preferred: Sequence[Preference] = ()) -> Answer:
    """Whether a formula holds for any packet of a scope. ``build`` makes it, in this scope and in narrower ones. The
    packet of an answer has preferred values where these change nothing. Raises ReportedError."""
    formula = build(scope)
    if formula is False:
        return Proved()
    return _Decision(build, scope, family, solver, preferred).decide(formula)


@dataclass(slots=True)
class _Decision:
    build: Build
    scope: Scope
    family: Family
    solver: Asker
    preferred: Sequence[Preference]

    def decide(self, formula: Formula) -> Answer:
        """The answer for a formula that holds for some values, perhaps."""
        variables = packet_variables(self.family)
        script = Script(self.scope)
        text = ["(reset)", script.declare(variables.values()), script.add((formula,))]
        possible: Possible | None = None
        for number in range(MOST_ROUNDS):
            found = self._find("\n".join(text), script)
            text = []
            if found is None:
                break
            values = Values({name: found[variable] for name, variable in variables.items()}, _free_of(found))
            against, parts = self._against(values, f"r{'abcdefgh'[number]}")
            if against is None:
                return Counterexample(self._usual(values, {}))
            possible = possible or Possible(self._usual(values, values.free), parts)
            narrower = self.scope.fixed(against)
            text.append(script.add((self.build(narrower),)))
        return possible or Proved()

    def _find(self, text: str, script: Script) -> dict[Variable, int] | None:
        """Values with which all that was asserted holds; None where there are none."""
        if _is_unsatisfied(self.solver.ask(f"{text}\n{CHECK}")):
            return None
        return script.values(self.solver.ask(script.question()))

    def _usual(self, values: Values, free: Mapping[Variable, int]) -> Values:
        """The same packet with preferred values in fields where they change nothing, if the free variables are so. Of
        the choices of each preference the first possible one is taken."""
        for choices in self.preferred:
            for limits in choices:
                changed = self._changed(values, limits, free)
                if changed is not None:
                    values = changed
                    break
        return values

    def _changed(
        self, values: Values, limits: Mapping[PacketField, Intervals], free: Mapping[Variable, int]
    ) -> Values | None:
        """The packet with the first of these values that it may have in each field; None if the answer changes."""
        variables = packet_variables(self.family)
        fields = dict(values.fields)
        for name, numbers in limits.items():
            possible = intersection(self.scope.domain(variables[name]), numbers)
            if not possible:
                return None
            fields[name] = possible[0][0]
        if self.build(self._point(fields).fixed(free)) is not True:
            return None
        return Values(fields, values.free)

    def _point(self, fields: Mapping[PacketField, int]) -> Scope:
        variables = packet_variables(self.family)
        return self.scope.fixed({variables[name]: number for name, number in fields.items()})

    def _against(self, values: Values, prefix: str) -> tuple[dict[Variable, int] | None, tuple[FreePart, ...]]:
        """Values of free variables with which the formula does not hold for a packet, and the parts that it depends on;
        None if it holds with all."""
        point = self._point(values.fields)
        rest = self.build(point)
        if rest is True:
            return None, ()
        script = Script(point, prefix)
        text = script.add((negation(rest),))
        failed = _is_unsatisfied(self.solver.ask(f"(push 1)\n{text}\n{CHECK}"))
        found: dict[Variable, int] = {}
        if not failed:
            found = script.values(self.solver.ask(script.question()))
        self.solver.ask("(pop 1)")
        if failed:
            return None, ()
        return _free_of(found), _parts_of(found)


def _is_unsatisfied(answer: str) -> bool:
    """Whether a solver found no values. Raises ReportedError where it does not know."""
    if "unknown" in answer:
        raise ReportedError("the solver found no answer")
    return "unsat" in answer


def _free_of(values: Mapping[Variable, int]) -> dict[Variable, int]:
    return dict(filter(_is_free, values.items()))


def _is_free(value: tuple[Variable, int]) -> bool:
    return value[0].part is not None


def _parts_of(variables: Iterable[Variable]) -> tuple[FreePart, ...]:
    """The parts of rules that free variables stand for, each once."""
    parts: dict[FreePart, None] = {}
    for variable in variables:
        if variable.part is not None:
            parts[variable.part] = None
    return tuple(parts)
