"""The values of policy tests: ports, addresses, ICMP types, TCP flags and marks, each as a text -> the values it means.

A range or a network means each value in it. A text that means nothing raises ValueError with a message for its author.

This module is pure.
"""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import TYPE_CHECKING

from fwguardd.packets.model import TCP_FLAGS
from fwguardd.ruleset.model import FAMILIES, Family
from fwguardd.ruleset.suggestions import nearest_name
from fwguardd.wording import quoted

if TYPE_CHECKING:
    from collections.abc import Mapping

Address = IPv4Address | IPv6Address

MOST_PACKETS = 100_000
"""Packets of one test, and of all tests together."""

MOST_NAMES = 20
"""Known words that a message lists."""

PORT_PROTOCOLS = frozenset({"tcp", "udp", "sctp"})
"""Protocols with ports."""

_NUMBERS = (
    *(("1", "icmp"), ("6", "tcp"), ("17", "udp"), ("132", "sctp")),
    *(("igmp", "2"), ("ipip", "4"), ("dccp", "33"), ("ipv6", "41"), ("gre", "47"), ("esp", "50"), ("ah", "51")),
    *(("ospf", "89"), ("pim", "103"), ("vrrp", "112"), ("udplite", "136")),
)

_PROTOCOLS: Mapping[str, str] = {
    **{name: name for name in ("tcp", "udp", "icmp", "icmpv6", "sctp")},
    **dict.fromkeys(("ipv6-icmp", "icmp6", "58"), "icmpv6"),
    **dict(_NUMBERS),
}
"""The protocols of packets by the names and numbers of protocols(5)."""

_FAMILIES: Mapping[str, tuple[Family, ...]] = {
    **dict.fromkeys(("ipv4", "4"), (Family.IPV4,)),
    **dict.fromkeys(("ipv6", "6"), (Family.IPV6,)),
    "both": FAMILIES,
}

IcmpType = tuple[Family, int, int]
"""Family, type and code of a message of ICMP or ICMPv6."""

ECHO_REQUEST: Mapping[Family, IcmpType] = {Family.IPV4: (Family.IPV4, 8, 0), Family.IPV6: (Family.IPV6, 128, 0)}

_OF_ICMP: Mapping[str, tuple[int, int]] = {
    "echo-reply": (0, 0),
    "destination-unreachable": (3, 0),
    "network-unreachable": (3, 0),
    "host-unreachable": (3, 1),
    "protocol-unreachable": (3, 2),
    "port-unreachable": (3, 3),
    "fragmentation-needed": (3, 4),
    "source-quench": (4, 0),
    "redirect": (5, 0),
    "echo-request": (8, 0),
    "router-advertisement": (9, 0),
    "router-solicitation": (10, 0),
    "time-exceeded": (11, 0),
    "parameter-problem": (12, 0),
    "timestamp-request": (13, 0),
    "timestamp-reply": (14, 0),
}
_OF_ICMPV6: Mapping[str, tuple[int, int]] = {
    "destination-unreachable": (1, 0),
    "no-route": (1, 0),
    "port-unreachable": (1, 4),
    "packet-too-big": (2, 0),
    "time-exceeded": (3, 0),
    "parameter-problem": (4, 0),
    "echo-request": (128, 0),
    "echo-reply": (129, 0),
    "router-solicitation": (133, 0),
    "router-advertisement": (134, 0),
    **dict.fromkeys(("neighbour-solicitation", "neighbor-solicitation"), (135, 0)),
    **dict.fromkeys(("neighbour-advertisement", "neighbor-advertisement"), (136, 0)),
    "redirect": (137, 0),
}
"""The names of iptables-extensions(8), "icmp" and "icmp6"; the numbers are those of IANA."""


def whole(text: str, most: int, what: str) -> int:
    """A number from 0 to ``most``, decimal or with 0x. Raises ValueError."""
    digits, base = text, 10
    if text.lower().startswith("0x"):
        digits, base = text[2:], 16
    try:
        number = int(digits, base)
    except ValueError:
        number = -1
    if not (digits.isascii() and digits.isalnum() and 0 <= number <= most):
        raise ValueError(f"{quoted(text)} is not a {what}: expected a number from 0 to {most}")
    return number


def ports(text: str) -> tuple[int, ...]:
    """A port, or the ports of a range such as 8000-8010 or 8000:8010. Raises ValueError."""
    first, dash, last = text.replace(":", "-").partition("-")
    if not dash:
        return (whole(first, 65_535, "port"),)
    low, high = whole(first, 65_535, "port"), whole(last, 65_535, "port")
    if low > high:
        raise ValueError(f"the range {quoted(text)} is empty: {low} is greater than {high}")
    return tuple(range(low, high + 1))


def addresses(text: str) -> tuple[Address, ...]:
    """An address, or those of a network or of a range such as 192.0.2.1-192.0.2.9. Raises ValueError."""
    if "/" in text:
        return _of_network(text)
    first, dash, last = text.partition("-")
    low = _address(first)
    if not dash:
        return (low,)
    high = _address(last)
    if low.version != high.version or int(low) > int(high):
        raise ValueError(f"the range {quoted(text)} is empty, or of two families")
    return _counted(low, int(high) - int(low) + 1, text)


def _of_network(text: str) -> tuple[Address, ...]:
    try:
        network = ip_network(text)
    except ValueError as error:
        raise ValueError(
            f"{quoted(text)} is not a network: {str(error).removeprefix(repr(text)).strip()[:80]}"
        ) from error
    return _counted(network.network_address, network.num_addresses, text)


def _counted(first: Address, count: int, text: str) -> tuple[Address, ...]:
    """As many addresses, from this one on. Raises ValueError."""
    if count > MOST_PACKETS:
        raise ValueError(
            f"{text} has {count:,} addresses; a test may send {MOST_PACKETS:,} packets: name a few of them"
        )
    return tuple(first + number for number in range(count))


@lru_cache(4096)
def _address(text: str) -> Address:
    try:
        address = ip_address(text.strip())
    except ValueError:
        raise ValueError(f"{quoted(text)} is not an IPv4 or IPv6 address") from None
    if address.version == 6 and address.scope_id is not None:
        raise ValueError(
            f"{quoted(text)} names an interface: write the address alone, and the interface as in: or out:"
        )
    return address


def protocol(text: str) -> str:
    """The protocol of a packet, by its name or number. Raises ValueError."""
    known = _PROTOCOLS.get(text.lower())
    if known is not None:
        return known
    if text.isdigit():
        return str(whole(text, 255, "protocol"))
    raise ValueError(f"{quoted(text)} is not a protocol{did_you_mean(text, _PROTOCOLS)}")


def families(text: str) -> tuple[Family, ...]:
    """The families that a word stands for. Raises ValueError."""
    known = _FAMILIES.get(text.lower())
    if known is None:
        raise ValueError(f"{quoted(text)} is not a family: expected ipv4, ipv6 or both")
    return known


def icmp_types(text: str) -> tuple[IcmpType, ...]:
    """The messages that a name stands for, of one family or both; a type or type/code is of both. Raises ValueError."""
    name = text.lower()
    found: list[IcmpType] = []
    for family, names in ((Family.IPV4, _OF_ICMP), (Family.IPV6, _OF_ICMPV6)):
        if name in names:
            found.append((family, *names[name]))
    return tuple(found) or _numbered_types(text)


def _numbered_types(text: str) -> tuple[IcmpType, ...]:
    """The messages of a number, or of type/code. Raises ValueError."""
    number, _, code = text.partition("/")
    if not number.isdigit():
        raise ValueError(f"{quoted(text)} is not a type of ICMP{did_you_mean(text.lower(), (*_OF_ICMP, *_OF_ICMPV6))}")
    message = (whole(number, 255, "type of ICMP"), whole(code or "0", 255, "code of ICMP"))
    return tuple((family, *message) for family in FAMILIES)


def flags(text: str) -> frozenset[str]:
    """TCP flags with commas between them, or NONE, or ALL. Raises ValueError."""
    upper = text.upper()
    if upper == "NONE":
        return frozenset()
    if upper == "ALL":
        return frozenset(TCP_FLAGS)
    found = frozenset(flag.strip() for flag in upper.split(","))
    for flag in sorted(found - frozenset(TCP_FLAGS)):
        raise ValueError(f"{quoted(flag)} is not a TCP flag{did_you_mean(flag, TCP_FLAGS)}")
    return found


def did_you_mean(word: str, names: Mapping[str, object] | tuple[str, ...]) -> str:
    """A clause that names the known word nearest to this one, or all of them where none is near."""
    nearest = nearest_name(word, names)
    if nearest:
        return f"; did you mean {nearest}?"
    known = list(dict.fromkeys(names))
    if len(known) > MOST_NAMES:
        known = [*known[:MOST_NAMES], "…"]
    return f"; known are {', '.join(known)}"
