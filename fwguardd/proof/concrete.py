"""One packet that can be sent -> the set of packets that it stands for in the model.

Connection tracking decides about the state of a packet by what it has seen before. Where that is not certain, the set
has all states that there may be.

This module is pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fwguardd.packets.frames import icmp_type, is_icmp_error, protocol_number, tcp_flags
from fwguardd.packets.model import ConnectionState, Direction, Packet
from fwguardd.proof.fields import (
    DCCP,
    ESTABLISHED,
    ICMP,
    ICMPV6,
    INVALID,
    NEW,
    NO_INTERFACE,
    RELATED,
    UDPLITE,
    UNTRACKED,
    PacketField,
)
from fwguardd.proof.intervals import Intervals, intersection, single, united
from fwguardd.proof.packet_sets import (
    BEGINNING_TYPES,
    BEGINNING_VALUES,
    NEVER_TRACKED,
    PacketSet,
    all_packets,
    flag_bits,
)

if TYPE_CHECKING:
    from fwguardd.proof.fields import HostFacts

_KNOWN: Final = {ConnectionState.ESTABLISHED: ESTABLISHED, ConnectionState.RELATED: RELATED}


def set_of(packet: Packet, known: HostFacts) -> PacketSet:
    """The packets of the model that this one is. Raises ValueError for an interface that the model does not have."""
    limits = {
        PacketField.SOURCE: single(int(packet.source)),
        PacketField.DESTINATION: single(int(packet.destination)),
        PacketField.PROTOCOL: single(protocol_number(packet)),
        PacketField.SPORT: single(packet.source_port or 0),
        PacketField.DPORT: single(packet.destination_port or 0),
        PacketField.FLAGS: single(_flag_bits(packet)),
        PacketField.TYPE: single(_type(packet)),
        PacketField.CODE: single(packet.icmp_code),
        PacketField.MARK: single(packet.mark),
        PacketField.STATE: _states(packet),
        **_way(packet, known),
    }
    return PacketSet(packet.direction, {**all_packets(known, packet.direction).limits, **limits})


def _way(packet: Packet, known: HostFacts) -> dict[PacketField, Intervals]:
    """The limits of interfaces and owners."""
    found: dict[PacketField, Intervals] = {PacketField.IN: single(NO_INTERFACE)}
    if packet.in_interface is not None:
        found[PacketField.IN] = single(known.interfaces.number(packet.in_interface))
    if packet.out_interface is not None:
        found[PacketField.OUT] = single(known.interfaces.number(packet.out_interface))
    if packet.direction is Direction.OUTBOUND:
        found |= {PacketField.UID: single(packet.uid or 0), PacketField.GID: single(packet.gid or 0)}
    return found


def _flag_bits(packet: Packet) -> int:
    return flag_bits(tcp_flags(packet))


def _type(packet: Packet) -> int:
    if packet.protocol in ("icmp", "icmpv6"):
        return icmp_type(packet)
    return 0


def _states(packet: Packet) -> Intervals:
    """The states that the packet may have."""
    if packet.protocol == "icmpv6" and intersection(single(_type(packet)), NEVER_TRACKED):
        return single(UNTRACKED)
    if packet.state is ConnectionState.UNTRACKED:
        return single(UNTRACKED)
    if packet.state in _KNOWN:
        return _known_state(packet, _KNOWN[packet.state])
    return _new_state(packet)


def _known_state(packet: Packet, state: int) -> Intervals:
    """TCP takes some packets of a connection for INVALID, by their flags and numbers."""
    certain = packet.protocol not in ("tcp", "sctp") or (
        tcp_flags(packet) == frozenset({"ACK"}) and state == ESTABLISHED
    )
    if certain:
        return single(state)
    return united(((state, state), (INVALID, INVALID)))


def _new_state(packet: Packet) -> Intervals:
    """NEW, or INVALID where no connection begins so."""
    number = protocol_number(packet)
    if number in (DCCP, UDPLITE):
        return united(((NEW, NEW), (INVALID, INVALID)))
    begins = True
    if packet.protocol == "tcp":
        begins = bool(intersection(single(_flag_bits(packet)), BEGINNING_VALUES))
    elif number in (ICMP, ICMPV6) and packet.protocol in ("icmp", "icmpv6"):
        begins = not is_icmp_error(packet) and bool(intersection(single(_type(packet)), BEGINNING_TYPES[packet.family]))
    return single({True: NEW, False: INVALID}[begins])
