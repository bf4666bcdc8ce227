"""The network of this host as a `Host`: links, addresses, routes and rules over netlink, settings from /proc/sys.

The numbers are those of linux/if_link.h, if_addr.h, rtnetlink.h and fib_rules.h.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import sys
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from fwguardd.kernel.netlink import read_attributes
from fwguardd.kernel.rtnetlink import (
    RTM_GETADDR,
    RTM_GETLINK,
    RTM_GETROUTE,
    RTM_GETRULE,
    dump_objects,
    open_route_socket,
)
from fwguardd.packets.host import LOOPBACK, Hop, Host, Interface, Route, RoutingRule, Sysctls

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

MOST_ROUTES: Final = 20_000
"""Routes that are copied; a router with the routes of the whole Internet has more, and is described without them."""

LINK: Final = struct.Struct("=BxHiII")
"""struct ifinfomsg: family, type, index, flags, change."""
ADDRESS: Final = struct.Struct("=BBBBI")
"""struct ifaddrmsg: family, prefix length, flags, scope, index."""
ROUTE: Final = struct.Struct("=BBBBBBBBI")
"""struct rtmsg: family, destination length, source length, tos, table, protocol, scope, type, flags."""
RULE: Final = struct.Struct("=BBBBBxxBI")
"""struct fib_rule_hdr: family, destination length, source length, tos, table, action, flags."""
NEXT_HOP: Final = struct.Struct("=HBBi")
"""struct rtnexthop: length, flags, weight - 1, index."""

IFF_UP: Final = 1
IFLA_IFNAME, IFLA_MTU, IFLA_MASTER, IFLA_LINKINFO, IFLA_AF_SPEC = 3, 4, 10, 18, 26
IFLA_INFO_KIND: Final = 1
IFLA_INET_CONF: Final = 1
IFA_ADDRESS, IFA_LOCAL = 1, 2
RTA_DST, RTA_SRC, RTA_OIF, RTA_GATEWAY, RTA_PRIORITY, RTA_PREFSRC, RTA_MULTIPATH = 1, 2, 4, 5, 6, 7, 9
RTA_TABLE, RTA_VIA = 15, 18
FRA_DST, FRA_SRC, FRA_IIFNAME, FRA_GOTO, FRA_PRIORITY, FRA_FWMARK = 1, 2, 3, 4, 6, 10
FRA_SUPPRESS_PREFIXLEN, FRA_TABLE, FRA_FWMASK, FRA_OIFNAME = 14, 15, 16, 17
FRA_UID_RANGE, FRA_IP_PROTO, FRA_SPORT_RANGE, FRA_DPORT_RANGE = 20, 22, 23, 24
FIB_RULE_INVERT: Final = 2
RTM_F_CLONED: Final = 0x200

DEVCONF: Final = {"forwarding": 1, "rp_filter": 8, "accept_local": 23, "src_valid_mark": 24, "route_localnet": 26}
"""IPV4_DEVCONF_* of linux/ip.h; the array in IFLA_INET_CONF begins with number 1."""

_ARPHRD_LOOPBACK: Final = 772
_LOCAL_TABLE: Final = 255
_PROTOCOL_KERNEL: Final = 2
_MADE_BY_KERNEL: Final = (2, 4, 5)
"""Types of the routes that the kernel makes of addresses of IPv6: local, anycast, multicast."""
_SYSCTLS: Final = {
    "ipv6_forwarding": "net/ipv6/conf/all/forwarding",
    "bridge_nf_call_iptables": "net/bridge/bridge-nf-call-iptables",
    "bridge_nf_call_ip6tables": "net/bridge/bridge-nf-call-ip6tables",
    "fwmark_reflect": "net/ipv4/fwmark_reflect",
    "conntrack_tcp_loose": "net/netfilter/nf_conntrack_tcp_loose",
    "conntrack_tcp_be_liberal": "net/netfilter/nf_conntrack_tcp_be_liberal",
}
SYSCTL_PATHS: Final = _SYSCTLS


def read_host() -> Host:
    """The network of the network namespace that the calling thread is in. Raises OSError."""
    with open_route_socket() as kernel:
        links = [_Link(body) for body in dump_objects(kernel, RTM_GETLINK, LINK.pack(0, 0, 0, 0, 0))]
        names = {link.index: link.name for link in links}
        addresses = _addresses(dump_objects(kernel, RTM_GETADDR, ADDRESS.pack(0, 0, 0, 0, 0)))
        routes, left_out = _routes(dump_objects(kernel, RTM_GETROUTE, ROUTE.pack(*[0] * 9)), names)
        rules = _rules(dump_objects(kernel, RTM_GETRULE, RULE.pack(*[0] * 7)))
    strict = _settings_of_all()
    interfaces = [_interface(link, addresses.get(link.index, []), names, strict) for link in links]
    return Host(tuple(interfaces), tuple(routes), tuple(rules), _sysctls(), tuple(left_out))


class _Link:
    """A link, as a dump describes it."""

    def __init__(self, body: bytes) -> None:
        _, self.kind_number, self.index, self.flags, _ = LINK.unpack_from(body)
        self.attributes = read_attributes(body, LINK.size) or {}
        self.name = _text(self.attributes, IFLA_IFNAME)

    @property
    def kind(self) -> str:
        """The kind, as `Interface.kind` describes it."""
        if self.kind_number == _ARPHRD_LOOPBACK:
            return LOOPBACK
        info = read_attributes(self.attributes.get(IFLA_LINKINFO, b"")) or {}
        return _text(info, IFLA_INFO_KIND) or "ethernet"

    @property
    def settings(self) -> dict[str, int]:
        """The settings of IPv4 for this interface alone."""
        families = read_attributes(self.attributes.get(IFLA_AF_SPEC, b"")) or {}
        own = read_attributes(families.get(socket.AF_INET, b"")) or {}
        values = own.get(IFLA_INET_CONF, b"")
        found: dict[str, int] = {}
        for name, number in DEVCONF.items():
            found[name] = int.from_bytes(values[4 * number - 4 : 4 * number], sys.byteorder)
        return found


def _interface(link: _Link, addresses: list[str], names: Mapping[int, str], strict: Mapping[str, int]) -> Interface:
    own = link.settings
    # ip-sysctl.rst: of rp_filter the larger value counts; the other ones are in effect if either is set. Forwarding of
    # an interface is its own.
    return Interface(
        link.name,
        link.kind,
        tuple(addresses),
        _number(link.attributes, IFLA_MTU),
        bool(link.flags & IFF_UP),
        names.get(_number(link.attributes, IFLA_MASTER), ""),
        max(own["rp_filter"], strict["rp_filter"]),
        bool(own["forwarding"]),
        bool(own["accept_local"] or strict["accept_local"]),
        bool(own["route_localnet"] or strict["route_localnet"]),
        bool(own["src_valid_mark"] or strict["src_valid_mark"]),
    )


def _settings_of_all() -> dict[str, int]:
    found: dict[str, int] = {}
    for name in DEVCONF:
        found[name] = _read_sysctl(f"net/ipv4/conf/all/{name}")
    return found


def _sysctls() -> Sysctls:
    values: dict[str, bool] = {}
    for name, path in _SYSCTLS.items():
        if Path("/proc/sys", path).exists():
            values[name] = bool(_read_sysctl(path))
    return Sysctls(**values)


def _read_sysctl(path: str) -> int:
    with contextlib.suppress(OSError, ValueError):
        return int(Path("/proc/sys", path).read_text(encoding="ascii"))
    return 0


def _addresses(bodies: list[bytes]) -> dict[int, list[str]]:
    """The addresses of each link, by its index."""
    found: dict[int, list[str]] = {}
    for body in bodies:
        _, length, _, _, index = ADDRESS.unpack_from(body)
        attributes = read_attributes(body, ADDRESS.size) or {}
        # Of a point-to-point link IFA_ADDRESS is the other end (if_addr.h).
        address = attributes.get(IFA_LOCAL) or attributes.get(IFA_ADDRESS)
        if address:
            found.setdefault(index, []).append(f"{ip_address(address)}/{length}")
    return found


def _routes(bodies: list[bytes], names: Mapping[int, str]) -> tuple[list[Route], list[str]]:
    if len(bodies) > MOST_ROUTES:
        return [], [f"{len(bodies):,} routes: more than {MOST_ROUTES:,} are not copied"]
    routes: list[Route] = []
    for body in bodies:
        routes += _route(body, names)
    return routes, []


def _route(body: bytes, names: Mapping[int, str]) -> list[Route]:
    """The route of a message; nothing for what the kernel makes by itself, and for routes of other families."""
    family, length, source_length, tos, table, protocol, scope, kind, flags = ROUTE.unpack_from(body)
    if not _is_copied(family, protocol, kind, flags):
        return []
    attributes = read_attributes(body, ROUTE.size) or {}
    return [
        Route(
            _network(family, attributes.get(RTA_DST), length),
            _gateway(attributes),
            names.get(_number(attributes, RTA_OIF), ""),
            _number(attributes, RTA_TABLE) or table,
            kind,
            scope,
            _number(attributes, RTA_PRIORITY),
            _address(attributes, RTA_PREFSRC),
            _optional_network(family, attributes.get(RTA_SRC), source_length),
            tos,
            tuple(_hops(attributes.get(RTA_MULTIPATH, b""), names)),
        )
    ]


def _is_copied(family: int, protocol: int, kind: int, flags: int) -> bool:
    if family == socket.AF_INET6 and protocol == _PROTOCOL_KERNEL and kind in _MADE_BY_KERNEL:
        return False
    return family in (socket.AF_INET, socket.AF_INET6) and not flags & RTM_F_CLONED


def _hops(data: bytes, names: Mapping[int, str]) -> Iterator[Hop]:
    offset = 0
    while len(data) - offset >= NEXT_HOP.size:
        length, _, weight, index = NEXT_HOP.unpack_from(data, offset)
        if length < NEXT_HOP.size:
            return
        attributes = read_attributes(data[offset + NEXT_HOP.size : offset + length]) or {}
        yield Hop(_gateway(attributes), names.get(index, ""), weight + 1)
        offset += (length + 3) & ~3


def _gateway(attributes: Mapping[int, bytes]) -> str:
    """The gateway; RTA_VIA is one of the other family, as a number of the family and the address."""
    if RTA_VIA in attributes:
        return str(ip_address(attributes[RTA_VIA][2:]))
    return _address(attributes, RTA_GATEWAY)


def _rules(bodies: list[bytes]) -> list[RoutingRule]:
    """The rules of both families; those of multicast routing have families of their own."""
    return [_rule(body) for body in bodies if body[0] in (socket.AF_INET, socket.AF_INET6)]


def _rule(body: bytes) -> RoutingRule:
    family, to_length, from_length, tos, table, action, flags = RULE.unpack_from(body)
    attributes = read_attributes(body, RULE.size) or {}
    suppressed: dict[str, Any] = {}
    if attributes.get(FRA_SUPPRESS_PREFIXLEN, b"\xff\xff\xff\xff") != b"\xff\xff\xff\xff":
        suppressed["suppress_prefix"] = _number(attributes, FRA_SUPPRESS_PREFIXLEN)
    return RoutingRule(
        family,
        _number(attributes, FRA_PRIORITY),
        action,
        _number(attributes, FRA_TABLE) or table,
        _optional_network(family, attributes.get(FRA_SRC), from_length),
        _optional_network(family, attributes.get(FRA_DST), to_length),
        _text(attributes, FRA_IIFNAME),
        _text(attributes, FRA_OIFNAME),
        _number(attributes, FRA_FWMARK),
        _number(attributes, FRA_FWMASK),
        tos,
        _number(attributes, FRA_IP_PROTO),
        _range(attributes, FRA_SPORT_RANGE, "=HH"),
        _range(attributes, FRA_DPORT_RANGE, "=HH"),
        _range(attributes, FRA_UID_RANGE, "=II"),
        bool(flags & FIB_RULE_INVERT),
        goto=_number(attributes, FRA_GOTO),
        **suppressed,
    )


def _optional_network(family: int, address: bytes | None, length: int) -> str:
    if not length:
        return ""
    return _network(family, address, length)


def _network(family: int, address: bytes | None, length: int) -> str:
    size = 4
    if family == socket.AF_INET6:
        size = 16
    return f"{ip_address(address or bytes(size))}/{length}"


def _range(attributes: Mapping[int, bytes], kind: int, layout: str) -> str:
    value = attributes.get(kind, b"")
    if len(value) != struct.calcsize(layout):
        return ""
    first, last = struct.unpack(layout, value)
    return f"{first}-{last}"


def _address(attributes: Mapping[int, bytes], kind: int) -> str:
    value = attributes.get(kind)
    if not value:
        return ""
    return str(ip_address(value))


def _text(attributes: Mapping[int, bytes], kind: int) -> str:
    return attributes.get(kind, b"").partition(b"\0")[0].decode("utf-8", "surrogateescape")


def _number(attributes: Mapping[int, bytes], kind: int) -> int:
    return int.from_bytes(attributes.get(kind, b""), sys.byteorder)
