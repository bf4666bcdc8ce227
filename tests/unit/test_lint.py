"""Lints: each code has a rule that it warns of, one that it does not, and a way to be silent."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from fwguardd.ruleset.compose import compose
from fwguardd.ruleset.lint import Context, lint, unsilenced
from fwguardd.ruleset.preserve import Preserve
from fwguardd.ruleset.text import read_rules

if TYPE_CHECKING:
    from fwguardd.ruleset.model import Finding

CONTEXT = Context(("iptables denied: ",), Preserve.from_patterns(["DOCKER*", "f2b-*"]))
OPEN = """\
-A INPUT -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT
-A INPUT -i lo -j ACCEPT
-A INPUT -p ipv6-icmp -j ACCEPT
"""
LOG = '-A INPUT -m limit --limit 5/min -j LOG --log-prefix "iptables denied: "\n'

CASES = {
    "log-without-limit": ('-A INPUT -j LOG --log-prefix "iptables denied: "\n', LOG),
    "log-prefix-too-long": (LOG.replace("denied: ", "denied, as it should be: "), LOG),
    "log-prefix-space": (LOG.replace("denied: ", "denied:"), LOG),
    "log-prefix-unwatched": (LOG.replace("denied", "refused"), LOG),
    "unreachable-rule": (
        "-A INPUT -j DROP\n-A INPUT -p tcp -j ACCEPT\n",
        "-A INPUT -p tcp -j ACCEPT\n-A INPUT -j DROP\n",
    ),
    "no-established": ("-P INPUT DROP\n-A INPUT -i lo -j ACCEPT\n", f"-P INPUT DROP\n{OPEN}"),
    "no-loopback": ("-P INPUT DROP\n-A INPUT -i eth0 -j ACCEPT\n", f"-P INPUT DROP\n{OPEN}"),
    "no-neighbour-discovery": ("-P INPUT DROP\n-A INPUT -i lo -j ACCEPT\n", f"-P INPUT DROP\n{OPEN}"),
    "ipv6-open": ("-4 -P INPUT DROP\n", f"-P INPUT DROP\n{OPEN}"),
    "host-name": ("-A INPUT -s example.org -j ACCEPT\n", "-A INPUT -s 192.0.2.1,192.0.2.2 -j ACCEPT\n"),
    "unused-chain": (":WEB -\n", ":WEB -\n-A INPUT -j WEB\n"),
    "duplicate-rule": (
        "-A INPUT -p tcp --dport 22 -j ACCEPT\n" * 2,
        "-A INPUT -p tcp -j ACCEPT\n-A OUTPUT -p tcp -j ACCEPT\n",
    ),
    "limit-on-drop": (
        "-A INPUT -m limit --limit 1/s -j DROP\n",
        "-A INPUT -m hashlimit --hashlimit-above 1/s -j DROP\n",
    ),
    "port-without-protocol": ("-A INPUT --dport 22 -j ACCEPT\n", "-A INPUT -p tcp --dport 22 -j ACCEPT\n"),
    "ftp-without-helper": (
        "-A INPUT -p tcp --dport 21 -j ACCEPT\n",
        "-A INPUT -p tcp --dport 21 -j ACCEPT\n-t raw -A PREROUTING -p tcp --dport 21 -j CT --helper ftp\n",
    ),
    "preserved-chain": (":DOCKER -\n", ":DOCK -\n-A INPUT -j DOCK\n"),
    "policy-twice": ("-P INPUT DROP\n-P INPUT DROP\n", "-P INPUT DROP\n-P OUTPUT DROP\n"),
}


def _lint(*texts: str) -> tuple[Finding, ...]:
    readings = [read_rules(f"{number}.rules", text.encode()) for number, text in enumerate(texts)]
    composition = compose(readings)
    return (*unsilenced(composition.findings, readings), *lint(composition.candidate, readings, CONTEXT))


def _codes(*texts: str) -> set[str]:
    return {finding.code for finding in _lint(*texts)}


@pytest.mark.parametrize("code", CASES)
def test_each_lint_warns_of_what_it_should(code: str) -> None:
    """The first text of the case gets the finding, with a hint, an origin and the line; the second does not."""
    bad, good = CASES[code]
    (finding, *_) = [finding for finding in _lint(bad) if finding.code == code]
    assert finding.hint
    assert finding.origin is not None
    assert finding.line_text == bad.splitlines()[finding.origin.line - 1]
    assert code not in _codes(good)


@pytest.mark.parametrize("code", [code for code in CASES if code != "port-without-protocol"])
def test_each_warning_can_be_silenced(code: str) -> None:
    """``# fwguard: allow CODE`` above every line silences the warning, and no other code does."""
    bad, _ = CASES[code]

    def with_comment(allowed: str) -> str:
        return "".join(f"# fwguard: allow {allowed}\n{line}\n" for line in bad.splitlines())

    assert code not in _codes(with_comment(code))
    assert code in _codes(with_comment("something-else"))


def test_a_warning_is_silenced_on_its_own_line() -> None:
    """A trailing comment silences its line, and only that one."""
    rule = "-A INPUT -s example.org -j ACCEPT"
    findings = _lint(f"{rule} # fwguard: allow host-name\n{rule} -p tcp\n")
    assert [finding.origin.line for finding in findings if finding.origin and finding.code == "host-name"] == [2]


def test_errors_cannot_be_silenced() -> None:
    """A line that the kernel refuses stays an error, whatever its author allows."""
    assert "port-without-protocol" in _codes("-A INPUT --dport 22 -j ACCEPT # fwguard: allow port-without-protocol\n")


def test_both_families_are_told_once() -> None:
    """A rule of both families is one rule to its author, and gets one finding."""
    findings = _lint("-A INPUT -m limit --limit 1/s -j DROP\n")
    assert len(findings) == 1


def test_duplicate_files_are_told() -> None:
    """Two files with the same content are one too many."""
    assert "duplicate-file" in _codes("-A INPUT -p tcp -j ACCEPT\n", "-A INPUT -p tcp -j ACCEPT\n")


def test_a_chain_may_accept_for_its_caller() -> None:
    """What a chain needs may stand in a chain that it jumps to."""
    text = f":BASE -\n-P INPUT DROP\n-A INPUT -j BASE\n{OPEN.replace('INPUT', 'BASE')}"
    assert not _codes(text) & {"no-established", "no-loopback", "no-neighbour-discovery"}
