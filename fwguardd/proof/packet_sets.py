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
    PacketField,
    packet_leaves,
    packet_variables,
)
from fwguardd.proof.formulas import Scope, all_of, any_of, negation
from fwguardd.proof.intervals import complement, intersection, of_numbers, single, united
from fwguardd.proof.parts import MaskTest, Opposite, Part, Some, Test
from fwguardd.ruleset.model import Family

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from fwguardd.proof.fields import HostFacts
    from fwguardd.proof.formulas import Formula, Leaf
    from fwguardd.proof.intervals import Intervals


@dataclass(frozen=True, slots=True)
class PacketSet:
    """Packets of one direction: those whose fields have these values, and for which the conditions hold."""

    direction: Direction
    limits: Mapping[PacketField, Intervals]
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
        leaves = packet_leaves(family)
        return all_of([formula_of(part, leaves, scope) for part in self.conditions])

    def narrowed(self, limits: Mapping[PacketField, Intervals], conditions: Iterable[Part] = ()) -> PacketSet:
        """Those of the packets that have these values too."""
        merged = dict(self.limits)
        for name, values in limits.items():
            merged[name] = intersection(merged.get(name, values), values)
        return PacketSet(self.direction, merged, (*self.conditions, *conditions))


def formula_of(part: Part, fields: Mapping[PacketField, Leaf], scope: Scope) -> Formula:
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


def implies(when: Iterable[Part], then: Part) -> Part:
    """Packets for which the first parts hold obey the last one."""
    return Some((*map(Opposite, when), then))


def message(kind: int, code: int) -> Part:
    """A message of ICMP has this type and this code."""
    wrong = (Test(PacketField.TYPE, complement(single(kind), 8)), Test(PacketField.CODE, complement(single(code), 8)))
    return Opposite(Some(wrong))


def all_packets(known: HostFacts, direction: Direction) -> PacketSet:
    """All packets of a direction that there can be. Their mark is 0 when they arrive."""
    limits = {PacketField.PROTOCOL: complement(_NO_PROTOCOLS[known.family], 8), PacketField.STATE: ((NEW, UNTRACKED),)}
    if direction is Direction.OUTBOUND:
        limits |= {
            PacketField.UID: ((0, NO_OWNER - 2),),
            PacketField.GID: ((0, NO_OWNER - 2),),
            PacketField.IN: single(NO_INTERFACE),
        }
        limits[PacketField.OUT] = known.interfaces.real
    else:
        limits |= {PacketField.IN: known.interfaces.real, PacketField.MARK: single(0)}
        limits[PacketField.OUT] = known.interfaces.real
    return PacketSet(direction, limits, tuple(_natural(known.family)))


_NO_PROTOCOLS: Final[Mapping[Family, Intervals]] = {
    Family.IPV4: (),
    Family.IPV6: united(((0, 0), (43, 44), (59, 60))),
}
"""Numbers of extension headers: ip6tables asks for the protocol behind them (ip6tables(8), "-p")."""


def flag_bits(names: Iterable[str]) -> int:
    """The bits of TCP flags."""
    bits = 0
    for name in names:
        bits |= 1 << TCP_FLAGS.index(name)
    return bits


def _bits(names: str) -> int:
    return flag_bits(names.split())


_IGNORED_FLAGS: Final = _bits("PSH ECE CWR")
_VALID_FLAGS: Final = frozenset(
    map(_bits, ("SYN", "SYN URG", "SYN ACK", "RST", "RST ACK", "FIN ACK", "FIN ACK URG", "ACK", "ACK URG"))
)
"""tcp_valid_flags in net/netfilter/nf_conntrack_proto_tcp.c, which ignores the other three flags."""
_BEGINNING_FLAGS: Final = frozenset(map(_bits, ("SYN", "SYN URG", "ACK", "ACK URG")))
"""Those with which the table of the same file makes a connection of no connection: a SYN, or a packet in the middle."""


def _with_ignored(flags: frozenset[int]) -> Intervals:
    """All values of the field whose other flags are among these."""
    return of_numbers(filter(lambda value: value & ~_IGNORED_FLAGS in flags, range(256)))


BEGINNING_VALUES: Final = _with_ignored(_BEGINNING_FLAGS)
"""Values of the flags with which a connection begins."""


_ICMP_OF: Final = {Family.IPV4: ICMP, Family.IPV6: ICMPV6}
BEGINNING_TYPES: Final = {Family.IPV4: of_numbers((8, 13, 15, 17)), Family.IPV6: of_numbers((128, 139))}
"""The types of ICMP that begin a connection (valid_new in nf_conntrack_proto_icmp.c and _icmpv6.c)."""
_ANSWERED_TYPES: Final = {Family.IPV4: of_numbers((0, 8, *range(13, 19))), Family.IPV6: of_numbers((128, 129))}
_ERRORS: Final = {Family.IPV4: of_numbers((3, 4, 5, 11, 12)), Family.IPV6: ((0, 127),)}
"""The types of ICMP that are errors about another packet."""
NEVER_TRACKED: Final = of_numbers((130, 131, 132, 133, 134, 135, 136, 143))
"""The types of ICMPv6 that are not tracked (noct_valid_new in nf_conntrack_proto_icmpv6.c)."""


def _natural(family: Family) -> Iterable[Part]:
    """How the state of a connection depends on the packet (net/netfilter/nf_conntrack_proto_*.c)."""
    is_new, is_tcp = Test(PacketField.STATE, single(NEW)), Test(PacketField.PROTOCOL, single(TCP))
    yield implies((is_new, is_tcp), Test(PacketField.FLAGS, BEGINNING_VALUES))
    known = Test(PacketField.STATE, of_numbers((ESTABLISHED, RELATED)))
    yield implies((known, is_tcp), Test(PacketField.FLAGS, _with_ignored(_VALID_FLAGS)))
    is_icmp = Test(PacketField.PROTOCOL, single(_ICMP_OF[family]))
    yield implies((is_new, is_icmp), Test(PacketField.TYPE, BEGINNING_TYPES[family]))
    yield implies(
        (Test(PacketField.STATE, single(ESTABLISHED)), is_icmp), Test(PacketField.TYPE, _ANSWERED_TYPES[family])
    )
    yield implies((Test(PacketField.STATE, single(RELATED)), is_icmp), Test(PacketField.TYPE, _ERRORS[family]))
    if family is Family.IPV6:
        yield implies((is_icmp, Test(PacketField.TYPE, NEVER_TRACKED)), Test(PacketField.STATE, single(UNTRACKED)))
