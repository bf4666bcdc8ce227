"""From the bytes of a packet to the values of its layers: the same values as a LOG line with all options gives.

What is read, and when a packet counts as too short, is what net/netfilter/nf_log_syslog.c prints, so that a denial does
not depend on its source. Every function takes the copy and an offset, and none raises, whatever the bytes.

This module is pure.
"""

from __future__ import annotations

import struct
from functools import cache
from typing import TYPE_CHECKING, Final, Protocol

from fwguardd.denials.grammar import TCP_FLAGS, compress_ipv6
from fwguardd.denials.model import (
    Arp,
    AuthenticationHeader,
    Bare,
    FragmentHeader,
    Icmp,
    Incomplete,
    InnerPacket,
    Ipsec,
    IPv4,
    IPv6,
    OptionsHeader,
    Tcp,
    Udp,
)

if TYPE_CHECKING:
    from fwguardd.denials.model import Extension, Transport

    class _Reader(Protocol):
        def __call__(
            self, copy: Copy, start: int, *, embedded: bool
        ) -> tuple[IPv4 | IPv6 | None, Transport | None]: ...


_HOP_BY_HOP, _ICMP, _TCP, _UDP, _ROUTING, _FRAGMENT, _ESP, _AH = 0, 1, 6, 17, 43, 44, 50, 51
_ICMPV6, _DESTINATION, _UDPLITE = 58, 60, 136

_IPV4_HEADER: Final = struct.Struct("!BBHHHBBH8B")
_IPV6_HEADER: Final = struct.Struct("!IHBB")
_TCP_HEADER: Final = struct.Struct("!HHIIHHHH")
_UDP_HEADER: Final = struct.Struct("!HHH")
_ICMP_HEADER: Final = struct.Struct("!BBHHH")
_ARP_HEADER: Final = struct.Struct("!HHBBH")

_NAMES: Final = {_TCP: "tcp", _UDP: "udp", _UDPLITE: "udplite"}
_NAMES_IPV4: Final = {**_NAMES, _ICMP: "icmp", _AH: "ah", _ESP: "esp"}
_NAMES_IPV6: Final = {**_NAMES, _ICMPV6: "ipv6-icmp"}

_ICMP_LEAST: Final = {0: 4, 3: 28, 4: 28, 5: 28, 8: 4, 11: 28, 12: 28, 13: 20, 14: 20, 17: 12, 18: 12}
"""The least number of bytes of an ICMP message of a type (required_len in dump_ipv4_packet())."""


class Copy:
    """The beginning of a packet, as far as it was copied, and how long the whole packet was."""

    __slots__ = ("data", "is_cut", "is_short", "length")

    def __init__(self, data: bytes, length: int) -> None:
        self.data = data
        self.length = max(length, len(data))
        self.is_short = False
        """Whether bytes were needed that the packet did not have."""
        self.is_cut = False
        """Whether bytes were needed that the packet had, but not the copy."""

    def holds(self, offset: int, size: int) -> bool:
        """Whether so many bytes are there; if not, `is_cut` or `is_short` is set."""
        if offset + size <= len(self.data):
            return True
        if offset + size <= self.length:
            self.is_cut = True
        else:
            self.is_short = True
        return False

    def rest(self, offset: int) -> int:
        """Bytes that the packet had from an offset on."""
        return max(0, self.length - offset)

    def missing(self, proto: str, offset: int) -> Bare | Incomplete:
        """The value of a header that is not there."""
        if self.is_cut:
            return Bare(proto)
        return Incomplete(proto, self.rest(offset))


def read_ipv4(copy: Copy, start: int, *, embedded: bool = False) -> tuple[IPv4 | None, Transport | None]:
    """An IPv4 header and what it carries; an ICMP error inside another one is not parsed."""
    if not copy.holds(start, 20):
        return None, None
    first, tos, length, ident, fragment, ttl, proto, _, *ends = _IPV4_HEADER.unpack_from(copy.data, start)
    a, b, c, d, e, f, g, h = ends
    header = (first & 0x0F) * 4
    offset = 8 * (fragment & 0x1FFF)
    readable = header <= 20 or copy.holds(start + 20, header - 20)
    options = None
    if header > 20 and readable:
        options = copy.data[start + 20 : start + header].hex().upper()
    network = IPv4(
        f"{a}.{b}.{c}.{d}",
        f"{e}.{f}.{g}.{h}",
        length,
        tos & 0x1E,
        tos & 0xE0,
        ttl,
        ident,
        _ipv4_flags(fragment >> 13),
        offset,
        options,
    )
    if not readable:
        return network, None
    if offset:
        return network, Bare(_NAMES_IPV4.get(proto) or str(proto))
    return network, _read_ipv4_payload(copy, start + header, proto, embedded=embedded)


@cache
def _ipv4_flags(bits: int) -> tuple[str, ...]:
    return tuple(name for bit, name in ((4, "CE"), (2, "DF"), (1, "MF")) if bits & bit)


def _read_ipv4_payload(copy: Copy, start: int, proto: int, *, embedded: bool) -> Transport:
    if proto == _TCP:
        return _read_tcp(copy, start)
    if proto in (_UDP, _UDPLITE):
        return _read_udp(copy, start, _NAMES[proto])
    if proto == _ICMP:
        return _read_icmp(copy, start, embedded=embedded)
    if proto in (_AH, _ESP):
        return _read_ipsec(copy, start, proto)
    return Bare(str(proto))


def read_ipv6(copy: Copy, start: int, *, embedded: bool = False) -> tuple[IPv6 | None, Transport | None]:
    """An IPv6 header, its extension headers and what it carries; as `read_ipv4`."""
    if not copy.holds(start, 40):
        return None, None
    first, length, proto, hop_limit = _IPV6_HEADER.unpack_from(copy.data, start)
    extensions: list[Extension] = []
    transport: Transport | None
    if proto in _READ_ON:
        transport = _read_extensions(copy, start + 40, proto, extensions, embedded=embedded)
    else:
        transport = _read_ipv6_payload(copy, start + 40, proto, embedded=embedded)
    network = IPv6(
        _ipv6(copy.data, start + 8),
        _ipv6(copy.data, start + 24),
        length + 40,
        first >> 20 & 0xFF,
        hop_limit,
        first & 0xFFFFF,
        tuple(extensions),
    )
    return network, transport


def _ipv6(data: bytes, start: int) -> str:
    return compress_ipv6(data[start : start + 16].hex(":", 2))


_READ_ON: Final = {_HOP_BY_HOP, _ROUTING, _FRAGMENT, _DESTINATION, _AH, _ESP}
_LEAST: Final = {_FRAGMENT: 8}
"""Bytes that are read of an extension header, where they are not 2."""


def _read_extensions(copy: Copy, start: int, proto: int, found: list[Extension], *, embedded: bool) -> Transport | None:
    """Walk the chain of extension headers, and read what comes after it. Of a later fragment the kernel prints neither
    what the next options header, AH or ESP holds, nor what comes after it."""
    is_later = False
    while proto in _READ_ON:
        if not copy.holds(start, _LEAST.get(proto, 2)):
            return None
        following, size = copy.data[start], 8 * (copy.data[start + 1] + 1)
        if proto == _FRAGMENT:
            fragment, size = _read_fragment(copy, start), 8
            found.append(fragment)
            is_later = is_later or fragment.offset > 0
        elif is_later:
            return _end_of_later_fragment(proto, found)
        elif proto in (_AH, _ESP):
            read = _read_ipsec(copy, start, proto)
            if proto == _ESP or not isinstance(read, Ipsec) or read.spi is None:
                return read
            found.append(AuthenticationHeader(read.spi))
            # AH counts in units of four bytes, less two of them (RFC 4302).
            size = 4 * (copy.data[start + 1] + 2)
        else:
            found.append(OptionsHeader())
        proto, start = following, start + size
    return _after_extensions(copy, start, proto, is_later=is_later, embedded=embedded)


def _read_fragment(copy: Copy, start: int) -> FragmentHeader:
    place, ident = struct.unpack_from("!HI", copy.data, start + 2)
    return FragmentHeader(place & 0xFFF8, bool(place & 1), ident)


def _end_of_later_fragment(proto: int, found: list[Extension]) -> Transport | None:
    if proto in (_AH, _ESP):
        return Ipsec(_NAMES_IPV4[proto], None)
    found.append(OptionsHeader())
    return None


def _after_extensions(copy: Copy, start: int, proto: int, *, is_later: bool, embedded: bool) -> Transport:
    if is_later:
        return Bare(_NAMES_IPV6.get(proto) or str(proto))
    return _read_ipv6_payload(copy, start, proto, embedded=embedded)


def _read_ipv6_payload(copy: Copy, start: int, proto: int, *, embedded: bool) -> Transport:
    if proto == _TCP:
        return _read_tcp(copy, start)
    if proto in (_UDP, _UDPLITE):
        return _read_udp(copy, start, _NAMES[proto])
    if proto == _ICMPV6:
        return _read_icmpv6(copy, start, embedded=embedded)
    return Bare(str(proto))


def _read_tcp(copy: Copy, start: int) -> Transport:
    if not copy.holds(start, 20):
        return copy.missing("tcp", start)
    spt, dpt, seq, ack, bits, window, _, urgent = _TCP_HEADER.unpack_from(copy.data, start)
    size = (bits >> 12) * 4 - 20
    options = None
    if size > 0 and copy.holds(start + 20, size):
        options = copy.data[start + 20 : start + 20 + size].hex().upper()
    # The reserved bits as the kernel prints them: in their place in the upper six bits of a byte.
    return Tcp(spt, dpt, seq, ack, window, bits >> 6 & 0x38, _tcp_flags(bits & 0x1FF), urgent, options)


@cache
def _tcp_flags(bits: int) -> tuple[str, ...]:
    return tuple(name for place, name in enumerate(TCP_FLAGS) if bits >> (len(TCP_FLAGS) - 1 - place) & 1)


def _read_udp(copy: Copy, start: int, proto: str) -> Transport:
    if not copy.holds(start, 8):
        return copy.missing(proto, start)
    return Udp(proto, *_UDP_HEADER.unpack_from(copy.data, start))


def _read_ipsec(copy: Copy, start: int, proto: int) -> Transport:
    """AH has its SPI in its second four bytes and is 12 long (RFC 4302), ESP in its first and is 8 long (RFC 4303)."""
    name, size, place = "esp", 8, 0
    if proto == _AH:
        name, size, place = "ah", 12, 4
    if not copy.holds(start, size):
        return copy.missing(name, start)
    return Ipsec(name, int.from_bytes(copy.data[start + place : start + place + 4], "big"))


def _read_icmp(copy: Copy, start: int, *, embedded: bool) -> Transport:
    if not copy.holds(start, 8):
        return copy.missing("icmp", start)
    kind, code, _, high, low = _ICMP_HEADER.unpack_from(copy.data, start)
    if copy.rest(start) < _ICMP_LEAST.get(kind, 0):
        copy.is_short = True
        return Icmp("icmp", kind, code, available=copy.rest(start))
    match kind:
        case 0 | 8:
            return Icmp("icmp", kind, code, ident=high, seq=low)
        case 12:
            return Icmp("icmp", kind, code, pointer=high >> 8)
        case 3 | 4 | 5 | 11:
            return _read_icmp_error(copy, start, embedded=embedded)
        case _:
            return Icmp("icmp", kind, code)


def _read_icmp_error(copy: Copy, start: int, *, embedded: bool) -> Icmp:
    kind, code, _, _, low = _ICMP_HEADER.unpack_from(copy.data, start)
    gateway = mtu = packet = None
    if kind == 5:
        gateway = ".".join(map(str, copy.data[start + 4 : start + 8]))
    elif (kind, code) == (3, 4):
        mtu = low
    if not embedded:
        packet = _read_embedded(copy, start + 8, read_ipv4)
    return Icmp("icmp", kind, code, gateway=gateway, mtu=mtu, embedded=packet)


def _read_icmpv6(copy: Copy, start: int, *, embedded: bool) -> Transport:
    if not copy.holds(start, 8):
        return copy.missing("ipv6-icmp", start)
    kind, code, _, high, low = _ICMP_HEADER.unpack_from(copy.data, start)
    match kind:
        case 128 | 129:
            return Icmp("ipv6-icmp", kind, code, ident=high, seq=low)
        case 1 | 2 | 3 | 4:
            return _read_icmpv6_error(copy, start, embedded=embedded)
        case _:
            return Icmp("ipv6-icmp", kind, code)


def _read_icmpv6_error(copy: Copy, start: int, *, embedded: bool) -> Icmp:
    kind, code, _, high, low = _ICMP_HEADER.unpack_from(copy.data, start)
    pointer = mtu = packet = None
    if kind == 4:
        pointer = high << 16 | low
    elif kind == 2:
        mtu = high << 16 | low
    if not embedded:
        packet = _read_embedded(copy, start + 8, read_ipv6)
    return Icmp("ipv6-icmp", kind, code, pointer=pointer, mtu=mtu, embedded=packet)


def _read_embedded(copy: Copy, start: int, read: _Reader) -> InnerPacket:
    """The packet that an error message is about. Most are short, and that does not make the message short."""
    inner = Copy(copy.data, copy.length)
    packet = InnerPacket(*read(inner, start, embedded=True))
    copy.is_cut = copy.is_cut or inner.is_cut
    return packet


def _arp_without_addresses(copy: Copy, hardware: int, protocol: int, opcode: int) -> Arp:
    """What the copy holds of a packet whose addresses are missing: the packet is too short, or the copy was cut."""
    if copy.is_cut:
        return Arp(hardware, protocol, opcode)
    return Arp(hardware, protocol, opcode, available=copy.rest(8))


def read_arp(copy: Copy) -> Arp | None:
    """An ARP packet (RFC 826); its addresses only if they are of Ethernet and of four bytes."""
    if not copy.holds(0, 8):
        return None
    hardware, protocol, hardware_size, protocol_size, opcode = _ARP_HEADER.unpack_from(copy.data)
    if (hardware, hardware_size, protocol_size) != (1, 6, 4):
        return Arp(hardware, protocol, opcode)
    if not copy.holds(8, 20):
        return _arp_without_addresses(copy, hardware, protocol, opcode)
    data = copy.data
    return Arp(
        hardware,
        protocol,
        opcode,
        data[8:14].hex(":"),
        ".".join(map(str, data[14:18])),
        data[18:24].hex(":"),
        ".".join(map(str, data[24:28])),
    )
