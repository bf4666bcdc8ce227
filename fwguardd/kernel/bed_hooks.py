"""The chains of a bed around those of iptables: the first ones start the trace, the last ones end every packet.

They are in one table of nf_tables, of family inet, for both backends: the kernel keeps whether a packet is traced with
the packet, so legacy iptables traces it too. Only packets of the bed are traced: frames by their source address, those
of local sockets by their priority. What comes to the end of the last hook was accepted. It is dropped there, before
anything receives it, before it is confirmed as a connection, and before it leaves the namespace.

The numbers are those of linux/netfilter/nf_tables.h.
"""

from __future__ import annotations

import os
import socket
import struct
from typing import TYPE_CHECKING, Final

from fwguardd.kernel.netlink import (
    FAMILY_HEADER,
    HEADER,
    NETLINK_NETFILTER,
    NLM_F_ACK,
    NLM_F_REQUEST,
    NLMSG_ERROR,
    attribute,
    error_number,
    messages,
    open_socket,
)
from fwguardd.kernel.nft_tables import NFNL_MSG_BATCH_BEGIN, NFNL_MSG_BATCH_END, NFNL_SUBSYS_NFTABLES
from fwguardd.kernel.rtnetlink import NLM_F_CREATE

if TYPE_CHECKING:
    from collections.abc import Iterator

TABLE: Final = "fwguard_bed"
START, OUTPUT, BEFORE_ROUTING, LOCAL_END, OUT_END = "start", "output", "before-routing", "local-end", "out-end"
"""The chains: at the start of PREROUTING and of OUTPUT, at the end of PREROUTING, INPUT and POSTROUTING."""

BARRIER_MAC: Final = b"\x02\xfa\0\0\0\0"
PLAIN_MAC: Final = b"\x02\xfa\0\0\0\1"
UNTRACKED_MAC: Final = b"\x02\xfa\0\0\0\2"
"""Source addresses of frames: the one that is sent last, packets to trace, and those that conntrack is to leave out."""
PLAIN_PRIORITY: Final = 0x66770001
UNTRACKED_PRIORITY: Final = 0x66770002
"""Priorities of local sockets, in the same way."""

_NFPROTO_INET: Final = 1
_FIRST, _LAST = -(1 << 31), (1 << 31) - 3
"""The connection is confirmed at the last priority of all for IPv4 (NF_IP_PRI_CONNTRACK_CONFIRM), and at the one before
it for IPv6 (ipv6_conntrack_ops in net/netfilter/nf_conntrack_proto.c)."""
_PREROUTING, _INPUT, _OUTPUT, _POSTROUTING = 0, 1, 3, 4
_DROP, _ACCEPT = 0, 1
_NEWTABLE, _NEWCHAIN, _NEWRULE = (NFNL_SUBSYS_NFTABLES << 8 | kind for kind in (0, 3, 6))
_CHAINS: Final = (
    (START, _PREROUTING, _FIRST, _ACCEPT),
    (BEFORE_ROUTING, _PREROUTING, _LAST, _ACCEPT),
    (LOCAL_END, _INPUT, _LAST, _DROP),
    (OUTPUT, _OUTPUT, _FIRST, _ACCEPT),
    (OUT_END, _POSTROUTING, _LAST, _DROP),
)
_REG: Final = 1
_META_PRIORITY, _META_NFTRACE = 2, 12
_NESTED: Final = 0x8000


def install_hooks() -> None:
    """Make the table in the network namespace of this process. Raises OSError."""
    batch = b""
    for kind, flags, family, resource, content in _messages():
        body = FAMILY_HEADER.pack(family, 0, socket.htons(resource)) + content
        batch += HEADER.pack(HEADER.size + len(body), kind, NLM_F_REQUEST | flags, 1, 0) + body
    with open_socket(NETLINK_NETFILTER) as kernel:
        kernel.settimeout(5)
        kernel.sendto(batch, (0, 0))
        for kind, body in messages(kernel.recv(1 << 16)):
            if kind == NLMSG_ERROR and (number := error_number(body)):
                raise OSError(number, f"cannot trace packets with nf_tables: {os.strerror(number)}")


_Message = tuple[int, int, int, int, bytes]


def _messages() -> Iterator[_Message]:
    """Type, flags, family, resource and content of each message of the transaction."""
    yield NFNL_MSG_BATCH_BEGIN, 0, socket.AF_UNSPEC, NFNL_SUBSYS_NFTABLES, b""
    yield _NEWTABLE, NLM_F_CREATE, _NFPROTO_INET, 0, _text(1, TABLE)
    for name, hook, priority, policy in _CHAINS:
        place = _nested(4, attribute(1, struct.pack(">I", hook)) + attribute(2, struct.pack(">i", priority)))
        chain = _text(1, TABLE) + _text(3, name) + place + attribute(5, struct.pack(">I", policy)) + _text(7, "filter")
        yield _NEWCHAIN, NLM_F_CREATE, _NFPROTO_INET, 0, chain
    yield _rule(START, _frames_from(BARRIER_MAC), _trace(), _drop())
    yield _rule(START, _frames_from(PLAIN_MAC), _trace())
    yield _rule(START, _frames_from(UNTRACKED_MAC), _trace(), _expression("notrack", b""))
    yield _rule(OUTPUT, _priority(PLAIN_PRIORITY), _trace())
    yield _rule(OUTPUT, _priority(UNTRACKED_PRIORITY), _trace(), _expression("notrack", b""))
    yield NFNL_MSG_BATCH_END, NLM_F_ACK, socket.AF_UNSPEC, NFNL_SUBSYS_NFTABLES, b""


def _rule(chain: str, *expressions: bytes) -> _Message:
    content = _text(1, TABLE) + _text(2, chain) + _nested(4, b"".join(expressions))
    return _NEWRULE, NLM_F_CREATE, _NFPROTO_INET, 0, content


def _frames_from(mac: bytes) -> bytes:
    """``ether saddr MAC``: six bytes from the sixth byte of the link-layer header on."""
    load = _number(1, _REG) + _number(2, 0) + _number(3, 6) + _number(4, 6)
    return _expression("payload", load) + _equals(mac)


def _priority(priority: int) -> bytes:
    load = _number(1, _REG) + _number(2, _META_PRIORITY)
    return _expression("meta", load) + _equals(struct.pack("=I", priority))


def _equals(value: bytes) -> bytes:
    return _expression("cmp", _number(1, _REG) + _number(2, 0) + _nested(3, attribute(1, value)))


def _trace() -> bytes:
    """``meta nftrace set 1``."""
    one = _expression("immediate", _number(1, _REG) + _nested(2, attribute(1, b"\1")))
    return one + _expression("meta", _number(2, _META_NFTRACE) + _number(3, _REG))


def _drop() -> bytes:
    return _expression("immediate", _number(1, 0) + _nested(2, _nested(2, _number(1, _DROP))))


def _expression(name: str, data: bytes) -> bytes:
    content = _text(1, name)
    if data:
        content += _nested(2, data)
    return _nested(1, content)


def _nested(kind: int, content: bytes) -> bytes:
    return attribute(kind | _NESTED, content)


def _number(kind: int, value: int) -> bytes:
    return attribute(kind, struct.pack(">I", value))


def _text(kind: int, value: str) -> bytes:
    return attribute(kind, value.encode() + b"\0")
