"""Whose rule is it? The rules that a rehearsal printed -> the lines that they were made from.

Mostly one rule is made from one line. A list of addresses, or a name that has several, becomes a rule for each. Then
the tags tell (`fwguardd.ruleset.render`): the packet counters that the rules were loaded with. ip6tables-nft-restore
1.8.9 loses counters, so there the rules that a list becomes are counted instead; behind a name that only a resolver
can count, origins are left open rather than guessed.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from fwguardd.ruleset.model import Chain, Rule, Ruleset, Table
from fwguardd.ruleset.words import UnterminatedQuoteError, word_values

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from fwguardd.ruleset.model import Origin

_ADDRESS_OPTIONS = frozenset({"-s", "--source", "--src", "-d", "--destination", "--dst"})
_LITERAL = frozenset("0123456789abcdefABCDEF.:/")


def with_origins(saved: Ruleset, source: Ruleset) -> Ruleset:
    """A ruleset that was loaded tagged and saved, with origins; only the tables that ``source`` has."""
    tables: dict[str, Table] = {}
    first = 0
    for table in source.tables.values():
        chains: dict[str, Chain] = {}
        for chain in table.chains.values():
            here = saved.tables[table.name].chains[chain.name]
            origins = _origins(here.rules, chain.rules, first)
            rules = tuple(Rule(rule.text, origin) for rule, origin in zip(here.rules, origins, strict=True))
            chains[chain.name] = Chain(chain.name, here.policy, rules, chain.origin)
            first += len(chain.rules)
        tables[table.name] = Table(table.name, chains)
    return Ruleset(saved.family, tables)


def _origins(saved: Sequence[Rule], written: Sequence[Rule], first: int) -> list[Origin | None]:
    if len(saved) == len(written):
        return [rule.origin for rule in written]
    if any(rule.counters.packets for rule in saved):
        return [written[rule.counters.packets - first].origin for rule in saved]
    counted = list(_counted(written))[: len(saved)]
    return counted + [None] * (len(saved) - len(counted))


def _counted(written: Sequence[Rule]) -> Iterator[Origin | None]:
    """Each origin as often as its rule becomes several, up to the first rule that cannot be counted."""
    for rule in written:
        count = _expansions(rule.text)
        if count is None:
            return
        for _ in range(count):
            yield rule.origin


def _expansions(text: str) -> int | None:
    """How many rules iptables makes of one: for each pair of a source and a destination. None with a host name."""
    try:
        words = word_values(text)
    except UnterminatedQuoteError:
        return None
    count = 1
    for option, value in pairwise(words):
        if option in _ADDRESS_OPTIONS:
            if not set(value) <= _LITERAL | {","}:
                return None
            count *= value.count(",") + 1
    return count
