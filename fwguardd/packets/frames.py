"""Packets as bytes: Internet and transport headers with their checksums, fragments, and errors of ICMP.

A packet carries its number in a field that no rule changes, so that a trace shows which packet it is about: the
identification of IPv4 (RFC 791), the flow label of IPv6 (RFC 8200).

This module is pure.
"""

from __future__ import annotations

import struct
from ipaddress import IPv4Address
from typing import TYPE_CHECKING, Final, NamedTuple

from fwguardd.packets.model import SYN, TCP_FLAGS, ConnectionState

if TYPE_CHECKING:
    from ipaddress import IPv6Address

    from fwguardd.packets.model import Packet

NUMBERS: Final = {"tcp": 6, "udp": 17, "icmp": 1, "icmpv6": 58, "sctp": 132}
"""The protocol numbers of the names in `Packet.protocol`."""

LAST_NUMBER: Final = 0xFFFF
"""Packets are numbered from 1 to this."""

_TTL: Final = 64
_FRAGMENT_SIZE: Final = 24
"""Bytes of payload in the first fragment: a multiple of eight, which has the whole header of TCP (RFC 7112), and less
than any packet here has."""
_MORE_FRAGMENTS: Final = 0x2000
_FRAGMENT_HEADER: Final = 44
_CRC32C: Final = 0x82F63B78
"""The polynomial, lowest bit first."""
_ERROR_TYPES: Final = {"icmp": frozenset({3, 4, 5, 11, 12}), "icmpv6": frozenset({1, 2, 3, 4})}
_ECHO: Final = {"icmp": 8, "icmpv6": 128}
_UNREACHABLE: Final = {"icmp": 3, "icmpv6": 1}


def protocol_number(packet: Packet) -> int:
    """The number of the packet's protocol."""
    if packet.protocol in NUMBERS:
        return NUMBERS[packet.protocol]
    return int(packet.protocol)


def icmp_type(packet: Packet) -> int:
    """The type of an ICMP packet. Where none is given it is an echo request; a related one, an unreachable error."""
    if packet.icmp_type is not None:
        return packet.icmp_type
    if packet.state is ConnectionState.RELATED:
        return _UNREACHABLE[packet.protocol]
    return _ECHO[packet.protocol]


def is_icmp_error(packet: Packet) -> bool:
    """Whether the packet is an ICMP message that contains the packet which it is about."""
    return packet.protocol in _ERROR_TYPES and icmp_type(packet) in _ERROR_TYPES[packet.protocol]


def datagrams(packet: Packet, number: int) -> list[bytes]:
    """The packet as bytes from its Internet header on: two datagrams if it is fragmented, else one."""
    payload = _transport(packet, number)
    if not packet.fragment:
        return [_internet(packet, number, payload)]
    return [
        _fragment(packet, number, payload[:_FRAGMENT_SIZE], 0, more=True),
        _fragment(packet, number, payload[_FRAGMENT_SIZE:], _FRAGMENT_SIZE, more=False),
    ]


def checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071)."""
    padded = data + bytes(len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(padded) // 2}H", padded))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF


def _internet(packet: Packet, number: int, payload: bytes) -> bytes:
    protocol = protocol_number(packet)
    if isinstance(packet.source, IPv4Address):
        return _ipv4(packet, number, payload, 0)
    return _ipv6(packet, number, payload, protocol)


def _ipv4(packet: Packet, number: int, payload: bytes, fragment: int) -> bytes:
    header = struct.pack(
        "!BBHHHBBH4s4s",
        0x45,
        0,
        20 + len(payload),
        number,
        fragment,
        _TTL,
        protocol_number(packet),
        0,
        packet.source.packed,
        packet.destination.packed,
    )
    return header[:10] + struct.pack("!H", checksum(header)) + header[12:] + payload


def _ipv6(packet: Packet, number: int, payload: bytes, protocol: int) -> bytes:
    start = struct.pack("!IHBB", 6 << 28 | number, len(payload), protocol, _TTL)
    return start + packet.source.packed + packet.destination.packed + payload


def _fragment(packet: Packet, number: int, payload: bytes, offset: int, *, more: bool) -> bytes:
    if isinstance(packet.source, IPv4Address):
        return _ipv4(packet, number, payload, offset // 8 | _MORE_FRAGMENTS * more)
    header = struct.pack("!BBHI", protocol_number(packet), 0, offset | more, number)
    return _ipv6(packet, number, header + payload, _FRAGMENT_HEADER)


def _transport(packet: Packet, number: int) -> bytes:
    match packet.protocol:
        case "tcp":
            return _with_checksum(packet, _tcp(packet) + bytes(12 * packet.fragment), 16)
        case "udp":
            return _with_checksum(packet, struct.pack("!HHHH", *_ports(packet), 32, 0) + bytes(24), 6)
        case "icmp" | "icmpv6":
            return _icmp(packet, number)
        case "sctp":
            return _sctp(packet)
    return bytes(32)


def _sctp(packet: Packet) -> bytes:
    """An INIT chunk (RFC 9260): conntrack takes no other first packet of a connection."""
    chunk = struct.pack("!BBHIIHHI", 1, 0, 20, 1, 1500, 1, 1, 1)
    header = struct.pack("!HHI", *_ports(packet), 0)
    value = _crc32c(header + bytes(4) + chunk)
    return header + struct.pack("<I", value) + chunk


def _crc32c(data: bytes) -> int:
    """The checksum of SCTP, bit by bit (RFC 9260, appendix A): the packets here are short."""
    value = 0xFFFFFFFF
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = value >> 1 ^ _CRC32C * (value & 1)
    return value ^ 0xFFFFFFFF


def _ports(packet: Packet) -> tuple[int, int]:
    return packet.source_port or 0, packet.destination_port or 0


def tcp_flags(packet: Packet) -> frozenset[str]:
    """The flags of TCP. A packet of an established connection whose flags are not given has ACK: SYN never is one."""
    if packet.state is ConnectionState.ESTABLISHED and packet.flags == SYN:
        return frozenset({"ACK"})
    return packet.flags


def _tcp(packet: Packet) -> bytes:
    bits = 0
    flags = tcp_flags(packet)
    for bit, name in enumerate(TCP_FLAGS):
        if name in flags:
            bits |= 1 << bit
    return struct.pack("!HHIIHHHH", *_ports(packet), 1000, 1000 * ("ACK" in flags), 5 << 12 | bits, 64240, 0, 0)


def _icmp(packet: Packet, number: int) -> bytes:
    rest = struct.pack("!HH", number, 1) + bytes(24)
    if is_icmp_error(packet):
        rest = bytes(4) + _quoted(packet, number)
    message = struct.pack("!BBH", icmp_type(packet), packet.icmp_code, 0) + rest
    if packet.protocol == "icmpv6":
        return _with_checksum(packet, message, 2)
    return message[:2] + struct.pack("!H", checksum(message)) + message[4:]


class UdpFlow(NamedTuple):
    """A connection over UDP: the one that an error of ICMP is about."""

    source: IPv4Address | IPv6Address
    destination: IPv4Address | IPv6Address
    source_port: int
    destination_port: int


def quoted_flow(packet: Packet, number: int) -> UdpFlow:
    """The connection that an ICMP error is about: the receiver of the error sent a packet of it to its sender."""
    return UdpFlow(packet.destination, packet.source, 1024 + number % 60000, 33434)


def _quoted(packet: Packet, number: int) -> bytes:
    """The first bytes of the packet that the error is about."""
    flow = quoted_flow(packet, number)
    udp = struct.pack("!HHHH", flow.source_port, flow.destination_port, 8, 0)
    if isinstance(flow.source, IPv4Address):
        header = struct.pack("!BBHHHBBH", 0x45, 0, 28, number, 0, _TTL, 17, 0)
        header += flow.source.packed + flow.destination.packed
        return header[:10] + struct.pack("!H", checksum(header)) + header[12:] + udp
    header = struct.pack("!IHBB", 6 << 28, len(udp), 17, _TTL)
    return header + flow.source.packed + flow.destination.packed + udp


def _with_checksum(packet: Packet, segment: bytes, place: int) -> bytes:
    """A segment with the checksum over it and the pseudo header (RFC 9293, RFC 8200) at this place."""
    pseudo = packet.source.packed + packet.destination.packed
    pseudo += struct.pack("!II", len(segment), protocol_number(packet))
    value = checksum(pseudo + segment) or 0xFFFF
    return segment[:place] + struct.pack("!H", value) + segment[place + 2 :]
