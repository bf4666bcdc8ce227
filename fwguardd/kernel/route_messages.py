"""The content of messages that add routes and rules of the routing policy (rtnetlink(7)), from those of a `Host`."""

from __future__ import annotations

import socket
import struct
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import TYPE_CHECKING, Final

from fwguardd.kernel.host_network import (
    FIB_RULE_INVERT,
    FRA_DPORT_RANGE,
    FRA_DST,
    FRA_FWMARK,
    FRA_FWMASK,
    FRA_GOTO,
    FRA_IIFNAME,
    FRA_IP_PROTO,
    FRA_OIFNAME,
    FRA_PRIORITY,
    FRA_SPORT_RANGE,
    FRA_SRC,
    FRA_SUPPRESS_PREFIXLEN,
    FRA_TABLE,
    FRA_UID_RANGE,
    NEXT_HOP,
    ROUTE,
    RTA_DST,
    RTA_GATEWAY,
    RTA_MULTIPATH,
    RTA_OIF,
    RTA_PREFSRC,
    RTA_PRIORITY,
    RTA_SRC,
    RTA_TABLE,
    RTA_VIA,
    RULE,
)
from fwguardd.kernel.netlink import attribute

if TYPE_CHECKING:
    from fwguardd.packets.host import Hop, Route, RoutingRule

_RTNH_F_ONLINK: Final = 4
_RTPROT_STATIC: Final = 4
_LOCAL_TABLE, _RTN_LOCAL = 255, 2


def family_of(address: IPv4Address | IPv6Address) -> int:
    """AF_INET or AF_INET6."""
    if address.version == 4:
        return socket.AF_INET
    return socket.AF_INET6


def route_message(route: Route, indexes: dict[str, int]) -> bytes:
    """The content of RTM_NEWROUTE. ``indexes`` are those of the interfaces."""
    to = ip_network(route.to)
    family = family_of(to.network_address)
    source, source_length = _rule_network(RTA_SRC, route.source)
    flags = _RTNH_F_ONLINK * bool(route.via)
    body = ROUTE.pack(family, to.prefixlen, source_length, route.tos, 0, _RTPROT_STATIC, route.scope, route.type, flags)
    body += attribute(RTA_DST, to.network_address.packed) + source + attribute(RTA_TABLE, _u32(route.table))
    body += _gateway(family, route.via) + _device(route.dev, indexes) + _if_set(RTA_PRIORITY, route.metric)
    if route.src:
        body += attribute(RTA_PREFSRC, ip_address(route.src).packed)
    if route.hops:
        body += attribute(RTA_MULTIPATH, b"".join(_hop(family, hop, indexes) for hop in route.hops))
    return body


def _device(name: str, indexes: dict[str, int]) -> bytes:
    if not name:
        return b""
    return attribute(RTA_OIF, _u32(indexes.get(name, 0)))


def _gateway(family: int, via: str) -> bytes:
    if not via:
        return b""
    address = ip_address(via)
    if family_of(address) == family:
        return attribute(RTA_GATEWAY, address.packed)
    return attribute(RTA_VIA, struct.pack("=H", family_of(address)) + address.packed)


def _hop(family: int, hop: Hop, indexes: dict[str, int]) -> bytes:
    gateway = _gateway(family, hop.via)
    flags = _RTNH_F_ONLINK * bool(hop.via)
    return NEXT_HOP.pack(NEXT_HOP.size + len(gateway), flags, hop.weight - 1, indexes.get(hop.dev, 0)) + gateway


def rule_message(rule: RoutingRule) -> bytes:
    """The content of RTM_NEWRULE and RTM_DELRULE."""
    source, source_length = _rule_network(FRA_SRC, rule.source)
    destination, destination_length = _rule_network(FRA_DST, rule.destination)
    flags = FIB_RULE_INVERT * rule.inverted
    body = RULE.pack(rule.family, destination_length, source_length, rule.tos, 0, rule.action, flags)
    body += source + destination + attribute(FRA_PRIORITY, _u32(rule.priority))
    body += _rule_names(rule) + _rule_numbers(rule)
    for kind, text, layout in (
        (FRA_SPORT_RANGE, rule.sport, "=HH"),
        (FRA_DPORT_RANGE, rule.dport, "=HH"),
        (FRA_UID_RANGE, rule.uids, "=II"),
    ):
        if text:
            first, _, last = text.partition("-")
            body += attribute(kind, struct.pack(layout, int(first), int(last)))
    return body


def local_route_message(index: int, address: IPv4Address | IPv6Address) -> bytes:
    """The route that makes an address local. For an IPv6 address the kernel adds it later, in a task of its own, once
    the interface has a carrier (net/ipv6/addrconf.c), and packets may come before."""
    body = ROUTE.pack(family_of(address), 8 * len(address.packed), 0, 0, _LOCAL_TABLE, _RTPROT_STATIC, 0, _RTN_LOCAL, 0)
    return body + attribute(RTA_DST, address.packed) + attribute(RTA_OIF, _u32(index))


def _rule_names(rule: RoutingRule) -> bytes:
    body = b""
    for kind, name in ((FRA_IIFNAME, rule.iif), (FRA_OIFNAME, rule.oif)):
        if name:
            body += attribute(kind, name.encode("utf-8", "surrogateescape") + b"\0")
    return body


def _rule_numbers(rule: RoutingRule) -> bytes:
    body = b""
    for kind, number in ((FRA_TABLE, rule.table), (FRA_GOTO, rule.goto), (FRA_FWMARK, rule.mark)):
        body += _if_set(kind, number)
    # A mark of 0 counts where the mask is stated.
    body += _if_set(FRA_FWMASK, rule.mask)
    if rule.protocol:
        body += attribute(FRA_IP_PROTO, bytes([rule.protocol]))
    if rule.suppress_prefix >= 0:
        body += attribute(FRA_SUPPRESS_PREFIXLEN, _u32(rule.suppress_prefix))
    return body


def _if_set(kind: int, number: int) -> bytes:
    if not number:
        return b""
    return attribute(kind, _u32(number))


def _rule_network(kind: int, text: str) -> tuple[bytes, int]:
    if not text:
        return b"", 0
    network = ip_network(text)
    return attribute(kind, network.network_address.packed), network.prefixlen


def _u32(number: int) -> bytes:
    return struct.pack("=I", number & 0xFFFFFFFF)
