"""Sets of numbers as ranges: the values that a field of a packet may have.

A set is a tuple of ranges, each with its first and its last number, sorted, without overlaps, with gaps between them.

This module is pure.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from fwguardd.ruleset.values import Network

Intervals = tuple[tuple[int, int], ...]

NOTHING: Final[Intervals] = ()


def everything(width: int) -> Intervals:
    """All numbers of so many bits."""
    return ((0, (1 << width) - 1),)


def single(value: int) -> Intervals:
    """The set of one number."""
    return ((value, value),)


def of_numbers(numbers: Iterable[int]) -> Intervals:
    """The set of these numbers."""
    listed = sorted(set(numbers))
    return united(zip(listed, listed, strict=True))


def united(ranges: Iterable[tuple[int, int]]) -> Intervals:
    """The numbers that are in any of these ranges."""
    merged: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(last, merged[-1][1]))
        else:
            merged.append((first, last))
    return tuple(merged)


def numbers_in(ranges: Intervals) -> Iterator[int]:
    """All numbers of a set, which has few."""
    for first, last in ranges:
        yield from range(first, last + 1)


def count_of(ranges: Intervals) -> int:
    """How many numbers a set has."""
    count = 0
    for first, last in ranges:
        count += last - first + 1
    return count


def intersection(one: Intervals, other: Intervals) -> Intervals:
    """The numbers that are in both sets."""
    found: list[tuple[int, int]] = []
    left, right = 0, 0
    while left < len(one) and right < len(other):
        first, last = max(one[left][0], other[right][0]), min(one[left][1], other[right][1])
        if first <= last:
            found.append((first, last))
        if one[left][1] < other[right][1]:
            left += 1
        else:
            right += 1
    return tuple(found)


def complement(numbers: Intervals, width: int) -> Intervals:
    """The numbers of so many bits that are not in the set."""
    found: list[tuple[int, int]] = []
    start = 0
    for first, last in numbers:
        if start < first:
            found.append((start, first - 1))
        start = last + 1
    if start < 1 << width:
        found.append((start, (1 << width) - 1))
    return tuple(found)


def contains(numbers: Intervals, value: int) -> bool:
    """Whether a number is in the set."""
    place = bisect_right(numbers, value, key=_first) - 1
    return place >= 0 and value <= numbers[place][1]


def covers(numbers: Intervals, others: Intervals) -> bool:
    """Whether all of the other numbers are in the set."""
    return intersection(numbers, others) == others


def of_network(network: Network) -> Intervals | None:
    """The addresses of a network; None where its mask has holes, so that they are no range."""
    if network.has_holes:
        return None
    width = {4: 32, 6: 128}[network.version]
    first = network.address & network.mask
    return ((first, first | ((1 << width) - 1) ^ network.mask),)


def _first(numbers: tuple[int, int]) -> int:
    return numbers[0]
