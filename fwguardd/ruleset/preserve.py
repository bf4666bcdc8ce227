"""What belongs to others: chains and rules, by pattern, that fwguardd neither touches nor calls drift.

A pattern is a shell pattern (fnmatch(3)). One that starts with a dash or holds a space is for the text of rules, as
iptables-save prints it after ``-A CHAIN``; with ``-t TABLE``, ``-A CHAIN`` or both before it, for rules in that place
only. Any other is for names of user-defined chains. A rule that jumps to a preserved chain is preserved with it.

This module is pure.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fnmatch import translate
from functools import lru_cache
from typing import TYPE_CHECKING

from fwguardd.ruleset.model import Chain, Rule, Ruleset, Table
from fwguardd.ruleset.rule_view import jump_target

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_NOTHING = re.compile(r"(?!)")
_PLACE = re.compile(r"(?:-t ([^ ]+) )?(?:-A ([^ ]+) )?(.*)", re.DOTALL)
_ANYWHERE = "*-m "


@dataclass(frozen=True, slots=True)
class Preserve:
    """Compiled patterns. Those for rules are matched with table, chain and text, parted by spaces."""

    chains: re.Pattern[str]
    rules: re.Pattern[str]

    @classmethod
    def from_patterns(cls, patterns: Iterable[str]) -> Preserve:
        """Patterns as they stand in the settings, citizens' names spelled out."""
        return _compiled(tuple(patterns))

    def keeps_chain(self, chain: Chain) -> bool:
        """Whether a live chain belongs to somebody else. A built-in chain never does as a whole."""
        return chain.policy is None and self.keeps_name(chain.name)

    def keeps_name(self, name: str) -> bool:
        """Whether a chain of this name would be somebody else's."""
        return self.chains.match(name) is not None

    def keeps_rule(self, rule: Rule, table: str, chain: str) -> bool:
        """Whether a live rule in this chain belongs to somebody else, by its text or by the chain that it jumps to."""
        return self.keeps_text(rule.text, table, chain) or self.keeps_jump(rule)

    def keeps_text(self, text: str, table: str, chain: str) -> bool:
        """Whether a rule of this text, in this chain, would be somebody else's."""
        return self.rules.match(f"{table} {chain} {text}") is not None

    def keeps_jump(self, rule: Rule) -> bool:
        """Whether a rule jumps to a chain of somebody else."""
        target = jump_target(rule.text)
        return target is not None and self.keeps_name(target)


STRICT = Preserve(_NOTHING, _NOTHING)
"""Nothing belongs to others."""


def chains_of_others(table: Table, preserve: Preserve) -> frozenset[str]:
    """The user-defined chains of a live table that belong to others: by name, or because a chain of theirs leads there.

    A chain that another's chain jumps to cannot be removed, so it is theirs by use.
    """
    theirs = {chain.name for chain in table.chains.values() if preserve.keeps_chain(chain)}
    waiting = list(theirs)
    while waiting:
        for rule in table.chains[waiting.pop()].rules:
            target = jump_target(rule.text)
            if target is not None and target in table.chains and target not in theirs:
                theirs.add(target)
                waiting.append(target)
    return frozenset(theirs)


def own_part(live: Ruleset, preserve: Preserve, wanted: Ruleset | None = None) -> Ruleset:
    """A live ruleset without what belongs to others. A chain that ``wanted`` has is ours, whoever uses it too."""
    tables = {}
    for name, table in live.tables.items():
        ours = wanted.tables[name].chains if wanted is not None and name in wanted.tables else {}
        theirs = chains_of_others(table, preserve) - ours.keys()
        chains = {
            chain.name: _own_chain(name, chain, preserve) for chain in table.chains.values() if chain.name not in theirs
        }
        tables[name] = Table(name, chains)
    return Ruleset(live.family, tables)


def _own_chain(table: str, chain: Chain, preserve: Preserve) -> Chain:
    rules = tuple(rule for rule in chain.rules if not preserve.keeps_rule(rule, table, chain.name))
    if len(rules) == len(chain.rules):
        return chain
    return Chain(chain.name, chain.policy, rules, chain.origin, chain.counters)


@lru_cache(maxsize=8)
def _compiled(patterns: tuple[str, ...]) -> Preserve:
    for_rules = [pattern for pattern in patterns if pattern.startswith("-") or " " in pattern]
    for_chains = [pattern for pattern in patterns if pattern not in for_rules]
    return Preserve(_any_of(for_chains), _in_places(for_rules))


def _any_of(patterns: Iterable[str]) -> re.Pattern[str]:
    alternatives = "|".join(translate(pattern) for pattern in patterns)
    return re.compile(alternatives) if alternatives else _NOTHING


def _in_places(patterns: Iterable[str]) -> re.Pattern[str]:
    """Patterns for rules, those for one place together, so that most rules fail at its name."""
    places: dict[str, list[str]] = {}
    for pattern in patterns:
        match = _PLACE.match(pattern)
        assert match is not None
        place = " ".join("[^ ]+" if name is None else re.escape(name) for name in (match[1], match[2]))
        places.setdefault(place, []).append(match[3])
    alternatives = "|".join(f"{place} (?:{_any_text(texts)})" for place, texts in places.items())
    return re.compile(alternatives) if alternatives else _NOTHING


def _any_text(patterns: Sequence[str]) -> str:
    """A regular expression for any of the patterns. Those that may begin anywhere with a match ("*-m ") look for that
    together: each for itself would read every rule to its end."""
    anywhere = [pattern.removeprefix(_ANYWHERE) for pattern in patterns if pattern.startswith(_ANYWHERE)]
    texts = [translate(pattern) for pattern in patterns if not pattern.startswith(_ANYWHERE)]
    if anywhere:
        texts.append(f".*?-m (?:{'|'.join(map(translate, anywhere))})")
    return "|".join(texts)
