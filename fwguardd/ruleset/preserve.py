"""The setting ``preserve``: patterns for live chains and rules of other programs, which fwguardd leaves as they are.

A pattern is a shell pattern (fnmatch(3)). One that starts with a dash or holds a space is for the text of rules, as
iptables-save prints it after ``-A CHAIN``; with ``-t TABLE``, ``-A CHAIN`` or both before it, for rules in that place
only. Any other pattern is for names of user-defined chains. A rule that jumps to a preserved chain is preserved too.

The patterns are for what is in the kernel. What a rule file says is its author's, whatever pattern it matches: a chain
that is wanted is owned, and of the live rules with the text of a wanted one, as many are owned as are wanted. Only the
chains that known programs make for themselves, and jumps to them, are not loaded from a file.

This module is pure.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import field, replace
from functools import lru_cache, partial
from typing import TYPE_CHECKING

from fwguardd.ruleset.chain_graph import chains_reached
from fwguardd.ruleset.checked_texts import CheckedTexts
from fwguardd.ruleset.model import Chain, Rule, Ruleset, Table, texts_of
from fwguardd.ruleset.others import RuleOrChain, Standing
from fwguardd.ruleset.preserve_patterns import NamePatterns, RulePatterns
from fwguardd.ruleset.program_lookup import CHAIN_PATTERNS, CHAINS_FILLED, CHAINS_FOR_ADMINISTRATORS
from fwguardd.ruleset.rule_view import jump_target
from fwguardd.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    from fwguardd.ruleset.model import Family
    from fwguardd.ruleset.others import Others


@dataclass(frozen=True, slots=True)
class Preserve:
    """Patterns, ready to be matched.

    ``made`` are the patterns for chains that known programs make for themselves. ``loaded`` are rulesets that fwguardd
    has loaded or is about to: what is in them is owned. ``theirs`` says how many rules of a text other programs have
    added, where a look at the kernel has found that out. ``remembered`` are chains and rules that are preserved without
    a pattern. ``seen`` and ``coming`` have the rules that the patterns match in each chain that was looked at last, and
    in each that was to be loaded last. Copies with the same patterns share both.
    """

    chains: NamePatterns
    rules: RulePatterns
    made: NamePatterns
    loaded: tuple[Mapping[Family, Ruleset], ...] = ()
    theirs: Mapping[tuple[Family, str, str], Counter[str]] = field(default_factory=dict)
    remembered: frozenset[RuleOrChain] = frozenset()
    seen: CheckedTexts = field(default_factory=CheckedTexts, compare=False, repr=False)
    coming: CheckedTexts = field(default_factory=CheckedTexts, compare=False, repr=False)

    @classmethod
    def from_patterns(cls, patterns: Iterable[str]) -> Preserve:
        """Patterns of the settings, in which the names of known programs are replaced by their patterns."""
        return _prepared(tuple(patterns))

    def owning(self, rulesets: Mapping[Family, Ruleset]) -> Preserve:
        """The same patterns, where what is in these rulesets is owned too."""
        return replace(self, loaded=(*self.loaded, rulesets))

    def remembering(self, others: Others) -> Preserve:
        """The same patterns, and these chains and rules."""
        stay = (other.place for other in others if other.standing is not Standing.REMOVED)
        return replace(self, remembered=frozenset(stay))

    def remembered_chains(self, family: Family, table: str) -> frozenset[str]:
        """The chains of a table that are remembered."""
        chains: set[str] = set()
        for place in self.remembered:
            if place.text is None and place.family is family and place.table == table:
                chains.add(place.chain)
        return frozenset(chains)

    def with_theirs(self, live: Mapping[Family, Ruleset], own: Mapping[Family, Ruleset]) -> Preserve:
        """The same patterns, with the numbers of other programs' rules beside owned ones of the same text: from now on
        a rule of ours that is deleted is not taken for the one of theirs that stays."""
        theirs: dict[tuple[Family, str, str], Counter[str]] = {}
        for family, ruleset in own.items():
            for table, chain in ruleset.chains():
                rules = live[family].tables[table.name].chains[chain.name].rules
                if len(rules) > len(chain.rules):
                    theirs[family, table.name, chain.name] = _times(rules) - _times(chain.rules)
        return replace(self, theirs=theirs)

    def makes(self, name: str) -> bool:
        """Whether a known program makes a user-defined chain of this name for itself."""
        return self.made.match(name) and name not in CHAINS_FOR_ADMINISTRATORS | CHAINS_FILLED

    def keeps_chain(self, chain: Chain) -> bool:
        """Whether a live chain belongs to another program. A built-in chain never does."""
        return chain.policy is None and self.keeps_name(chain.name)

    def keeps_name(self, name: str) -> bool:
        """Whether a user-defined chain of this name belongs to another program."""
        return self.chains.match(name)

    def keeps_rule(self, rule: Rule, table: str, chain: str) -> bool:
        """Whether a live rule in this chain belongs to another program, by its text or by its jump."""
        return self._keeps(table, chain, rule.text)

    def kept_texts(self, family: Family, table: str, chain: Chain) -> frozenset[str]:
        """The texts of rules of a live chain that belong to other programs, by themselves or by their jumps."""
        check = partial(self._keeps, table, chain.name)
        return self.seen.found((family, table, chain.name), chain.rules, check, self.coming)

    def kept_of_wanted(self, family: Family, table: str, chain: Chain) -> frozenset[str]:
        """The same of a chain that is about to be loaded."""
        check = partial(self._keeps, table, chain.name)
        return self.coming.found((family, table, chain.name), chain.rules, check, self.seen)

    def _keeps(self, table: str, chain: str, text: str) -> bool:
        return self.keeps_text(text, table, chain) or self.keeps_jump(text)

    def remembered_texts(self, family: Family, table: str, chain: str) -> frozenset[str]:
        """The texts of rules of a chain that are remembered."""
        texts: set[str] = set()
        for place in self.remembered:
            if place.text is not None and (place.family, place.table, place.chain) == (family, table, chain):
                texts.add(place.text)
        return frozenset(texts)

    def keeps_text(self, text: str, table: str, chain: str) -> bool:
        """Whether a rule of this text, in this chain, belongs to another program."""
        return self.rules.match(table, chain, text)

    def keeps_jump(self, text: str) -> bool:
        """Whether a rule of this text jumps to a chain of another program."""
        target = jump_target(text)
        return target is not None and self.keeps_name(target)


STRICT = Preserve(NamePatterns(()), RulePatterns(()), NamePatterns(()))
"""No patterns: nothing belongs to other programs."""


def chains_of_others(
    table: Table, preserve: Preserve, owned: Collection[str] = (), kept: frozenset[str] = frozenset()
) -> frozenset[str]:
    """The user-defined chains of a live table that belong to other programs: by name, or because a preserved chain
    leads to them. A chain that another one jumps to cannot be removed. ``owned`` are the names of owned chains, and
    ``kept`` those of chains that are remembered."""
    preserved = {chain.name for chain in table.chains.values() if preserve.keeps_chain(chain)}
    starts = preserved.union(table.chains.keys() & kept).difference(owned)
    return frozenset(chains_reached(table, starts)).difference(owned)


def leaves_out_jump(chain: Chain, target: str, preserve: Preserve) -> bool:
    """Whether a jump in a chain of the rule files is a copy of another program's: it leads to a chain that a known
    program makes for itself. The jump to a chain for administrators is the program's too, in a built-in chain."""
    if preserve.makes(target):
        return True
    return chain.policy is not None and target in CHAINS_FOR_ADMINISTRATORS and preserve.keeps_name(target)


def without_copies(wanted: Ruleset, preserve: Preserve) -> Ruleset:
    """A wanted ruleset without the chains that known programs make for themselves, and without the jumps to them."""
    preserve.coming.forget_all_but(wanted)
    tables = {name: _table_without_copies(wanted.family, table, preserve) for name, table in wanted.tables.items()}
    return Ruleset(wanted.family, tables)


def _table_without_copies(family: Family, table: Table, preserve: Preserve) -> Table:
    chains: dict[str, Chain] = {}
    for chain in table.chains.values():
        if chain.policy is not None or not preserve.makes(chain.name):
            doubtful = preserve.kept_of_wanted(family, table.name, chain)
            chains[chain.name] = _without_copied_jumps(chain, doubtful, preserve)
    return Table(table.name, chains)


def _without_copied_jumps(chain: Chain, doubtful: Iterable[str], preserve: Preserve) -> Chain:
    """A chain without the jumps that are copies, which are among the doubtful rules."""
    copies: set[str] = set()
    for text in doubtful:
        target = jump_target(text)
        if target is not None and leaves_out_jump(chain, target, preserve):
            copies.add(text)
    if not copies:
        return chain
    return replace(chain, rules=tuple(rule for rule in chain.rules if rule.text not in copies))


def with_emptied_chains(wanted: Ruleset, loaded: Ruleset, preserve: Preserve) -> Ruleset:
    """A wanted ruleset with the shared chains that are in ``loaded`` only: they stay, without rules, because another
    program may jump to them."""
    tables = dict(wanted.tables)
    for table, chain in loaded.chains():
        if table.name in tables and chain.name not in tables[table.name].chains and preserve.keeps_chain(chain):
            chains = {**tables[table.name].chains, chain.name: Chain(chain.name, None)}
            tables[table.name] = Table(table.name, chains)
    return Ruleset(wanted.family, tables)


def own_part(live: Ruleset, preserve: Preserve, wanted: Ruleset | None = None) -> Ruleset:
    """A live ruleset without what belongs to other programs. What ``wanted`` has is owned, also if other programs
    use it."""
    rulesets = [loaded[live.family] for loaded in preserve.loaded if live.family in loaded]
    if wanted is not None:
        rulesets.append(wanted)
    preserve.seen.forget_all_but(live)
    tables: dict[str, Table] = {}
    for name, table in live.tables.items():
        tables[name] = _own_table(live.family, table, _versions_of_table(name, rulesets), preserve)
    return Ruleset(live.family, tables)


def _versions_of_table(name: str, rulesets: Iterable[Ruleset]) -> list[Mapping[str, Chain]]:
    return [ruleset.tables[name].chains for ruleset in rulesets if name in ruleset.tables]


def _own_table(family: Family, table: Table, owned: Sequence[Mapping[str, Chain]], preserve: Preserve) -> Table:
    kept = preserve.remembered_chains(family, table.name)
    others = chains_of_others(table, preserve, frozenset().union(*owned), kept)
    chains: dict[str, Chain] = {}
    for chain in table.chains.values():
        if chain.name not in others:
            versions = [one[chain.name] for one in owned if chain.name in one]
            theirs = preserve.theirs.get((family, table.name, chain.name), _NONE)
            live = _LiveChain(family, table.name, chain, theirs, kept)
            chains[chain.name] = _own_chain(live, versions, preserve)
    return Table(table.name, chains)


_NONE: Counter[str] = Counter()


@dataclass(frozen=True, slots=True)
class _LiveChain:
    """A live chain and its place, how often a rule of another program has each text, as far as that is known, and the
    chains of its table that are remembered."""

    family: Family
    table: str
    chain: Chain
    theirs: Counter[str]
    kept: frozenset[str]

    def recognized(self, preserve: Preserve) -> Counter[str]:
        """The rules of it that another program may have added: how often it has each text."""
        if self.chain.name in CHAINS_FILLED:
            return _times(self.chain.rules)
        kept = preserve.kept_texts(self.family, self.table, self.chain)
        kept |= preserve.remembered_texts(self.family, self.table, self.chain.name)
        if self.kept:
            kept |= frozenset(filter(self._jumps_to_kept, texts_of(self.chain.rules)))
        if not kept:
            return _NONE
        return Counter(filter(kept.__contains__, texts_of(self.chain.rules)))

    def _jumps_to_kept(self, text: str) -> bool:
        return jump_target(text) in self.kept


def _own_chain(live: _LiveChain, owned: Sequence[Chain], preserve: Preserve) -> Chain:
    """The rules of a live chain that are owned. ``owned`` are the versions of the chain that fwguardd loads."""
    chain = live.chain
    recognized = live.recognized(preserve)
    if not recognized:
        return chain
    owned_times = _most_of_each(recognized, owned) & (recognized - live.theirs)
    rules = tuple(_own_rules(chain.rules, recognized, owned_times))
    if len(rules) == len(chain.rules):
        return chain
    return replace(chain, rules=rules)


def _own_rules(rules: Iterable[Rule], recognized: Collection[str], owned_times: Counter[str]) -> Iterator[Rule]:
    """The rules that are not recognized, and the first of those that are: as many of each text as are owned."""
    left = owned_times.copy()
    for rule in rules:
        if rule.text not in recognized:
            yield rule
        elif left[rule.text]:
            left[rule.text] -= 1
            yield rule


def _times(rules: Iterable[Rule]) -> Counter[str]:
    """How often each text is a rule."""
    return Counter(rule.text for rule in rules)


def _most_of_each(texts: Collection[str], chains: Iterable[Chain]) -> Counter[str]:
    """How often each of these texts is a rule of a chain, in the chain that has it most often."""
    most: Counter[str] = Counter()
    for chain in chains:
        most |= Counter(rule.text for rule in chain.rules if rule.text in texts)
    return most


@lru_cache(maxsize=8)
def _prepared(patterns: tuple[str, ...]) -> Preserve:
    chains = NamePatterns(pattern for pattern in patterns if not _is_for_rules(pattern))
    rules = RulePatterns(filter(_is_for_rules, patterns))
    return Preserve(chains, rules, NamePatterns(pattern for pattern in patterns if pattern in CHAIN_PATTERNS))


def _is_for_rules(pattern: str) -> bool:
    return pattern.startswith("-") or " " in pattern
