"""Packets as lists of JSON values, for the message to the process that sends them.

This module is pure.
"""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

from fwguardd.packets.model import ConnectionState, Packet
from fwguardd.ruleset.model import Family

if TYPE_CHECKING:
    from collections.abc import Sequence


def packet_document(packet: Packet) -> list[Any]:
    """The values of a packet in the order of its fields."""
    return [
        packet.family.value,
        packet.protocol,
        str(packet.source),
        str(packet.destination),
        packet.source_port,
        packet.destination_port,
        packet.in_interface,
        packet.out_interface,
        packet.state.value,
        packet.icmp_type,
        packet.icmp_code,
        sorted(packet.flags),
        packet.uid,
        packet.gid,
        packet.mark,
        packet.fragment,
    ]


def packet_of(document: Sequence[Any]) -> Packet:
    """The packet of a document. Raises ValueError."""
    family, protocol, source, destination = document[:4]
    source_port, destination_port, in_interface, out_interface, state = document[4:9]
    icmp_type, icmp_code, flags, *sender = document[9:]
    return Packet(
        Family(family),
        protocol,
        ip_address(source),
        ip_address(destination),
        source_port,
        destination_port,
        in_interface,
        out_interface,
        ConnectionState(state),
        icmp_type,
        icmp_code,
        frozenset(flags),
        *sender,
    )
