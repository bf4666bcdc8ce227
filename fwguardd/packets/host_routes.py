"""The addresses of a host and its routes: which interface a packet comes in by, and what a description leaves out.

The kernel's own decision is made in the bed; where a host routes by more than the destination, the two may differ.

This module is pure.
"""

from __future__ import annotations

from ipaddress import ip_address, ip_interface, ip_network
from itertools import chain
from operator import attrgetter
from typing import TYPE_CHECKING, Final

from fwguardd.packets.model import Packet
from fwguardd.packets.packet_words import CLIENT_PORT, WITH_PORTS, NoRouteError, PacketWordsError
from fwguardd.ruleset.model import Family
from fwguardd.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Iterator
    from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network

    from fwguardd.packets.host import Host, Interface, Route
    from fwguardd.packets.packet_words import PacketWords

    Address = IPv4Address | IPv6Address
    Network = IPv4Network | IPv6Network

LOOPBACK: Final = "lo"
MAIN_TABLE: Final = 254
UNICAST: Final = 1
"""linux/rtnetlink.h, as in `Route`."""
LOOPBACK_ADDRESSES: Final = {4: ip_address("127.0.0.1"), 6: ip_address("::1")}
_ECHO_REQUEST: Final = {"icmp": 8, "icmpv6": 128}
FAMILIES: Final = {4: Family.IPV4, 6: Family.IPV6}


@dataclass(frozen=True, slots=True)
class OwnAddress:
    """An address of the host, with its network, on an interface that is up."""

    interface: str
    address: IPv4Interface | IPv6Interface


@dataclass(frozen=True, slots=True)
class NetworkRoute:
    """A route of the main table: packets to this network leave by this interface. A lower metric wins."""

    network: Network
    interface: str
    metric: int = 0


@dataclass(frozen=True, slots=True)
class HostRoutes:
    """The addresses of a host, and its routes to all addresses, its own by the loopback interface."""

    addresses: tuple[OwnAddress, ...]
    routes: tuple[NetworkRoute, ...]

    def is_own(self, address: Address) -> bool:
        """Whether packets to the address are for the host itself."""
        return self.interface_to(address) == LOOPBACK

    def interface_to(self, address: Address) -> str:
        """The interface by which packets to the address leave; "" without a route."""
        fitting = [route for route in self.routes if address in route.network]
        return max(fitting, key=_preference, default=_NO_ROUTE).interface

    def address_on(self, interface: str, version: int) -> Address | None:
        """The first global address of an interface, or else its first address."""
        wanted = (interface, version)
        found = [own.address.ip for own in self.addresses if (own.interface, own.address.version) == wanted]
        return min(found, key=_is_link_local, default=None)

    def any_address(self, version: int) -> Address | None:
        """An address of the host that others can send to; None where it has none of the family."""
        outer = self.interfaces()
        found = [own.address.ip for own in self.addresses if own.interface in outer and own.address.version == version]
        return min(found, key=_is_link_local, default=None)

    def interfaces(self) -> tuple[str, ...]:
        """The interfaces that have addresses, without the loopback interface."""
        names = dict.fromkeys(map(attrgetter("interface"), self.addresses))
        names.pop(LOOPBACK, None)
        return tuple(names)

    def networks(self, version: int) -> Iterator[tuple[str, Network]]:
        """The networks that are directly reached, each with the interface; link-local ones are left out."""
        for own in self.addresses:
            if own.address.version == version and not own.address.is_link_local and own.interface != LOOPBACK:
                yield own.interface, own.address.network

    def default_interfaces(self, version: int) -> tuple[str, ...]:
        """The interfaces with a default route, the preferred one first."""
        everything = _EVERYTHING[version]
        routes = [route for route in self.routes if route.network == everything]
        return tuple(dict.fromkeys(map(attrgetter("interface"), sorted(routes, key=_by_metric))))


_NO_ROUTE: Final = NetworkRoute(ip_network("0.0.0.0/0"), "")
_EVERYTHING: Final = {4: ip_network("0.0.0.0/0"), 6: ip_network("::/0")}
_LOOPBACK_ROUTES: Final = (
    NetworkRoute(ip_network("127.0.0.0/8"), LOOPBACK),
    NetworkRoute(ip_network("::1/128"), LOOPBACK),
)


def host_routes(host: Host) -> HostRoutes:
    """The routes of a host: the addresses of its interfaces that are up, and the routes of its main table."""
    addresses = tuple(chain.from_iterable(map(_addresses, filter(_is_up, host.interfaces))))
    own = map(_own_route, addresses)
    others = chain.from_iterable(map(_routes, filter(_is_main, host.routes)))
    return HostRoutes(addresses, (*_LOOPBACK_ROUTES, *own, *others))


def _own_route(own: OwnAddress) -> NetworkRoute:
    """Packets to an address of the host stay in it."""
    return NetworkRoute(ip_network(own.address.ip), LOOPBACK)


def _is_up(interface: Interface) -> bool:
    return interface.up


def _addresses(interface: Interface) -> Iterator[OwnAddress]:
    for text in interface.addresses:
        yield OwnAddress(interface.name, ip_interface(text))


def _is_main(route: Route) -> bool:
    """Whether a route is one of the main table that depends on the destination only."""
    return (route.table, route.type, route.source) == (MAIN_TABLE, UNICAST, "")


def _routes(route: Route) -> Iterator[NetworkRoute]:
    """A route, or one for each of its next hops."""
    for device in filter(None, (route.dev, *map(attrgetter("dev"), route.hops))):
        yield NetworkRoute(ip_network(route.to), device, route.metric)


def _preference(route: NetworkRoute) -> tuple[int, int]:
    return route.network.prefixlen, -route.metric


def _by_metric(route: NetworkRoute) -> int:
    return route.metric


def _is_link_local(address: Address) -> bool:
    return address.is_link_local


def completed(words: PacketWords, routes: HostRoutes, uid: int | None = None, gid: int | None = None) -> Packet:
    """The packet that words describe, with what they leave out. Raises PacketWordsError where that is not known."""
    version = _version(words)
    in_interface, out_interface = _interfaces(words, routes)
    source = words.source.address or _own_address(out_interface, "source", version, routes)
    destination = words.destination.address or _own_address(in_interface, "destination", version, routes)
    if source.version != destination.version:
        raise PacketWordsError(f"{source} and {destination} are of two families")
    return Packet(
        FAMILIES[source.version],
        words.protocol,
        source,
        destination,
        *_ports(words),
        in_interface,
        out_interface,
        words.state,
        icmp_type=_icmp_type(words),
        flags=words.flags,
        uid=uid,
        gid=gid,
        mark=words.mark,
        fragment=words.fragment,
    )


def _icmp_type(words: PacketWords) -> int | None:
    """The type that is given; without one, that of an echo request."""
    if words.icmp_type is None:
        return _ECHO_REQUEST.get(words.protocol)
    return words.icmp_type


def _version(words: PacketWords) -> int:
    address = words.source.address or words.destination.address
    if address is None:
        raise PacketWordsError("expected an address of the other host, as in: in eth0 tcp 203.0.113.9 :22")
    return address.version


def _ports(words: PacketWords) -> tuple[int | None, int | None]:
    """Source and destination port; a protocol with ports needs the latter."""
    if words.protocol not in WITH_PORTS:
        return None, None
    if words.destination.port is None:
        raise PacketWordsError(f"expected a port after the destination, as in {words.destination.address or ''}:22")
    return words.source.port or CLIENT_PORT, words.destination.port


def _interfaces(words: PacketWords, routes: HostRoutes) -> tuple[str | None, str | None]:
    """The interfaces that are named; else those by which the addresses are reached, if they are not the host's own."""
    named = words.in_interface, words.out_interface
    if named != (None, None):
        return named
    found = _interface_to(words.source.address, routes), _interface_to(words.destination.address, routes)
    if found == (None, None):
        return LOOPBACK, None
    return found


def _interface_to(address: Address | None, routes: HostRoutes) -> str | None:
    """The interface by which another host is reached; None for this host. Raises NoRouteError."""
    if address is None or routes.is_own(address):
        return None
    interface = routes.interface_to(address)
    if not interface:
        raise NoRouteError(address)
    return interface


def _own_address(interface: str | None, what: str, version: int, routes: HostRoutes) -> Address:
    """The address of this host on an interface, or another one of it. Raises PacketWordsError."""
    if interface == LOOPBACK:
        return LOOPBACK_ADDRESSES[version]
    address = routes.address_on(interface or "", version) or routes.any_address(version)
    if address is None:
        raise PacketWordsError(f"this host has no IPv{version} address: give the {what} address too")
    return address
