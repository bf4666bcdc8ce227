"""A host with what policy tests assume: interfaces, addresses and routes that it lacks.

This module is pure.
"""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_interface
from typing import TYPE_CHECKING

from fwguardd.packets.host import Host, Interface, Route
from fwguardd.packets.host_routes import host_routes
from fwguardd.packets.policy_tests import family_of
from fwguardd.packets.surroundings import neighbour
from fwguardd.ruleset.model import FAMILIES, Family

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from fwguardd.packets.surroundings import Assumptions, Interfaces, Reached

_ALL: Mapping[Family, str] = {Family.IPV4: "0.0.0.0/0", Family.IPV6: "::/0"}
_LENGTHS: Mapping[Family, int] = {Family.IPV4: 32, Family.IPV6: 128}
_MAIN_TABLE = 254
_LINK_SCOPE = 253


def interfaces_of(host: Host) -> Interfaces:
    """The interfaces of a host with their addresses, as policy tests need them."""
    return {each.name: tuple(map(ip_interface, each.addresses)) for each in host.interfaces}


def reached_by(host: Host) -> Reached:
    """The interfaces by which the host reaches the hosts that policy tests choose, for each family: not those that are
    down, that belong to a bridge, or whose network is reached by another one."""
    routes, interfaces = host_routes(host), interfaces_of(host)
    found: Reached = {}
    for family in FAMILIES:
        names = [name for name in interfaces if routes.interface_to(neighbour(interfaces, name, family)) == name]
        found[family] = frozenset(names)
    return found


def with_assumptions(host: Host, assumptions: Assumptions) -> Host:
    """The host with what the tests assume."""
    present = {each.name for each in host.interfaces}
    missing = [Interface(name) for name in assumptions.addresses if name not in present]
    interfaces = [_with_addresses(each, assumptions) for each in (*host.interfaces, *missing)]
    routes = (*host.routes, *_routes(assumptions), *_default_routes(host, assumptions))
    return replace(host, interfaces=tuple(interfaces), routes=routes)


def _routes(assumptions: Assumptions) -> Iterator[Route]:
    """The routes to the networks of added addresses, and to destinations."""
    for address, name in assumptions.routes.items():
        family = family_of(address)
        yield _route(f"{address}/{_LENGTHS[family]}", name, family)
    for name, addresses in assumptions.addresses.items():
        for each in addresses:
            if each.network.num_addresses > 1:
                yield _route(str(each.network), name, family_of(each))


def _with_addresses(interface: Interface, assumptions: Assumptions) -> Interface:
    added = tuple(str(address) for address in assumptions.addresses.get(interface.name, ()))
    return replace(interface, addresses=(*interface.addresses, *added))


def _default_routes(host: Host, assumptions: Assumptions) -> Iterator[Route]:
    present = {route.to for route in host.routes if route.table == _MAIN_TABLE}
    for family, name in assumptions.default_routes.items():
        if _ALL[family] not in present:
            yield _route(_ALL[family], name, family)


def _route(to: str, name: str, family: Family) -> Route:
    scope = 0
    if family is Family.IPV4:
        scope = _LINK_SCOPE
    return Route(to, dev=name, scope=scope)
