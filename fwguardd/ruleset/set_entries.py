"""Entries of set files that are not addresses alone: addresses with ports or interfaces, MAC addresses, ports.

Each is written as ipset(8) prints it, so that what the kernel holds can be compared with the file.

This module is pure.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from fwguardd.patterns import pattern
from fwguardd.ruleset.model import FAMILIES, Family
from fwguardd.ruleset.set_ranges import ADDRESS, SetLineError, networks_of, range_of
from fwguardd.wording import quoted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    Entries = Iterator[tuple[Family, str]]

PROTOCOL_NUMBERS = {"tcp": 6, "udp": 17, "sctp": 132, "udplite": 136}
"""Protocols with ports that sets know (ip_set_proto_with_ports() in linux/netfilter/ipset/ip_set_getport.h)."""

_FAMILY = {4: Family.IPV4, 6: Family.IPV6}
_PORTS = pattern(r"(?:([a-z]+):)?([0-9]{1,5})(?:-([0-9]{1,5}))?")
_MAC = pattern(r"[0-9A-Fa-f]{2}(?::[0-9A-Fa-f]{2}){5}")
_INTERFACE = pattern(r"(?:physdev:)?[^\s,:/*+]{1,15}")
"""An interface, or the port of a bridge; the kernel's names have at most 15 characters (IFNAMSIZ)."""


def entries_of(kind: str, word: str) -> Entries:
    """The entries that a word stands for, with the family of each. Raises SetLineError."""
    return COMPOUND[kind][0](word)


def forms_of(kind: str) -> str:
    """How entries of a type are written, for a hint."""
    return COMPOUND[kind][1]


def _single_with_port(word: str) -> Entries:
    """Addresses with ports (hash:ip,port)."""
    address, ports = _parts(word)
    version, first, last = range_of(address)
    if first != last:
        raise SetLineError(f"{word}: a set of the type hash:ip,port has single addresses only; take hash:net,port")
    for port in _ports(ports):
        yield _FAMILY[version], f"{ADDRESS[version](first)},{port}"


def _network_with_port(word: str) -> Entries:
    """Networks with ports (hash:net,port)."""
    network, ports = _parts(word)
    for (family, text), port in itertools.product(_networks(network), list(_ports(ports))):
        yield family, f"{text},{port}"


def _network_with_interface(word: str) -> Entries:
    """Networks with interfaces (hash:net,iface)."""
    network, interface = _parts(word)
    if _INTERFACE.fullmatch(interface) is None or interface in (".", ".."):
        raise SetLineError(f"{quoted(interface)} is not the name of an interface")
    for family, text in _networks(network):
        yield family, f"{text},{interface}"


def _mac(word: str) -> Entries:
    """MAC addresses (hash:mac), in the sets of both families."""
    if _MAC.fullmatch(word) is None:
        raise SetLineError(f"{quoted(word)} is not a MAC address")
    if not int(word.replace(":", ""), 16):
        raise SetLineError(f"{word}: a set cannot have this address")
    for family in FAMILIES:
        yield family, word.upper()


def _port(word: str) -> Entries:
    """Ports (bitmap:port), in the sets of both families."""
    for number, family in itertools.product(_numbers(word, word), FAMILIES):
        yield family, str(number)


COMPOUND: Mapping[str, tuple[Callable[[str], Entries], str]] = {
    "hash:ip,port": (_single_with_port, "write an address and a port: 192.0.2.1,tcp:443, 2001:db8::1,udp:53-54"),
    "hash:net,port": (_network_with_port, "write a network and a port: 192.0.2.0/24,tcp:443, 2001:db8::/32,udp:53-54"),
    "hash:net,iface": (_network_with_interface, "write a network and an interface: 192.0.2.0/24,eth0"),
    "hash:mac": (_mac, "write a MAC address: 02:00:5e:10:00:01"),
    "bitmap:port": (_port, "write a port or a range of them: 443, 8000-8009"),
}
"""How entries of each type are read, and written."""

WITHOUT_FAMILY = frozenset({"hash:mac", "bitmap:port"})
"""Types that are for both families."""


def _parts(word: str) -> tuple[str, str]:
    """The two parts of an entry. Raises SetLineError."""
    first, comma, second = word.partition(",")
    if not comma:
        raise SetLineError(f"{quoted(word)} has only one part")
    return first.strip(), second.strip()


def _networks(word: str) -> Entries:
    version, first, last = range_of(word)
    for text in networks_of([(first, last)], ADDRESS[version]):
        yield _FAMILY[version], text


def _ports(word: str) -> Iterator[str]:
    """Ports with their protocol, as ipset(8) prints them; without one it is tcp. Raises SetLineError."""
    match = _PORTS.fullmatch(word)
    if match is None:
        raise SetLineError(f"{quoted(word)} is not a port with a protocol, such as tcp:443")
    protocol = match[1] or "tcp"
    if protocol not in PROTOCOL_NUMBERS:
        raise SetLineError(
            f"{quoted(protocol)} is not a protocol with ports that sets know: {', '.join(PROTOCOL_NUMBERS)}"
        )
    for number in _numbers(word.rpartition(":")[2], word):
        yield f"{protocol}:{number}"


def _numbers(text: str, word: str) -> range:
    """The ports of a number or a range. Raises SetLineError."""
    first, dash, last = text.partition("-")
    if not (first.isdecimal() and (last.isdecimal() or not dash)):
        raise SetLineError(f"{quoted(word)} is neither a port nor a range of ports")
    numbers = range(int(first), int(last or first) + 1)
    if not numbers or numbers[-1] > 65_535:
        raise SetLineError(f"{quoted(word)}: ports are numbers up to 65535, the smaller one first")
    return numbers
