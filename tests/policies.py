"""The policies of a ruleset once it is loaded into a fresh kernel, as its rendered text states them."""

from __future__ import annotations

from dataclasses import replace

from fwguardd.ruleset.model import Chain, Ruleset, Table


def with_stated_policies(ruleset: Ruleset) -> Ruleset:
    """The ruleset with ACCEPT as the policy of each built-in chain for which no file states one."""
    tables: dict[str, Table] = {}
    for name, table in ruleset.tables.items():
        chains: dict[str, Chain] = {}
        for chain in table.chains.values():
            chains[chain.name] = replace(chain, policy=chain.policy_after("ACCEPT"))
        tables[name] = Table(name, chains)
    return Ruleset(ruleset.family, tables)
