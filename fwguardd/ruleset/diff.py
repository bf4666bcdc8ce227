"""The difference between two rulesets, as policies, chains and rules.

Rules of a chain are aligned first (`align`): those that stay keep their order, and every other one is missing, added or
moved. Texts that occur once on each side are aligned exactly: as many of them stay as can. Between those that stay,
copies of one text are paired by their surroundings, as difflib does it. The work grows little faster than the lists,
also if ten thousand rules differ at both ends.

This module is pure.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from enum import Enum
from itertools import pairwise
from typing import TYPE_CHECKING

from fwguardd.ruleset.model import NOT_STATED, Chain, Family, Origin, Rule, Ruleset, Table, texts_of
from fwguardd.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    Pair = tuple[int, int]


_MOST_COMPARISONS = 4_000_000
"""Pairs of texts that are compared between two that stay. Where there are more, none of them is aligned."""


_AT_ONCE = 256
"""Texts that are compared at once: the interpreter compares lists faster than a loop compares texts."""


def align(here: Sequence[str], there: Sequence[str]) -> list[Pair]:
    """The places of texts that stay, in both lists, ascending in both."""
    head, tail = common_ends(here, there)
    ends = len(here) - tail, len(there) - tail
    found: list[Pair] = list(zip(range(head), range(head), strict=True))
    anchors = [(head - 1, head - 1), *_anchors(here[: ends[0]], there[: ends[1]], head), ends]
    for (first, start), (end, stop) in pairwise(anchors):
        found += _paired(here[first + 1 : end], there[start + 1 : stop], first + 1, start + 1)
        if (end, stop) != ends:
            found.append((end, stop))
    found += zip(range(ends[0], len(here)), range(ends[1], len(there)), strict=True)
    return found


def common_ends(here: Sequence[str], there: Sequence[str]) -> Pair:
    """How many texts are the same at the head, and at the tail, of two lists."""
    shorter = min(len(here), len(there))
    head = 0
    while here[head : head + _AT_ONCE] == there[head : head + _AT_ONCE] and head + _AT_ONCE <= shorter:
        head += _AT_ONCE
    while head < shorter and here[head] == there[head]:
        head += 1
    tail = 0
    while shorter - head - tail >= _AT_ONCE and (
        here[len(here) - tail - _AT_ONCE : len(here) - tail] == there[len(there) - tail - _AT_ONCE : len(there) - tail]
    ):
        tail += _AT_ONCE
    while tail < shorter - head and here[-1 - tail] == there[-1 - tail]:
        tail += 1
    return head, tail


def _anchors(here: Sequence[str], there: Sequence[str], head: int) -> list[Pair]:
    """The places of texts that both sides have once behind the head, as many as stand in the same order."""
    places = _places_of_single(there, head)
    pairs: list[Pair] = []
    for text, place in _places_of_single(here, head).items():
        if text in places:
            pairs.append((place, places[text]))
    return _longest_ascending(pairs)


def _places_of_single(texts: Sequence[str], head: int) -> dict[str, int]:
    """The texts that occur once behind the head, with their places in ascending order."""
    counts = Counter(texts[head:])
    return {text: place for place, text in enumerate(texts[head:], head) if counts[text] == 1}


def _longest_ascending(pairs: Sequence[Pair]) -> list[Pair]:
    """The longest subsequence of pairs whose second places ascend (Fredman, 1975)."""
    lasts: list[int] = []  # The smallest place that an ascending run of each length ends with;
    ends = [-1]  # which pair the run of each length ends with, that of length 0 with none;
    before: list[int] = []  # and for each pair the one before it in its run, or -1.
    for number, (_, place) in enumerate(pairs):
        length = bisect_left(lasts, place)
        before.append(ends[length])
        lasts[length : length + 1], ends[length + 1 : length + 2] = [place], [number]
    run: list[Pair] = []
    last = ends[-1]
    while last >= 0:
        run.append(pairs[last])
        last = before[last]
    return run[::-1]


def _paired(here: Sequence[str], there: Sequence[str], first: int, start: int) -> Iterator[Pair]:
    if not 0 < len(here) * len(there) <= _MOST_COMPARISONS:
        return
    from difflib import SequenceMatcher  # noqa: PLC0415 - few differences need it, and it takes 0.1 MiB.

    for block in SequenceMatcher(None, here, there, autojunk=False).get_matching_blocks():
        for number in range(block.size):
            yield first + block.a + number, start + block.b + number


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
    """One difference. ``text`` is the rule, or the policies, or empty for a chain."""

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
        where = ""
        if self.origin is not None:
            where = f" ({self.origin})"
        head = f"{_SIGNS[self.kind]} {self.family.value} {self.table} "
        if self.kind is ChangeKind.POLICY:
            return f"{head}-P {self.chain} {self.text}{where}"
        if self.kind in (ChangeKind.CHAIN_MISSING, ChangeKind.CHAIN_ADDED):
            return f"{head}-N {self.chain}{where}"
        return f"{head}-A {self.chain} {self.text}{where}"


def compare(wanted: Ruleset, actual: Ruleset) -> tuple[Difference, ...]:
    """How ``actual`` differs from ``wanted``, in the tables that ``wanted`` has. Empty if it does not. A policy that is
    not stated is not compared."""
    return tuple(_differences(wanted, actual))


def changes(before: Ruleset, after: Ruleset) -> tuple[Difference, ...]:
    """What a write from ``before`` to ``after`` changes, in the tables that ``after`` has. What it adds is ADDED, with
    the origin, and what it removes is MISSING."""
    tables = {name: before.tables.get(name, Table(name, {})) for name in after.tables}
    return tuple(_differences(Ruleset(before.family, tables), after))


def _differences(wanted: Ruleset, actual: Ruleset) -> Iterator[Difference]:
    for name, table in wanted.tables.items():
        live = actual.tables.get(name, Table(name, {})).chains
        yield from _table_differences(wanted.family, table, live)


def _table_differences(family: Family, table: Table, live: Mapping[str, Chain]) -> Iterator[Difference]:
    for chain in table.chains.values():
        other = live.get(chain.name)
        if other is None:
            yield from _of_chain(family, table.name, chain, ChangeKind.CHAIN_MISSING)
            yield from _chain_differences(family, table.name, chain, _absent(chain))
        elif other.policy != chain.policy or texts_of(other.rules) != texts_of(chain.rules):
            yield from _chain_differences(family, table.name, chain, other)
    yield from _added_chains(family, table, live)


def _added_chains(family: Family, table: Table, live: Mapping[str, Chain]) -> Iterator[Difference]:
    for chain in live.values():
        if chain.name not in table.chains:
            yield from _of_chain(family, table.name, chain, ChangeKind.CHAIN_ADDED)
            yield from _chain_differences(family, table.name, _absent(chain), chain)


def _absent(chain: Chain) -> Chain:
    """What stands for a chain that one side does not have. A built-in chain then accepts everything."""
    if chain.policy is None:
        return Chain(chain.name, None)
    return Chain(chain.name, "ACCEPT")


def _of_chain(family: Family, table: str, chain: Chain, kind: ChangeKind) -> Iterator[Difference]:
    """The difference that a user-defined chain is missing or added. A built-in chain always exists."""
    if chain.policy is None:
        yield Difference(family, table, chain.name, kind, "", chain.origin)


def _differ_in_policy(wanted: Chain, actual: Chain) -> bool:
    return wanted.policy != actual.policy and NOT_STATED not in (wanted.policy, actual.policy)


def _chain_differences(family: Family, table: str, wanted: Chain, actual: Chain) -> Iterator[Difference]:
    """Differences of policy and rules between two chains of one name."""
    if _differ_in_policy(wanted, actual):
        text = f"{actual.policy} instead of {wanted.policy}"
        yield Difference(family, table, wanted.name, ChangeKind.POLICY, text, wanted.origin or actual.origin)
    for kind, rule in _rule_differences(wanted.rules, actual.rules):
        yield Difference(family, table, wanted.name, kind, rule.text, rule.origin)


def _rule_differences(wanted: tuple[Rule, ...], actual: tuple[Rule, ...]) -> Iterator[tuple[ChangeKind, Rule]]:
    """Missing and added rules, and as few moved ones as possible."""
    gone, new = _not_aligned(wanted, actual)
    moved, missing = _paired_by_text(gone, new)
    _, added = _paired_by_text(new, moved)
    for kind, rules in ((ChangeKind.MISSING, missing), (ChangeKind.ADDED, added), (ChangeKind.MOVED, moved)):
        for rule in rules:
            yield kind, rule


def _not_aligned(wanted: tuple[Rule, ...], actual: tuple[Rule, ...]) -> tuple[list[Rule], list[Rule]]:
    """The rules of each side that are not aligned with one of the other side."""
    texts, others = texts_of(wanted), texts_of(actual)
    head, tail = common_ends(texts, others)
    ends = len(texts) - tail, len(others) - tail
    here: set[int] = set()
    there: set[int] = set()
    for place, other in align(texts[head : ends[0]], others[head : ends[1]]):
        here.add(place)
        there.add(other)
    return _other_rules(wanted[head : ends[0]], here), _other_rules(actual[head : ends[1]], there)


def _other_rules(rules: Sequence[Rule], places: Collection[int]) -> list[Rule]:
    """The rules that are not at these places."""
    return [rule for place, rule in enumerate(rules) if place not in places]


def _paired_by_text(rules: Iterable[Rule], others: Iterable[Rule]) -> tuple[list[Rule], list[Rule]]:
    """The rules that have one of the same text among the others, each of which counts once; and the rest."""
    left = Counter(rule.text for rule in others)
    paired: list[Rule] = []
    rest: list[Rule] = []
    for rule in rules:
        if left[rule.text]:
            left[rule.text] -= 1
            paired.append(rule)
        else:
            rest.append(rule)
    return paired, rest
