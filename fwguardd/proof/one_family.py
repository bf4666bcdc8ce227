"""Services that are open in one family alone: ports of this host that a packet from any address on the Internet reaches
by IPv4 and none by IPv6, or the other way round.

This module is pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from fwguardd.packets.model import Direction
from fwguardd.proof.answers import Values
from fwguardd.proof.fields import ADDRESS_BITS, NEW, TCP, UDP, PacketField, packet_variables
from fwguardd.proof.formulas import Leaf, all_of, negation
from fwguardd.proof.intervals import NOTHING, complement, count_of, everything, intersection, of_numbers, single, united
from fwguardd.proof.needed import Needed, asked_variable, conditions
from fwguardd.proof.packet_classes import limits_of
from fwguardd.proof.packet_sets import all_packets
from fwguardd.proof.questions import Questions
from fwguardd.ruleset.model import FAMILIES, Family

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from fwguardd.proof.answers import Asker
    from fwguardd.proof.formulas import Formula, Node, Scope, Variable
    from fwguardd.proof.intervals import Intervals
    from fwguardd.proof.model import Model
    from fwguardd.proof.packet_sets import PacketSet
    from fwguardd.proof.witness import Decided

MOST_ROUNDS: Final = 200
"""Kinds of accepted packets of a protocol and family that are looked at."""

_ONE_FAMILY: Final = {
    (Family.IPV4, UDP): of_numbers((67, 68)),
    (Family.IPV6, UDP): of_numbers((546, 547)),
}
"""Ports of protocols that only one family has: DHCP and DHCPv6."""


@dataclass(frozen=True, slots=True)
class OneFamily:
    """Ports of a protocol that are open by this family alone. ``decided`` is what accepts packets to one of them."""

    family: Family
    protocol: int
    ports: Intervals
    decided: Decided


@dataclass(slots=True)
class _Open:
    """The ports that are open to most addresses, and what accepts packets to each range of them."""

    ports: Intervals
    by: list[tuple[Intervals, Decided]]

    def add(self, ports: Intervals, decided: Decided) -> None:
        """Note open ports; those that are known already have what accepts them."""
        self.by.append((intersection(ports, complement(self.ports, 16)), decided))
        self.ports = united((*self.ports, *ports))


def open_in_one_family(models: Mapping[Family, Model], solver: Asker) -> Iterator[OneFamily]:
    """The services that are open in one family alone. Raises ReportedError."""
    for protocol in (TCP, UDP):
        found = {family: _open(models[family], protocol, solver) for family in FAMILIES}
        for family, other in zip(FAMILIES, reversed(FAMILIES), strict=True):
            yield from _only(found[family], found[other].ports, family, protocol)


def _only(mine: _Open, others: Intervals, family: Family, protocol: int) -> Iterator[OneFamily]:
    left = intersection(mine.ports, complement(others, 16))
    left = intersection(left, complement(_ONE_FAMILY.get((family, protocol), NOTHING), 16))
    for ports, decided in mine.by:
        alone = intersection(left, ports)
        if alone:
            yield OneFamily(family, protocol, alone, decided)


def _open(model: Model, protocol: int, solver: Asker) -> _Open:
    """The ports of a protocol that are open: a new packet from most addresses is accepted."""
    packets = _new_packets(model, protocol)
    scope = packets.scope(model.known.family)
    accept = model.outcome(packets, scope).delivered
    found = _Open(NOTHING, [])
    if accept is not False:
        _Search(model, packets, scope, accept, solver).run(found)
    return found


@dataclass(slots=True)
class _Search:
    """A search for packets that are accepted."""

    model: Model
    packets: PacketSet
    scope: Scope
    accept: Formula
    solver: Asker

    def run(self, found: _Open) -> None:
        """Note all open ports. Raises ReportedError."""
        family = self.model.known.family
        variables = packet_variables(family)
        condition = self.packets.condition(self.scope, family)
        questions = Questions(self.scope, self.solver, variables.values(), condition)
        denied = questions.name(negation(self.accept))
        needed = Needed(questions, conditions([self.accept], self.scope, family), family)
        left = [questions.name(self.accept)]
        values = questions.find(left)
        while values is not None and len(left) < MOST_ROUNDS:
            nodes = needed.of(values, denied)
            left.append(questions.name(negation(all_of(nodes))))
            ports = self._ports(nodes)
            if ports:
                outside = self.scope.inside(Leaf.of(variables[PacketField.DPORT]), complement(ports, 16))
                left.append(questions.name(outside))
                found.add(ports, self._decided(values))
            values = questions.find(left)

    def _ports(self, nodes: Sequence[Node]) -> Intervals:
        """The ports of packets for which these conditions hold; none if they are not from most addresses."""
        family = self.model.known.family
        of_packets = [node for node in nodes if asked_variable(node).part is None]
        limits, _bits = limits_of(of_packets, self.scope, family)
        sources = limits.get(PacketField.SOURCE)
        if sources is not None and count_of(sources) < 1 << ADDRESS_BITS[family] - 1:
            return NOTHING
        return limits.get(PacketField.DPORT, everything(16))

    def _decided(self, values: Mapping[Variable, int]) -> Decided:
        """What accepts a packet."""
        fields = {name: values[variable] for name, variable in packet_variables(self.model.known.family).items()}
        free = {variable: number for variable, number in values.items() if variable.part is not None}
        return self.model.witness(self.packets, Values(fields, free)).decided


def _new_packets(model: Model, protocol: int) -> PacketSet:
    known = model.known
    outside = complement(single(known.interfaces.number("lo")), 16)
    limits = {
        PacketField.PROTOCOL: single(protocol),
        PacketField.STATE: single(NEW),
        PacketField.IN: outside,
        PacketField.FLAGS: single(2),
    }
    return all_packets(known, Direction.INBOUND).narrowed(limits)
