"""Entries in the connection table of a network namespace, over ctnetlink: what makes a packet ESTABLISHED or RELATED.

resolve_normal_ct() in net/netfilter/nf_conntrack_core.c: a packet in the original direction of an entry is ESTABLISHED
if the entry has seen a reply; else it is RELATED if the entry was expected by another one, its master.

The numbers are those of linux/netfilter/nfnetlink_conntrack.h.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from fwguardd.kernel.netlink import FAMILY_HEADER, NETLINK_NETFILTER, NLM_F_ACK, ask, attribute, open_socket
from fwguardd.kernel.rtnetlink import NLM_F_CREATE, NLM_F_EXCL
from fwguardd.packets.frames import NUMBERS, icmp_type, is_icmp_error, protocol_number, quoted_flow
from fwguardd.packets.model import ConnectionState
from fwguardd.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Iterator
    from ipaddress import IPv4Address, IPv6Address

    from fwguardd.kernel.nft_trace import View
    from fwguardd.packets.model import Packet

_SUBSYSTEM: Final = 1
_NEW, _DELETE = 0, 2
_ORIGINAL, _REPLY, _STATUS, _PROTOINFO, _TIMEOUT, _MASTER = 1, 2, 3, 4, 7, 14
_NAT_SOURCE, _NAT_DESTINATION, _NAT_PROTO = 6, 13, 3
_NAT_ADDRESSES: Final = {4: (1, 2), 16: (4, 5)}
_SEEN_REPLY, _ASSURED, _CONFIRMED = 2, 4, 8
_TCP_ESTABLISHED, _TCP_SYN_SENT, _SCTP_ESTABLISHED = 3, 1, 4
_LIBERAL: Final = 8
_NESTED: Final = 0x8000
_SECONDS: Final = 120
_PORTS: Final = ("tcp", "udp", "sctp")
_WITH_PORTS_OF_ZERO: Final = frozenset({33, 47, 136})
"""DCCP, GRE and UDP-Lite: the kernel has a key or ports of them, which are zero in a packet that has zeros only."""
_REQUEST_OF: Final = {"icmp": {0: 8, 14: 13, 16: 15, 18: 17}, "icmpv6": {129: 128}}
"""Types of ICMP that answer, and the types that ask (nf_conntrack_proto_icmp.c)."""
_REPLY_OF: Final = {"icmp": {8: 0, 13: 14, 15: 16, 17: 18}, "icmpv6": {128: 129}}
_MASTER_PORT: Final = 21


class NoEntryError(Exception):
    """There can be no such connection; the message is a reason for `Undecided.because`."""


@dataclass(frozen=True, slots=True)
class ConntrackEntry:
    """A connection, by its original direction. ``icmp`` is the type, the code and the identifier."""

    family: int
    protocol: int
    source: IPv4Address | IPv6Address
    destination: IPv4Address | IPv6Address
    ports: tuple[int, int] | None = None
    icmp: tuple[int, int, int] | None = None
    replied: bool = True
    expected: bool = False
    translated: View | None = None

    def key(self) -> bytes:
        """What only this entry has in the connection table."""
        return self._tuple()

    def keys(self) -> tuple[bytes, bytes]:
        """Its keys in both directions."""
        return self._tuple(), self._reply()

    def _tuple(self) -> bytes:
        return _tuple(self.source, self.destination, self._of_protocol(0, 1, reply=False))

    def _reply(self) -> bytes:
        return _tuple(self.destination, self.source, self._of_protocol(1, 0, reply=True))

    def _of_protocol(self, first: int, second: int, *, reply: bool) -> bytes:
        content = attribute(1, bytes([self.protocol]))
        if self.ports is not None:
            content += attribute(2, struct.pack("!H", self.ports[first]))
            content += attribute(3, struct.pack("!H", self.ports[second]))
        if self.icmp is not None:
            kind, code, identifier = self.icmp
            offset = 3 * (self.protocol == NUMBERS["icmpv6"])
            if reply:
                kind = _REPLY_OF[("icmp", "icmpv6")[bool(offset)]].get(kind, kind)
            content += attribute(4 + offset, struct.pack("!H", identifier))
            content += attribute(5 + offset, bytes([kind])) + attribute(6 + offset, bytes([code]))
        return content


def entries_for(packet: Packet, number: int, translated: View | None = None) -> list[ConntrackEntry]:
    """The entries that give this packet its state, the master before what it expects. ``translated`` is what NAT made
    of the first packet of the connection. Raises NoEntryError."""
    if packet.state is ConnectionState.ESTABLISHED:
        return [replace(_established(packet, number), translated=translated)]
    if packet.state is not ConnectionState.RELATED:
        return []
    family = _family(packet)
    if packet.protocol in _REQUEST_OF and not is_icmp_error(packet):
        raise NoEntryError(f"{packet.protocol} type {icmp_type(packet)} is never RELATED: only errors are")
    if is_icmp_error(packet):
        flow = quoted_flow(packet, number)
        return [
            ConntrackEntry(
                family, NUMBERS["udp"], flow.source, flow.destination, (flow.source_port, flow.destination_port)
            )
        ]
    return list(_expected(packet, number))


def _expected(packet: Packet, number: int) -> Iterator[ConntrackEntry]:
    """A control connection between both hosts, and the packet's own connection, which it expects."""
    family = _family(packet)
    master_port = 1024 + number % 60000
    yield ConntrackEntry(family, NUMBERS["tcp"], packet.source, packet.destination, (master_port, _MASTER_PORT))
    own = _established(packet, number)
    yield ConntrackEntry(
        own.family, own.protocol, own.source, own.destination, own.ports, own.icmp, replied=False, expected=True
    )


def _established(packet: Packet, number: int) -> ConntrackEntry:
    protocol = protocol_number(packet)
    entry = ConntrackEntry(_family(packet), protocol, packet.source, packet.destination)
    if packet.protocol in _REQUEST_OF:
        return _of_icmp(packet, number, entry)
    if packet.protocol in _PORTS:
        return replace(entry, ports=(packet.source_port or 0, packet.destination_port or 0))
    if protocol in _WITH_PORTS_OF_ZERO:
        return replace(entry, ports=(0, 0))
    return entry


def _of_icmp(packet: Packet, number: int, entry: ConntrackEntry) -> ConntrackEntry:
    """The entry of a question and its answer. Raises NoEntryError."""
    kind = icmp_type(packet)
    requests = _REQUEST_OF[packet.protocol]
    if kind in requests:
        asked = (requests[kind], packet.icmp_code, number)
        return replace(entry, source=packet.destination, destination=packet.source, icmp=asked)
    if kind in _REPLY_OF[packet.protocol]:
        return replace(entry, icmp=(kind, packet.icmp_code, number))
    raise NoEntryError(f"{packet.protocol} type {kind} has no state {packet.state.value} of its own")


def _family(packet: Packet) -> int:
    if packet.source.version == 4:
        return socket.AF_INET
    return socket.AF_INET6


def _tuple(source: IPv4Address | IPv6Address, destination: IPv4Address | IPv6Address, protocol: bytes) -> bytes:
    kinds = {4: (1, 2), 6: (3, 4)}[source.version]
    addresses = attribute(kinds[0], source.packed) + attribute(kinds[1], destination.packed)
    return attribute(1 | _NESTED, addresses) + attribute(2 | _NESTED, protocol)


class Connections:
    """The connection table of the network namespace that the calling thread is in."""

    def __init__(self) -> None:
        """Raises OSError."""
        self._kernel = open_socket(NETLINK_NETFILTER)
        self._made: list[ConntrackEntry] = []

    def close(self) -> None:
        """Close the socket; the entries stay."""
        self._kernel.close()

    def make(self, entries: list[ConntrackEntry]) -> None:
        """Make entries, the first of which is the master of those that are expected. Raises OSError."""
        for entry in entries:
            content = _content(entry, _SECONDS)
            if entry.translated is not None:
                content += _translation(entry, entry.translated)
            if entry.expected:
                content += attribute(_MASTER | _NESTED, entries[0].keys()[0])
            self._ask(entry, _NEW, content, NLM_F_CREATE | NLM_F_EXCL)
            self._made.append(entry)

    def add(self, entry: ConntrackEntry, seconds: int) -> bool:
        """Make the entry of a connection that exists, for so many seconds; False where there is one. Raises OSError."""
        number = self._answer(entry, _NEW, _content(entry, seconds), NLM_F_CREATE | NLM_F_EXCL)
        if number not in (0, errno.EEXIST):
            raise _not_made(number)
        return number == 0

    def remove_all(self) -> None:
        """Remove the entries that were made; what another one expected before its master. Raises OSError."""
        while self._made:
            entry = self._made.pop()
            self._ask(entry, _DELETE, attribute(_ORIGINAL | _NESTED, entry.keys()[0]), 0)

    def _ask(self, entry: ConntrackEntry, command: int, content: bytes, flags: int) -> None:
        number = self._answer(entry, command, content, flags)
        if number != 0 and command == _NEW:
            raise _not_made(number)

    def _answer(self, entry: ConntrackEntry, command: int, content: bytes, flags: int) -> object:
        """The number of an error, 0 for none. Raises OSError."""
        body = FAMILY_HEADER.pack(entry.family, 0, 0) + content
        return ask(self._kernel, _SUBSYSTEM, command, body, NLM_F_ACK | flags)


def _not_made(number: object) -> OSError:
    reason = "the kernel's answer cannot be parsed"
    if isinstance(number, int):
        reason = os.strerror(number)
    return OSError(0, f"cannot make an entry of the connection table: {reason}")


def _content(entry: ConntrackEntry, seconds: int) -> bytes:
    """The attributes of an entry without translation."""
    content = attribute(_ORIGINAL | _NESTED, entry.keys()[0]) + attribute(_REPLY | _NESTED, entry.keys()[1])
    return content + _state(entry) + attribute(_TIMEOUT, struct.pack("!I", seconds))


def _translation(entry: ConntrackEntry, view: View) -> bytes:
    """The attributes of NAT; nothing for what stays as it is. An echo reply is not translated here."""
    content = b""
    if entry.icmp is None and (view.destination, view.destination_port) != _end(entry.destination, entry.ports, 1):
        content += _nat(_NAT_DESTINATION, view.destination, view.destination_port)
    if entry.icmp is None and (view.source, view.source_port) != _end(entry.source, entry.ports, 0):
        content += _nat(_NAT_SOURCE, view.source, view.source_port)
    return content


def _end(address: IPv4Address | IPv6Address, ports: tuple[int, int] | None, place: int) -> tuple[bytes, int | None]:
    if ports is None:
        return address.packed, None
    return address.packed, ports[place]


def _nat(kind: int, address: bytes, port: int | None) -> bytes:
    first, last = _NAT_ADDRESSES[len(address)]
    content = attribute(first, address) + attribute(last, address)
    if port is not None:
        number = struct.pack("!H", port)
        content += attribute(_NAT_PROTO | _NESTED, attribute(1, number) + attribute(2, number))
    return attribute(kind | _NESTED, content)


def _state(entry: ConntrackEntry) -> bytes:
    status = _CONFIRMED
    if entry.replied:
        status |= _SEEN_REPLY | _ASSURED
    content = attribute(_STATUS, struct.pack("!I", status))
    if entry.protocol == NUMBERS["tcp"]:
        state = _TCP_ESTABLISHED
        if not entry.replied:
            state = _TCP_SYN_SENT
        liberal = bytes([_LIBERAL, _LIBERAL])
        tcp = attribute(1, bytes([state])) + attribute(4, liberal) + attribute(5, liberal)
        content += attribute(_PROTOINFO | _NESTED, attribute(1 | _NESTED, tcp))
    if entry.protocol == NUMBERS["sctp"]:
        tags = attribute(2, struct.pack("!I", 0)) + attribute(3, struct.pack("!I", 0))
        sctp = attribute(1, bytes([_SCTP_ESTABLISHED])) + tags
        content += attribute(_PROTOINFO | _NESTED, attribute(3 | _NESTED, sctp))
    return content
