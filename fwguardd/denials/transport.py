"""From the text after `PROTO=` to its value: TCP, UDP, UDP-Lite, ICMP, ICMPv6, AH, ESP, and bare numbers.

As in `fwguardd.denials.layers`, each function begins at a given position and returns the position where it stopped. The
kernel prints the packet inside an ICMP error, but not a packet inside that one: the caller passes the reader for what
is in the brackets, or None where there cannot be any.

This module is pure.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import TYPE_CHECKING, Final, TypeAlias

from fwguardd.denials import grammar
from fwguardd.denials.grammar import GrammarError
from fwguardd.denials.model import Bare, Icmp, Incomplete, InnerPacket, Ipsec, Tcp, Transport, Udp

if TYPE_CHECKING:
    import re


class Ending(Enum):
    """What the kernel does after a transport layer."""

    OPEN = "open"
    """The tail may follow."""
    STOP = "stop"
    """Nothing follows."""
    SHORT = "short"
    """The packet was too short; the tail may follow nevertheless."""
    SHORT_STOP = "short-stop"
    """The packet was too short, and nothing follows."""


Embed: TypeAlias = Callable[[str, int], tuple[InnerPacket, int]]
_Read: TypeAlias = tuple[Transport, int, Ending]
Reader: TypeAlias = Callable[[str, int, Embed | None], _Read]

_OPEN: Final = Ending.OPEN
_HIGHEST_PORT: Final = 0xFFFF
_HIGHEST_PROTOCOL: Final = 0xFF
_LONGEST_PACKET: Final = 0x7FFFFFFF
_COMMON_FLAGS: Final = {
    "SYN ": ("SYN",),
    "ACK SYN ": ("ACK", "SYN"),
    "ACK ": ("ACK",),
    "ACK PSH ": ("ACK", "PSH"),
    "ACK FIN ": ("ACK", "FIN"),
    "ACK RST ": ("ACK", "RST"),
    "RST ": ("RST",),
}
_NAMES: Final = {
    "TCP": "tcp",
    "UDP": "udp",
    "UDPLITE": "udplite",
    "ICMP": "icmp",
    "ICMPv6": "ipv6-icmp",
    "AH": "ah",
    "ESP": "esp",
}


def bare(proto: str) -> Bare:
    """The protocol alone, by its name in events."""
    return Bare(_NAMES.get(proto, proto))


def available_bytes(digits: str) -> int:
    """The available bytes of an INCOMPLETE. A header that begins past the end of the packet makes the kernel's unsigned
    difference wrap around: then no byte was available."""
    number = int(digits)
    if number > _LONGEST_PACKET:
        return 0
    return number


def read_transport(
    readers: dict[str, Reader], text: str, position: int, proto: str, embed: Embed | None
) -> tuple[Transport, int, Ending]:
    """What follows `PROTO=`; `readers` are those of the family, `proto` is the kernel's name. Raises GrammarError."""
    reader = readers.get(proto)
    if reader is not None:
        return reader(text, position, embed)
    return read_protocol(readers, position, proto), position, _OPEN


def read_protocol(readers: dict[str, Reader], position: int, proto: str) -> Bare:
    """The protocol alone, where the kernel prints no more of it. Raises GrammarError for a
    protocol of the other family."""
    if proto not in readers and not (proto.isdigit() and int(proto) <= _HIGHEST_PROTOCOL):
        raise GrammarError(position - len(proto) - 1, "a protocol of this family")
    return bare(proto)


def _tcp(text: str, position: int, _: Embed | None) -> _Read:
    match = grammar.TCP.match(text, position)
    if match is None:
        return _incomplete(text, position, "tcp", Ending.SHORT_STOP)
    spt, dpt, seq, ack, window, reserved, flags, urgent, options, no_options = match.groups()
    segment = Tcp(
        *_ports(spt, dpt, position),
        _number(seq),
        _number(ack),
        int(window),
        int(reserved, 16),
        _COMMON_FLAGS.get(flags) or tuple(flags.split()),
        int(urgent),
        options,
    )
    if no_options is not None:
        return segment, match.end(), Ending.SHORT_STOP
    return segment, match.end(), _OPEN


def _number(digits: str | None) -> int | None:
    if digits is None:
        return None
    return int(digits)


def _udp(text: str, position: int, _: Embed | None) -> _Read:
    return _datagram(text, position, "udp")


def _udplite(text: str, position: int, _: Embed | None) -> _Read:
    return _datagram(text, position, "udplite")


def _datagram(text: str, position: int, proto: str) -> _Read:
    match = grammar.UDP.match(text, position)
    if match is None:
        return _incomplete(text, position, proto, Ending.SHORT_STOP)
    spt, dpt, length = match.groups()
    return Udp(proto, *_ports(spt, dpt, position), int(length)), match.end(), _OPEN


def _ah(text: str, position: int, _: Embed | None) -> _Read:
    return _ipsec(text, position, "ah")


def _esp(text: str, position: int, _: Embed | None) -> _Read:
    return _ipsec(text, position, "esp")


def _ipsec(text: str, position: int, proto: str) -> _Read:
    match = grammar.SPI.match(text, position)
    if match is None:
        return _incomplete(text, position, proto, Ending.SHORT)
    return Ipsec(proto, int(match[1], 16)), match.end(), _OPEN


def _icmp(text: str, position: int, embed: Embed | None) -> _Read:
    """Source: dump_ipv4_packet(). A message too short for its type ends after type and code."""
    head = grammar.ICMP.match(text, position)
    if head is None:
        return _incomplete(text, position, "icmp", Ending.SHORT)
    kind, code = int(head[1]), int(head[2])
    position = head.end()
    short = grammar.INCOMPLETE.match(text, position)
    if short is not None:
        return Icmp("icmp", kind, code, available=available_bytes(short[1])), short.end(), Ending.SHORT
    match kind:
        case 0 | 8:
            return _echo(text, position, "icmp", kind, code)
        case 12:
            pointer = _want(grammar.ICMP_PARAMETER, text, position, "PARAMETER=")
            return Icmp("icmp", kind, code, pointer=int(pointer[1])), pointer.end(), _OPEN
        case 3 | 4 | 5 | 11:
            return _icmp_error(text, position, kind, code, embed)
        case _:
            return Icmp("icmp", kind, code), position, _OPEN


def _icmp_error(text: str, position: int, kind: int, code: int, embed: Embed | None) -> _Read:
    gateway = None
    if kind == 5:
        match = _want(grammar.ICMP_GATEWAY, text, position, "GATEWAY=")
        gateway, position = match[1], match.end()
    embedded, position = _brackets(text, position, embed)
    mtu = None
    if (kind, code) == (3, 4):
        mtu, position = _mtu(text, position)
    return Icmp("icmp", kind, code, gateway=gateway, mtu=mtu, embedded=embedded), position, _OPEN


def _icmpv6(text: str, position: int, embed: Embed | None) -> _Read:
    """Source: dump_ipv6_packet()."""
    head = grammar.ICMP.match(text, position)
    if head is None:
        return _incomplete(text, position, "ipv6-icmp", Ending.SHORT_STOP)
    kind, code = int(head[1]), int(head[2])
    position = head.end()
    match kind:
        case 128 | 129:
            return _echo(text, position, "ipv6-icmp", kind, code)
        case 1 | 2 | 3 | 4:
            return _icmpv6_error(text, position, kind, code, embed)
        case _:
            return Icmp("ipv6-icmp", kind, code), position, _OPEN


def _icmpv6_error(text: str, position: int, kind: int, code: int, embed: Embed | None) -> _Read:
    pointer = None
    if kind == 4:
        match = _want(grammar.ICMPV6_POINTER, text, position, "POINTER=")
        pointer, position = int(match[1], 16), match.end()
    embedded, position = _brackets(text, position, embed)
    mtu = None
    if kind == 2:
        mtu, position = _mtu(text, position)
    return Icmp("ipv6-icmp", kind, code, pointer=pointer, mtu=mtu, embedded=embedded), position, _OPEN


def _echo(text: str, position: int, proto: str, kind: int, code: int) -> _Read:
    match = _want(grammar.ICMP_ECHO, text, position, "ID= and SEQ=")
    return Icmp(proto, kind, code, ident=int(match[1]), seq=int(match[2])), match.end(), _OPEN


def _brackets(text: str, position: int, embed: Embed | None) -> tuple[InnerPacket | None, int]:
    """The embedded packet, if the kernel shows it: nftables' egress rules show none, not even of the outermost."""
    if embed is None or not text.startswith("[", position):
        return None, position
    packet, position = embed(text, position + 1)
    if not text.startswith("] ", position):
        raise GrammarError(position, "] after the embedded packet")
    return packet, position + 2


def _mtu(text: str, position: int) -> tuple[int, int]:
    match = _want(grammar.ICMP_MTU, text, position, "MTU=")
    return int(match[1]), match.end()


def _incomplete(text: str, position: int, proto: str, ending: Ending) -> _Read:
    match = _want(grammar.INCOMPLETE, text, position, f"the words of {proto}")
    return Incomplete(proto, available_bytes(match[1])), match.end(), ending


def _want(expression: re.Pattern[str], text: str, position: int, expected: str) -> re.Match[str]:
    match = expression.match(text, position)
    if match is None:
        raise GrammarError(position, expected)
    return match


def _ports(source: str, destination: str, position: int) -> tuple[int, int]:
    spt, dpt = int(source), int(destination)
    if spt > _HIGHEST_PORT or dpt > _HIGHEST_PORT:
        raise GrammarError(position, "ports of at most 65535")
    return spt, dpt


IPV4_READERS: Final[dict[str, Reader]] = {
    "TCP": _tcp,
    "UDP": _udp,
    "UDPLITE": _udplite,
    "ICMP": _icmp,
    "AH": _ah,
    "ESP": _esp,
}
IPV6_READERS: Final[dict[str, Reader]] = {"TCP": _tcp, "UDP": _udp, "UDPLITE": _udplite, "ICMPv6": _icmpv6}
