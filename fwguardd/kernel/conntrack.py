"""The connections that the kernel tracks in this network namespace: all of them at once, or new ones as they come.

ctnetlink (linux/netfilter/nfnetlink_conntrack.h, net/netfilter/nf_conntrack_netlink.c) needs CAP_NET_ADMIN for both.
Connections are only tracked where a rule needs that, such as one with `-m conntrack` or in table nat. One that a rule
drops with its first packet is never one of them.
"""

from __future__ import annotations

import socket
from contextlib import AbstractContextManager
from ipaddress import ip_address
from typing import TYPE_CHECKING, Final

from fwguardd.kernel.netlink import (
    FAMILY_HEADER,
    NETLINK_ADD_MEMBERSHIP,
    NETLINK_NETFILTER,
    SO_RCVBUFFORCE,
    SOL_NETLINK,
    OverrunError,
    messages,
    open_socket,
    read_attributes,
    receive,
)
from fwguardd.kernel.rtnetlink import dump_objects
from fwguardd.packets.endpoints import Connection

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from ipaddress import IPv4Address, IPv6Address

    Address = IPv4Address | IPv6Address
    _Tuple = tuple[str, Address, Address, int | None, int | None]
    """Protocol, source, destination and the ports of packets in one direction."""

_CTNETLINK: Final = 1
"""NFNL_SUBSYS_CTNETLINK of linux/netfilter/nfnetlink.h."""
_CT_GET: Final = _CTNETLINK << 8 | 1
_NFNLGRP_CONNTRACK_NEW: Final = 1
_CTA_TUPLE_ORIG, _CTA_TUPLE_REPLY, _CTA_STATUS, _CTA_MARK = 1, 2, 3, 8
_CTA_TUPLE_IP, _CTA_TUPLE_PROTO = 1, 2
_CTA_IPV4, _CTA_IPV6 = (1, 2), (3, 4)
"""The attributes with the source and the destination address."""
_CTA_PROTO_NUM, _CTA_PROTO_SRC_PORT, _CTA_PROTO_DST_PORT = 1, 2, 3
_IPS_SEEN_REPLY: Final = 2
"""linux/netfilter/nf_conntrack_common.h."""
_PROTOCOLS: Final = {1: "icmp", 6: "tcp", 17: "udp", 58: "icmpv6", 132: "sctp"}
_BUFFER: Final = 1 << 16
_EVENT_BUFFER: Final = 8 << 20
"""Bytes for events that are not read yet: some 30,000."""
_SECONDS: Final = 5.0


def tracked_connections(most: int) -> tuple[tuple[Connection, ...], int]:
    """Up to so many connections, and how many more there are. Raises OSError, PermissionError without CAP_NET_ADMIN."""
    with open_socket(NETLINK_NETFILTER) as kernel:
        kernel.settimeout(_SECONDS)
        bodies = dump_objects(kernel, _CT_GET, FAMILY_HEADER.pack(socket.AF_UNSPEC, 0, 0))
    found = filter(None, map(read_connection, bodies[:most]))
    return tuple(found), max(0, len(bodies) - most)


def read_connection(content: bytes) -> Connection | None:
    """The connection in a message of ctnetlink; None for one of a form that is not known."""
    attributes = read_attributes(content, FAMILY_HEADER.size) or {}
    try:
        first, reply = _tuple(attributes[_CTA_TUPLE_ORIG]), _tuple(attributes[_CTA_TUPLE_REPLY])
    except KeyError:
        return None
    status, mark = _number(attributes, _CTA_STATUS), _number(attributes, _CTA_MARK)
    return Connection(*first, *reply[1:], bool(status & _IPS_SEEN_REPLY), mark)


def _tuple(data: bytes) -> _Tuple:
    """The packets of one direction. Raises KeyError where a part of it is missing."""
    parts = read_attributes(data) or {}
    protocol = read_attributes(parts[_CTA_TUPLE_PROTO]) or {}
    number = protocol[_CTA_PROTO_NUM][0]
    source, destination = _addresses(read_attributes(parts[_CTA_TUPLE_IP]) or {})
    ports = _port(protocol, _CTA_PROTO_SRC_PORT), _port(protocol, _CTA_PROTO_DST_PORT)
    return _PROTOCOLS.get(number, str(number)), source, destination, *ports


def _addresses(attributes: Mapping[int, bytes]) -> tuple[Address, Address]:
    """Source and destination, of IPv4 or of IPv6. Raises KeyError."""
    kinds = _CTA_IPV4
    if _CTA_IPV6[0] in attributes:
        kinds = _CTA_IPV6
    return ip_address(attributes[kinds[0]]), ip_address(attributes[kinds[1]])


def _number(attributes: Mapping[int, bytes], kind: int) -> int:
    return int.from_bytes(attributes.get(kind, b""), "big")


def _port(protocol: Mapping[int, bytes], kind: int) -> int | None:
    if kind not in protocol:
        return None
    return _number(protocol, kind)


class NewConnections(AbstractContextManager["NewConnections"]):
    """The connections that the kernel begins to track from now on. ``lost`` says whether the kernel dropped some."""

    def __init__(self) -> None:
        """Raises OSError, PermissionError without CAP_NET_ADMIN."""
        self.lost = False
        self._socket = open_socket(NETLINK_NETFILTER)
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, _EVENT_BUFFER)
            self._socket.bind((0, 0))  # A socket without a port of its own gets no multicasts.
            self._socket.setsockopt(SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, _NFNLGRP_CONNTRACK_NEW)
        except OSError:
            self._socket.close()
            raise

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def fileno(self) -> int:
        """For select and poll: readable when a connection has begun."""
        return self._socket.fileno()

    def available(self) -> Iterator[Connection]:
        """Those that have begun since the last call. Never waits. Raises OSError."""
        while True:
            data = self._receive()
            if data is None:
                return
            for _, content in messages(data):
                yield from filter(None, [read_connection(content)])

    def _receive(self) -> bytes | None:
        """The next messages; empty where the kernel dropped some."""
        try:
            return receive(self._socket, _BUFFER)
        except OverrunError:
            self.lost = True
            return b""
