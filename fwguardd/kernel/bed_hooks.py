"""The chains of a bed around those of iptables: the first ones start the trace, the last ones end every packet.

They are in one table of nf_tables, of family inet, for both backends: the kernel keeps whether a packet is traced with
the packet, so legacy iptables traces it too. Only packets of the bed are traced: frames by their source address, those
of local sockets by their priority. What comes to the end of the last hook was accepted. It is dropped there, before
anything receives it, before it is confirmed as a connection, and before it leaves the namespace.

Where the kernel reports no trace, other chains log each packet at the start and at the end of the hooks.

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
    from collections.abc import Iterable, Iterator

TABLE: Final = "fwguard_bed"
START, OUTPUT, BEFORE_ROUTING, LOCAL_END, OUT_END = "start", "output", "before-routing", "local-end", "out-end"
"""The chains: at the start of PREROUTING and of OUTPUT, at the end of PREROUTING, INPUT and POSTROUTING."""
INPUT_START, FORWARD_START = "input-start", "forward-start"
"""Two more where the chains log: at the start of INPUT and FORWARD."""
BARRIER: Final = "barrier"
"""The prefix with which the frame that is sent last is logged."""

BARRIER_MAC: Final = b"\x02\xfa\0"
PLAIN_MAC: Final = b"\x02\xfa\1"
UNTRACKED_MAC: Final = b"\x02\xfa\2"
"""How the source addresses of frames begin: the one that is sent last, packets to trace, and those that conntrack is to
leave out. The rest of the address is the index of the interface that the frame is for."""
PLAIN_PRIORITY: Final = 0x66770001
UNTRACKED_PRIORITY: Final = 0x66770002
"""Priorities of local sockets, in the same way."""

_NFPROTO_INET, _NFPROTO_NETDEV = 1, 5
_PASSAGE: Final = "passage"
_INGRESS: Final = 0
_FIRST, _LAST = -(1 << 31), (1 << 31) - 3
"""The connection is confirmed at the last priority of all for IPv4 (NF_IP_PRI_CONNTRACK_CONFIRM), and at the one before
it for IPv6 (ipv6_conntrack_ops in net/netfilter/nf_conntrack_proto.c)."""
_PREROUTING, _INPUT, _FORWARD, _OUTPUT, _POSTROUTING = 0, 1, 2, 3, 4
_DROP, _ACCEPT = 0, 1
_NEWTABLE, _DELTABLE, _NEWCHAIN, _NEWRULE = (NFNL_SUBSYS_NFTABLES << 8 | kind for kind in (0, 2, 3, 6))
_CHAINS: Final = (
    (START, _PREROUTING, _FIRST, _ACCEPT),
    (BEFORE_ROUTING, _PREROUTING, _LAST, _ACCEPT),
    (LOCAL_END, _INPUT, _LAST, _DROP),
    (OUTPUT, _OUTPUT, _FIRST, _ACCEPT),
    (OUT_END, _POSTROUTING, _LAST, _DROP),
)
_LOGGING_CHAINS: Final = (
    (START, _PREROUTING, _FIRST, _ACCEPT),
    (BEFORE_ROUTING, _PREROUTING, _LAST, _ACCEPT),
    (INPUT_START, _INPUT, _FIRST, _ACCEPT),
    (LOCAL_END, _INPUT, _LAST, _DROP),
    (FORWARD_START, _FORWARD, _FIRST, _ACCEPT),
    (OUTPUT, _OUTPUT, _FIRST, _DROP),
    (OUT_END, _POSTROUTING, _LAST, _DROP),
)
"""Of what this host sends, only packets of the bed come to the rules: an answer of REJECT would move counters too."""
_REG: Final = 1
_META_PRIORITY, _META_NFTRACE, _META_PKTTYPE = 2, 12, 19
_NESTED: Final = 0x8000


def install_hooks() -> None:
    """Make the table in the network namespace of this process. Raises OSError."""
    _commit(_messages())


def log_at_hooks(group: int) -> None:
    """Replace the chains by such as log each packet to a group of nfnetlink_log, with the name of the chain as prefix:
    where the kernel reports no trace. Raises OSError."""
    _commit([(_DELTABLE, 0, _NFPROTO_INET, 0, _text(1, TABLE)), *_logging_messages(group)])


def install_passage(device: str) -> None:
    """Make the chain that frames from a TAP device go through. Raises OSError."""
    place = _number(1, _INGRESS) + attribute(2, struct.pack(">i", 0)) + _text(3, device)
    chain = _text(1, TABLE) + _text(3, _PASSAGE) + _nested(4, place) + _number(5, _ACCEPT) + _text(7, "filter")
    _commit(
        [
            (_NEWTABLE, NLM_F_CREATE, _NFPROTO_NETDEV, 0, _text(1, TABLE)),
            (_NEWCHAIN, NLM_F_CREATE, _NFPROTO_NETDEV, 0, chain),
        ]
    )


def add_passage(number: bytes, index: int) -> None:
    """Send the frames from the TAP device whose source address ends with this number out of an interface (``fwd to`` of
    nft(8)). Raises OSError."""
    # lo takes a packet for one to another host if the device before it did (loopback_xmit()).
    to_host = _load(bytes(1)) + _expression("meta", _number(2, _META_PKTTYPE) + _number(3, _REG))
    forward = _load(struct.pack("=I", index)) + _expression("fwd", _number(1, _REG))
    content = _text(1, TABLE) + _text(2, _PASSAGE) + _nested(4, _header_bytes(9, number) + to_host + forward)
    _commit([(_NEWRULE, NLM_F_CREATE, _NFPROTO_NETDEV, 0, content)])


_Message = tuple[int, int, int, int, bytes]


def _commit(changes: Iterable[_Message]) -> None:
    """Raises OSError."""
    batch = b""
    for kind, flags, family, resource, content in (_BEGIN, *changes, _END):
        body = FAMILY_HEADER.pack(family, 0, socket.htons(resource)) + content
        batch += HEADER.pack(HEADER.size + len(body), kind, NLM_F_REQUEST | flags, 1, 0) + body
    with open_socket(NETLINK_NETFILTER) as kernel:
        kernel.settimeout(5)
        kernel.sendto(batch, (0, 0))
        for kind, body in messages(kernel.recv(1 << 16)):
            if kind == NLMSG_ERROR and (number := error_number(body)):
                raise OSError(number, f"cannot trace packets with nf_tables: {os.strerror(number)}")


_BEGIN: Final = (NFNL_MSG_BATCH_BEGIN, 0, socket.AF_UNSPEC, NFNL_SUBSYS_NFTABLES, b"")
_END: Final = (NFNL_MSG_BATCH_END, NLM_F_ACK, socket.AF_UNSPEC, NFNL_SUBSYS_NFTABLES, b"")


def _messages() -> Iterator[_Message]:
    """Type, flags, family, resource and content of each message of the transaction."""
    yield from _table(_CHAINS)
    yield _rule(START, _frames_from(BARRIER_MAC), _trace(), _ends(_DROP))
    yield _rule(START, _frames_from(PLAIN_MAC), _trace(), _ends(_ACCEPT))
    yield _rule(START, _frames_from(UNTRACKED_MAC), _trace(), _notrack(), _ends(_ACCEPT))
    yield _rule(OUTPUT, _priority(PLAIN_PRIORITY), _trace(), _ends(_ACCEPT))
    yield _rule(OUTPUT, _priority(UNTRACKED_PRIORITY), _trace(), _notrack(), _ends(_ACCEPT))


def _logging_messages(group: int) -> Iterator[_Message]:
    """The same where each chain logs."""
    yield from _table(_LOGGING_CHAINS)
    yield _rule(START, _frames_from(BARRIER_MAC), _log(group, BARRIER), _ends(_DROP))
    yield _rule(START, _frames_from(PLAIN_MAC), _log(group, START), _ends(_ACCEPT))
    yield _rule(START, _frames_from(UNTRACKED_MAC), _log(group, START), _notrack(), _ends(_ACCEPT))
    yield _rule(OUTPUT, _priority(PLAIN_PRIORITY), _log(group, OUTPUT), _ends(_ACCEPT))
    yield _rule(OUTPUT, _priority(UNTRACKED_PRIORITY), _log(group, OUTPUT), _notrack(), _ends(_ACCEPT))
    for name in (BEFORE_ROUTING, INPUT_START, LOCAL_END, FORWARD_START, OUT_END):
        yield _rule(name, _log(group, name))


def _table(chains: Iterable[tuple[str, int, int, int]]) -> Iterator[_Message]:
    """The table, and chains by name, hook, priority and policy."""
    yield _NEWTABLE, NLM_F_CREATE, _NFPROTO_INET, 0, _text(1, TABLE)
    for name, hook, priority, policy in chains:
        place = _nested(4, attribute(1, struct.pack(">I", hook)) + attribute(2, struct.pack(">i", priority)))
        chain = _text(1, TABLE) + _text(3, name) + place + attribute(5, struct.pack(">I", policy)) + _text(7, "filter")
        yield _NEWCHAIN, NLM_F_CREATE, _NFPROTO_INET, 0, chain


def _rule(chain: str, *expressions: bytes) -> _Message:
    content = _text(1, TABLE) + _text(2, chain) + _nested(4, b"".join(expressions))
    return _NEWRULE, NLM_F_CREATE, _NFPROTO_INET, 0, content


def _frames_from(mac: bytes) -> bytes:
    """``ether saddr`` begins with these bytes: they are the seventh and the following of the link-layer header."""
    return _header_bytes(6, mac)


def _header_bytes(offset: int, value: bytes) -> bytes:
    load = _number(1, _REG) + _number(2, 0) + _number(3, offset) + _number(4, len(value))
    return _expression("payload", load) + _equals(value)


def _priority(priority: int) -> bytes:
    load = _number(1, _REG) + _number(2, _META_PRIORITY)
    return _expression("meta", load) + _equals(struct.pack("=I", priority))


def _equals(value: bytes) -> bytes:
    return _expression("cmp", _number(1, _REG) + _number(2, 0) + _nested(3, attribute(1, value)))


def _trace() -> bytes:
    """``meta nftrace set 1``."""
    return _load(b"\1") + _expression("meta", _number(2, _META_NFTRACE) + _number(3, _REG))


def _log(group: int, prefix: str) -> bytes:
    """``log group NUMBER prefix NAME``."""
    return _expression("log", attribute(1, struct.pack(">H", group)) + _text(2, prefix))


def _notrack() -> bytes:
    return _expression("notrack", b"")


def _load(value: bytes) -> bytes:
    return _expression("immediate", _number(1, _REG) + _nested(2, attribute(1, value)))


def _ends(verdict: int) -> bytes:
    """A verdict: the packet meets no other rule of the chain, and no policy, which would be one more message."""
    return _expression("immediate", _number(1, 0) + _nested(2, _nested(2, _number(1, verdict))))


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
