"""Networks and ranges of addresses, as set files have them, and the networks that ipset(8) makes of them.

This module is pure.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import TYPE_CHECKING

from fwguardd.patterns import pattern
from fwguardd.ruleset.values import read_network
from fwguardd.wording import quoted

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

Ranges = list[tuple[int, int]]
ADDRESS: Mapping[int, type[IPv4Address | IPv6Address]] = {4: IPv4Address, 6: IPv6Address}
"""The type of the addresses of a version."""

OCTET = "(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_DOTTED = pattern(rf"{OCTET}(?:\.{OCTET}){{3}}(?:/|$)")
_ALL_ONES = {4: (1 << 32) - 1, 6: (1 << 128) - 1}


class SetLineError(Exception):
    """What is wrong with a line of a set file; the reader of the file makes a finding of it."""


def range_of(word: str) -> tuple[int, int, int]:
    """The version of an entry, its first address and its last one. Raises SetLineError."""
    if "-" in word:
        return _explicit_range(word)
    network = read_network(word)
    if network is None or network.has_holes or (network.version == 4 and _DOTTED.match(word) is None):
        raise SetLineError(f"{quoted(word)} is neither an address nor a network nor a range")
    first = network.address & network.mask
    return network.version, first, first | ~network.mask & _ALL_ONES[network.version]


def _explicit_range(word: str) -> tuple[int, int, int]:
    first_text, _, last_text = word.partition("-")
    try:
        first, last = ip_address(first_text.strip()), ip_address(last_text.strip())
    except ValueError as error:
        raise SetLineError(f"{quoted(word)} is not a range of addresses") from error
    if first.version != last.version or int(first) > int(last):
        raise SetLineError(f"{word}: the range has to lead from an address to a larger one of the same family")
    return first.version, int(first), int(last)


def merged_ranges(ranges: Iterable[tuple[int, int]]) -> Ranges:
    """Sorted ranges without overlaps, neighbours together."""
    merged: Ranges = []
    first, last = -2, -2
    for start, end in ranges:
        if start > last + 1:
            merged.append((first, last))
            first, last = start, end
        elif end > last:
            last = end
    merged.append((first, last))
    return merged[1:]


def networks_of(ranges: Iterable[tuple[int, int]], address: type[IPv4Address | IPv6Address]) -> Iterator[str]:
    """The networks of ranges, as ipset(8) prints them. It has no network that is everything, but two halves."""
    width = address(0).max_prefixlen
    alone = f"/{width}"
    for first, last in ranges:
        begin = first
        while begin <= last:
            size = _largest_block(begin, last, 1 << (width - 1))
            yield f"{address(begin)}/{width + 1 - size.bit_length()}".removesuffix(alone)
            begin += size


def _largest_block(first: int, last: int, largest: int) -> int:
    """The addresses of the largest network that begins with an address, and has none beyond the last one."""
    size = min(1 << ((last - first + 1).bit_length() - 1), largest)
    if first == 0:
        return size
    return min(size, first & -first)
