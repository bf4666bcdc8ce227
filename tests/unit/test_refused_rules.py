"""Which rules a repair leaves out where the rehearsal refuses some."""

from __future__ import annotations

from fwguardd.enforce.refused_rules import RefusedRules
from fwguardd.kernel.rehearsal import RehearsalRefused
from fwguardd.ruleset.canonical import Canonical, RulePlace
from fwguardd.ruleset.model import Candidate, Chain, Family, Finding, Findings, Rule, Ruleset, Table

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


RULES = ("-s 192.0.2.1/32 -j DROP", "-m set --match-set a src -j DROP", "-m set --match-set b src -j DROP")


class Kernel:
    """A kernel without the sets a and b, and which rules it was asked to load."""

    def __init__(self) -> None:
        self.refuses = {"a", "b"}
        self.loaded: list[int] = []

    def rehearse(self, candidate: Candidate, /) -> Canonical | RehearsalRefused:
        """Refuse the rules that name what is missing."""
        chain = candidate.rulesets[Family.IPV4].tables["filter"].chains["INPUT"]
        self.loaded.append(len(chain.rules))
        refused = [rule.text for rule in chain.rules if any(f"set {name} " in rule.text for name in self.refuses)]
        if not refused:
            return Canonical.rehearsed(candidate.rulesets)
        findings = Findings(MISSING_SET for _ in refused)
        return RehearsalRefused(findings, frozenset(map(_place, refused)))


def _place(text: str) -> RulePlace:
    return RulePlace(Family.IPV4, "filter", "INPUT", text)


def _canonical() -> Canonical:
    chain = Chain("INPUT", "DROP", tuple(map(Rule, RULES)))
    return Canonical.rehearsed({Family.IPV4: Ruleset(Family.IPV4, {"filter": Table("filter", {"INPUT": chain})})})


def _rules(refused: RehearsalRefused | None) -> set[str]:
    assert refused is not None
    return {place.text for place in refused.rules}


def test_rules_that_were_refused_are_tried_without_the_others() -> None:
    """The second search of a revision loads only the rules that the first has found; one of them that the kernel takes
    by then is not refused any more."""
    kernel = Kernel()
    search = RefusedRules(kernel.rehearse)
    assert _rules(search.of(1, _canonical())) == set(RULES[1:])
    assert _rules(search.of(1, _canonical())) == set(RULES[1:])
    kernel.refuses.remove("b")
    assert _rules(search.of(1, _canonical())) == {RULES[1]}
    assert kernel.loaded == [3, 2, 2]


def test_all_rules_are_searched_again_where_that_is_not_enough() -> None:
    """That is for another revision, where all that were refused load by now, and where the rest could not be loaded; it
    is known whether another search may find more."""
    kernel = Kernel()
    search = RefusedRules(kernel.rehearse)
    kernel.refuses = {"a"}
    assert _rules(search.of(1, _canonical())) == {RULES[1]}
    assert not search.search_all()
    assert _rules(search.of(1, _canonical())) == {RULES[1]}
    kernel.refuses = {"a", "b"}
    assert _rules(search.of(1, _canonical())) == {RULES[1]}
    assert search.search_all()
    assert _rules(search.of(1, _canonical())) == set(RULES[1:])
    assert _rules(search.of(2, _canonical())) == set(RULES[1:])
    kernel.refuses = set()
    assert search.of(2, _canonical()) is None
    assert kernel.loaded == [3, 3, 1, 3, 3, 2, 3]
