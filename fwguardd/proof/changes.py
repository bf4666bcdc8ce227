"""Which packets a change of rules can touch: those that a rule matches which only one of two rulesets has.

A packet that no such rule matches meets the same rules with the same answers in both. So a comparison of two long
rulesets that differ in few rules needs only the packets of these, of which most other rules match none.

This module is pure.
"""

from __future__ import annotations

from dataclasses import replace
from difflib import SequenceMatcher
from itertools import chain
from typing import TYPE_CHECKING, Final

from fwguardd.proof.fields import PacketField
from fwguardd.proof.intervals import united
from fwguardd.proof.parts import RuleEffect, Test
from fwguardd.ruleset.model import BUILTIN_CHAINS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from fwguardd.proof.intervals import Intervals
    from fwguardd.proof.reading import ModelledRule, ReadTables

    Region = Mapping[PacketField, Intervals]

MOST_REGIONS: Final = 4
"""Regions that are asked about one by one. More are taken as one region around all."""
MOST_MATCHED: Final = 2_000
"""Rules of a chain between the first and the last difference in which the rules that are the same are looked for."""

EVERYTHING: Final[Region] = {}
_SPARE: Final = " "
"""A name that no chain has (iptables(8), "-N")."""

_STEADY_FIELDS: Final = frozenset(
    {
        PacketField.IN,
        PacketField.PROTOCOL,
        PacketField.SOURCE,
        PacketField.SPORT,
        PacketField.DESTINATION,
        PacketField.DPORT,
    }
)
_TRANSLATED: Final = frozenset({PacketField.SOURCE, PacketField.SPORT, PacketField.DESTINATION, PacketField.DPORT})
_REDIRECTED: Final = frozenset({PacketField.DESTINATION, PacketField.DPORT})


def same_nat(before: ReadTables, after: ReadTables) -> tuple[ReadTables, ReadTables]:
    """Both, so that connections that were there before are taken to have NAT in both or in none: what rules do with
    these does not begin with the first rule for NAT."""
    chains = (*before.tables.get("nat", {}).values(), *after.tables.get("nat", {}).values())
    spare = tuple(chain.from_iterable(chains))
    if not spare:
        return before, after
    return _with_spare(before, spare[0]), _with_spare(after, spare[0])


def _with_spare(rules: ReadTables, rule: ModelledRule) -> ReadTables:
    nat = {**rules.tables.get("nat", {}), _SPARE: (rule,)}
    return replace(rules, tables={**rules.tables, "nat": nat})


def regions(before: ReadTables, after: ReadTables, *, with_nat: bool) -> list[Region]:
    """Values of fields such that each packet that the two rulesets may treat otherwise has those of one region. None
    if they are the same."""
    if before.is_changing != after.is_changing or _has_other_policy(before, after):
        return [EVERYTHING]
    changed = list(changed_rules(before, after))
    fields = _STEADY_FIELDS
    if not _has_rules(before, "raw") and not _has_rules(after, "raw"):
        fields |= {PacketField.STATE}
    if before.tables.get("nat") or after.tables.get("nat"):
        fields -= {True: _TRANSLATED, False: _REDIRECTED}[with_nat]
    found: list[Region] = []
    for rule in changed:
        region = _region_of(rule, fields)
        if region not in found:
            found.append(region)
    if len(found) > MOST_REGIONS:
        return [_around(found)]
    return found


def _has_rules(rules: ReadTables, table: str) -> bool:
    """Whether a table has rules. Those of raw see other states, and may change them."""
    return any(rules.tables.get(table, {}).values())


def _has_other_policy(before: ReadTables, after: ReadTables) -> bool:
    for table, chains in BUILTIN_CHAINS.items():
        for name in chains:
            if _policy(before, table, name) != _policy(after, table, name):
                return True
    return False


def _policy(rules: ReadTables, table: str, name: str) -> str:
    known = rules.ruleset.tables.get(table)
    if known is None or name not in known.chains:
        return "ACCEPT"
    return known.chains[name].policy_after("ACCEPT") or "ACCEPT"


def changed_rules(before: ReadTables, after: ReadTables) -> Iterator[ModelledRule]:
    """The rules that only one of the two has at their place. Chains that only one has are left out, unless they are
    built in: only rules that the other does not have lead to them."""
    for table, chains in BUILTIN_CHAINS.items():
        one, other = before.tables.get(table, {}), after.tables.get(table, {})
        for name in dict.fromkeys((*chains, *(one.keys() & other.keys()))):
            yield from _changed(one.get(name, ()), other.get(name, ()))


def _changed(one: Sequence[ModelledRule], other: Sequence[ModelledRule]) -> Iterator[ModelledRule]:
    shorter = min(len(one), len(other))
    start = 0
    while start < shorter and _is_same(one[start], other[start]):
        start += 1
    end = 0
    while end < shorter - start and _is_same(one[-1 - end], other[-1 - end]):
        end += 1
    one, other = one[start : len(one) - end], other[start : len(other) - end]
    if max(len(one), len(other)) > MOST_MATCHED:
        yield from (*one, *other)
        return
    yield from _unmatched(one, other)


def _unmatched(one: Sequence[ModelledRule], other: Sequence[ModelledRule]) -> Iterator[ModelledRule]:
    matcher = SequenceMatcher(None, list(map(_key, one)), list(map(_key, other)), autojunk=False)
    for tag, first, last, start, end in matcher.get_opcodes():
        if tag != "equal":
            yield from one[first:last]
            yield from other[start:end]


def _is_same(one: ModelledRule, other: ModelledRule) -> bool:
    return _key(one) == _key(other)


def _key(rule: ModelledRule) -> tuple[str, RuleEffect]:
    """What makes two rules the same: the text, and whether it leads to a chain."""
    return rule.rule.text, rule.meaning.target.effect


def _region_of(rule: ModelledRule, fields: Iterable[PacketField]) -> Region:
    region: dict[PacketField, Intervals] = {}
    for part in rule.meaning.parts:
        if isinstance(part, Test) and part.field in fields:
            region[part.field] = part.values
    return region


def _around(found: Sequence[Region]) -> Region:
    """The values that the packets of any of the regions have."""
    around: dict[PacketField, Intervals] = {}
    for name in found[0]:
        values = [region.get(name) for region in found]
        if None not in values:
            around[name] = united(chain.from_iterable(filter(None, values)))
    return around
