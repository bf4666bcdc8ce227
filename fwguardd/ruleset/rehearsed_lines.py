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

    Place = tuple[Family, str, str]
    Chains = dict[Family, dict[str, dict[str, Chain]]]
    Rulesets = Mapping[Family, Ruleset]
    Lines = Mapping[Place, "ChainLines"]


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
    lines: dict[Place, ChainLines] = {}
    for place, chain in chains_of(written):
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
    others: Chains = {}
    for place, chain in chains_of(wanted):
        texts = set(known[place].others)
        if texts:
            rules = tuple(filter(lambda rule: rule.text in texts, chain.rules))
            put_chain(others, place, Chain(chain.name, chain.policy, rules))
    return rulesets_of(others)


def with_new_lines(wanted: Rulesets, known: Lines, new: Lines) -> Lines:
    """The lines of the wanted rulesets, of which the new rules were rehearsed alone."""
    lines: dict[Place, ChainLines] = {}
    for place, chain in chains_of(wanted):
        of_new: Mapping[str, tuple[str, ...]] = {}
        if place in new:
            of_new = new[place].texts
        lines[place] = known[place].with_lines(of_new, texts_of(chain.rules))
    return lines


def canonical_of(wanted: Rulesets, lines: Lines) -> Rulesets:
    """The wanted rulesets as a kernel spells them, each rule with its origin."""
    chains = without_chains(wanted)
    for place, chain in chains_of(wanted):
        put_chain(chains, place, _canonical_chain(chain, lines[place]))
    return rulesets_of(chains)


def _canonical_chain(chain: Chain, lines: ChainLines) -> Chain:
    rules = [Rule(text, rule.origin) for rule in chain.rules for text in lines.texts[rule.text]]
    return Chain(chain.name, lines.saved_policy, tuple(rules), chain.origin)
