"""Formulas about packets: variables, the questions that can be asked of them, and what is known already.

A formula is True, False, or a `Node` that says something about variables. A `Scope` makes the smallest questions, and
folds those whose answer follows from the values that a variable may have: in a scope that has one value for each
variable, every formula is True or False. Nodes are shared and compared by identity. They may be nested very deeply, so
nothing here calls itself.

This module is pure.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fwguardd.proof.intervals import contains, covers, everything, intersection, single, united

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

    from fwguardd.proof.intervals import Intervals
    from fwguardd.ruleset.model import Origin


@dataclass(frozen=True, slots=True)
class FreePart:
    """A part of a rule that is not modelled, so that it may match or not: as in "-m time", and where it is written."""

    words: str
    origin: Origin | None = field(default=None, compare=False)

    def __str__(self) -> str:
        if self.origin is None:
            return self.words
        return f"{self.words} at {self.origin}"


@dataclass(frozen=True, slots=True)
class Variable:
    """A number of so many bits. One with a ``part`` is free: nothing is known of it, and no packet decides it."""

    name: str
    width: int
    part: FreePart | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True, eq=False)
class Inside:
    """The variable has one of these values."""

    variable: Variable
    values: Intervals


@dataclass(frozen=True, slots=True, eq=False)
class Masked:
    """The bits of the variable that the mask has are these."""

    variable: Variable
    mask: int
    value: int


@dataclass(frozen=True, slots=True, eq=False)
class Not:
    """The opposite."""

    part: Node


@dataclass(frozen=True, slots=True, eq=False)
class AllOf:
    """All parts hold."""

    parts: tuple[Node, ...]


@dataclass(frozen=True, slots=True, eq=False)
class AnyOf:
    """One part holds, or more."""

    parts: tuple[Node, ...]


Node = Inside | Masked | Not | AllOf | AnyOf
Formula = bool | Node


def negation(formula: Formula) -> Formula:
    """The opposite of a formula."""
    if isinstance(formula, bool):
        return not formula
    if isinstance(formula, Not):
        return formula.part
    return Not(formula)


def all_of(formulas: Iterable[Formula]) -> Formula:
    """All of these hold."""
    parts: list[Node] = []
    for formula in formulas:
        if formula is False:
            return False
        if not isinstance(formula, bool):
            parts.append(formula)
    if len(parts) > 1:
        return AllOf(tuple(parts))
    return parts[0] if parts else True


def any_of(formulas: Iterable[Formula]) -> Formula:
    """One of these holds, or more."""
    parts: list[Node] = []
    for formula in formulas:
        if formula is True:
            return True
        if not isinstance(formula, bool):
            parts.append(formula)
    if len(parts) > 1:
        return AnyOf(tuple(parts))
    return parts[0] if parts else False


def both(one: Formula, other: Formula) -> Formula:
    """Both hold."""
    return all_of((one, other))


def without(one: Formula, other: Formula) -> Formula:
    """The first one holds, and the other does not."""
    return all_of((one, negation(other)))


def differ(one: Formula, other: Formula) -> Formula:
    """Exactly one of the two holds."""
    return any_of((without(one, other), without(other, one)))


@dataclass(frozen=True, slots=True)
class Leaf:
    """The value of a field: the bits of a variable that ``mask`` has, with those of ``flipped`` turned. Without a
    variable it is the number ``flipped``."""

    variable: Variable | None
    mask: int = 0
    flipped: int = 0

    @classmethod
    def of(cls, variable: Variable) -> Leaf:
        """The value of a variable."""
        return cls(variable, (1 << variable.width) - 1)

    @classmethod
    def number(cls, number: int) -> Leaf:
        """A number."""
        return cls(None, 0, number)

    @property
    def is_whole(self) -> bool:
        """Whether it is just the variable."""
        variable = self.variable
        return variable is not None and not self.flipped and self.mask + 1 == 1 << variable.width


@dataclass(frozen=True, slots=True)
class Definition:
    """A variable that has one of two values, by a condition."""

    variable: Variable
    condition: Node
    then: Leaf
    otherwise: Leaf


@dataclass(slots=True)
class Scope:
    """What is known of variables: the values that each may have, all of its width where nothing is noted, and
    ``definitions`` of those that the rules make. Free ones have the value ``default_free``, if it is a number."""

    domains: dict[Variable, Intervals] = field(default_factory=dict)
    definitions: list[Definition] = field(default_factory=list)
    default_free: int | None = None

    def domain(self, variable: Variable) -> Intervals:
        """The values that a variable may have."""
        return self.domains.get(variable) or everything(variable.width)

    def inside(self, value: Leaf, numbers: Intervals) -> Formula:
        """Whether a value is one of these numbers. The value is a number or a whole variable."""
        variable = value.variable
        if variable is None:
            return contains(numbers, value.flipped)
        domain = self.domain(variable)
        if not intersection(domain, numbers):
            return False
        if covers(numbers, domain):
            return True
        return Inside(variable, numbers)

    def masked(self, value: Leaf, mask: int, wanted: int) -> Formula:
        """Whether the bits of a value that the mask has are these."""
        rest = mask & value.mask
        wanted = wanted ^ (value.flipped & mask)
        if wanted & ~rest:
            return False
        variable = value.variable
        if variable is None or not rest:
            return wanted == 0
        domain = self.domain(variable)
        if domain[0][0] == domain[-1][1]:
            return domain[0][0] & rest == wanted
        return Masked(variable, rest, wanted)

    def chosen(self, name: str, width: int, condition: Formula, then: Leaf, otherwise: Leaf) -> Leaf:
        """The first value if the condition holds, else the other one. ``name`` is the beginning of the name of a
        variable for it."""
        if then == otherwise or condition is True:
            return then
        if condition is False:
            return otherwise
        variable = Variable(f"{name}.{len(self.definitions)}", width)
        self.definitions.append(Definition(variable, condition, then, otherwise))
        self.domains[variable] = united((*self._values(then, width), *self._values(otherwise, width)))
        return Leaf.of(variable)

    def _values(self, value: Leaf, width: int) -> Intervals:
        if value.variable is None:
            return single(value.flipped)
        if value.is_whole:
            return self.domain(value.variable)
        return everything(width)

    def free(self, name: str, width: int, part: FreePart, values: Intervals = ()) -> Leaf:
        """A value of which nothing is known but that it is one of these, if any are given. The same name is the same
        value."""
        variable = Variable(name, width, part)
        if variable not in self.domains:
            if self.default_free is not None:
                return Leaf.number((*values, (self.default_free,))[0][0])
            self.domains[variable] = values or everything(width)
        domain = self.domain(variable)
        if domain[0][0] == domain[-1][1]:
            return Leaf.number(domain[0][0])
        return Leaf.of(variable)

    def maybe(self, name: str, part: FreePart) -> Formula:
        """A condition that may hold or not."""
        return self.inside(self.free(name, 1, part), single(1))

    def fixed(self, values: Mapping[Variable, int]) -> Scope:
        """A scope in which these variables have these values, with definitions beside those of this one."""
        return Scope(self.domains | {variable: single(value) for variable, value in values.items()}, self.definitions)


def _parts_of(node: Node) -> tuple[Node, ...]:
    if isinstance(node, (AllOf, AnyOf)):
        return node.parts
    if isinstance(node, Not):
        return (node.part,)
    return ()


def nodes_of(formulas: Iterable[Formula], known: Collection[int] = ()) -> Iterator[Node]:
    """All nodes of formulas, each once, and after its parts; without those whose id is ``known``."""
    done: set[int] = set()
    waiting = [(formula, False) for formula in formulas if not isinstance(formula, bool)]
    while waiting:
        node, entered = waiting.pop()
        if id(node) in done or id(node) in known:
            continue
        if entered:
            done.add(id(node))
            yield node
        else:
            waiting.append((node, True))
            waiting += [(part, False) for part in _parts_of(node)]


def variables_of(formulas: Iterable[Formula]) -> set[Variable]:
    """The variables that formulas ask about."""
    return {node.variable for node in nodes_of(formulas) if isinstance(node, (Inside, Masked))}


def holds(formula: Formula, values: Mapping[Variable, int]) -> bool:
    """Whether a formula holds for these values of all its variables."""
    known: dict[int, bool] = {}
    for node in nodes_of((formula,)):
        known[id(node)] = _holds(node, values, known)
    if isinstance(formula, bool):
        return formula
    return known[id(formula)]


def _holds(node: Node, values: Mapping[Variable, int], known: Mapping[int, bool]) -> bool:
    match node:
        case Inside(variable, numbers):
            return contains(numbers, values[variable])
        case Masked(variable, mask, wanted):
            return values[variable] & mask == wanted
        case Not(part):
            return not known[id(part)]
        case AllOf(parts):
            return all(known[id(part)] for part in parts)
        case AnyOf(parts):
            return any(known[id(part)] for part in parts)
