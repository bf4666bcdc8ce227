"""Where an entry has to stand so that it works: appended to its chain, or inserted at its head.

An accepting rule is appended, in a file before those with the last rules of the chain. Where the chain has been closed
before that file, the rule is inserted. Rules that drop are inserted always: they come before what accepts.

This module is pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fwguardd.ruleset.reachability import ends
from fwguardd.ruleset.read_rules import RuleReader

if TYPE_CHECKING:
    from fwguardd.ruleset.model import Candidate, Chain, Origin, Table
    from fwguardd.ruleset.read_rules import ReadChains, ReadRule

_LOGS = frozenset({"LOG", "NFLOG"})


def closing_rule(candidate: Candidate, chain: str) -> Origin | None:
    """The place of the first rule of a chain of table filter behind which nothing can be accepted any more, or behind
    which it is logged as denied; None where there is none."""
    for table in _filter_tables(candidate):
        chains = RuleReader().read_chains(table)
        for rule in chains[chain]:
            if _closes(chains, rule):
                return rule.rule.origin
    return None


def accepts_replies(candidate: Candidate, chain: str) -> bool:
    """Whether a rule of the chain accepts the packets of connections that another rule has accepted."""
    return any(_accepts_replies(table.chains[chain]) for table in _filter_tables(candidate))


def _filter_tables(candidate: Candidate) -> list[Table]:
    return [ruleset.tables["filter"] for ruleset in candidate.rulesets.values() if "filter" in ruleset.tables]


def _accepts_replies(chain: Chain) -> bool:
    return any("ESTABLISHED" in rule.text and "-j DROP" not in rule.text for rule in chain.rules)


def _closes(chains: ReadChains, rule: ReadRule) -> bool:
    if rule.target in _LOGS:
        return _matches_all_but_for_limits(rule)
    return not rule.kind.conditions and ends(chains, rule)


def _matches_all_but_for_limits(rule: ReadRule) -> bool:
    """Whether a rule is for every packet, however often."""
    return all("limit" in condition.name for condition in rule.kind.conditions)
