"""Which rules of two lists are the same ones in the same order: what stays, so that all else has come, gone or moved.

Texts that each side has once are aligned exactly: as many of them stay as can. Between those that stay, copies of one
text are paired by their surroundings, as difflib does it. So the work grows little faster than the lists, also where
ten thousand rules differ at both ends.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from difflib import SequenceMatcher
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    Pair = tuple[int, int]

_MOST_COMPARISONS = 4_000_000
"""Pairs of texts that are compared between two that stay; beyond it none of them counts as the same."""


def align(here: Sequence[str], there: Sequence[str]) -> list[Pair]:
    """The places of texts that stay, in both lists, ascending in both."""
    head, tail = common_ends(here, there)
    ends = len(here) - tail, len(there) - tail
    found = [(place, place) for place in range(head)]
    anchors = [(head - 1, head - 1), *_anchors(here[: ends[0]], there[: ends[1]], head), ends]
    for (first, start), (end, stop) in pairwise(anchors):
        found += _paired(here[first + 1 : end], there[start + 1 : stop], first + 1, start + 1)
        found += [(end, stop)] if (end, stop) != ends else []
    return found + [(ends[0] + place, ends[1] + place) for place in range(tail)]


def common_ends(here: Sequence[str], there: Sequence[str]) -> Pair:
    """How many texts are the same at the head, and at the tail, of two lists."""
    shorter = min(len(here), len(there))
    head = 0
    while head < shorter and here[head] == there[head]:
        head += 1
    tail = 0
    while tail < shorter - head and here[-1 - tail] == there[-1 - tail]:
        tail += 1
    return head, tail


def _anchors(here: Sequence[str], there: Sequence[str], head: int) -> list[Pair]:
    """Of the texts that both sides have once behind the head, the most that stand in the same order: the longest
    ascending subsequence of their places (Fredman, 1975)."""
    counts = Counter(here[head:]), Counter(there[head:])
    places = {text: place for place, text in enumerate(there) if place >= head and counts[1][text] == 1}
    pairs = [
        (place, places[text])
        for place, text in enumerate(here)
        if place >= head and counts[0][text] == 1 and text in places
    ]
    lasts: list[int] = []  # The smallest place that an ascending run of each length ends with,
    ends: list[int] = []  # which pair that is,
    before: list[int | None] = []  # and for each pair the one ahead of it in its run.
    for number, (_, place) in enumerate(pairs):
        length = bisect_left(lasts, place)
        before.append(ends[length - 1] if length else None)
        lasts[length : length + 1], ends[length : length + 1] = [place], [number]
    run: list[Pair] = []
    last = ends[-1] if ends else None
    while last is not None:
        run.append(pairs[last])
        last = before[last]
    return run[::-1]


def _paired(here: Sequence[str], there: Sequence[str], first: int, start: int) -> Iterator[Pair]:
    if not here or not there or len(here) * len(there) > _MOST_COMPARISONS:
        return
    for block in SequenceMatcher(None, here, there, autojunk=False).get_matching_blocks():
        yield from ((first + block.a + n, start + block.b + n) for n in range(block.size))
