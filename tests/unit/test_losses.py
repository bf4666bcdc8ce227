"""What other programs lose with a chain that is emptied."""

from __future__ import annotations

from fwguardd.ruleset.diff import compare
from fwguardd.ruleset.losses import losses
from fwguardd.ruleset.model import Chain, Family, Rule, Ruleset, Table
from fwguardd.ruleset.preserve import Preserve, own_part
from tests.counting import steps

JUMP = "-p tcp -m multiport --dports 22 -j f2b-sshd"
OURS = tuple(f"-s 192.0.2.{number}/32 -j ACCEPT" for number in range(200))
PRESERVE = Preserve.from_patterns(["fail2ban", "f2b-*"])


def ruleset(*texts: str) -> Ruleset:
    """A table filter whose INPUT has these rules, beside a chain of ours."""
    chains = {"INPUT": Chain("INPUT", "DROP", tuple(map(Rule, texts))), "ours": Chain("ours", None, (Rule("-j DROP"),))}
    return Ruleset(Family.IPV4, {"filter": Table("filter", {**chains, "f2b-sshd": Chain("f2b-sshd", None)})})


def lost(before: Ruleset, after: Ruleset) -> list[str]:
    """What was lost between the two, where our rules are wanted."""
    wanted = ruleset(*OURS)
    own = own_part(before, PRESERVE, wanted)
    drift = compare(wanted, own_part(after, PRESERVE, wanted))
    return [
        rule
        for loss in losses(drift, {Family.IPV4: before}, {Family.IPV4: own}, {Family.IPV4: after})
        for rule in loss.rules
    ]


def test_a_rule_of_another_program_is_lost_with_ours() -> None:
    """Where its chain is emptied, also if the same rule stood there twice; not where the program removes it itself."""
    before = ruleset(JUMP, *OURS)
    assert lost(before, ruleset()) == [f"ipv4 filter -A INPUT {JUMP}"]
    assert lost(ruleset(JUMP, JUMP, *OURS), ruleset(JUMP)) == [f"ipv4 filter -A INPUT {JUMP}"]
    assert lost(before, ruleset(*OURS)) == []


def test_a_long_chain_without_rules_of_others_is_not_searched() -> None:
    """A change in another chain of its table takes no step for each of its rules."""
    before = {Family.IPV4: ruleset(*OURS)}
    own = {Family.IPV4: own_part(before[Family.IPV4], PRESERVE)}
    drift = compare(ruleset(*OURS), ruleset(*OURS[1:]))
    assert steps(lambda: losses(drift, before, own, before)) < len(OURS)
