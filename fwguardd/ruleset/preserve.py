"""The setting ``preserve``: patterns for the chains and rules of other programs, which fwguardd leaves as they are.

A pattern is a shell pattern (fnmatch(3)). One that starts with a dash or holds a space is for the text of rules, as
iptables-save prints it after ``-A CHAIN``; with ``-t TABLE``, ``-A CHAIN`` or both before it, for rules in that place
only. Any other pattern is for names of user-defined chains. A rule that jumps to a preserved chain is preserved too.

This module is pure.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from fnmatch import translate
from functools import lru_cache
from typing import TYPE_CHECKING

from fwguardd.ruleset.chain_graph import chains_reached
from fwguardd.ruleset.model import Chain, Rule, Ruleset, Table
from fwguardd.ruleset.rule_view import jump_target

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

_NOTHING = re.compile(r"(?!)")
_PLACE = re.compile(r"(?:-t ([^ ]+) )?(?:-A ([^ ]+) )?(.*)", re.DOTALL)
_ANYWHERE = "*-m "


@dataclass(frozen=True, slots=True)
class Preserve:
    """Compiled patterns. Those for rules are matched with table, chain and text, separated by spaces."""

    chains: re.Pattern[str]
    rules: re.Pattern[str]

    @classmethod
    def from_patterns(cls, patterns: Iterable[str]) -> Preserve:
        """Patterns of the settings, in which the names of known programs are replaced by their patterns."""
        return _compiled(tuple(patterns))

    def keeps_chain(self, chain: Chain) -> bool:
        """Whether a live chain belongs to another program. A built-in chain never does."""
        return chain.policy is None and self.keeps_name(chain.name)

    def keeps_name(self, name: str) -> bool:
        """Whether a user-defined chain of this name belongs to another program."""
        return self.chains.match(name) is not None

    def keeps_rule(self, rule: Rule, table: str, chain: str) -> bool:
        """Whether a live rule in this chain belongs to another program, by its text or by its jump."""
        return self.keeps_text(rule.text, table, chain) or self.keeps_jump(rule)

    def keeps_text(self, text: str, table: str, chain: str) -> bool:
        """Whether a rule of this text, in this chain, belongs to another program."""
        return self.rules.match(f"{table} {chain} {text}") is not None

    def keeps_jump(self, rule: Rule) -> bool:
        """Whether a rule jumps to a chain of another program."""
        target = jump_target(rule.text)
        return target is not None and self.keeps_name(target)


STRICT = Preserve(_NOTHING, _NOTHING)
"""No patterns: nothing belongs to other programs."""


def chains_of_others(table: Table, preserve: Preserve) -> frozenset[str]:
    """The user-defined chains of a live table that belong to other programs: by name, or because a preserved chain
    leads to them. A chain that another one jumps to cannot be removed."""
    preserved = [chain.name for chain in table.chains.values() if preserve.keeps_chain(chain)]
    return frozenset(chains_reached(table, preserved))


def own_part(live: Ruleset, preserve: Preserve, wanted: Ruleset | None = None) -> Ruleset:
    """A live ruleset without what belongs to other programs. A chain that ``wanted`` has is owned, whether or not
    other programs use it."""
    tables: dict[str, Table] = {}
    for name, table in live.tables.items():
        others = chains_of_others(table, preserve)
        if wanted is not None and name in wanted.tables:
            others -= wanted.tables[name].chains.keys()
        tables[name] = _own_table(table, others, preserve)
    return Ruleset(live.family, tables)


def _own_table(table: Table, others: Collection[str], preserve: Preserve) -> Table:
    chains: dict[str, Chain] = {}
    for chain in table.chains.values():
        if chain.name not in others:
            chains[chain.name] = _own_chain(table.name, chain, preserve)
    return Table(table.name, chains)


def _own_chain(table: str, chain: Chain, preserve: Preserve) -> Chain:
    rules = tuple(rule for rule in chain.rules if not preserve.keeps_rule(rule, table, chain.name))
    if len(rules) == len(chain.rules):
        return chain
    return replace(chain, rules=rules)


@lru_cache(maxsize=8)
def _compiled(patterns: tuple[str, ...]) -> Preserve:
    for_rules: list[str] = []
    for_chains: list[str] = []
    for pattern in patterns:
        if pattern.startswith("-") or " " in pattern:
            for_rules.append(pattern)
        else:
            for_chains.append(translate(pattern))
    return Preserve(_any_of(for_chains), _in_places(for_rules))


def _any_of(expressions: Sequence[str]) -> re.Pattern[str]:
    if not expressions:
        return _NOTHING
    return re.compile("|".join(expressions))


def _in_places(patterns: Iterable[str]) -> re.Pattern[str]:
    """Patterns for rules. Those for one place are put together, so that most rules fail at its name."""
    places: dict[str, list[str]] = {}
    for pattern in patterns:
        match = _PLACE.match(pattern)
        assert match is not None
        table, chain, text = match.groups()
        places.setdefault(f"{_exactly(table)} {_exactly(chain)}", []).append(text)
    return _any_of([f"{place} (?:{_any_text(texts)})" for place, texts in places.items()])


def _exactly(name: str | None) -> str:
    if name is None:
        return "[^ ]+"
    return re.escape(name)


def _any_text(patterns: Sequence[str]) -> str:
    """A regular expression for any of the patterns. Those that start with any text and a match ("*-m ") are put
    together: each by itself would read every rule to its end."""
    anywhere: list[str] = []
    texts: list[str] = []
    for pattern in patterns:
        if pattern.startswith(_ANYWHERE):
            anywhere.append(translate(pattern.removeprefix(_ANYWHERE)))
        else:
            texts.append(translate(pattern))
    if anywhere:
        texts.append(f".*?-m (?:{'|'.join(anywhere)})")
    return "|".join(texts)
