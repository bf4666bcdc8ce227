"""The rules of nf_tables as the kernel lists them over netlink, in the order in which iptables-save prints them.

A message begins with the table, the chain and the handle of its rule (nf_tables_fill_rule_info() in
net/netfilter/nf_tables_api.c). The numbers are those of linux/netfilter/nf_tables.h.
"""

from __future__ import annotations

import errno
import socket
from array import array
from typing import TYPE_CHECKING, Final

from fwguardd.kernel.netlink import (
    FAMILY_HEADER,
    HEADER,
    NETLINK_NETFILTER,
    NLM_F_DUMP,
    NLM_F_REQUEST,
    NLMSG_DONE,
    NLMSG_ERROR,
    attribute,
    error_number,
    first_attributes,
    interrupted,
    messages,
    open_socket,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    ChainNames = tuple[bytes, bytes]

NFT_MSG_NEWRULE: Final = 0x0A06
NFT_MSG_GETRULE: Final = 0x0A07
NFT_MSG_DELRULE: Final = 0x0A08
NFTA_RULE_TABLE, NFTA_RULE_CHAIN, NFTA_RULE_HANDLE, NFTA_RULE_EXPRESSIONS, NFTA_RULE_POSITION = 1, 2, 3, 4, 6
NFTA_EXPR_NAME, NFTA_EXPR_DATA = 1, 2
NFTA_COUNTER_BYTES, NFTA_COUNTER_PACKETS = 1, 2
PROTOCOLS: Final = {4: socket.AF_INET, 6: socket.AF_INET6}
"""The families of nf_tables have the numbers of the address families (NFPROTO_IPV4, NFPROTO_IPV6)."""

_HANDLE_SIZE: Final = 8
_BUFFER: Final = 1 << 16
_SECONDS: Final = 1.0
"""The timeout for one answer; the kernel answers at once."""


def open_rule_socket() -> socket.socket:
    """A socket for dumps of rules. Raises OSError."""
    requester = open_socket(NETLINK_NETFILTER)
    requester.settimeout(_SECONDS)
    return requester


def listed_rules(requester: socket.socket, number: int, asked: bytes = b"") -> Iterator[bytes]:
    """The message about each rule of a family (4, 6), or of the chain that is ``asked`` for. An empty one says that a
    change interrupted the dump. Raises OSError."""
    body = FAMILY_HEADER.pack(PROTOCOLS[number], 0, 0) + asked
    header = HEADER.pack(HEADER.size + len(body), NFT_MSG_GETRULE, NLM_F_REQUEST | NLM_F_DUMP, 1, 0)
    requester.sendto(header + body, (0, 0))
    while True:
        data = requester.recv(_BUFFER)
        if interrupted(data):
            yield b""
        for kind, content in messages(data):
            if kind == NLMSG_DONE:
                return
            if kind == NLMSG_ERROR:
                raise OSError(error_number(content), "cannot list the rules of nf_tables")
            yield content


def chain_names(table: str, chain: str) -> ChainNames:
    """The names of a chain as the kernel has them."""
    return table.encode("utf-8", "surrogateescape") + b"\0", chain.encode("utf-8", "surrogateescape") + b"\0"


def place_of(table: str, chain: str) -> bytes:
    """The attributes that name a chain."""
    names = chain_names(table, chain)
    return attribute(NFTA_RULE_TABLE, names[0]) + attribute(NFTA_RULE_CHAIN, names[1])


def handles_in(bodies: Iterable[bytes]) -> dict[ChainNames, array[int]]:
    """The handles of the rules of each chain, in order, from the messages of a dump.

    Nearly every rule begins as the one before it, with the same table and chain: only its handle is read then. Raises
    OSError where a message has another form.
    """
    found: dict[ChainNames, array[int]] = {}
    start, numbers = b"no rule yet", array("Q")
    for body in bodies:
        if not body.startswith(start):
            names, start = _begins(body)
            numbers = found.setdefault(names, array("Q"))
        numbers.append(int.from_bytes(body[len(start) : len(start) + _HANDLE_SIZE], "big"))
    return found


def _begins(body: bytes) -> tuple[ChainNames, bytes]:
    """The names of the chain of a rule, and what precedes its handle. Raises OSError."""
    values = first_attributes(body, FAMILY_HEADER.size, NFTA_RULE_HANDLE) or []
    if len(values) == NFTA_RULE_HANDLE:
        table, chain, handle = values
        start = attribute(NFTA_RULE_TABLE, table) + attribute(NFTA_RULE_CHAIN, chain)
        start = body[: FAMILY_HEADER.size] + start + attribute(NFTA_RULE_HANDLE, handle)[:-_HANDLE_SIZE]
        if len(handle) == _HANDLE_SIZE and body.startswith(start):
            return (table, chain), start
    raise OSError(errno.EBADMSG, "nf_tables lists the parts of a rule in an unknown order")
