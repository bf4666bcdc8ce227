"""Which rules a repair leaves out where the rehearsal refuses some."""

from __future__ import annotations

from fwguardd.kernel.rehearsal import RehearsalRefused
from fwguardd.ruleset.canonical import RulePlace
from fwguardd.ruleset.model import Family, Finding, Findings

MISSING_SET = Finding("unknown-set", 'there is no ipset "allow"', None)
OF_OTHERS = Finding("undeclared-chain", "DOCKER-USER is not a chain", None)
WITH_SET = RulePlace(Family.IPV4, "filter", "INPUT", "-m set --match-set allow src -j ACCEPT")
JUMP = RulePlace(Family.IPV4, "filter", "FORWARD", "-j DOCKER-USER")


def test_a_jump_to_a_chain_of_another_program_is_not_refused_by_the_live_kernel() -> None:
    """Where another program has made the chain, only the other refused rules are left out, with their findings."""
    refused = RehearsalRefused(Findings((OF_OTHERS, MISSING_SET)), frozenset({JUMP, WITH_SET}), frozenset({JUMP}))
    live = refused.where_undeclared_chains_exist()
    assert live == RehearsalRefused(Findings((MISSING_SET,)), frozenset({WITH_SET}))


def test_a_jump_alone_leaves_nothing_to_leave_out() -> None:
    """A repair of which the rehearsal refuses only such jumps has no rule that the live kernel would refuse."""
    refused = RehearsalRefused(Findings((OF_OTHERS,)), frozenset({JUMP}), frozenset({JUMP}))
    assert refused.where_undeclared_chains_exist().rules == frozenset()
