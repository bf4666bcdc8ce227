"""Findings: one order, one way to merge what several steps and both families find, and the limits."""

from __future__ import annotations

import itertools

import pytest

from fwguardd.enforce.validate import compose_files
from fwguardd.ruleset.compose import compose
from fwguardd.ruleset.model import MOST_FINDINGS, NO_FINDINGS, Family, Finding, Findings, Origin, RuleFile, Severity
from fwguardd.ruleset.parser import read_rules
from fwguardd.ruleset.statements import MOST_UNREAD, UnreadInput
from fwguardd.settings import Settings

IPV4 = Finding("bad-port", "no such port", Origin("b.rules", 2), family=Family.IPV4)
IPV6 = Finding("bad-port", "no such port", Origin("b.rules", 2), family=Family.IPV6)
WARNING = Finding("no-target", "the rule has no target", Origin("a.rules", 9), Severity.WARNING)
NO_PLACE = Finding("no-rules", "there are no rules")
PRESERVED = [
    Finding("preserved-rule", "left out", Origin(path, line), Severity.WARNING)
    for path, line in (("a", 1), ("a", 2), ("b", 7), ("a", 3), ("c", 1), ("c", 2))
]


@pytest.mark.parametrize("order", list(itertools.permutations((IPV4, WARNING, NO_PLACE))))
def test_findings_are_in_order_of_place(order: tuple[Finding, ...]) -> None:
    """Findings are sorted by file and line, whichever step found them first; those without a place come first."""
    assert Findings(order) == (NO_PLACE, WARNING, IPV4)


def test_one_place_and_code_is_one_finding() -> None:
    """What both families refuse is one finding that names no family; what one family refuses names it."""
    assert [finding.family for finding in Findings([IPV4, IPV6])] == [None]
    assert [finding.family for finding in Findings([IPV4, IPV4])] == [Family.IPV4]
    assert [finding.family for finding in Findings([IPV4, IPV6, IPV4])] == [None]


def test_findings_without_a_place_differ_by_their_message() -> None:
    """Two findings about no file are two, unless they say the same."""
    other = Finding("no-rules", "something else")
    assert len(Findings([NO_PLACE, other, NO_PLACE])) == 2


def test_errors_and_warnings_are_told_apart() -> None:
    """Errors stop a ruleset from being loaded; warnings stop nothing."""
    findings = Findings([IPV4, WARNING])
    assert findings.errors == (IPV4,)
    assert findings.warnings == (WARNING,)
    assert not NO_FINDINGS.errors


def test_a_place_is_given_to_findings_without_one_only() -> None:
    """What is found about no file is about the directory."""
    placed = Findings([NO_PLACE, IPV4]).placed_at(Origin("/etc/fwguard.d", 0))
    assert [str(finding.origin) for finding in placed] == ["/etc/fwguard.d", "b.rules:2"]


def test_lines_are_those_of_the_file() -> None:
    """A finding gets its line as written: an empty one for a whole file, and its own where the file is not known."""
    rehearsed = Finding("bad-port", "no such port", Origin("b.rules", 2), line_text="as rehearsed")
    whole_file = Finding("utf-16", "the file is UTF-16 text", Origin("b.rules", 0), line_text="x")
    found = Findings([rehearsed, whole_file])
    assert [finding.line_text for finding in found.with_lines({"b.rules": ("# one", "-A x")})] == ["", "-A x"]
    assert [finding.line_text for finding in found.with_lines({})] == ["x", "as rehearsed"]
    assert [finding.line_text for finding in found.with_lines({"b.rules": ()})] == ["", ""]


def test_some_codes_are_listed_once_per_file() -> None:
    """The first finding of a file says for how many more lines it holds; other codes are all kept."""
    findings = Findings([*PRESERVED, IPV4, Finding("bad-port", "no such port", Origin("b.rules", 3))])
    listed = findings.once_per_file({"preserved-rule"})
    assert [(str(finding.origin), finding.message) for finding in listed] == [
        ("a:1", "left out; the same holds for 2 more lines of this file"),
        ("b:7", "left out"),
        ("b.rules:2", "no such port"),
        ("b.rules:3", "no such port"),
        ("c:1", "left out; the same holds for 1 more line of this file"),
    ]


def test_a_refused_rule_hides_no_undeclared_chain() -> None:
    """A refused line that can only be a rule declares nothing, so the chain that it names is reported too."""
    text = b"-A web -p tcp --dport 80; -j ACCEPT\n-A web -j ACCEPT\n"
    codes = [finding.code for finding in compose([read_rules("a.rules", text)]).findings]
    assert codes == ["shell-syntax", "undeclared-chain"]


@pytest.mark.parametrize("line", ["-N web extra", ":web - [0:0", "iptables -Nweb; iptables -A web -j DROP", "web: {"])
def test_a_chain_that_a_refused_line_may_declare_is_not_reported(line: str) -> None:
    """Rules for a chain are not reported where correcting the refused line may declare it."""
    text = f"{line}\n-A web -j ACCEPT\n".encode()
    findings = compose([read_rules("a.rules", text)]).findings
    assert [str(finding.origin) for finding in findings] == ["a.rules:1"]


def test_refused_input_that_names_no_chain_may_declare_any() -> None:
    """The value of a variable, and more lines than are searched, may be the name of any chain."""
    assert UnreadInput.of_lines(["iptables -N $CHAIN"]).may_declare("web")
    assert UnreadInput.of_lines(["x" * MOST_UNREAD, "y"]).may_declare("web")
    assert not UnreadInput.of_lines(["-A INPUT -s $LAN -j ACCEPT"]).may_declare("web")


def test_a_script_hides_no_undeclared_chain_that_it_does_not_name() -> None:
    """Lines of a script are one finding, and the chains that none of them names are still reported."""
    text = b"echo start\nsysctl -w x=1\n-A web -j ACCEPT\n"
    assert [finding.code for finding in compose([read_rules("a.rules", text)]).findings] == [
        "other-language",
        "undeclared-chain",
    ]


def test_sixteen_errors_of_all_kinds_are_sixteen_findings() -> None:
    """One run reports the first error of every line, also where lines name the same chains."""
    text = """-A INPTU -j ACCEPT
-A INPUT -i eth0; -j ACCEPT
-A FORWRD -i eth0 -j DROP
-A FORWRD -s $LAN -j DROP
-A web -j ACCEPT
-A web -j 'ACCEPT'
-P INPUT DORP
-P web DROP
-F web2
-A web2 -j ACCEPT
-A INPUT -h
-a INPUT -j DROP
-t fliter -A INPUT -j DROP
-A dns -s 10.0.0.1 -d 2001:db8::1
-A dns -j DROP
-N very-long-chain-name-of-thirty-characters
"""
    findings = compose_files([RuleFile("a.rules", text.encode())], Settings().lint_context()).findings
    lines = [finding.origin.line for finding in findings.errors if finding.origin]
    expected_hidden = {5}  # -P web names the chain, and its correction may declare it.
    assert lines == [line for line in range(1, 17) if line not in expected_hidden]


def test_undeclared_chains_beyond_the_limit_are_counted_as_one_error() -> None:
    """Where there are more undeclared chains than are listed, a last finding says so."""
    text = "".join(f"-A chain{number:02} -j ACCEPT\n" for number in range(MOST_FINDINGS + 5))
    findings = compose([read_rules("a.rules", text.encode())]).findings
    assert [finding.code for finding in findings] == ["undeclared-chain"] * MOST_FINDINGS + ["too-many-errors"]
