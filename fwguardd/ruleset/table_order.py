"""The order in which tables are changed, so that no packet passes in between that neither ruleset lets through.

This module is pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fwguardd.ruleset.model import Ruleset, Table, texts_of

if TYPE_CHECKING:
    from collections.abc import Collection

_DROPPING = ("-j DROP", "-j REJECT")


def stricter_first(names: Collection[str], live: Ruleset, wanted: Ruleset) -> list[str]:
    """The names of tables that change, those that drop more than before ahead of those that drop less.

    Each table is a transaction of its own, and a packet has to pass all of them. Between two transactions some are new
    and some are old. Where none is loosened before all that are tightened are in force, no packet passes in between
    that neither the ruleset before nor the one after lets through. A table that does both counts as what it does more.
    """
    if len(names) < 2:
        return list(names)

    def loosened(name: str) -> int:
        return _strictness(live.tables.get(name, Table(name, {}))) - _strictness(wanted.tables[name])

    return sorted(names, key=loosened)


def _strictness(table: Table) -> int:
    """How strict a table is: policies that drop count most, then rules that drop, less those that accept."""
    strictness = 0
    for chain in table.chains.values():
        if chain.policy == "DROP":
            strictness += 1_000_000
        texts = "\n".join(texts_of(chain.rules))
        strictness += sum(map(texts.count, _DROPPING)) - texts.count("-j ACCEPT")
    return strictness
