"""What of a packet decides: the conditions that it meets, less all that are not needed.

This module is pure.
"""

from __future__ import annotations

from functools import partial
from itertools import chain
from operator import attrgetter
from typing import TYPE_CHECKING, Final

from fwguardd.proof.fields import PacketField, packet_variables
from fwguardd.proof.formulas import Inside, Masked, Not, holds, negation, nodes_of
from fwguardd.proof.intervals import single
from fwguardd.proof.questions import least

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from fwguardd.proof.formulas import Formula, Node, Scope, Variable
    from fwguardd.proof.questions import Questions
    from fwguardd.ruleset.model import Family

    Asked = Mapping[Variable, Sequence[Node]]

FIRST_TAKEN: Final = (
    *(
        PacketField.CODE,
        PacketField.SPORT,
        PacketField.MARK,
        PacketField.GID,
        PacketField.UID,
        PacketField.FLAGS,
        PacketField.TYPE,
        PacketField.STATE,
        PacketField.OUT,
    ),
    *(PacketField.IN, PacketField.SOURCE, PacketField.DESTINATION, PacketField.DPORT, PacketField.PROTOCOL),
)
"""Fields in the order in which they are taken away: what people seldom write first."""


_OF_PROTOCOLS: Final = (PacketField.SPORT, PacketField.DPORT, PacketField.FLAGS, PacketField.TYPE, PacketField.CODE)


def asked_variable(node: Node) -> Variable:
    """The variable that a condition or its opposite is about."""
    asked = node
    if isinstance(node, Not):
        asked = node.part
    assert isinstance(asked, (Inside, Masked))
    return asked.variable


def conditions(formulas: Iterable[Formula], scope: Scope, family: Family) -> Asked:
    """What formulas ask of fields of packets and of free parts, the latter first. What is asked of a value that rules
    make is asked of the values that it is made of."""
    asked: dict[Variable, dict[object, Node]] = {}
    conditions = map(attrgetter("condition"), scope.definitions)
    for node in nodes_of((*formulas, *conditions)):
        if isinstance(node, (Inside, Masked)):
            asked.setdefault(node.variable, {})[_meaning(node)] = node
    for definition in reversed(scope.definitions):
        questions = asked.pop(definition.variable, {})
        for leaf in (definition.then, definition.otherwise):
            if leaf.variable is not None:
                same = asked.setdefault(leaf.variable, {})
                for node in questions.values():
                    moved = _moved(node, leaf.variable)
                    same[_meaning(moved)] = moved
    return {variable: tuple(asked[variable].values()) for variable in _in_order(asked, family)}


def _meaning(node: Inside | Masked) -> object:
    if isinstance(node, Inside):
        return node.values
    return node.mask, node.value


def _moved(node: Node, variable: Variable) -> Inside | Masked:
    if isinstance(node, Masked):
        return Masked(variable, node.mask, node.value)
    assert isinstance(node, Inside)
    return Inside(variable, node.values)


def _in_order(asked: Iterable[Variable], family: Family) -> list[Variable]:
    variables = packet_variables(family)
    free = filter(attrgetter("part"), asked)
    return [*free, *filter(set(asked).__contains__, map(variables.__getitem__, FIRST_TAKEN))]


class Needed:
    """Searches what of a packet is needed, so that all packets that have it are treated as this one is. ``otherwise``
    is the name of the opposite."""

    def __init__(self, questions: Questions, asked: Asked, family: Family) -> None:
        self._questions, self._asked, self._variables = questions, asked, packet_variables(family)
        self._names: dict[Node, tuple[str, str]] = {}
        for nodes in asked.values():
            for node in nodes:
                # All at once: a solver takes long to go on when it is told something new.
                self._names[node] = questions.name(node), questions.name(negation(node))

    def of(self, values: Mapping[Variable, int], otherwise: str) -> list[Node]:
        """What a packet with these values needs."""
        groups: list[list[Node]] = []
        for nodes in self._asked.values():
            met, unmet = _met_and_unmet(nodes, values)
            # Most opposites are not needed: all of them can be taken away at once then.
            groups += [unmet, met]
        if not self._suffices(chain.from_iterable(groups), otherwise):
            for variable in self._asked:
                groups.insert(0, [Inside(variable, single(values[variable]))])
        suffices = partial(self._suffices, otherwise=otherwise)
        needed: list[Node] = []
        for place, group in enumerate(groups):
            rest = chain.from_iterable(groups[place + 1 :])
            needed += least(group, [*needed, *rest], suffices)
        return [*needed, *self._protocol(needed, groups[-1])]

    def _protocol(self, needed: Sequence[Node], last: Sequence[Node]) -> Sequence[Node]:
        """The protocol of packets that are told by their ports and the like: others have none."""
        variables = set(map(asked_variable, needed))
        protocol = self._variables[PacketField.PROTOCOL]
        told = map(self._variables.__getitem__, _OF_PROTOCOLS)
        if protocol in variables or variables.isdisjoint(told) or not last or asked_variable(last[0]) != protocol:
            return ()
        return last

    def _suffices(self, nodes: Iterable[Node], otherwise: str) -> bool:
        return not self._questions.ask((*map(self._name, nodes), otherwise))

    def _name(self, node: Node) -> str:
        if isinstance(node, Not):
            return self._names[node.part][1]
        if node not in self._names:
            self._names[node] = self._questions.name(node), ""
        return self._names[node][0]


def _met_and_unmet(nodes: Iterable[Node], values: Mapping[Variable, int]) -> tuple[list[Node], list[Node]]:
    """The conditions that hold for these values, and the opposites of the others."""
    met: list[Node] = []
    unmet: list[Node] = []
    for node in nodes:
        if holds(node, values):
            met.append(node)
        else:
            unmet.append(Not(node))
    return met, unmet
