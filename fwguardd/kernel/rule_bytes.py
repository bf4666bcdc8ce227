"""Rules of nf_tables as the kernel stores them: bytes, which are read over netlink and can be written again.

iptables translates each rule into expressions (nf_tables_fill_rule_info() in net/netfilter/nf_tables_api.c has the
layout of the message). Two rules with the same expressions do the same and are printed in the same words, so a rule
that iptables made in a rehearsal can be put into the live tables as it is, and recognized there, without iptables.
Expressions that name something outside of the rule, or keep a state, are left to iptables.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple, Self, TypeVar

from fwguardd.kernel.netlink import FAMILY_HEADER, attribute, list_attributes, read_attributes, text_of
from fwguardd.kernel.rule_dumps import (
    NFTA_COUNTER_BYTES,
    NFTA_COUNTER_PACKETS,
    NFTA_EXPR_DATA,
    NFTA_EXPR_NAME,
    NFTA_RULE_CHAIN,
    NFTA_RULE_EXPRESSIONS,
    NFTA_RULE_HANDLE,
    NFTA_RULE_POSITION,
    NFTA_RULE_TABLE,
    listed_rules,
    open_rule_socket,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

_NFTA_LIST_ELEM: Final = 1
_EXTENSION_NAME: Final = 1
"""NFTA_MATCH_NAME and NFTA_TARGET_NAME."""

RULE_ATTRIBUTES: Final = frozenset(
    {NFTA_RULE_TABLE, NFTA_RULE_CHAIN, NFTA_RULE_HANDLE, NFTA_RULE_EXPRESSIONS, NFTA_RULE_POSITION}
)
"""What is said of a rule whose expressions say all."""

_SAY_ALL: Final = frozenset(
    {"meta", "cmp", "payload", "bitwise", "immediate", "range", "match comment", "match conntrack", "match state"}
    | {"match limit", "match mark", "match pkttype", "match iprange", "match length", "target LOG", "target REJECT"}
)
"""Expressions, and matches and targets of x_tables, that say all about themselves and keep no state. Those for one
protocol need more than their bytes (NFTA_RULE_COMPAT), which the kernel does not show."""

Value = TypeVar("Value")

_NOTHING_COUNTED: Final = attribute(NFTA_EXPR_NAME, b"counter\0") + attribute(
    NFTA_EXPR_DATA, attribute(NFTA_COUNTER_BYTES, bytes(8)) + attribute(NFTA_COUNTER_PACKETS, bytes(8))
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
    with open_rule_socket() as requester:
        return without_none(map(rule_in, listed_rules(requester, number)))


def without_none(values: Iterable[Value | None]) -> list[Value] | None:
    """The values; None where one of them is None."""
    found: list[Value] = []
    for value in values:
        if value is None:
            return None
        found.append(value)
    return found


def rule_in(body: bytes) -> RuleBytes | None:
    """The rule in a message, as if it had counted nothing; None where it cannot be parsed."""
    rule = counted_rule_in(body)
    if rule is None:
        return None
    return rule._replace(expressions=uncounted(rule.expressions))


def counted_rule_in(body: bytes) -> RuleBytes | None:
    """The same with what it has counted, and without a check that its expressions say all about it."""
    attributes = read_attributes(body, FAMILY_HEADER.size) or {}
    if NFTA_RULE_HANDLE not in attributes:
        return None
    expressions = b""
    if attributes.keys() <= RULE_ATTRIBUTES:
        expressions = attributes.get(NFTA_RULE_EXPRESSIONS, b"")
    table, chain = text_of(attributes, NFTA_RULE_TABLE), text_of(attributes, NFTA_RULE_CHAIN)
    handle, position = attributes[NFTA_RULE_HANDLE], attributes.get(NFTA_RULE_POSITION, b"")
    return RuleBytes(table, chain, int.from_bytes(handle, "big"), expressions, int.from_bytes(position, "big"))


def uncounted(expressions: bytes) -> bytes:
    """Expressions as if they had counted nothing; b"" where they do not say all about the rule."""
    elements = [_uncounted_element(element) for _, element in list_attributes(expressions) or ()]
    if not all(elements):
        return b""
    return b"".join(attribute(_NFTA_LIST_ELEM, element) for element in elements)


def _uncounted_element(element: bytes) -> bytes:
    attributes = read_attributes(element) or {}
    name, data = text_of(attributes, NFTA_EXPR_NAME), attributes.get(NFTA_EXPR_DATA, b"")
    if name == "counter":
        return _NOTHING_COUNTED
    if name in ("match", "target"):
        name = f"{name} {text_of(read_attributes(data) or {}, _EXTENSION_NAME)}"
    return element * (name in _SAY_ALL)
