"""The target of a rule's text -> what the rule does with a packet.

This module is pure.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from fwguardd.packets.bed_rules import ONLY_REPORT
from fwguardd.proof.fields import ADDRESS_BITS
from fwguardd.proof.intervals import Intervals, everything
from fwguardd.proof.matches import NotModelledError, address_number, masked_number
from fwguardd.proof.parts import CONTINUE, RuleEffect, RuleTarget
from fwguardd.ruleset.values import LAST_PORT, read_number

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from fwguardd.ruleset.model import Family
    from fwguardd.ruleset.rule_view import RuleView

_ONE_EFFECT: Final[Mapping[str, RuleEffect]] = {
    "ACCEPT": RuleEffect.ACCEPT,
    **dict.fromkeys(("DROP", "TARPIT"), RuleEffect.DROP),
    "REJECT": RuleEffect.REJECT,
    "RETURN": RuleEffect.RETURN,
    **dict.fromkeys(("SNAT", "MASQUERADE"), RuleEffect.ACCEPT),
    **dict.fromkeys(("QUEUE", "NFQUEUE", "SYNPROXY"), RuleEffect.PROGRAM),
    "NOTRACK": RuleEffect.NOTRACK,
}
CHANGING: Final = frozenset({"TOS", "DSCP", "TTL", "HL", "ECN", "TCPMSS", "TCPOPTSTRIP", "SET", "CLASSIFY", "CHECKSUM"})
"""Targets that change what is not modelled, and go on to the next rule."""

_PORT: Final = re.compile(r"(?:\[(?P<six>[^\]]*)\]|(?P<four>[^:\[]*))(?::(?P<ports>[0-9]+(?:-[0-9]+)?))?")


def target_of(view: RuleView, family: Family, chains: Collection[str]) -> RuleTarget:
    """What a rule does in a table with these chains."""
    name = view.target
    if name is None:
        return CONTINUE
    if name in chains:
        return RuleTarget({True: RuleEffect.GOTO, False: RuleEffect.JUMP}[view.is_goto], name)
    if name in _ONE_EFFECT:
        return RuleTarget(_ONE_EFFECT[name], name)
    if name in ONLY_REPORT or name in CHANGING:
        return CONTINUE
    try:
        return _WITH_OPTIONS.get(name, _unknown)(view, family)
    except NotModelledError:
        return RuleTarget(RuleEffect.UNKNOWN, name)


def _unknown(view: RuleView, _family: Family) -> RuleTarget:
    return RuleTarget(RuleEffect.UNKNOWN, view.target or "")


def _mark(view: RuleView, _family: Family) -> RuleTarget:
    """net/netfilter/xt_mark.c and libxt_MARK.c: all options are a mask of bits that are cleared, and bits to turn."""
    for name, read in _MARKS.items():
        text = view.value(name)
        if text is not None:
            kept, turned = read(*masked_number(text))
            return RuleTarget(RuleEffect.MARK, "MARK", kept & 0xFFFF_FFFF, turned)
    raise NotModelledError


_MARKS: Final[Mapping[str, Callable[[int, int], tuple[int, int]]]] = {
    "--set-xmark": lambda value, mask: (~mask, value),
    "--set-mark": lambda value, mask: (~(mask | value), value),
    "--and-mark": lambda value, _: (value, 0),
    "--or-mark": lambda value, _: (~value, value),
    "--xor-mark": lambda value, _: (-1, value),
}


def _connection_mark(view: RuleView, _family: Family) -> RuleTarget:
    if view.has("--restore-mark"):
        return RuleTarget(RuleEffect.FREE_MARK, "CONNMARK --restore-mark")
    return CONTINUE


def _connection(view: RuleView, _family: Family) -> RuleTarget:
    if view.has("--notrack"):
        return RuleTarget(RuleEffect.NOTRACK, "CT")
    return CONTINUE


def _destination(view: RuleView, family: Family) -> RuleTarget:
    match = _PORT.fullmatch(view.value("--to-destination") or "")
    if match is None:
        return RuleTarget(RuleEffect.DNAT, "DNAT", addresses=everything(ADDRESS_BITS[family]), ports=everything(16))
    text = match["six"] or match["four"]
    addresses: Intervals | None = None
    if text:
        first, dash, last = text.partition("-")
        addresses = ((address_number(first, family), address_number(last if dash else first, family)),)
    return RuleTarget(RuleEffect.DNAT, "DNAT", addresses=addresses, ports=_ports(match["ports"]))


def _ports(text: str | None) -> Intervals | None:
    if not text:
        return None
    first, dash, last = text.partition("-")
    low = read_number(first)
    high = read_number(last) if dash else low
    if low is None or high is None or not low <= high <= LAST_PORT:
        raise NotModelledError
    return ((low, high),)


def _redirect(view: RuleView, _family: Family) -> RuleTarget:
    return RuleTarget(RuleEffect.DNAT, "REDIRECT", addresses=(), ports=_ports(view.value("--to-ports")))


def _netmap(_view: RuleView, family: Family) -> RuleTarget:
    return RuleTarget(RuleEffect.DNAT, "NETMAP", addresses=everything(ADDRESS_BITS[family]))


_WITH_OPTIONS: Final[Mapping[str, Callable[[RuleView, Family], RuleTarget]]] = {
    "MARK": _mark,
    "CONNMARK": _connection_mark,
    "CT": _connection,
    "DNAT": _destination,
    "REDIRECT": _redirect,
    "NETMAP": _netmap,
}
