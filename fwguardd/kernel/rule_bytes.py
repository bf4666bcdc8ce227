"""Rules of nf_tables as the kernel stores them: bytes, which are read over netlink and can be written again.

iptables translates each rule into expressions (nf_tables_fill_rule_info() in net/netfilter/nf_tables_api.c has the
layout of the message). Two rules with the same expressions do the same and are printed in the same words, so a rule
that iptables made in a rehearsal can be put into the live tables as it is, and recognized there, without iptables.
Expressions that name something outside of the rule, or keep a state, are left to iptables.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Final, NamedTuple, Self, TypeVar

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
    interrupted,
    list_attributes,
    messages,
    open_socket,
    read_attributes,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

NFT_MSG_NEWRULE: Final = 0x0A06
NFT_MSG_GETRULE: Final = 0x0A07
NFT_MSG_DELRULE: Final = 0x0A08
NFTA_RULE_TABLE, NFTA_RULE_CHAIN, NFTA_RULE_HANDLE, NFTA_RULE_EXPRESSIONS, NFTA_RULE_POSITION = 1, 2, 3, 4, 6
"""linux/netfilter/nf_tables.h, enum nft_rule_attributes."""
_NFTA_LIST_ELEM: Final = 1
_NFTA_EXPR_NAME, _NFTA_EXPR_DATA = 1, 2
_EXTENSION_NAME: Final = 1
"""NFTA_MATCH_NAME and NFTA_TARGET_NAME."""
_NFTA_COUNTER_BYTES, _NFTA_COUNTER_PACKETS = 1, 2
PROTOCOLS: Final = {4: socket.AF_INET, 6: socket.AF_INET6}
"""The families of nf_tables have the numbers of the address families (NFPROTO_IPV4, NFPROTO_IPV6)."""

_ATTRIBUTES: Final = {NFTA_RULE_TABLE, NFTA_RULE_CHAIN, NFTA_RULE_HANDLE, NFTA_RULE_EXPRESSIONS, NFTA_RULE_POSITION}
_SAY_ALL: Final = frozenset(
    {"meta", "cmp", "payload", "bitwise", "immediate", "range", "match comment", "match conntrack", "match state"}
    | {"match limit", "match mark", "match pkttype", "match iprange", "match length", "target LOG", "target REJECT"}
)
"""Expressions, and matches and targets of x_tables, that say all about themselves and keep no state. Those for one
protocol need more than their bytes (NFTA_RULE_COMPAT), which the kernel does not show."""

_BUFFER: Final = 1 << 16
_SECONDS: Final = 1.0
"""The timeout for one answer; the kernel answers at once."""

Value = TypeVar("Value")

_NOTHING_COUNTED: Final = attribute(_NFTA_EXPR_NAME, b"counter\0") + attribute(
    _NFTA_EXPR_DATA, attribute(_NFTA_COUNTER_BYTES, bytes(8)) + attribute(_NFTA_COUNTER_PACKETS, bytes(8))
)
"""The expression that counts packets and bytes of a rule."""


class RuleBytes(NamedTuple):
    """A rule in the kernel: its place, its number in the table, what it is made of, and, where the message says so, the
    handle of the rule before it. ``expressions`` are empty where iptables has to write them."""

    table: str
    chain: str
    handle: int
    expressions: bytes
    position: int = 0

    def as_hex(self) -> tuple[str, str, int, str]:
        """Its place, number and expressions as values of JSON."""
        return self.table, self.chain, self.handle, self.expressions.hex()

    @classmethod
    def of_hex(cls, table: str, chain: str, handle: int, expressions: str) -> Self:
        """The same again."""
        return cls(table, chain, handle, bytes.fromhex(expressions))


def rules_of(number: int) -> list[RuleBytes] | None:
    """The rules of a family (4, 6) in the network namespace of the calling thread, in order; None where they could not
    be read whole. Raises OSError."""
    body = FAMILY_HEADER.pack(PROTOCOLS[number], 0, 0)
    header = HEADER.pack(HEADER.size + len(body), NFT_MSG_GETRULE, NLM_F_REQUEST | NLM_F_DUMP, 1, 0)
    with open_socket(NETLINK_NETFILTER) as requester:
        requester.settimeout(_SECONDS)
        requester.sendto(header + body, (0, 0))
        return without_none(map(rule_in, _bodies_of_dump(requester)))


def _bodies_of_dump(requester: socket.socket) -> Iterator[bytes]:
    """The messages of a dump; an empty one where a change interrupted it. Raises OSError."""
    while True:
        data = requester.recv(_BUFFER)
        if interrupted(data):
            yield b""
        for kind, body in messages(data):
            if kind == NLMSG_DONE:
                return
            if kind == NLMSG_ERROR:
                raise OSError(error_number(body), "cannot list the rules of nf_tables")
            yield body


def without_none(values: Iterable[Value | None]) -> list[Value] | None:
    """The values; None where one of them is None."""
    found: list[Value] = []
    for value in values:
        if value is None:
            return None
        found.append(value)
    return found


def place_of(table: str, chain: str) -> bytes:
    """The attributes that name a chain."""
    return attribute(NFTA_RULE_TABLE, table.encode() + b"\0") + attribute(NFTA_RULE_CHAIN, chain.encode() + b"\0")


def rule_in(body: bytes) -> RuleBytes | None:
    """The rule in a message; None where it cannot be parsed."""
    attributes = read_attributes(body, FAMILY_HEADER.size) or {}
    if NFTA_RULE_HANDLE not in attributes:
        return None
    expressions = b""
    if attributes.keys() <= _ATTRIBUTES:
        expressions = _uncounted(attributes.get(NFTA_RULE_EXPRESSIONS, b""))
    table, chain = _text(attributes, NFTA_RULE_TABLE), _text(attributes, NFTA_RULE_CHAIN)
    handle, position = attributes[NFTA_RULE_HANDLE], attributes.get(NFTA_RULE_POSITION, b"")
    return RuleBytes(table, chain, int.from_bytes(handle, "big"), expressions, int.from_bytes(position, "big"))


def _text(attributes: Mapping[int, bytes], kind: int) -> str:
    return attributes.get(kind, b"").partition(b"\0")[0].decode("utf-8", "replace")


def _uncounted(expressions: bytes) -> bytes:
    """Expressions as if they had counted nothing; b"" where they do not say all about the rule."""
    elements = [_uncounted_element(element) for _, element in list_attributes(expressions) or ()]
    if not all(elements):
        return b""
    return b"".join(attribute(_NFTA_LIST_ELEM, element) for element in elements)


def _uncounted_element(element: bytes) -> bytes:
    attributes = read_attributes(element) or {}
    name, data = _text(attributes, _NFTA_EXPR_NAME), attributes.get(_NFTA_EXPR_DATA, b"")
    if name == "counter":
        return _NOTHING_COUNTED
    if name in ("match", "target"):
        name = f"{name} {_text(read_attributes(data) or {}, _EXTENSION_NAME)}"
    return element * (name in _SAY_ALL)
