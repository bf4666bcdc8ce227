"""The clients whose packets are sent to this host, to learn who can reach it.

They are the host itself, the network of each interface, each network that a rule names as a source, and one address of
the Internet that no rule names. Its address stands for all others of its network: rules of iptables treat them alike,
unless they name a part of them.

This module is pure.
"""

from __future__ import annotations

import contextlib
import re
from ipaddress import ip_address, ip_network
from itertools import chain
from typing import TYPE_CHECKING, Final

from fwguardd.packets.host_routes import FAMILIES, LOOPBACK, LOOPBACK_ADDRESSES
from fwguardd.ruleset.rule_view import RuleView
from fwguardd.ruleset.save_format import rules_in_order
from fwguardd.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

    from fwguardd.packets.host_routes import HostRoutes
    from fwguardd.ruleset.model import Family, Ruleset

    Address = IPv4Address | IPv6Address
    Network = IPv4Network | IPv6Network

ANYWHERE: Final = "anywhere"
THIS_HOST: Final = "this host"
MOST_NETWORKS: Final = 32
"""Networks that rules name, of one family, from which packets are sent."""

_EVERYTHING: Final = {4: ip_network("0.0.0.0/0"), 6: ip_network("::/0")}
_NAMES_SOURCE: Final = re.compile(r"(?:^| )-s |--src-range ")
_INTERNET: Final[Mapping[int, Sequence[str]]] = {
    4: ("45.130.86.29", "91.199.27.131", "212.77.98.9", "8.26.56.78"),
    6: ("2a0c:e640:42::29", "2606:af40:1::131", "2c0f:f598::9", "2400:cb00:78::8"),
}
"""Addresses of the Internet; the first one that no rule names stands for all."""


@dataclass(frozen=True, slots=True)
class Client:
    """A client: its name for people, the interface by which its packets come in, and the address that stands for it."""

    name: str
    interface: str
    source: Address

    @property
    def family(self) -> Family:
        """The family of the packets."""
        return FAMILIES[self.source.version]


def clients_of(routes: HostRoutes, rulesets: Mapping[Family, Ruleset]) -> tuple[tuple[Client, ...], tuple[str, ...]]:
    """The clients, and notes about those that were left out."""
    found: dict[tuple[str, str, int], Client] = {}
    notes: list[str] = []
    for version, family in FAMILIES.items():
        named = tuple(networks_named(rulesets.get(family)))
        if len(named) > MOST_NETWORKS:
            notes.append(
                f"of {len(named)} {family.value} networks that rules name, the first {MOST_NETWORKS} are tried"
            )
        for client in _Clients(version, routes, named[:MOST_NETWORKS]).all():
            found.setdefault((client.name, client.interface, version), client)
    return tuple(found.values()), tuple(notes)


@dataclass(frozen=True, slots=True)
class _Clients:
    """The clients of one family. ``named`` are the networks that rules name."""

    version: int
    routes: HostRoutes
    named: tuple[Network, ...]

    def all(self) -> Iterator[Client]:
        """The host itself, the networks of its interfaces, those of rules, and the Internet."""
        yield Client(THIS_HOST, LOOPBACK, LOOPBACK_ADDRESSES[self.version])
        local = dict(self._local())
        for network, interface in local.items():
            yield from self._in(network, interface, f"{interface} ({network})")
        for network in filter(self._is_elsewhere, self.named):
            if network not in local:
                yield from self._in(network, self.routes.interface_to(network.network_address), _short(network))
        yield from self._internet((*self.named, *local))

    def _local(self) -> Iterator[tuple[Network, str]]:
        for interface, network in self.routes.networks(self.version):
            yield network, interface

    def _is_elsewhere(self, network: Network) -> bool:
        """Whether a network that a rule names is a part of the world outside that has a route."""
        if not network.prefixlen or network.is_multicast or network.is_link_local:
            return False
        return self.routes.interface_to(network.network_address) not in ("", LOOPBACK)

    def _in(self, network: Network, interface: str, name: str) -> Iterator[Client]:
        """A client in a network, by an address in it that is not one of this host and that no narrower rule names."""
        for address in _hosts_of(network):
            if not self.routes.is_own(address) and not _is_in(address, _narrower(self.named, network)):
                yield Client(name, interface, address)
                return

    def _internet(self, known: Sequence[Network]) -> Iterator[Client]:
        """The Internet, by each interface with a default route."""
        narrower = _narrower(known, _EVERYTHING[self.version])
        addresses = [address for address in map(ip_address, _INTERNET[self.version]) if not _is_in(address, narrower)]
        for interface in self.routes.default_interfaces(self.version):
            for address in addresses[:1]:
                yield Client(ANYWHERE, interface, address)


def _narrower(networks: Iterable[Network], than: Network) -> list[Network]:
    return [network for network in networks if network.prefixlen > than.prefixlen]


def _is_in(address: Address, networks: Iterable[Network]) -> bool:
    return any(address in network for network in networks)


def _hosts_of(network: Network) -> Iterator[Address]:
    """Some addresses of a network, from its end, its middle and its start."""
    size = network.num_addresses
    for offset in dict.fromkeys((max(size - 2, 0), size // 2, *range(1, min(size, 16)))):
        yield network[offset]


def _short(network: Network) -> str:
    """A network as people write it: an address alone without its mask."""
    if network.num_addresses == 1:
        return str(network.network_address)
    return str(network)


def networks_named(ruleset: Ruleset | None) -> Iterator[Network]:
    """The networks that rules name as sources, negated or not, each once."""
    networks: dict[Network, None] = {}
    for text in _texts(ruleset):
        networks |= dict.fromkeys(chain.from_iterable(map(_network, _sources(text))))
    yield from networks


def _texts(ruleset: Ruleset | None) -> Iterator[str]:
    """The texts of rules with a source."""
    if ruleset is not None:
        for rule in rules_in_order(ruleset):
            if _NAMES_SOURCE.search(rule.text):
                yield rule.text


def _sources(text: str) -> tuple[str, str]:
    view = RuleView.of(text)
    return view.value("-s") or "", (view.value("--src-range") or "").partition("-")[0]


def _network(text: str) -> Iterator[Network]:
    with contextlib.suppress(ValueError):
        yield ip_network(text, strict=False)
