"""What became of each rule in a rehearsal, so that a changed ruleset needs a rehearsal of its new rules only.

A ruleset that differs from a rehearsed one only in plain rules (`fwguardd.ruleset.plain_rules`) is taken by the kernel
if it takes the new ones: tables, chains, policies and all other rules are those that it has taken, in the same order.

This module is pure.
"""

from __future__ import annotations

from array import array
from dataclasses import field
from itertools import accumulate, compress, filterfalse
from operator import attrgetter
from typing import TYPE_CHECKING

from fwguardd.ruleset.model import Chain, Family, Origin, Rule, Ruleset, Table, texts_of
from fwguardd.ruleset.plain_rules import is_plain, needs_nothing_outside
from fwguardd.ruleset.same_rules import same_ends
from fwguardd.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    Place = tuple[Family, str, str]
    Chains = dict[Family, dict[str, dict[str, Chain]]]
    Rulesets = Mapping[Family, Ruleset]
    Lines = Mapping[Place, "ChainLines"]


@dataclass(frozen=True, slots=True)
class ChainLines:
    """A chain that was rehearsed, as written and as saved. ``firsts`` are the numbers of the first saved rule of each
    written one; empty where each became one. ``others`` are the texts of the rules that are not plain, in order."""

    written: Chain
    saved: Chain
    firsts: Sequence[int]
    others: tuple[str, ...]
    made: list[Mapping[str, tuple[str, ...]]] = field(default_factory=list, compare=False, repr=False)
    """What all texts became, once it was asked for."""

    @property
    def saved_policy(self) -> str | None:
        """The policy as saved."""
        return self.saved.policy

    @property
    def texts(self) -> Mapping[str, tuple[str, ...]]:
        """The canonical texts of each rule by its text as written."""
        if not self.made:
            self.made.append(self.texts_between(0, len(self.written.rules)))
        return self.made[0]

    def first(self, number: int) -> int:
        """The number of the first saved rule of the written rule with this number, or behind the last."""
        if number == len(self.written.rules):
            return len(self.saved.rules)
        if self.firsts:
            return self.firsts[number]
        return number

    def texts_between(self, start: int, stop: int) -> dict[str, tuple[str, ...]]:
        """The canonical texts of the rules with these numbers."""
        made: dict[str, tuple[str, ...]] = {}
        first = self.first(start)
        for number, rule in enumerate(self.written.rules[start:stop], start):
            end = self.first(number + 1)
            made[rule.text] = tuple(texts_of(self.saved.rules[first:end]))
            first = end
        return made


def lines_of(written: Rulesets, rehearsed: Rulesets) -> Lines | None:
    """What became of each rule; None where that cannot be told, such as behind a host name."""
    lines: dict[Place, ChainLines] = {}
    for place, chain in chains_of(written):
        family, table, name = place
        saved = rehearsed[family].tables[table].chains[name]
        firsts = _firsts(chain.rules, saved.rules)
        if firsts is None:
            return None
        others = tuple(filterfalse(is_plain, texts_of(chain.rules)))
        lines[place] = ChainLines(chain, saved, firsts, others)
    return lines


def _firsts(written: Sequence[Rule], saved: Sequence[Rule]) -> Sequence[int] | None:
    """The number of the first saved rule of each written one, by their origins; None where a rule cannot be told from
    another."""
    firsts: list[int] = []
    end = 0
    for rule in written:
        firsts.append(end)
        while end < len(saved) and rule.origin is not None and saved[end].origin == rule.origin:
            end += 1
        if end == firsts[-1]:
            return None
    if end < len(saved):
        return None
    return _unless_one_each(firsts, end)


def _unless_one_each(firsts: Sequence[int], count: int) -> Sequence[int]:
    """The numbers of first rules; none where each of so many rules is one."""
    if len(firsts) == count:
        return ()
    return array("L", firsts)


def new_rules(wanted: Rulesets, known: Lines) -> Rulesets | None:
    """The rules that were not rehearsed yet, in their chains, to be rehearsed alone: no families where there are none.

    None where the whole ruleset has to be rehearsed: it has other chains or policies, or rules that are not plain have
    come, gone or moved, or half of it is new.
    """
    new: Chains = {}
    places: set[Place] = set()
    most = rules_in(wanted) // 2
    for place, chain in chains_of(wanted):
        places.add(place)
        rules = _new_rules(chain, known.get(place), most)
        if rules is None:
            return None
        if rules:
            put_chain(new, place, Chain(chain.name, chain.policy, rules))
    if places != known.keys():
        return None
    rulesets = rulesets_of(new)
    if rules_in(rulesets) > most:
        return None
    return rulesets


def chains_of(rulesets: Rulesets) -> Iterator[tuple[Place, Chain]]:
    """Each chain, with its family, table and name."""
    for family, ruleset in rulesets.items():
        for table, chain in ruleset.chains():
            yield (family, table.name, chain.name), chain


def put_chain(chains: Chains, place: Place, chain: Chain) -> None:
    """Add a chain at its place."""
    family, table, name = place
    chains.setdefault(family, {}).setdefault(table, {})[name] = chain


def without_chains(rulesets: Rulesets) -> Chains:
    """The same families and tables, to put chains into."""
    chains: Chains = {}
    for family, ruleset in rulesets.items():
        chains[family] = {name: {} for name in ruleset.tables}
    return chains


def rulesets_of(chains: Chains) -> Rulesets:
    """Rulesets that are made of these chains."""
    rulesets: dict[Family, Ruleset] = {}
    for family, tables in chains.items():
        rulesets[family] = Ruleset(family, {name: Table(name, inside) for name, inside in tables.items()})
    return rulesets


def rules_in(rulesets: Rulesets) -> int:
    """The number of rules."""
    return sum(map(attrgetter("rule_count"), rulesets.values()))


def _new_rules(chain: Chain, known: ChainLines | None, most: int) -> tuple[Rule, ...] | None:
    if known is None or known.written.policy != chain.policy:
        return None
    if chain.rules is known.written.rules:
        return ()
    before = known.written.rules
    head, tail = same_ends(chain.rules, before)
    middle = chain.rules[head : len(chain.rules) - tail]
    texts, gone = texts_of(middle), texts_of(before[head : len(before) - tail])
    new = set(texts).difference(gone)
    if len(new) > most or not all(map(is_plain, new)):
        return None
    is_other = frozenset(known.others).__contains__
    if known.others and list(filter(is_other, texts)) != list(filter(is_other, gone)):
        return None
    return _first_of_each(middle, new)


def _first_of_each(rules: Sequence[Rule], texts: set[str]) -> tuple[Rule, ...]:
    """The first rule with each of these texts."""
    found: dict[str, Rule] = {}
    if texts:
        for rule in rules:
            if rule.text in texts:
                found.setdefault(rule.text, rule)
    return tuple(found.values())


def others_of(wanted: Rulesets, known: Lines) -> Rulesets:
    """The rules that are not plain, in their chains."""
    others: Chains = {}
    for place, chain in chains_of(wanted):
        texts = frozenset(known[place].others)
        if texts:
            rules = compress(chain.rules, map(texts.__contains__, texts_of(chain.rules)))
            put_chain(others, place, Chain(chain.name, chain.policy, tuple(rules)))
    return rulesets_of(others)


def with_new_lines(wanted: Rulesets, known: Lines, new: Lines) -> Lines:
    """The lines of the wanted rulesets, of which the new rules were rehearsed alone."""
    lines: dict[Place, ChainLines] = {}
    for place, chain in chains_of(wanted):
        of_new: Mapping[str, tuple[str, ...]] = {}
        if place in new:
            of_new = new[place].texts
        lines[place] = _with_new(chain, known[place], of_new)
    return lines


def _with_new(chain: Chain, known: ChainLines, new: Mapping[str, tuple[str, ...]]) -> ChainLines:
    """The lines of a chain, of which those at both ends are known, and those in the middle by their texts."""
    before, saved = known.written.rules, known.saved
    head, tail = same_ends(chain.rules, before)
    texts = {**known.texts_between(head, len(before) - tail), **new}
    middle = chain.rules[head : len(chain.rules) - tail]
    made = [texts[rule.text] for rule in middle]
    spelled = [Rule(text, rule.origin) for rule, each in zip(middle, made, strict=True) for text in each]
    following = known.first(len(before) - tail)
    rules = (*saved.rules[: known.first(head)], *spelled, *saved.rules[following:])
    whole = Chain(chain.name, saved.policy, rules, chain.origin)
    return ChainLines(chain, whole, _firsts_of(known, head, list(map(len, made)), tail), known.others)


def _firsts_of(known: ChainLines, head: int, sizes: Sequence[int], tail: int) -> Sequence[int]:
    """The numbers of first rules: those of the head are known, and what follows is moved."""
    before = len(known.written.rules)
    if not known.firsts and sum(sizes) == len(sizes):
        return ()
    starts = list(map(known.first, range(head + 1)))
    starts = [*starts[:-1], *accumulate(sizes, initial=starts[-1])]
    moved = starts.pop() - known.first(before - tail)
    starts += [known.first(number) + moved for number in range(before - tail, before)]
    return _unless_one_each(starts, len(known.saved.rules) + moved)


def canonical_of(wanted: Rulesets, lines: Lines) -> Rulesets:
    """The wanted rulesets as a kernel spells them, each rule with its origin."""
    chains = without_chains(wanted)
    for place, _ in chains_of(wanted):
        put_chain(chains, place, lines[place].saved)
    return rulesets_of(chains)


def differ(written: Rulesets, one: Rulesets, other: Rulesets) -> bool:
    """Whether two results of the same rulesets differ in any rule whose text depends on nothing outside of the rule
    files: a name may have had another address, or a set another family, at the time of one of them."""
    for place, chain in chains_of(written):
        doubtful = {rule.origin for rule in chain.rules if not needs_nothing_outside(rule.text)}
        if doubtful:
            doubtful.add(None)
        if _certain(one, place, doubtful) != _certain(other, place, doubtful):
            return True
    return False


def _certain(rulesets: Rulesets, place: Place, doubtful: Collection[Origin | None]) -> tuple[str | None, list[str]]:
    """The policy of a chain, and its rules that are not made of doubtful ones."""
    family, table, name = place
    chain = rulesets[family].tables[table].chains[name]
    return chain.policy, [rule.text for rule in chain.rules if rule.origin not in doubtful]
