"""The words that describe a packet on the command line, and a packet in words.

`in eth0 tcp 203.0.113.9 192.0.2.1:8443`, `out eth0 udp 203.0.113.53:53 uid www-data`, `in eth0 out eth1 icmp A B`.
An address or interface that is left out is filled in from the routes of the host (`fwguardd.packets.routes`).

This module is pure.
"""

from __future__ import annotations

import difflib
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import TYPE_CHECKING, Final

from fwguardd.packets.model import SYN, TCP_FLAGS, ConnectionState, Direction, Packet
from fwguardd.patterns import pattern
from fwguardd.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    Address = IPv4Address | IPv6Address

PROTOCOLS: Final = ("tcp", "udp", "sctp", "icmp", "icmpv6")
WITH_PORTS: Final = frozenset({"tcp", "udp", "sctp"})
CLIENT_PORT: Final = 49152
"""The source port of a packet for which none is given: the first dynamic port (RFC 6335)."""

_OTHER_NAMES: Final = {"ipv6-icmp": "icmpv6", "icmp6": "icmpv6", "1": "icmp", "6": "tcp", "17": "udp", "58": "icmpv6",
                       "132": "sctp"}  # fmt: skip
_ICMP_TYPES: Final[Mapping[str, Mapping[str, int]]] = {
    "echo-request": {"icmp": 8, "icmpv6": 128},
    "echo-reply": {"icmp": 0, "icmpv6": 129},
    "destination-unreachable": {"icmp": 3, "icmpv6": 1},
    "time-exceeded": {"icmp": 11, "icmpv6": 3},
}
_WITH_BRACKETS: Final = pattern(r"\[([0-9A-Fa-f:.]+)\](?::([0-9]+))?")
_PORT_ALONE: Final = pattern(r":[0-9]+")
_IPV4: Final = pattern(r"([0-9.]+)(?::([0-9]+))?")
_NUMBER: Final = pattern(r"0x[0-9a-fA-F]{1,8}|[0-9]{1,10}")


class PacketWordsError(ValueError):
    """The words do not describe a packet; the message says what was expected."""


class NoRouteError(PacketWordsError):
    """The host has no route to an address, so the interface is not known."""

    def __init__(self, address: Address) -> None:
        super().__init__(f"this host has no route to {address}: name the interface, as in: in eth0 …")
        self.address = address


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An address and a port, each None if it is not given."""

    address: Address | None = None
    port: int | None = None


@dataclass(frozen=True, slots=True)
class PacketWords:
    """A packet as it was described. What was left out is None.

    ``users`` and ``groups`` are the names or numbers of the socket's owner, which only the system can look up.
    """

    protocol: str
    source: Endpoint = Endpoint()
    destination: Endpoint = Endpoint()
    in_interface: str | None = None
    out_interface: str | None = None
    state: ConnectionState = ConnectionState.NEW
    icmp_type: int | None = None
    flags: frozenset[str] = SYN
    user: str | None = None
    group: str | None = None
    mark: int = 0
    fragment: bool = False


def read_packet_words(words: Sequence[str]) -> PacketWords:
    """The packet that the words describe. Raises PacketWordsError."""
    reader = _Reader(list(words))
    interfaces = reader.interfaces()
    protocol = reader.protocol()
    ends = reader.ends()
    packet = PacketWords(
        protocol, *_source_and_destination(ends, interfaces), interfaces.get("in"), interfaces.get("out")
    )
    while reader.words:
        packet = _with_detail(packet, reader)
    _check_ports(packet)
    return packet


def _check_ports(packet: PacketWords) -> None:
    ports = {packet.source.port, packet.destination.port} - {None}
    if ports and packet.protocol not in WITH_PORTS:
        raise PacketWordsError(f"{packet.protocol} has no ports: give the addresses without them")


def _source_and_destination(ends: Sequence[Endpoint], interfaces: Mapping[str, str]) -> tuple[Endpoint, Endpoint]:
    """Of two ends the first is the source. One alone is the other host."""
    if len(ends) > 1:
        return ends[0], ends[1]
    if not ends:
        raise PacketWordsError("expected an address, as in: in eth0 tcp 203.0.113.9 192.0.2.1:22")
    return _with_this_host(ends[0], interfaces)


def _with_this_host(end: Endpoint, interfaces: Mapping[str, str]) -> tuple[Endpoint, Endpoint]:
    """Source and destination where only the other host is given. A port with it is the one that it listens on."""
    if "out" in interfaces:
        return Endpoint(), end
    if end.port is not None:
        raise PacketWordsError("expected two addresses, the source and the destination")
    return end, Endpoint()


@dataclass(slots=True)
class _Reader:
    """Words that are read from the left."""

    words: list[str]

    def next(self, expected: str) -> str:
        """The next word. Raises PacketWordsError where there is none."""
        if not self.words:
            raise PacketWordsError(f"expected {expected} at the end")
        return self.words.pop(0)

    def interfaces(self) -> dict[str, str]:
        """The interfaces by the words before them, in and out."""
        found: dict[str, str] = {}
        while self.words and self.words[0] in ("in", "out"):
            direction = self.words.pop(0)
            found[direction] = self.next(f'the name of an interface after "{direction}"')
        return found

    def protocol(self) -> str:
        """A protocol. Raises PacketWordsError."""
        word = self.next("a protocol (tcp, udp, icmp …)").lower()
        name = _OTHER_NAMES.get(word, word)
        if name not in PROTOCOLS and not _is_byte(word):
            raise PacketWordsError(f"{word!r} is not a protocol: expected tcp, udp, sctp, icmp, icmpv6 or a number")
        return name

    def ends(self) -> list[Endpoint]:
        """Up to two addresses or ports."""
        found: list[Endpoint] = []
        while self.words and len(found) < 2 and self.words[0] not in _DETAILS:
            found.append(read_end(self.words.pop(0)))
        return found


def _is_byte(word: str) -> bool:
    return word.isdecimal() and int(word) < 256


def read_end(word: str) -> Endpoint:
    """ADDRESS, ADDRESS:PORT, [ADDRESS]:PORT or :PORT. Raises PacketWordsError."""
    if _PORT_ALONE.fullmatch(word):
        return Endpoint(None, _port(word[1:]))
    match = _WITH_BRACKETS.fullmatch(word) or _IPV4.fullmatch(word)
    if match is None:
        return Endpoint(_address(word, word))
    return Endpoint(_address(match[1], word), _port(match[2]))


def _address(text: str, word: str) -> Address:
    try:
        return ip_address(text)
    except ValueError:
        meant = _did_you_mean(word, (*_DETAILS, "in", "out"))
        message = f"{word!r} is not an address, as 192.0.2.1, 192.0.2.1:22 or [2001:db8::1]:22"
        raise PacketWordsError(f"{message}{meant}") from None


def _did_you_mean(word: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(word, known, 1)
    if not near:
        return ""
    return f"; did you mean {near[0]}?"


def _port(text: str | None) -> int | None:
    if text is None:
        return None
    port = int(text)
    if port > 65535:
        raise PacketWordsError(f"{text} is not a port: expected 0 to 65535")
    return port


def _with_detail(packet: PacketWords, reader: _Reader) -> PacketWords:
    word = reader.next("a word")
    if word == "fragment":
        return replace(packet, fragment=True)
    read = _DETAILS.get(word)
    if read is None:
        near = _did_you_mean(word, tuple(_DETAILS))
        raise PacketWordsError(f"{word!r} is not known here: expected {', '.join(_DETAILS)}{near}")
    return read(packet, reader.next(f'a value after "{word}"'))


def _with_state(packet: PacketWords, value: str) -> PacketWords:
    try:
        return replace(packet, state=ConnectionState(value.lower()))
    except ValueError:
        expected = ", ".join(ConnectionState)
        raise PacketWordsError(f"{value!r} is not a connection state: expected {expected}") from None


def _with_mark(packet: PacketWords, value: str) -> PacketWords:
    if _NUMBER.fullmatch(value) is None or int(value, 0) >= 1 << 32:
        raise PacketWordsError(f"{value!r} is not a mark: expected a number such as 1 or 0x1")
    return replace(packet, mark=int(value, 0))


def _with_flags(packet: PacketWords, value: str) -> PacketWords:
    flags = frozenset(value.upper().split(",")) - {"NONE"}
    if not flags <= frozenset(TCP_FLAGS):
        raise PacketWordsError(f"{value!r} are not flags of TCP: expected a list such as SYN,ACK, or NONE")
    return replace(packet, flags=flags)


def _with_type(packet: PacketWords, value: str) -> PacketWords:
    named = _ICMP_TYPES.get(value, {})
    if packet.protocol in named:
        return replace(packet, icmp_type=named[packet.protocol])
    if not _is_byte(value):
        raise PacketWordsError(f"{value!r} is not a type of {packet.protocol}: expected a number, or echo-request")
    return replace(packet, icmp_type=int(value))


def _with_user(packet: PacketWords, value: str) -> PacketWords:
    return replace(packet, user=value)


def _with_group(packet: PacketWords, value: str) -> PacketWords:
    return replace(packet, group=value)


def _with_source_port(packet: PacketWords, value: str) -> PacketWords:
    return replace(packet, source=replace(packet.source, port=_port_word(value)))


def _with_destination_port(packet: PacketWords, value: str) -> PacketWords:
    return replace(packet, destination=replace(packet.destination, port=_port_word(value)))


def _port_word(value: str) -> int | None:
    if not value.isdecimal():
        raise PacketWordsError(f"{value!r} is not a port: expected a number from 0 to 65535")
    return _port(value)


_DETAILS: Final[Mapping[str, Callable[[PacketWords, str], PacketWords]]] = {
    "sport": _with_source_port,
    "dport": _with_destination_port,
    "state": _with_state,
    "flags": _with_flags,
    "type": _with_type,
    "mark": _with_mark,
    "uid": _with_user,
    "gid": _with_group,
    "fragment": _with_user,
}
"""The words behind the addresses, each with what it changes. A fragment has no value."""


def packet_in_words(packet: Packet) -> str:
    """One line for people: `tcp 203.0.113.9:49152 → 192.0.2.1:22, new, in eth0`."""
    source = end_in_words(packet.source, packet.source_port)
    parts = [
        f"{packet.protocol} {source} → {end_in_words(packet.destination, packet.destination_port)}",
        _known("type", packet.icmp_type),
        _flag_words(packet),
        packet.state.value,
        "in fragments" * packet.fragment,
        _known("uid", packet.uid),
        _known("mark", packet.mark or None),
        _way(packet),
    ]
    return ", ".join(filter(None, parts))


def _known(name: str, value: int | None) -> str:
    if value is None:
        return ""
    return f"{name} {value}"


def _flag_words(packet: Packet) -> str:
    """The flags of TCP where they are not those that the state implies."""
    if packet.protocol != "tcp" or packet.flags == SYN or packet.state is not ConnectionState.NEW:
        return ""
    return ",".join(filter(packet.flags.__contains__, TCP_FLAGS)) or "no flags"


def _way(packet: Packet) -> str:
    return _WAYS[packet.direction].format(packet.in_interface, packet.out_interface)


_WAYS: Final = {Direction.INBOUND: "in {0}", Direction.OUTBOUND: "out {1}", Direction.FORWARDED: "in {0} out {1}"}


def end_in_words(address: Address, port: int | None) -> str:
    """ADDRESS, ADDRESS:PORT or [ADDRESS]:PORT."""
    if port is None:
        return str(address)
    if address.version == 6:
        return f"[{address}]:{port}"
    return f"{address}:{port}"
