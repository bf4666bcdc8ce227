"""Classes of packets: the values of fields that all of them have. Many small ones become few large ones.

This module is pure.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from fwguardd.proof.fields import packet_variables
from fwguardd.proof.formulas import Inside, Masked, Not
from fwguardd.proof.intervals import complement, contains, covers, intersection, united

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from fwguardd.packets.model import Direction
    from fwguardd.proof.answers import Values
    from fwguardd.proof.fields import PacketField
    from fwguardd.proof.formulas import FreePart, Node, Scope
    from fwguardd.proof.intervals import Intervals
    from fwguardd.proof.treatments import Treatment
    from fwguardd.ruleset.model import Family


@dataclass(frozen=True, slots=True)
class Bits:
    """Bits of a field: those of the mask are these, or are not."""

    field: PacketField
    mask: int
    value: int
    negated: bool


@dataclass(frozen=True, slots=True)
class PacketClass:
    """Packets of one direction that a change treats otherwise, all in the same way. Fields that are not in ``limits``
    have any value. ``depends`` are the free parts of rules on which it depends, each with whether it matches."""

    family: Family
    direction: Direction
    limits: Mapping[PacketField, Intervals]
    bits: frozenset[Bits]
    depends: tuple[tuple[FreePart, bool], ...]
    before: Treatment
    after: Treatment
    values: Values

    @property
    def kind(self) -> object:
        """What is the same in classes that may become one."""
        return self.family, self.direction, self.bits, frozenset(self.depends), self.before, self.after


def limits_of(
    nodes: Iterable[Node], scope: Scope, family: Family
) -> tuple[dict[PacketField, Intervals], frozenset[Bits]]:
    """What conditions on fields of packets mean: the values of each field, and bits."""
    fields = {variable: name for name, variable in packet_variables(family).items()}
    limits: dict[PacketField, Intervals] = {}
    bits: set[Bits] = set()
    for node in nodes:
        negated = isinstance(node, Not)
        asked = node.part if isinstance(node, Not) else node
        assert isinstance(asked, (Inside, Masked))
        name, domain = fields[asked.variable], scope.domain(asked.variable)
        if isinstance(asked, Masked):
            bits.add(Bits(name, asked.mask, asked.value, negated))
            continue
        values = asked.values
        if negated:
            values = complement(values, asked.variable.width)
        limits[name] = intersection(limits.get(name, domain), values)
    return limits, frozenset(bits)


def merged(classes: Sequence[PacketClass], domains: Mapping[PacketField, Intervals]) -> list[PacketClass]:
    """As few classes as the first ones that can be put together: those that differ in one field become one, and those
    inside another one are left out. ``domains`` are the values that fields may have at all."""
    left = list(classes)
    found = _first_pair(left, domains)
    while found is not None:
        one, other, both = found
        left.remove(other)
        left[left.index(one)] = both
        found = _first_pair(left, domains)
    return [_without_what_holds_anyway(each, left) for each in left]


def _without_what_holds_anyway(each: PacketClass, others: Sequence[PacketClass]) -> PacketClass:
    """A class that depends on free parts, without the values of a field for which the same holds in any case."""
    if not each.depends:
        return each
    for other in others:
        names = _different(each, other)
        if other.kind != replace(each, depends=()).kind or len(names) != 1:
            continue
        (name,) = names
        values = each.limits.get(name, ())
        left = intersection(values, complement(other.limits.get(name, ()), packet_variables(each.family)[name].width))
        if left and left != values and contains(left, each.values.fields[name]):
            each = replace(each, limits={**each.limits, name: left})
    return each


def _different(one: PacketClass, other: PacketClass) -> list[PacketField]:
    """The fields for which two classes have other values."""
    names = dict.fromkeys((*one.limits, *other.limits))
    return [name for name in names if one.limits.get(name) != other.limits.get(name)]


def _first_pair(
    classes: Sequence[PacketClass], domains: Mapping[PacketField, Intervals]
) -> tuple[PacketClass, PacketClass, PacketClass] | None:
    for place, one in enumerate(classes):
        for other in classes[place + 1 :]:
            both = _together(one, other, domains)
            if both is not None:
                return one, other, both
    return None


def _together(one: PacketClass, other: PacketClass, domains: Mapping[PacketField, Intervals]) -> PacketClass | None:
    """The class of all packets of both, if they are the packets of one class."""
    if one.kind != other.kind:
        return None
    if _is_inside(other, one):
        return one
    if _is_inside(one, other):
        return replace(other, values=one.values)
    different = _different(one, other)
    if len(different) != 1 or not (different[0] in one.limits and different[0] in other.limits):
        return None
    name = different[0]
    limits = dict(one.limits)
    limits[name] = united((*one.limits[name], *other.limits[name]))
    if covers(limits[name], domains[name]):
        del limits[name]
    return replace(one, limits=limits)


def _is_inside(one: PacketClass, other: PacketClass) -> bool:
    """Whether all packets of one class are in the other."""
    for name, values in other.limits.items():
        if name not in one.limits or not covers(values, one.limits[name]):
            return False
    return True
