"""The network of a `Host`, rebuilt in the network namespace that the process is in: a rehearsal namespace.

Each interface becomes one end of a veth pair with its name, addresses and settings; frames are sent into the other end.
Bridges, tunnels and physical devices are told apart by their names alone in rules and routes, so a veth pair serves for
all of them, but for a VRF. Routes and policy rules are copied as they are, so the kernel routes as it does on the host.

Settings go by netlink where that can set them, since /proc/sys may not be writable.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
from ipaddress import ip_interface
from pathlib import Path
from typing import TYPE_CHECKING, Final

from fwguardd.kernel.host_network import (
    ADDRESS,
    DEVCONF,
    IFA_ADDRESS,
    IFA_LOCAL,
    IFF_UP,
    IFLA_AF_SPEC,
    IFLA_IFNAME,
    IFLA_INET_CONF,
    IFLA_INFO_KIND,
    IFLA_LINKINFO,
    IFLA_MTU,
    LINK,
    SYSCTL_PATHS,
)
from fwguardd.kernel.netlink import attribute
from fwguardd.kernel.route_messages import family_of, local_route_message, route_message, rule_message
from fwguardd.kernel.rtnetlink import (
    NLM_F_CREATE,
    NLM_F_EXCL,
    RTM_DELRULE,
    RTM_NEWADDR,
    RTM_NEWLINK,
    RTM_NEWROUTE,
    RTM_NEWRULE,
    open_route_socket,
    request_all,
)
from fwguardd.packets.host import LOOPBACK, VRF, Interface, RoutingRule

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from ipaddress import IPv4Address, IPv6Address

    from fwguardd.kernel.rtnetlink import Request
    from fwguardd.packets.host import Host

LOOPBACK_INDEX: Final = 1
_FIRST_INDEX: Final = 100
"""Interfaces have even indexes from here on, and each other end the odd one after it."""
_RTN_BROADCAST: Final = 3
_IFLA_ADDRESS: Final = 1
_IFLA_INFO_DATA: Final = 2
_VETH_INFO_PEER: Final = 1
_IFLA_INET6_ADDR_GEN_MODE: Final = 8
_ADDR_GEN_NONE: Final = 1
_IFA_FLAGS: Final = 8
_NO_DAD_NO_PREFIX_ROUTE: Final = 0x202
_TOLERATED: Final = {0, errno.EEXIST, errno.ENOENT}
"""The kernel makes some addresses, routes and rules by itself."""
_FRESH_RULES: Final = (
    RoutingRule(socket.AF_INET, 0, table=255),
    RoutingRule(socket.AF_INET, 32766),
    RoutingRule(socket.AF_INET, 32767, table=253),
    RoutingRule(socket.AF_INET6, 0, table=255),
    RoutingRule(socket.AF_INET6, 32766),
)
"""The rules of a new network namespace."""
_SYSCTLS_OF_ALL: Final = ("rp_filter", "accept_local", "route_localnet", "src_valid_mark")
_SMALLEST_MTU: Final = 68


class BedNetwork:
    """The interfaces of a bed: their indexes, and what could not be rebuilt."""

    def __init__(self, host: Host) -> None:
        """Build the network. Raises OSError."""
        self.left_out = list(host.left_out)
        self._host = host
        self._indexes: dict[str, int] = {}
        broadcast = {route.to.partition("/")[0] for route in host.routes if route.type == _RTN_BROADCAST}
        self._broadcast_addresses = broadcast | {"255.255.255.255"}
        self._kernel = open_route_socket()
        for name in _SYSCTLS_OF_ALL:
            _write_sysctl(f"net/ipv4/conf/all/{name}", "0")
        loopback = host.interface("lo") or Interface("lo", LOOPBACK)
        self._indexes[loopback.name] = LOOPBACK_INDEX
        self._request([(RTM_NEWLINK, 0, LINK.pack(0, 0, LOOPBACK_INDEX, IFF_UP, IFF_UP) + _loopback_settings())])
        others = [interface for interface in host.interfaces if interface.kind != LOOPBACK]
        self._add(others)
        self._request(list(_addresses(LOOPBACK_INDEX, loopback)))
        self._write_sysctls()
        self._copy_routes()
        self._copy_rules()

    def close(self) -> None:
        """Close the socket; the network stays."""
        self._kernel.close()

    def index(self, name: str) -> int:
        """The index of an interface, which is made if there is none of this name. Raises OSError."""
        if name not in self._indexes:
            self._add([Interface(name)])
        return self._indexes[name]

    def name(self, index: int) -> str:
        """The name of the interface with this index; "" for no interface."""
        for name, known in self._indexes.items():
            if known == index:
                return name
        return ""

    def name_of_end(self, index: int) -> str:
        """The name of the interface to send frames into that arrive at the one with this index."""
        if index == LOOPBACK_INDEX:
            return self.name(index)
        return f"fwg{index}"

    def end(self, index: int) -> int:
        """The index of the interface to send frames into that arrive at the one with this index."""
        if index == LOOPBACK_INDEX:
            return index
        return index + 1

    def set_up(self, index: int) -> None:
        """Set an interface up that is none of the host's. Raises OSError."""
        settings = attribute(IFLA_AF_SPEC, _without_ipv6_addresses())
        self._request(
            [
                (RTM_NEWLINK, 0, LINK.pack(0, 0, index, 0, 0) + settings),
                (RTM_NEWLINK, 0, LINK.pack(0, 0, index, IFF_UP, IFF_UP)),
            ]
        )

    def is_broadcast(self, address: IPv4Address | IPv6Address) -> bool:
        """Whether packets to this address go to all hosts of a network."""
        return str(address) in self._broadcast_addresses

    def master(self, name: str) -> str:
        """The bridge, or other interface, that this one belongs to; "" for none."""
        interface = self._host.interface(name)
        if interface is None:
            return ""
        return interface.master

    def vrf_of(self, name: str) -> str:
        """The VRF that an interface is or belongs to; "" for none."""
        for one in (name, self.master(name)):
            interface = self._host.interface(one)
            if interface is not None and interface.kind == VRF:
                return one
        return ""

    def forwards(self, name: str, version: int) -> bool:
        """Whether the host forwards packets of IPv4 or IPv6 that come in by this interface."""
        if version == 6:
            return self._host.sysctls.ipv6_forwarding
        interface = self._host.interface(name)
        return interface is not None and interface.forwarding

    def _add(self, interfaces: Sequence[Interface]) -> None:
        """Add interfaces with their addresses, and set them up."""
        requests: list[Request] = []
        addresses: list[Request] = []
        for interface in interfaces:
            index = _FIRST_INDEX + 2 * len(self._indexes)
            self._indexes[interface.name] = index
            requests += _link(index, interface)
            addresses += _addresses(index, interface)
        self._request(requests)
        self._request(addresses)

    def _copy_routes(self) -> None:
        # A gateway has to be reachable when its route is added: routes without one come first.
        routes = sorted(self._host.routes, key=lambda route: bool(route.via or route.hops))
        requests = [(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, route_message(route, self._indexes)) for route in routes]
        self._request_or_note(requests, [f"the route to {route.to} in table {route.table}" for route in routes])

    def _copy_rules(self) -> None:
        """Replace the rules that a new namespace has. A host that is described without rules keeps those."""
        rules = self._host.rules
        if not rules:
            return
        # Rules are added before those of the new namespace go, for an address is not local without the rule of its
        # table.
        wanted = [rule for rule in rules if rule not in _FRESH_RULES]
        requests: list[Request] = [(RTM_NEWRULE, NLM_F_CREATE, rule_message(rule)) for rule in wanted]
        self._request_or_note(requests, [f"the routing rule with priority {rule.priority}" for rule in wanted])
        unwanted = set(_FRESH_RULES).difference(rules)
        request_all(self._kernel, [(RTM_DELRULE, 0, rule_message(rule)) for rule in unwanted])

    def _request_or_note(self, requests: Sequence[Request], names: Sequence[str]) -> None:
        """Send requests; what is refused is left out. Raises OSError if there is no answer."""
        for name, number in zip(names, request_all(self._kernel, requests), strict=True):
            if number not in _TOLERATED:
                self.left_out.append(f"{name}: {os.strerror(number)}")

    def _write_sysctls(self) -> None:
        for name, path in SYSCTL_PATHS.items():
            wanted = int(getattr(self._host.sysctls, name))
            if Path("/proc/sys", path).exists() and not _write_sysctl(path, str(wanted)):
                self.left_out.append(f"the setting {path.replace('/', '.')} = {wanted}: it cannot be written")

    def _request(self, requests: Sequence[Request]) -> None:
        """Raises OSError for the first request that is refused."""
        for number in request_all(self._kernel, requests):
            if number not in _TOLERATED:
                raise OSError(number, f"cannot rebuild the network of the host: {os.strerror(number)}")


def mac_of(index: int) -> bytes:
    """The MAC address that an interface has."""
    return b"\x02\xfb" + struct.pack("!I", index)


def _write_sysctl(path: str, value: str) -> bool:
    """Whether a setting has this value now."""
    file = Path("/proc/sys", path)
    with contextlib.suppress(OSError):
        file.write_text(value, encoding="ascii")
    with contextlib.suppress(OSError):
        return file.read_text(encoding="ascii").strip() == value
    return False


def _link(index: int, interface: Interface) -> Iterator[Request]:
    """Make the pair, then set the settings, then both ends up: the end that frames are sent into last, since a veth
    queues frames only once it was opened with the other end up."""
    mtu = attribute(IFLA_MTU, struct.pack("=I", max(min(interface.mtu or 1500, 65535), _SMALLEST_MTU)))
    peer = LINK.pack(0, 0, index + 1, 0, 0) + attribute(IFLA_IFNAME, b"fwg%d\0" % index) + mtu
    kind = attribute(IFLA_INFO_KIND, b"veth\0")
    kind += attribute(_IFLA_INFO_DATA, attribute(_VETH_INFO_PEER, peer))
    name = interface.name.encode("utf-8", "surrogateescape") + b"\0"
    body = LINK.pack(0, 0, index, 0, 0) + attribute(IFLA_IFNAME, name) + mtu
    body += attribute(_IFLA_ADDRESS, mac_of(index)) + attribute(IFLA_LINKINFO, kind)
    yield RTM_NEWLINK, NLM_F_CREATE, body
    yield RTM_NEWLINK, 0, LINK.pack(0, 0, index, 0, 0) + _settings(interface)
    yield RTM_NEWLINK, 0, LINK.pack(0, 0, index + 1, 0, 0) + attribute(IFLA_AF_SPEC, _without_ipv6_addresses())
    yield RTM_NEWLINK, 0, LINK.pack(0, 0, index, IFF_UP, IFF_UP)
    yield RTM_NEWLINK, 0, LINK.pack(0, 0, index + 1, IFF_UP, IFF_UP)


def _without_ipv6_addresses() -> bytes:
    """No link-local address is made: the host's are copied."""
    mode = attribute(_IFLA_INET6_ADDR_GEN_MODE, bytes([_ADDR_GEN_NONE]))
    return attribute(socket.AF_INET6, mode)


def _settings(interface: Interface) -> bytes:
    values = b""
    for name, number in DEVCONF.items():
        values += attribute(number, struct.pack("=I", int(getattr(interface, name))))
    own = attribute(socket.AF_INET, attribute(IFLA_INET_CONF, values))
    return attribute(IFLA_AF_SPEC, own + _without_ipv6_addresses())


def _loopback_settings() -> bytes:
    """Frames are sent into lo as if they came from outside, and have local addresses."""
    values = b""
    for name in ("accept_local", "route_localnet", "forwarding"):
        values += attribute(DEVCONF[name], struct.pack("=I", 1))
    values += attribute(DEVCONF["rp_filter"], bytes(4))
    return attribute(IFLA_AF_SPEC, attribute(socket.AF_INET, attribute(IFLA_INET_CONF, values)))


def _addresses(index: int, interface: Interface) -> Iterator[Request]:
    for text in interface.addresses:
        address = ip_interface(text)
        packed = address.ip.packed
        body = ADDRESS.pack(family_of(address.ip), address.network.prefixlen, 0, 0, index)
        body += attribute(IFA_LOCAL, packed) + attribute(IFA_ADDRESS, packed)
        body += attribute(_IFA_FLAGS, struct.pack("=I", _NO_DAD_NO_PREFIX_ROUTE))
        yield RTM_NEWADDR, NLM_F_CREATE, body
        if address.version == 6 and index != LOOPBACK_INDEX:
            yield RTM_NEWROUTE, NLM_F_CREATE, local_route_message(index, address.ip)
