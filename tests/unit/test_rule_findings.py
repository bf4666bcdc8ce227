"""What the model proves about the rules of files, as warnings."""

from __future__ import annotations

import time

from fwguardd.kernel.z3_solver import Solver
from fwguardd.proof.rule_findings import RuleProofs
from fwguardd.proof.shorter import text_without
from fwguardd.ruleset.model import Finding, Origin
from tests.golden.test_changes import rulesets_of
from tests.waiting import LONGEST

BASE = "-P INPUT DROP\n-A INPUT -i lo -j ACCEPT\n"


def findings(rules: str) -> dict[tuple[str, int], str]:
    """The messages by code and line."""
    with Solver(time.monotonic() + LONGEST) as solver:
        found = list(RuleProofs(rulesets_of("a.rules", rules), (), (), solver).findings())
    return {(each.code, each.place.line): each.message for each in found}


def test_a_dead_rule_is_told_once_with_the_rules_that_take_its_packets() -> None:
    """A line of which no packet meets any rule is dead, and is not told as needless too; one that packets of one family
    meet is not dead."""
    drops = "-4 -A INPUT -s 0.0.0.0/1 -j DROP\n-4 -A INPUT -s 128.0.0.0/1 -j REJECT\n"
    found = findings(f"{BASE}{drops}-A INPUT -p tcp -m tcp --dport 22 -j ACCEPT\n-4 -A INPUT -p udp -j ACCEPT\n")
    message = "no packet meets this rule: what it matches is taken by the DROP at a.rules:3 and the REJECT at a.rules:4"
    assert found == {
        ("dead-rule", 6): message,
        ("one-family-open", 5): found["one-family-open", 5],
    }


def test_a_rule_that_changes_nothing_is_needless() -> None:
    """A rule whose packets the rules behind it treat alike can go; one before a LOG rule cannot."""
    special = "-4 -A INPUT -s 203.0.113.0/24 -p tcp -m tcp --dport 22 -j ACCEPT\n"
    rest = "-A INPUT -p tcp -m tcp --dport 22 -j ACCEPT\n-A INPUT -p tcp -m tcp --dport 23 -j DROP\n"
    assert set(findings(BASE + special + rest)) == {("needless-rule", 3), ("needless-rule", 5)}
    assert set(findings(BASE + special + rest + "-A INPUT -j LOG\n")) == {("needless-rule", 3)}


def test_a_service_of_one_family_is_told_where_it_is_accepted() -> None:
    """Ports that most addresses reach by one family alone are told at the rule; those for some networks, and DHCP, are
    not."""
    found = findings(
        f"{BASE}-4 -A INPUT -p tcp -m tcp --dport 8080 -j ACCEPT\n-A INPUT -p tcp -m tcp --dport 22 -j ACCEPT\n"
        "-4 -A INPUT -p udp -m udp --dport 68 -j ACCEPT\n-4 -A INPUT -s 10.0.0.0/8 -p tcp -j ACCEPT\n"
    )
    assert set(found) == {("one-family-open", 3)}
    assert "TCP port 8080 of this host can be reached from most addresses by IPv4, and not by IPv6" in str(found)


def test_what_lint_has_told_is_not_told_again() -> None:
    """A line that has a warning of a shadowed rule gets no second one."""
    rules = rulesets_of(
        "a.rules", f"{BASE}-A INPUT -p tcp -j DROP\n-A INPUT -p tcp -m tcp --dport 22 -j ACCEPT\n-A INPUT -j LOG\n"
    )
    known = (Finding("unreachable-rule", "", Origin("a.rules", 4)),)
    with Solver(time.monotonic() + LONGEST) as solver:
        assert list(RuleProofs(rules, (), known, solver).findings()) == []


def test_lines_are_counted_as_the_parser_counts_them() -> None:
    """Only the newline ends a line, so that a strange character in a comment moves no other line."""
    assert text_without("# a\x0b\u2028b\nrule\nlast", [Origin("a.rules", 2)]) == "# a\x0b\u2028b\nlast"
