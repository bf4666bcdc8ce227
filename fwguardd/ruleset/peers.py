"""The addresses that an entry is about: networks of both families, and sets.

This module is pure.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import TYPE_CHECKING

from fwguardd.ruleset.references import LONGEST_SET_NAME
from fwguardd.ruleset.services import BOTH, IPV4, IPV6, Peers

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

Network = IPv4Network | IPv6Network

IN_A_RULE = 50
"""Addresses that one line names; iptables makes a rule of each."""

_SET_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")


class AddressError(Exception):
    """A word that is neither an address nor a network. The message says what to write."""


def read_address(text: str) -> Network:
    """An address or a network. Raises AddressError."""
    try:
        return ip_network(text)
    except ValueError:
        pass
    try:
        network = ip_network(text, strict=False)
    except ValueError:
        advice = "write 192.0.2.1, 192.0.2.0/24 or 2001:db8::/32; for a list, put it into a file and write @FILE"
        raise AddressError(f"{text!r} is neither an address nor a network; {advice}") from None
    raise AddressError(f"{text}: the address has bits behind the mask; write {network}, or the address alone")


def is_set_name(text: str) -> bool:
    """Whether a word can only be the name of a set: it has no dot and no colon, as addresses do."""
    return _SET_NAME.fullmatch(text) is not None and len(text) <= LONGEST_SET_NAME


def shown(network: Network) -> str:
    """A network as people write it: an address alone without its mask."""
    if network.prefixlen == network.max_prefixlen:
        return str(network.network_address)
    return str(network)


def addresses_in(text: str) -> list[Network]:
    """The addresses of a file: one or more on a line, separated by blanks or commas, with # comments.

    Raises AddressError, which names the line.
    """
    found: list[Network] = []
    for number, line in enumerate(text.splitlines(), 1):
        for word in line.partition("#")[0].replace(",", " ").split():
            try:
                found.append(read_address(word))
            except AddressError as error:
                raise AddressError(f"line {number}: {error}") from None
    return found


def peers_of(networks: Iterable[Network], sets: Sequence[str], *, outward: bool) -> list[Peers]:
    """How rules match these peers, each family apart. All peers are meant where none is given."""
    option, direction = "-s", "src"
    if outward:
        option, direction = "-d", "dst"
    by_family: dict[str, list[str]] = {IPV4: [], IPV6: []}
    for network in dict.fromkeys(networks):
        by_family[_family(network)].append(shown(network))
    peers: list[Peers] = []
    for family, texts in by_family.items():
        peers += [Peers(family, f"{option} {part}") for part in _parts(texts)]
    peers += [Peers(BOTH, f"-m set --match-set {name} {direction}") for name in sets]
    return peers or [Peers(BOTH, "")]


def _family(network: Network) -> str:
    if isinstance(network, IPv6Network):
        return IPV6
    return IPV4


def _parts(texts: Sequence[str]) -> Iterator[str]:
    """Lists of addresses, each as long as a line takes."""
    for start in range(0, len(texts), IN_A_RULE):
        yield ",".join(texts[start : start + IN_A_RULE])
