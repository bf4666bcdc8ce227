"""What became of each rule in a rehearsal, so that a changed ruleset needs a rehearsal of its new rules only.

A ruleset that differs from a rehearsed one only in plain rules (`fwguardd.ruleset.plain_rules`) is taken by the kernel
if it takes the new ones: tables, chains, policies and all other rules are those that it has taken, in the same order.

This module is pure.
"""

from __future__ import annotations

from itertools import filterfalse
from operator import attrgetter
from typing import TYPE_CHECKING

from fwguardd.ruleset.model import Chain, Family, Origin, Rule, Ruleset, Table, texts_of
from fwguardd.ruleset.plain_rules import is_plain
from fwguardd.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    _Place = tuple[Family, str, str]
    _Chains = dict[Family, dict[str, dict[str, Chain]]]
    Rulesets = Mapping[Family, Ruleset]
    Lines = Mapping[_Place, "ChainLines"]


@dataclass(frozen=True, slots=True)
class ChainLines:
    """A chain that was rehearsed: its policy as written and as saved, and the canonical texts of each rule by its text
    as written. ``others`` are the rules that are not plain, in order."""

    policy: str | None
    saved_policy: str | None
    texts: Mapping[str, tuple[str, ...]]
    others: tuple[str, ...]

    def with_lines(self, new: Mapping[str, tuple[str, ...]], wanted: Collection[str]) -> ChainLines:
        """The same with the texts of new rules, and without those of rules that are not wanted any more."""
        texts = {text: self.texts.get(text) or new[text] for text in wanted}
        return ChainLines(self.policy, self.saved_policy, texts, self.others)


def lines_of(written: Rulesets, rehearsed: Rulesets) -> Lines | None:
    """What became of each rule; None where that cannot be told, such as behind a host name."""
    lines: dict[_Place, ChainLines] = {}
    for place, chain in _chains(written):
        family, table, name = place
        saved = rehearsed[family].tables[table].chains[name]
        texts = _texts_of(chain, saved)
        if texts is None:
            return None
        others = tuple(filterfalse(is_plain, texts_of(chain.rules)))
        lines[place] = ChainLines(chain.policy, saved.policy, texts, others)
    return lines


def _texts_of(written: Chain, saved: Chain) -> dict[str, tuple[str, ...]] | None:
    """The canonical texts of each rule of a chain; None where a rule cannot be told from another."""
    made: dict[Origin | None, list[str]] = {}
    for rule in saved.rules:
        made.setdefault(rule.origin, []).append(rule.text)
    if None in made or list(made) != list(map(attrgetter("origin"), written.rules)):
        return None
    return dict(zip(texts_of(written.rules), map(tuple, made.values()), strict=True))


def new_rules(wanted: Rulesets, known: Lines) -> Rulesets | None:
    """The rules that were not rehearsed yet, in their chains, to be rehearsed alone: no families where there are none.

    None where the whole ruleset has to be rehearsed: it has other chains or policies, or rules that are not plain have
    come, gone or moved, or half of it is new.
    """
    new: _Chains = {}
    places: set[_Place] = set()
    most = _count(wanted) // 2
    for place, chain in _chains(wanted):
        places.add(place)
        rules = _new_rules(chain, known.get(place), most)
        if rules is None:
            return None
        if rules:
            _put(new, place, Chain(chain.name, chain.policy, rules))
    if places != known.keys():
        return None
    rulesets = _rulesets(new)
    if _count(rulesets) > most:
        return None
    return rulesets


def _chains(rulesets: Rulesets) -> Iterator[tuple[_Place, Chain]]:
    for family, ruleset in rulesets.items():
        for table, chain in ruleset.chains():
            yield (family, table.name, chain.name), chain


def _put(chains: _Chains, place: _Place, chain: Chain) -> None:
    family, table, name = place
    chains.setdefault(family, {}).setdefault(table, {})[name] = chain


def _rulesets(chains: _Chains) -> Rulesets:
    rulesets: dict[Family, Ruleset] = {}
    for family, tables in chains.items():
        rulesets[family] = Ruleset(family, {name: Table(name, inside) for name, inside in tables.items()})
    return rulesets


def _count(rulesets: Rulesets) -> int:
    return sum(map(attrgetter("rule_count"), rulesets.values()))


def _new_rules(chain: Chain, known: ChainLines | None, most: int) -> tuple[Rule, ...] | None:
    if known is None or known.policy != chain.policy:
        return None
    texts = texts_of(chain.rules)
    new = set(texts).difference(known.texts)
    if len(new) > most or not all(map(is_plain, new)):
        return None
    if known.others and tuple(filter(set(known.others).__contains__, texts)) != known.others:
        return None
    return _first_of_each(chain.rules, new)


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
    others: _Chains = {}
    for place, chain in _chains(wanted):
        texts = set(known[place].others)
        if texts:
            rules = tuple(filter(lambda rule: rule.text in texts, chain.rules))
            _put(others, place, Chain(chain.name, chain.policy, rules))
    return _rulesets(others)


def with_new_lines(wanted: Rulesets, known: Lines, new: Lines) -> Lines:
    """The lines of the wanted rulesets, of which the new rules were rehearsed alone."""
    lines: dict[_Place, ChainLines] = {}
    for place, chain in _chains(wanted):
        of_new: Mapping[str, tuple[str, ...]] = {}
        if place in new:
            of_new = new[place].texts
        lines[place] = known[place].with_lines(of_new, texts_of(chain.rules))
    return lines


def canonical_of(wanted: Rulesets, lines: Lines) -> Rulesets:
    """The wanted rulesets as a kernel spells them, each rule with its origin."""
    chains: _Chains = {}
    for family, ruleset in wanted.items():
        chains[family] = {}
        for name in ruleset.tables:
            chains[family][name] = {}
    for place, chain in _chains(wanted):
        _put(chains, place, _canonical_chain(chain, lines[place]))
    return _rulesets(chains)


def _canonical_chain(chain: Chain, lines: ChainLines) -> Chain:
    rules = [Rule(text, rule.origin) for rule in chain.rules for text in lines.texts[rule.text]]
    return Chain(chain.name, lines.saved_policy, tuple(rules), chain.origin)
