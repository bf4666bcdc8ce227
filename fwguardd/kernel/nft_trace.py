"""The trace of nf_tables: a message for each rule that a traced packet matches, and for each policy (nft(8), "TRACE").

A message names a rule by its handle (`fwguardd.kernel.bed_handles` has the positions). Only the first message
of a packet in a base chain has its headers (__nft_trace_packet() in net/netfilter/nf_tables_trace.c), so that the
number of the packet (`fwguardd.packets.frames`) is kept by trace id for the others.

The numbers are those of linux/netfilter/nf_tables.h.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from fwguardd.kernel.netlink import (
    FAMILY_HEADER,
    NETLINK_ADD_MEMBERSHIP,
    NETLINK_NETFILTER,
    SOL_NETLINK,
    enlarge,
    messages,
    open_socket,
    read_attributes,
    receive,
    text_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from fwguardd.kernel.bed_handles import BedHandles

NFNLGRP_NFTRACE: Final = 9
_TRACE: Final = 0x0A11
_TABLE, _CHAIN, _HANDLE, _VERDICT, _ID = 1, 2, 3, 5, 6
_NETWORK, _TRANSPORT, _IIF, _OIF, _MARK, _POLICY = 8, 9, 10, 12, 14, 16
_VERDICT_CODE, _VERDICT_CHAIN = 1, 2
_CODES: Final = {
    0: "drop",
    1: "accept",
    2: "stolen",
    3: "queue",
    4: "repeat",
    -1: "continue",
    -2: "break",
    -5: "return",
}
_JUMPS: Final = {-3: "jump", -4: "goto"}
RECEIVE_BYTES: Final = 32 << 20
_LARGEST: Final = 1 << 16
_WITH_PORTS: Final = frozenset({6, 17, 33, 132, 136})
_FIRST_HEADER: Final = 20
"""Bytes of an Internet header that are enough for the addresses of IPv4; IPv6 has twice as many."""


class View(NamedTuple):
    """What a packet looks like: its addresses as bytes, ports, indexes of interfaces (0 for none), mark."""

    source: bytes
    destination: bytes
    source_port: int | None
    destination_port: int | None
    iif: int
    oif: int
    mark: int


class TraceMessage(NamedTuple):
    """A rule that the packet with this number matched, or a policy: then ``position`` is None.

    ``outcome`` is what nf_tables did: "accept", "jump CHAIN" and so on; "" where the trace does not say it.
    """

    number: int
    view: View
    table: str
    chain: str
    position: int | None
    outcome: str


class NftTraces:
    """The trace of the network namespace that the calling thread is in, from the opening on."""

    def __init__(self, handles: BedHandles) -> None:
        """``handles`` has the positions of the rules. Raises OSError."""
        self._handles = handles
        self._socket = open_socket(NETLINK_NETFILTER)
        enlarge(self._socket, RECEIVE_BYTES)
        self._socket.bind((0, 0))
        self._socket.setsockopt(SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, NFNLGRP_NFTRACE)
        self._packets: dict[bytes, tuple[int, View]] = {}

    def fileno(self) -> int:
        """The descriptor, readable while there are messages."""
        return self._socket.fileno()

    def forget_packets(self) -> None:
        """Other rules were loaded: no packet from before is on its way."""
        self._packets.clear()

    def read(self) -> list[TraceMessage]:
        """What has arrived. Raises OverrunError if messages were lost."""
        found: list[TraceMessage] = []
        while True:
            data = receive(self._socket, _LARGEST)
            if data is None:
                return found
            for kind, body in messages(data):
                if kind == _TRACE:
                    found += self._message(body)

    def _message(self, body: bytes) -> Iterator[TraceMessage]:
        """The message in a body; nothing for the end of a chain, which no rule causes."""
        attributes = read_attributes(body, FAMILY_HEADER.size)
        if attributes is None:
            return
        packet = self._packet(attributes)
        table, chain = text_of(attributes, _TABLE), text_of(attributes, _CHAIN)
        if _POLICY in attributes:
            yield TraceMessage(*packet, table, chain, None, _CODES.get(_signed(attributes[_POLICY]), ""))
        elif _HANDLE in attributes:
            names = attributes.get(_TABLE, b""), attributes.get(_CHAIN, b"")
            position = self._handles.position(body[0], *names, attributes[_HANDLE])
            yield TraceMessage(*packet, table, chain, position, _outcome(attributes.get(_VERDICT, b"")))

    def _packet(self, attributes: Mapping[int, bytes]) -> tuple[int, View]:
        """The number of the packet that a message is about, and how it looks now."""
        trace = attributes.get(_ID, b"")
        header = attributes.get(_NETWORK, b"")
        mark = int.from_bytes(attributes.get(_MARK, b""), "big")
        if len(header) >= _FIRST_HEADER:
            devices = (int.from_bytes(attributes.get(kind, b""), "big") for kind in (_IIF, _OIF))
            self._packets[trace] = parse_headers(header, attributes.get(_TRANSPORT, b""), *devices, mark)
        number, view = self._packets.get(trace, (0, NO_VIEW))
        if view.mark != mark:
            view = view._replace(mark=mark)
        return number, view


NO_VIEW: Final = View(b"", b"", None, None, 0, 0, 0)


def parse_headers(header: bytes, transport: bytes, *around: Any) -> tuple[int, View]:
    """The number of a packet and its view, from its Internet header of at least `_FIRST_HEADER` bytes. ``around`` are
    the indexes of the interfaces and the mark."""
    if header[0] >> 4 == 4:
        number, protocol = int.from_bytes(header[4:6], "big"), header[9]
        addresses = (header[12:16], header[16:20])
        if int.from_bytes(header[6:8], "big") & 0x1FFF:
            protocol = 0
    else:
        number, protocol = int.from_bytes(header[1:4], "big") & 0xFFFFF, header[6]
        addresses = (header[8:24], header[24:40])
    ports: tuple[int | None, int | None] = (None, None)
    if protocol in _WITH_PORTS and len(transport) >= 4:
        ports = struct.unpack_from("!HH", transport)
    return number, View(*addresses, *ports, *around)


def _outcome(verdict: bytes) -> str:
    values = read_attributes(verdict) or {}
    code = _signed(values.get(_VERDICT_CODE, b""))
    if code in _JUMPS:
        return f"{_JUMPS[code]} {text_of(values, _VERDICT_CHAIN)}"
    if code > 0:
        code &= 0xFF  # The upper bytes of a verdict are the number of a queue.
    return _CODES.get(code, "")


def _signed(value: bytes) -> int:
    return int.from_bytes(value, "big", signed=True)
