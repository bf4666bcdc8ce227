"""How a ruleset in a bed becomes another one, without loading it whole.

This module is pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fwguardd.ruleset.model import NOT_STATED, Table
from fwguardd.ruleset.plan import Way, make_plan

if TYPE_CHECKING:
    from fwguardd.ruleset.model import Chain, Ruleset
    from fwguardd.ruleset.operations import Plan

MOST_OPERATIONS: Final = 100
"""A larger change is not made: to load the ruleset whole takes about as long."""


def change_between(loaded: Ruleset, wanted: Ruleset) -> Plan | None:
    """The plan that makes the wanted ruleset of the one that is loaded, both as iptables-save prints them.

    None where it has to be loaded whole: the change is large, or something that is loaded would stay that a fresh bed
    does not have.
    """
    for name, table in loaded.tables.items():
        if name not in wanted.tables or _leaves_something(table, wanted.tables[name]):
            return None
    # Nobody else writes to a bed, so the numbers of rules are those of the ruleset.
    plan = make_plan(loaded, loaded, wanted, Way.BY_NUMBER)
    if len(plan.operations) > MOST_OPERATIONS:
        return None
    return plan


def _leaves_something(loaded: Table, wanted: Table) -> bool:
    """Whether a plan leaves a built-in chain, or its policy, that the wanted table does not state."""
    return any(_leaves_policy(chain, wanted) for chain in loaded.chains.values() if chain.policy is not None)


def _leaves_policy(loaded: Chain, wanted: Table) -> bool:
    chain = wanted.chains.get(loaded.name)
    return chain is None or (chain.policy == NOT_STATED and loaded.policy != NOT_STATED)


def changes_sets(ruleset: Ruleset) -> bool:
    """Whether packets change sets, which the next ones then meet."""
    return any(_SET_TARGET in rule.text for _, chain in ruleset.chains() for rule in chain.rules)


_SET_TARGET: Final = "-j SET "
