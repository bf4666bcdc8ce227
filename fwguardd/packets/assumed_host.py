"""A host with what policy tests assume: interfaces, addresses and routes that it lacks.

This module is pure.
"""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_interface, ip_network
from typing import TYPE_CHECKING

from fwguardd.packets.host import Host, Interface, Route
from fwguardd.packets.policy_tests import family_of
from fwguardd.ruleset.model import FAMILIES, Family

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from fwguardd.packets.case_values import Address
    from fwguardd.packets.surroundings import Assumptions, Interfaces

_ALL: Mapping[Family, str] = {Family.IPV4: "0.0.0.0/0", Family.IPV6: "::/0"}
_LENGTHS: Mapping[Family, int] = {Family.IPV4: 32, Family.IPV6: 128}
_MAIN_TABLE = 254
_LINK_SCOPE = 253


def interfaces_of(host: Host) -> Interfaces:
    """The interfaces of a host with their addresses, as policy tests need them."""
    return {each.name: tuple(map(ip_interface, each.addresses)) for each in host.interfaces}


def with_assumptions(host: Host, assumptions: Assumptions) -> Host:
    """The host with what the tests assume."""
    names = {each.name for each in host.interfaces}
    interfaces = [_with_addresses(each, assumptions) for each in host.interfaces]
    new = [name for name in assumptions.addresses if name not in names]
    interfaces += [_with_addresses(Interface(name), assumptions) for name in new]
    routes = [*host.routes]
    for address, name in assumptions.routes.items():
        routes.append(_route(f"{address}/{_LENGTHS[family_of(address)]}", name, family_of(address)))
    for name, addresses in assumptions.addresses.items():
        routes += [
            _route(str(each.network), name, family_of(each)) for each in addresses if each.network.num_addresses > 1
        ]
    routes += _default_routes(host, assumptions)
    return replace(host, interfaces=tuple(interfaces), routes=tuple(routes))


def _with_addresses(interface: Interface, assumptions: Assumptions) -> Interface:
    added = tuple(str(address) for address in assumptions.addresses.get(interface.name, ()))
    return replace(interface, addresses=(*interface.addresses, *added))


def _default_routes(host: Host, assumptions: Assumptions) -> Iterable[Route]:
    present = {route.to for route in host.routes if route.table == _MAIN_TABLE}
    for family in FAMILIES:
        name = assumptions.default_routes.get(family)
        if name is not None and _ALL[family] not in present:
            yield _route(_ALL[family], name, family)


def _route(to: str, name: str, family: Family) -> Route:
    scope = 0
    if family is Family.IPV4:
        scope = _LINK_SCOPE
    return Route(to, dev=name, scope=scope)


def interface_towards(host: Host, address: Address) -> str | None:
    """The interface of the longest route of the main table to an address; None without a route."""
    best = -1
    found: str | None = None
    for route in host.routes:
        network = ip_network(route.to, strict=False)
        longer = network.version == address.version and network.prefixlen > best
        if longer and route.table == _MAIN_TABLE and address in network:
            best = network.prefixlen
            found = route.dev or _first_hop(route)
    return found


def _first_hop(route: Route) -> str | None:
    for hop in route.hops:
        return hop.dev
    return None
