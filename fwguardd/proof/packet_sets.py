"""Sets of packets: those that a question is about, and what every packet obeys.

This module is pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from fwguardd.packets.model import TCP_FLAGS, Direction
from fwguardd.proof.fields import (
    ESTABLISHED,
    ICMP,
    ICMPV6,
    NEW,
    NO_INTERFACE,
    NO_OWNER,
    RELATED,
    TCP,
    UNTRACKED,
    Field,
    packet_variables,
)
from fwguardd.proof.formulas import Leaf, Scope, all_of, any_of, negation
from fwguardd.proof.intervals import complement, intersection, single, united
from fwguardd.proof.parts import MaskTest, Opposite, Part, Some, Test
from fwguardd.ruleset.model import Family

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from fwguardd.proof.fields import Surroundings
    from fwguardd.proof.formulas import Formula
    from fwguardd.proof.intervals import Intervals


@dataclass(frozen=True, slots=True)
class PacketSet:
    """Packets of one direction: those whose fields have these values, and for which the conditions hold."""

    direction: Direction
    limits: Mapping[Field, Intervals]
    conditions: tuple[Part, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether a field can have no value."""
        return not all(self.limits.values())

    def scope(self, family: Family) -> Scope:
        """What is known of the fields of these packets."""
        variables = packet_variables(family)
        return Scope({variables[name]: values for name, values in self.limits.items()})

    def condition(self, scope: Scope, family: Family) -> Formula:
        """What else holds for these packets."""
        variables = packet_variables(family)
        leaves = {name: Leaf.of(variable) for name, variable in variables.items()}
        return all_of([formula_of(part, leaves, scope) for part in self.conditions])

    def narrowed(self, limits: Mapping[Field, Intervals], conditions: Iterable[Part] = ()) -> PacketSet:
        """Those of the packets that have these values too."""
        merged = dict(self.limits)
        for name, values in limits.items():
            merged[name] = intersection(merged.get(name, values), values)
        return PacketSet(self.direction, merged, (*self.conditions, *conditions))


def formula_of(part: Part, fields: Mapping[Field, Leaf], scope: Scope) -> Formula:
    """What a part says of these fields. It has nothing unknown."""
    match part:
        case Test(name, values):
            return scope.inside(fields[name], values)
        case MaskTest(name, mask, value):
            return scope.masked(fields[name], mask, value)
        case Opposite(inner):
            return negation(formula_of(inner, fields, scope))
        case Some(parts):
            return any_of([formula_of(inner, fields, scope) for inner in parts])
    raise TypeError(part)


def _implies(when: Iterable[Part], then: Part) -> Part:
    return Some((*(Opposite(part) for part in when), then))


def all_packets(known: Surroundings, direction: Direction) -> PacketSet:
    """All packets of a direction that there can be. Their mark is 0 when they arrive."""
    limits = {Field.PROTOCOL: complement(_NO_PROTOCOLS[known.family], 8), Field.STATE: ((NEW, UNTRACKED),)}
    if direction is Direction.OUTBOUND:
        limits |= {Field.UID: ((0, NO_OWNER - 2),), Field.GID: ((0, NO_OWNER - 2),), Field.IN: single(NO_INTERFACE)}
        limits[Field.OUT] = known.interfaces.real
    else:
        limits |= {Field.IN: known.interfaces.real, Field.MARK: single(0)}
        limits[Field.OUT] = known.interfaces.real
    return PacketSet(direction, limits, tuple(_natural(known.family)))


_NO_PROTOCOLS: Final[Mapping[Family, Intervals]] = {
    Family.IPV4: (),
    Family.IPV6: united(((0, 0), (43, 44), (59, 60))),
}
"""Numbers of extension headers: ip6tables asks for the protocol behind them (ip6tables(8), "-p")."""


def _bits(names: str) -> int:
    return sum(1 << TCP_FLAGS.index(name) for name in names.split())


_IGNORED_FLAGS: Final = _bits("PSH ECE CWR")
_VALID_FLAGS: Final = frozenset(
    map(_bits, ("SYN", "SYN URG", "SYN ACK", "RST", "RST ACK", "FIN ACK", "FIN ACK URG", "ACK", "ACK URG"))
)
"""tcp_valid_flags in net/netfilter/nf_conntrack_proto_tcp.c, which ignores the other three flags."""
_BEGINNING_FLAGS: Final = frozenset(map(_bits, ("SYN", "SYN URG", "ACK", "ACK URG")))
"""Those with which the table of the same file makes a connection of no connection: a SYN, or a packet in the middle."""


def _with_ignored(flags: frozenset[int]) -> Intervals:
    """All values of the field whose other flags are among these."""
    return united((value, value) for value in range(256) if value & ~_IGNORED_FLAGS in flags)


BEGINNING_VALUES: Final = _with_ignored(_BEGINNING_FLAGS)
"""Values of the flags with which a connection begins."""


def _numbers(*values: int) -> Intervals:
    return united((value, value) for value in values)


_ICMP_OF: Final = {Family.IPV4: ICMP, Family.IPV6: ICMPV6}
BEGINNING_TYPES: Final = {Family.IPV4: _numbers(8, 13, 15, 17), Family.IPV6: _numbers(128, 139)}
"""The types of ICMP that begin a connection (valid_new in nf_conntrack_proto_icmp.c and _icmpv6.c)."""
NEVER_TRACKED: Final = _numbers(130, 131, 132, 133, 134, 135, 136, 143)
"""The types of ICMPv6 that are not tracked (noct_valid_new in nf_conntrack_proto_icmpv6.c)."""


def _natural(family: Family) -> Iterable[Part]:
    """How the state of a connection depends on the packet (net/netfilter/nf_conntrack_proto_*.c)."""
    is_new, is_tcp = Test(Field.STATE, single(NEW)), Test(Field.PROTOCOL, single(TCP))
    yield _implies((is_new, is_tcp), Test(Field.FLAGS, BEGINNING_VALUES))
    known = Test(Field.STATE, _numbers(ESTABLISHED, RELATED))
    yield _implies((known, is_tcp), Test(Field.FLAGS, _with_ignored(_VALID_FLAGS)))
    is_icmp = Test(Field.PROTOCOL, single(_ICMP_OF[family]))
    yield _implies((is_new, is_icmp), Test(Field.TYPE, BEGINNING_TYPES[family]))
    if family is Family.IPV6:
        yield _implies((is_icmp, Test(Field.TYPE, NEVER_TRACKED)), Test(Field.STATE, single(UNTRACKED)))
