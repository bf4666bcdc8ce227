"""Formulas as text of SMT-LIB 2, and the values in the answer of a solver.

Every formula with parts is a constant that an assertion defines, and names its parts: so nothing is nested, however
long a chain is, and no solver recurs. Bit vectors are unsigned.

This module is pure.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from fwguardd.proof.formulas import AllOf, AnyOf, Inside, Masked, Not, nodes_of
from fwguardd.proof.intervals import everything

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from fwguardd.proof.formulas import Definition, Formula, Leaf, Node, Scope, Variable
    from fwguardd.proof.intervals import Intervals

CHECK: Final = "(check-sat-using (then simplify propagate-values bit-blast sat))"
"""Preprocessing that keeps the definitions: to replace constants by what they stand for would nest them again."""

_VALUE: Final = re.compile(r"\([a-z]*v([0-9]+) #(x[0-9a-f]+|b[01]+)\)")


class Script:
    """The text of a question to a solver, in parts: `add` what must hold, then `CHECK`, then `question`.

    ``prefix`` are letters that all names begin with, so that two scripts can be in one process."""

    def __init__(self, scope: Scope, prefix: str = "") -> None:
        self._scope, self._prefix = scope, prefix
        self._variables: dict[Variable, str] = {}
        self._names: dict[int, str] = {}
        self._kept: list[Node] = []
        self._named = 0
        self._shared: dict[tuple[str, str], str] = {}
        self._undefined: list[Variable] = []

    def declare(self, variables: Iterable[Variable]) -> str:
        """The text that names these variables, so that `question` asks for them in any case."""
        lines: list[str] = []
        for variable in variables:
            self._variable(variable, lines)
        self._define(lines)
        return "\n".join(lines)

    def add(self, formulas: Iterable[Formula]) -> str:
        """The text for formulas that must hold, with all that they name and that was not written yet."""
        lines: list[str] = []
        for formula in formulas:
            name = self._formula(formula, lines)
            lines.append(f"(assert {name})")
        self._define(lines)
        return "\n".join(lines)

    def name(self, formula: Formula) -> tuple[str, str]:
        """The text that defines a constant for a formula, and the name of the constant."""
        lines: list[str] = []
        meaning = self._formula(formula, lines)
        name = f"{self._prefix}a{self._named}"
        self._named += 1
        lines.append(f"(declare-const {name} Bool)(assert (= {name} {meaning}))")
        self._define(lines)
        return "\n".join(lines), name

    def values(self, answer: str) -> dict[Variable, int]:
        """The values of the variables in the answer to `question`."""
        names = tuple(self._variables)
        found: dict[Variable, int] = {}
        for number, digits in _VALUE.findall(" ".join(answer.split())):
            found[names[int(number)]] = int(f"0{digits}", 0)
        return found

    def question(self) -> str:
        """The text that asks for the values of all variables."""
        return f"(get-value ({' '.join(self._variables.values())}))"

    def _define(self, lines: list[str]) -> None:
        """The definitions of the variables that rules make, as far as they were named, and of what they are made of."""
        known = {definition.variable: definition for definition in self._scope.definitions}
        while self._undefined:
            definition = known.get(self._undefined.pop())
            if definition is not None:
                lines.append(self._definition(definition, lines))

    def _definition(self, definition: Definition, lines: list[str]) -> str:
        condition = self._formula(definition.condition, lines)
        values = " ".join(self._leaf(definition, leaf, lines) for leaf in (definition.then, definition.otherwise))
        return f"(assert (= {self._variable(definition.variable, lines)} (ite {condition} {values})))"

    def _leaf(self, definition: Definition, leaf: Leaf, lines: list[str]) -> str:
        width = definition.variable.width
        if leaf.variable is None:
            return _number(leaf.flipped, width)
        name = self._variable(leaf.variable, lines)
        if leaf.is_whole:
            return name
        return f"(bvxor (bvand {name} {_number(leaf.mask, width)}) {_number(leaf.flipped, width)})"

    def _variable(self, variable: Variable, lines: list[str]) -> str:
        name = self._variables.get(variable)
        if name is None:
            name = self._variables[variable] = f"{self._prefix}v{len(self._variables)}"
            self._undefined.append(variable)
            lines.append(f"(declare-const {name} (_ BitVec {variable.width}))")
            domain = self._scope.domain(variable)
            if domain != everything(variable.width):
                lines.append(f"(assert {_inside(name, variable.width, domain)})")
        return name

    def _formula(self, formula: Formula, lines: list[str]) -> str:
        """The name of a formula, after the definitions of all its parts."""
        if isinstance(formula, bool):
            return str(formula).lower()
        for node in nodes_of((formula,), self._names):
            self._names[id(node)] = self._node(node, lines)
            self._kept.append(node)  # So that its id stays its own.
        return self._names[id(formula)]

    def _node(self, node: Node, lines: list[str]) -> str:
        match node:
            case Inside(variable, numbers):
                return _inside(self._variable(variable, lines), variable.width, numbers)
            case Masked(variable, mask, value):
                name = self._variable(variable, lines)
                return f"(= (bvand {name} {_number(mask, variable.width)}) {_number(value, variable.width)})"
            case Not(part):
                return f"(not {self._names[id(part)]})"
            case AllOf(parts):
                return self._constant("and", parts, lines)
            case AnyOf(parts):
                return self._constant("or", parts, lines)

    def _constant(self, operator: str, parts: Iterable[Node], lines: list[str]) -> str:
        text = " ".join(self._names[id(part)] for part in parts)
        # Formulas that are made alike are one: the rules that two rulesets begin with need no proof then.
        known = self._shared.get((operator, text))
        if known is not None:
            return known
        name = self._shared[operator, text] = f"{self._prefix}n{len(self._names)}"
        lines.append(f"(declare-const {name} Bool)(assert (= {name} ({operator} {text})))")
        return name


def _number(number: int, width: int) -> str:
    if width % 4:
        return f"#b{number:0{width}b}"
    return f"#x{number:0{width // 4}x}"


def _inside(name: str, width: int, numbers: Intervals) -> str:
    ranges = list(_ranges(name, width, numbers))
    if len(ranges) == 1:
        return ranges[0]
    return f"(or {' '.join(ranges)})"


def _ranges(name: str, width: int, numbers: Intervals) -> Iterator[str]:
    for first, last in numbers:
        size = last - first + 1
        if first == last:
            yield f"(= {name} {_number(first, width)})"
        elif size & (size - 1) == 0 and first % size == 0 and size.bit_length() <= width:
            # A network: its leading bits are equal.
            free = size.bit_length() - 1
            yield f"(= ((_ extract {width - 1} {free}) {name}) {_number(first >> free, width - free)})"
        else:
            low, high = _number(first, width), _number(last, width)
            yield f"(and (bvule {low} {name}) (bvule {name} {high}))"
