"""Which rules of two lists are the same ones in the same order: what stays, so that all else has come, gone or moved.

Texts that each side has once are aligned exactly: as many of them stay as can. Between those that stay, copies of one
text are paired by their surroundings, as difflib does it. So the work grows little faster than the lists, also where
ten thousand rules differ at both ends.

The difference between two rulesets, as policies, chains and rules.

This module is pure.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass
from difflib import SequenceMatcher
from enum import Enum
from itertools import pairwise
from typing import TYPE_CHECKING

from fwguardd.ruleset.model import Chain, Family, Origin, Rule, Ruleset, Table

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


class ChangeKind(Enum):
    """How something differs."""

    MISSING = "missing"
    ADDED = "added"
    MOVED = "moved"
    POLICY = "policy"
    CHAIN_MISSING = "chain missing"
    CHAIN_ADDED = "chain added"


_SIGNS = {
    ChangeKind.MISSING: "-",
    ChangeKind.ADDED: "+",
    ChangeKind.MOVED: "~",
    ChangeKind.POLICY: "!",
    ChangeKind.CHAIN_MISSING: "-",
    ChangeKind.CHAIN_ADDED: "+",
}


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that differs from what is wanted. ``text`` is the rule, or the policies, or empty."""

    family: Family
    table: str
    chain: str
    kind: ChangeKind
    text: str = ""
    origin: Origin | None = None

    @property
    def place(self) -> str:
        """The chain that differs, as in "ipv4 filter INPUT"."""
        return f"{self.family.value} {self.table} {self.chain}"

    def __str__(self) -> str:
        where = f" ({self.origin})" if self.origin else ""
        head = f"{_SIGNS[self.kind]} {self.family.value} {self.table} "
        if self.kind is ChangeKind.POLICY:
            return f"{head}-P {self.chain} {self.text}{where}"
        if self.kind in (ChangeKind.CHAIN_MISSING, ChangeKind.CHAIN_ADDED):
            return f"{head}-N {self.chain}{where}"
        return f"{head}-A {self.chain} {self.text}{where}"


def compare(wanted: Ruleset, actual: Ruleset) -> tuple[Difference, ...]:
    """How ``actual`` differs from ``wanted``, in the tables that ``wanted`` has. Empty means that it is as wanted."""
    return tuple(_differences(wanted, actual))


def changes(before: Ruleset, after: Ruleset) -> tuple[Difference, ...]:
    """What a write changes on the way from ``before`` to ``after``, in the tables that ``after`` has: what it adds is
    ADDED, with the origin, and what it removes is MISSING."""
    tables = {name: before.tables.get(name, Table(name, {})) for name in after.tables}
    return tuple(_differences(Ruleset(before.family, tables), after))


def _differences(wanted: Ruleset, actual: Ruleset) -> Iterator[Difference]:
    for name, table in wanted.tables.items():
        here = actual.tables.get(name)
        live = here.chains if here is not None else {}
        for chain in table.chains.values():
            other = live.get(chain.name)
            if other != chain:
                yield from _chain_differences(wanted.family, name, chain, other)
        for chain in live.values():
            if chain.name not in table.chains:
                yield from _chain_differences(wanted.family, name, None, chain)


def _chain_differences(family: Family, table: str, wanted: Chain | None, actual: Chain | None) -> Iterator[Difference]:
    """Differences of one chain. A built-in chain that one side does not have is one that accepts everything."""
    known = wanted or actual
    assert known is not None
    builtin = known.policy is not None
    if wanted is None:
        if not builtin:
            yield Difference(family, table, known.name, ChangeKind.CHAIN_ADDED, "", known.origin)
        wanted = Chain(known.name, "ACCEPT" if builtin else None)
    elif actual is None and not builtin:
        yield Difference(family, table, known.name, ChangeKind.CHAIN_MISSING, "", known.origin)
    if actual is None:
        actual = Chain(known.name, "ACCEPT" if builtin else None)
    if wanted.policy != actual.policy:
        text = f"{actual.policy} instead of {wanted.policy}"
        yield Difference(family, table, known.name, ChangeKind.POLICY, text, wanted.origin or actual.origin)
    for kind, rule in _rule_differences(wanted.rules, actual.rules):
        yield Difference(family, table, known.name, kind, rule.text, rule.origin)


def _rule_differences(wanted: tuple[Rule, ...], actual: tuple[Rule, ...]) -> Iterator[tuple[ChangeKind, Rule]]:
    """Missing and added rules, and the fewest that were moved for the others to stand as they do."""
    gone, new = _not_aligned(wanted, actual)
    found = Counter(rule.text for rule in new)
    moved: list[Rule] = []
    for rule in gone:
        if found[rule.text]:
            found[rule.text] -= 1
            moved.append(rule)
        else:
            yield ChangeKind.MISSING, rule
    elsewhere = Counter(rule.text for rule in moved)
    for rule in new:
        if elsewhere[rule.text]:
            elsewhere[rule.text] -= 1
        else:
            yield ChangeKind.ADDED, rule
    yield from ((ChangeKind.MOVED, rule) for rule in moved)


def _not_aligned(wanted: tuple[Rule, ...], actual: tuple[Rule, ...]) -> tuple[list[Rule], list[Rule]]:
    """The rules of either side that stand in no common order with the other side's."""
    stays = align([rule.text for rule in wanted], [rule.text for rule in actual])
    here, there = {place for place, _ in stays}, {place for _, place in stays}
    return (
        [rule for place, rule in enumerate(wanted) if place not in here],
        [rule for place, rule in enumerate(actual) if place not in there],
    )
