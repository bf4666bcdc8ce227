"""All packets that a ruleset decides about, by direction, and what a packet should have that shows an answer.

This module is pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fwguardd.packets.model import Direction
from fwguardd.proof.fields import (
    ADDRESS_BITS,
    ESTABLISHED,
    LOOPBACK_NETWORK,
    MULTICAST,
    NEW,
    SCTP,
    TCP,
    UDP,
    UNSENDABLE,
    PacketField,
    packet_variables,
)
from fwguardd.proof.formulas import Leaf, any_of, both
from fwguardd.proof.intervals import complement, intersection, single, united
from fwguardd.proof.packet_sets import all_packets
from fwguardd.ruleset.model import Family

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fwguardd.proof.fields import HostFacts
    from fwguardd.proof.formulas import Formula, Scope
    from fwguardd.proof.intervals import Intervals
    from fwguardd.proof.packet_sets import PacketSet

_EXAMPLES: Final = {Family.IPV4: 0xC633_6407, Family.IPV6: 0x2001_0DB8_FFFF << 80 | 7}
"""198.51.100.7 and 2001:db8:ffff::7, for documentation (RFC 5737, RFC 3849)."""

_USUAL: Final = (
    (PacketField.PROTOCOL, united(((TCP, TCP), (UDP, UDP), (SCTP, SCTP)))),
    (PacketField.PROTOCOL, single(TCP)),
    (PacketField.FLAGS, single(2)),
    (PacketField.SPORT, single(49_152)),
    (PacketField.DPORT, single(8080)),
    *dict.fromkeys((PacketField.CODE, PacketField.MARK, PacketField.UID, PacketField.GID), single(0)).items(),
)
_REPLIES: Final = ((PacketField.FLAGS, single(16)),)
"""An ACK: what a packet of an established connection of TCP has."""


def sets_of_directions(known: HostFacts) -> Iterator[PacketSet]:
    """All packets, by direction. Where the addresses of the host are known, what it takes itself is inbound, as long as
    no NAT changes that; else what the rules of INPUT see."""
    inbound, forwarded = all_packets(known, Direction.INBOUND), all_packets(known, Direction.FORWARDED)
    if known.own is not None:
        groups = united((*MULTICAST[known.family], *known.broadcast))
        mine = united((*known.own, *groups))
        inbound = inbound.narrowed({PacketField.DESTINATION: mine})
        forwarded = forwarded.narrowed({PacketField.DESTINATION: complement(mine, ADDRESS_BITS[known.family])})
    yield inbound
    yield forwarded
    yield all_packets(known, Direction.OUTBOUND)


def preferences(known: HostFacts, packets: PacketSet, scope: Scope) -> Iterator[Formula]:
    """What a packet should have so that it looks usual and this host takes it, the most important first."""
    wishes = _Wishes(known, scope)
    yield wishes.has(PacketField.STATE, single(NEW))
    yield wishes.has(PacketField.STATE, united(((NEW, NEW), (ESTABLISHED, ESTABLISHED))))
    outside = complement(single(known.interfaces.number("lo")), 16)
    if packets.direction is not Direction.OUTBOUND:
        yield wishes.has(PacketField.IN, outside)
        yield wishes.has(PacketField.SOURCE, _others(known))
        yield from wishes.by_routes(PacketField.IN, PacketField.SOURCE)
    if packets.direction is not Direction.INBOUND:
        yield wishes.has(PacketField.OUT, outside)
        yield wishes.has(PacketField.DESTINATION, _others(known))
        yield from wishes.by_routes(PacketField.OUT, PacketField.DESTINATION)
    if known.own is not None:
        own = intersection(known.own, complement(LOOPBACK_NETWORK[known.family], ADDRESS_BITS[known.family]))
        name = {Direction.INBOUND: PacketField.DESTINATION, Direction.OUTBOUND: PacketField.SOURCE}.get(
            packets.direction
        )
        if name is not None:
            yield wishes.has(name, own)
            if own:
                # An address of IPv6 that is no address of a link is among the first ones.
                yield wishes.has(name, single(own[{Family.IPV4: -1, Family.IPV6: 0}[known.family]][0]))
    for name, values in (*_USUAL, *_REPLIES):
        yield wishes.has(name, values)


def _others(known: HostFacts) -> Intervals:
    """Addresses of other hosts."""
    none = united((*(known.own or ()), *LOOPBACK_NETWORK[known.family], *UNSENDABLE[known.family], *known.broadcast))
    return complement(none, ADDRESS_BITS[known.family])


class _Wishes:
    """Wishes in one scope."""

    def __init__(self, known: HostFacts, scope: Scope) -> None:
        self._known, self._scope = known, scope
        self._variables = packet_variables(known.family)

    def has(self, name: PacketField, values: Intervals) -> Formula:
        """The field has one of these values."""
        return self._scope.inside(Leaf.of(self._variables[name]), values)

    def by_routes(self, way: PacketField, other: PacketField) -> Iterator[Formula]:
        """The interface is the one by which the address is reached, if routes are known; it is a known example."""
        routes = self._known.routes
        if routes:
            yield any_of(
                [both(self.has(way, single(number)), self.has(other, _hosts(to))) for number, to in routes.items()]
            )
        yield self.has(other, single(_EXAMPLES[self._known.family]))
        for _number, to in sorted(routes.items()):
            if to:
                yield self.has(other, single(to[0][0] + 7))


def _hosts(addresses: Intervals) -> Intervals:
    """Addresses of hosts: the first one of a network is that of the network, and the second one mostly a router's."""
    return tuple((first + 2, last - 1) for first, last in addresses if last - first > 3)
