"""What a host and set files add to the model: interfaces, addresses, routes, and the contents of sets.

This module is pure.
"""

from __future__ import annotations

from ipaddress import ip_interface
from typing import TYPE_CHECKING, Final

from fwguardd.packets.host_routes import LOOPBACK, host_routes
from fwguardd.packets.surroundings import OWN
from fwguardd.proof.fields import LOOPBACK_NETWORK, HostFacts, Interfaces
from fwguardd.proof.intervals import Intervals, complement, covers, intersection, of_network, of_numbers, single, united
from fwguardd.ruleset.model import Family
from fwguardd.ruleset.rule_view import RuleView
from fwguardd.ruleset.set_files import PLAIN_TYPES, kernel_name
from fwguardd.ruleset.values import read_network

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from fwguardd.packets.host import Host
    from fwguardd.packets.host_routes import NetworkRoute
    from fwguardd.ruleset.model import Ruleset
    from fwguardd.ruleset.set_files import SetFile

MOST_ROUTES: Final = 2_000
"""Routes of a host that are read; one with more has a routing daemon, and they change."""
MOST_ENTRIES: Final = 20_000
"""Entries of a set that are read; a larger one is not modelled."""
_DEFAULT_TABLES: Final = frozenset({253, 254, 255})
_BITS: Final = {Family.IPV4: 32, Family.IPV6: 128}


def interfaces_in(rulesets: Iterable[Ruleset]) -> Iterator[str]:
    """The names and patterns of interfaces in rules."""
    for ruleset in rulesets:
        for _, chain in ruleset.chains():
            for rule in chain.rules:
                if "-i " in rule.text or "-o " in rule.text:
                    yield from _interfaces_of(RuleView.of(rule.text))


def _interfaces_of(view: RuleView) -> Iterator[str]:
    for option in view.options:
        if option.name in ("-i", "-o"):
            yield option.value


def surroundings(
    family: Family,
    rulesets: Sequence[Ruleset],
    host: Host | None = None,
    set_files: Iterable[SetFile] = (),
    interfaces: Iterable[str] = (),
) -> HostFacts:
    """What is known for rulesets of one family that are to be compared, or asked about. ``interfaces`` are names and
    patterns in the questions."""
    names = [*interfaces, *interfaces_in(rulesets)]
    sets = _sets(family, set_files)
    if host is None:
        return HostFacts(family, Interfaces.of(names), sets=sets)
    known = Interfaces.of([*(each.name for each in host.interfaces), *names])
    return HostFacts(
        family,
        known,
        _own(host, family),
        tuple(_addresses_of(host, family, known)),
        _broadcast(host, family),
        _routes(host, family, known),
        _not_forwarding(host, family, known),
        sets,
    )


def _sets(family: Family, set_files: Iterable[SetFile]) -> dict[str, Intervals]:
    """The contents of sets of addresses. Entries of one with a timeout may be added by others at any time."""
    found: dict[str, Intervals] = {}
    for each in set_files:
        entries = each.entries[family]
        if each.kind in PLAIN_TYPES and each.timeout is None and len(entries) <= MOST_ENTRIES:
            found[kernel_name(each.name, family)] = _addresses(entries)
    return found


def _addresses(entries: Iterable[str]) -> Intervals:
    ranges: list[tuple[int, int]] = []
    for entry in entries:
        network = read_network(entry)
        if network is not None:
            ranges += of_network(network) or ()
    return united(ranges)


def _own(host: Host, family: Family) -> Intervals:
    """The addresses of the host; those of the loopback network too. One that has no others yet, as at boot, is taken to
    have an address for documentation, as by policy tests."""
    own = host_routes(host).addresses
    numbers = of_numbers(int(each.address.ip) for each in own if each.address.version == family.number)
    if covers(LOOPBACK_NETWORK[family], numbers):
        numbers = single(int(OWN[family].ip))
    return united((*LOOPBACK_NETWORK[family], *numbers))


def _addresses_of(host: Host, family: Family, known: Interfaces) -> Iterator[tuple[int, int]]:
    """The interfaces, by number, with their addresses, as numbers; link-local ones are left out."""
    for own in host_routes(host).addresses:
        address = own.address
        if address.version == family.number and not (address.is_link_local or address.is_loopback):
            yield known.number(own.interface), int(address.ip)


def _broadcast(host: Host, family: Family) -> Intervals:
    if family is Family.IPV6:
        return ()
    ranges = [(0xFFFF_FFFF, 0xFFFF_FFFF)]
    for interface in host.interfaces:
        for text in interface.addresses:
            network = ip_interface(text).network
            if network.version == 4 and network.num_addresses > 2:
                ranges.append((int(network.broadcast_address), int(network.broadcast_address)))
    return united(ranges)


def _not_forwarding(host: Host, family: Family, known: Interfaces) -> Intervals:
    """The interfaces that do not forward; where none of the host does, nor does one that it may get."""
    ipv6 = family is Family.IPV6 and host.sysctls.ipv6_forwarding
    forwarding = {each.name for each in host.interfaces if ipv6 or (each.forwarding and family is Family.IPV4)}
    if not forwarding:
        return known.real
    return of_numbers(known.number(each.name) for each in host.interfaces if each.name not in forwarding)


def _routes(host: Host, family: Family, known: Interfaces) -> dict[int, Intervals]:
    """The destinations that the host sends by each interface; none where more than the destination decides."""
    of_family = [route for route in host_routes(host).routes if route.network.version == family.number]
    if len(of_family) > MOST_ROUTES or _has_policy_routing(host):
        return {}
    return _by_interface(of_family, family, known)


def _has_policy_routing(host: Host) -> bool:
    return any(rule.table not in _DEFAULT_TABLES for rule in host.rules)


def _by_interface(routes: Sequence[NetworkRoute], family: Family, known: Interfaces) -> dict[int, Intervals]:
    ranges: dict[int, list[tuple[int, int]]] = {}
    taken: Intervals = ()
    for route in sorted(routes, key=_preference, reverse=True):
        first = int(route.network.network_address)
        whole = ((first, first + route.network.num_addresses - 1),)
        left = intersection(whole, complement(taken, _BITS[family]))
        if route.interface != LOOPBACK:
            ranges.setdefault(known.number(route.interface), []).extend(left)
        taken = united((*taken, *whole))
    return {number: united(found) for number, found in ranges.items()}


def _preference(route: NetworkRoute) -> tuple[int, int]:
    return route.network.prefixlen, -route.metric
