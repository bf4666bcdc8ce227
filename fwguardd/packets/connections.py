"""The packets of a tracked connection: the next one of each direction, and the first one, if it had to begin anew.

This module is pure.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from fwguardd.packets.host_routes import FAMILIES, LOOPBACK
from fwguardd.packets.model import ConnectionState, Packet
from fwguardd.packets.packet_words import WITH_PORTS

if TYPE_CHECKING:
    from ipaddress import IPv4Address, IPv6Address

    from fwguardd.packets.endpoints import Connection
    from fwguardd.packets.host_routes import HostRoutes

    Address = IPv4Address | IPv6Address

_ACK: Final = frozenset({"ACK"})
_REQUESTS: Final = {"icmp": 8, "icmpv6": 128}
_REPLIES: Final = {"icmp": 0, "icmpv6": 129}
"""Types of an echo request and its reply."""


def first_packet(connection: Connection, routes: HostRoutes) -> Packet | None:
    """The packet that began the connection; None where it is not known by which interface it comes or goes."""
    interfaces = _interface(connection.source, routes), _interface(connection.reply_source, routes)
    if "" in interfaces:
        return None
    if interfaces == (None, None):
        interfaces = (LOOPBACK, None)
    return Packet(
        FAMILIES[connection.source.version],
        connection.protocol,
        connection.source,
        connection.destination,
        connection.source_port,
        connection.destination_port,
        *interfaces,
        icmp_type=_REQUESTS.get(connection.protocol),
    )


def _interface(address: Address, routes: HostRoutes) -> str | None:
    """The interface by which another host is reached, "" without a route; None for this host."""
    if routes.is_own(address):
        return None
    return routes.interface_to(address)


def next_packets(connection: Connection, routes: HostRoutes) -> tuple[Packet, ...]:
    """The next packet of each direction; none where the interfaces are not known. Of a connection with NAT only that of
    the first direction."""
    first = first_packet(connection, routes)
    if first is None:
        return ()
    onward = replace(first, state=ConnectionState.ESTABLISHED, flags=_ACK)
    if _has_nat(connection):
        return (onward,)
    return onward, _turned_round(onward)


def _turned_round(packet: Packet) -> Packet:
    """The packet in the other direction."""
    return replace(
        packet,
        source=packet.destination,
        destination=packet.source,
        source_port=packet.destination_port,
        destination_port=packet.source_port,
        in_interface=packet.out_interface,
        out_interface=packet.in_interface,
        icmp_type=_REPLIES.get(packet.protocol),
    )


def _has_nat(connection: Connection) -> bool:
    return (connection.reply_source, connection.reply_destination) != (connection.destination, connection.source)


def kind_of(connection: Connection) -> tuple[str, str, str, int | None]:
    """What connections have in common that rules treat alike in most cases: addresses, protocol and service."""
    port = None
    if connection.protocol in WITH_PORTS:
        port = connection.destination_port
    return connection.protocol, str(connection.source), str(connection.destination), port
