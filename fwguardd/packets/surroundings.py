"""The host of policy tests: its interfaces and addresses, and what the tests assume besides.

This module is pure.
"""

from __future__ import annotations

from dataclasses import field
from ipaddress import IPv4Interface, IPv6Interface, ip_address, ip_interface
from typing import TYPE_CHECKING

from fwguardd.packets.case_values import did_you_mean
from fwguardd.packets.policy_tests import BAD_TEST, family_of
from fwguardd.ruleset.model import Family, Finding, Severity
from fwguardd.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fwguardd.packets.case_values import Address
    from fwguardd.packets.policy_tests import PolicyTest

ASSUMED = "test-assumes"
"""The code of warnings about what the host of the tests lacks."""

Interface = IPv4Interface | IPv6Interface
"""An address with the length of its network."""

Interfaces = dict[str, tuple[Interface, ...]]
"""The interfaces of a host by name, with their addresses."""

Reached = dict[Family, frozenset[str]]
"""Interfaces by which a host reaches other hosts, of each family."""

LOOPBACK = "lo"

OWN: Mapping[Family, Interface] = {
    Family.IPV4: ip_interface("192.0.2.1/24"),
    Family.IPV6: ip_interface("2001:db8::1/64"),
}
"""The addresses of a host that has none of a family: those for documentation (RFC 5737, RFC 3849)."""

ANYWHERE: Mapping[Family, Address] = {
    Family.IPV4: ip_address("198.51.100.254"),
    Family.IPV6: ip_address("2001:db8:ffff::fe"),
}
"""Addresses elsewhere, for documentation too."""

_BROADCAST = ip_address("255.255.255.255")

LOOPBACKS: Mapping[Family, Address] = {Family.IPV4: ip_address("127.0.0.1"), Family.IPV6: ip_address("::1")}


@dataclass(frozen=True, slots=True)
class Assumptions:
    """What has to be added to the host for the tests: interfaces and addresses, by interface; routes to destinations
    through the interfaces that were added; and, for a host that has none, the interfaces of default routes."""

    addresses: Interfaces = field(default_factory=dict)
    routes: Mapping[Address, str] = field(default_factory=dict)
    default_routes: Mapping[Family, str] = field(default_factory=dict)


@dataclass(slots=True)
class Surroundings:
    """The interfaces of the host and those that tests need besides.

    ``reached`` are the interfaces by which the host reaches other hosts, of each family; None stands for those that
    have an address.
    """

    interfaces: Interfaces
    reached: Reached | None = None
    findings: list[Finding] = field(default_factory=list)
    _added: Interfaces = field(default_factory=dict)
    _made: set[str] = field(default_factory=set)
    _routes: dict[Address, str] = field(default_factory=dict)
    _out: dict[Family, str] = field(default_factory=dict)

    def assumptions(self) -> Assumptions:
        """What the tests need besides."""
        return Assumptions(self._added, self._routes, self._out)

    def matching(self, patterns: Sequence[str], family: Family | None = None) -> list[str]:
        """The interfaces that the patterns name; a "+" at the end stands for all that begin so and by which the host
        reaches other hosts of the family, except for loopback."""
        found: dict[str, None] = {}
        for pattern in patterns:
            for name in self.interfaces:
                if name == pattern or (_begins(name, pattern) and self._reaches(name, family)):
                    found[name] = None
        return list(found)

    def _reaches(self, name: str, family: Family | None) -> bool:
        if family is None:
            return True
        if self.reached is None or name in self._made:
            return _has(self.interfaces[name], family)
        return name in self.reached[family]

    def note(self, test: PolicyTest, message: str, severity: Severity, hint: str = "") -> None:
        """Note a finding about a test."""
        code = ASSUMED
        if severity is Severity.ERROR:
            code = BAD_TEST
        self.findings.append(Finding(code, message, test.origin, severity, hint))

    def prepare(self, test: PolicyTest) -> None:
        """Add what the test names and the host lacks."""
        for pattern in (*test.in_interface, *test.out_interface):
            self._add_interface(test, pattern)
        for family in test.family:
            self._prepare_family(test, family)
        if not test.out_interface:
            for address in test.destination:
                self._add_address(test, address)

    def _prepare_family(self, test: PolicyTest, family: Family) -> None:
        self._add_family(test, family)
        for name in self.matching(test.out_interface, family):
            self._add_routes(test, family, name)

    def _add_interface(self, test: PolicyTest, pattern: str) -> None:
        if self.matching((pattern,)):
            return
        name = pattern
        if pattern.endswith("+"):
            name = f"{pattern.removesuffix('+') or 'eth'}0"
        if pattern != "+":
            message = f"this host has no interface {pattern}: the test assumes one"
            self.note(test, f"{message}{did_you_mean(pattern, tuple(self.interfaces))}", Severity.WARNING)
        self._add(name, ())
        self._made.add(name)

    def _add_routes(self, test: PolicyTest, family: Family, name: str) -> None:
        """Add routes through an interface to the destinations of a test: one to each if the host lacks the interface,
        else a default route."""
        for address in of_family(test.destination, family) or [neighbour(self.interfaces, name, family)]:
            if name in self._made:
                self._routes.setdefault(address, name)
            elif not _is_on_link(self.interfaces[name], address):
                self._out.setdefault(family, name)

    def _add_family(self, test: PolicyTest, family: Family) -> None:
        """Add an address to a host that has none of the family."""
        patterns = (*test.in_interface, *test.out_interface)
        names = self.matching(patterns)
        left_out = patterns[0].endswith("+") and names[0] not in self._made
        if not left_out and own_address(self.interfaces, "", family) is None:
            self._add(names[0], (OWN[family],))

    def _add_address(self, test: PolicyTest, address: Address) -> None:
        """Add the destination of a packet that arrives where the host does not have it."""
        if _is_local(self.interfaces, address):
            return
        name = self.matching(test.in_interface)[0]
        message = f"{address} is not an address of this host: the test assumes that {name} has it"
        hint = "name an address of this host, or none; out: too makes it a packet that is forwarded"
        self.note(test, message, Severity.WARNING, hint)
        self._add(name, (ip_interface(address),))

    def _add(self, name: str, addresses: tuple[Interface, ...]) -> None:
        self.interfaces[name] = (*self.interfaces.get(name, ()), *addresses)
        self._added[name] = (*self._added.get(name, ()), *addresses)


def _begins(name: str, pattern: str) -> bool:
    return pattern.endswith("+") and name != LOOPBACK and name.startswith(pattern[:-1])


def _has(addresses: tuple[Interface, ...], family: Family) -> bool:
    """Whether there is an address of a family that is not link-local."""
    return any(family_of(address) is family and not address.is_link_local for address in addresses)


def _is_on_link(addresses: tuple[Interface, ...], destination: Address) -> bool:
    return any(destination in address.network for address in addresses)


def own_address(interfaces: Mapping[str, tuple[Interface, ...]], name: str, family: Family) -> Interface | None:
    """An address of the host, that of the interface if it has one; the link-local ones last."""
    own = _of_interface(interfaces.get(name, ()), family)
    others = [address for addresses in interfaces.values() for address in _of_interface(addresses, family)]
    shared = [address for address in (*own, *others) if not address.is_link_local]
    return next(iter((*shared, *own)), None)


def _of_interface(addresses: tuple[Interface, ...], family: Family) -> list[Interface]:
    return [address for address in addresses if family_of(address) is family and not address.is_loopback]


def _is_local(interfaces: Mapping[str, tuple[Interface, ...]], address: Address) -> bool:
    """Whether packets to an address are for the host: its own addresses, broadcast and multicast ones."""
    if address.is_multicast or address.is_loopback or address == _BROADCAST:
        return True
    return any(address in _taken_by(own) for addresses in interfaces.values() for own in addresses)


def _taken_by(own: Interface) -> tuple[Address, ...]:
    """The addresses that an address of the host stands for: itself, and the broadcast address of its network."""
    if own.version == 4:
        return own.ip, own.network.broadcast_address
    return (own.ip,)


def neighbour(interfaces: Mapping[str, tuple[Interface, ...]], name: str, family: Family) -> Address:
    """Another address in the network of an interface; one elsewhere if the interface is in no network."""
    if name == LOOPBACK:
        return LOOPBACKS[family]
    for own in interfaces.get(name, ()):
        if family_of(own) is not family or own.is_link_local or own.network.num_addresses < 4:
            continue
        return _other_address(own)
    return ANYWHERE[family]


def _other_address(own: Interface) -> Address:
    """The first address of a network that is not this one, nor that of the network itself."""
    first = own.network.network_address + 1
    if first == own.ip:
        return first + 1
    return first


def of_family(addresses: Sequence[Address], family: Family) -> list[Address]:
    """Those of the addresses that are of a family."""
    return [address for address in addresses if family_of(address) is family]
