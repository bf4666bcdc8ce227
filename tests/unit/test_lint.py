"""Lints: each code has a rule that it warns of, one that it does not, and a way to be silent."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fwguardd.enforce.validate import compose_files
from fwguardd.ruleset.compose import compose
from fwguardd.ruleset.lint import WARNINGS, LintContext, lint, unsilenced
from fwguardd.ruleset.model import Family, Origin, RuleFile
from fwguardd.ruleset.parser import read_rules
from fwguardd.ruleset.preserve import Preserve

if TYPE_CHECKING:
    from fwguardd.ruleset.model import Finding

CONTEXT = LintContext(("iptables denied: ",), Preserve.from_patterns(["DOCKER*", "f2b-*"]))
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
    "no-target": ("-A INPUT -p tcp --dport 22\n", "-A INPUT -m recent --set --name a\n-A INPUT -i a -g B\n-N B\n"),
    "odd-interface": ("-A INPUT -i eth0:1 -j ACCEPT\n", "-A INPUT -i eth0.100 -j ACCEPT\n-A INPUT -i eth+ -j ACCEPT\n"),
    "short-address": ("-A INPUT -s 192.168.1 -j ACCEPT\n", "-A INPUT -s 10/8 -d 0.0.0.0 -j ACCEPT\n"),
    "unknown-allowance": (
        "# fwguard: allow no-loopbak\n-A INPUT -p tcp -j ACCEPT\n",
        "# fwguard: allow no-loopback\n-A INPUT -p tcp -j ACCEPT\n",
    ),
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


def _only(code: str, *texts: str) -> Finding:
    (finding,) = [finding for finding in _lint(*texts) if finding.code == code]
    return finding


def test_what_one_family_lacks_is_told_of_it_alone() -> None:
    """Whoever reads it has the rule before them, for the other family; the hint adds it for the one that lacks it."""
    rules = "-A INPUT -i lo -j ACCEPT\n-4 -A INPUT -m conntrack --ctstate ESTABLISHED -j ACCEPT\n"
    finding = _only("no-established", f"-P INPUT DROP\n{rules}")
    assert finding.family is Family.IPV6
    assert finding.hint == 'add "-6 -A INPUT -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT"'
    assert _only("no-established", "-P INPUT DROP\n").family is None


def test_a_chain_that_a_last_rule_closes_is_closed() -> None:
    """Policy ACCEPT and a REJECT of everything is how some distributions close a chain. What is lacking goes before."""
    finding = _only("no-loopback", "-P INPUT ACCEPT\n-A INPUT -p tcp --dport 22 -j ACCEPT\n-A INPUT -j REJECT\n")
    assert (finding.origin, finding.hint) == (Origin("0.rules", 3), 'add "-I INPUT -i lo -j ACCEPT"')


def test_a_reject_of_one_family_leaves_the_other_open() -> None:
    """icmp-host-prohibited exists for IPv4 alone: the last rule of many a saved ruleset closes nothing for IPv6."""
    text = f"{OPEN}-A INPUT -j REJECT --reject-with icmp-host-prohibited\n"
    finding = _only("ipv6-open", text)
    assert finding.origin == Origin("0.rules", 4)
    assert finding.hint == 'close it for IPv6 too: "-6 -A INPUT -j REJECT"'
    assert "ipv6-open" not in _codes(f"-P INPUT DROP\n{text}")
    assert "ipv6-open" not in _codes(f"{text}-6 -A INPUT -j DROP\n")


@pytest.mark.parametrize(
    ("rules", "enough"),
    [
        ("-A INPUT -p ipv6-icmp --icmpv6-type echo-request -j ACCEPT\n", False),
        ("-A INPUT -p ipv6-icmp --icmpv6-type 135 -j ACCEPT\n", False),
        (
            (
                "-A INPUT -p icmpv6 --icmpv6-type neighbour-solicitation -j ACCEPT\n"
                "-A INPUT -p icmpv6 --icmpv6-type 136 -j ACCEPT\n"
            ),
            True,
        ),
        ("-A INPUT -p 58 -j ACCEPT\n", True),
        ("-A INPUT -p ipv6-icmp -j DROP\n", False),
    ],
)
def test_neighbour_discovery_needs_both_of_its_types(rules: str, *, enough: bool) -> None:
    """A ping alone keeps no IPv6 alive."""
    assert ("no-neighbour-discovery" not in _codes(f"-P INPUT DROP\n{rules}")) is enough


def test_a_log_prefix_gets_one_warning() -> None:
    """One that lacks its space is not called unwatched too; one that is not there is; NFLOG makes no lines."""
    assert _codes(LOG.replace("denied: ", "denied:")) == {"log-prefix-space"}
    assert _codes("-A INPUT -m limit --limit 1/s -j LOG\n") == {"log-prefix-unwatched"}
    assert _codes("-A INPUT -j NFLOG --nflog-group 1\n") == set()
    assert _codes(f'-A INPUT -j NFLOG --nflog-prefix "{"p" * 63}"\n') == set()
    assert _codes(f'-A INPUT -j NFLOG --nflog-prefix "{"p" * 64}"\n') == {"log-prefix-too-long"}


def test_a_reject_with_a_limit_is_sane() -> None:
    """The rest is dropped in silence, which is what people mean by it."""
    assert _codes("-A INPUT -m limit --limit 1/s -j REJECT\n") == set()


@pytest.mark.parametrize(
    ("rule", "hint"),
    [
        ("-i eth0:1", "write eth0, and match the address with -d or -s"),
        ("-o eth*", 'write "eth+": a + at the end matches any ending'),
        ("-i 192.168.1.1", "write the interface, or match the address with -s or -d"),
        ("-s 10", "write 10.0.0.0/8"),
        ("-d 192.168.1", "write 192.168.1.0/24"),
    ],
)
def test_what_matches_other_than_it_looks_is_told_with_what_to_write(rule: str, hint: str) -> None:
    """Iptables takes each of them without a word."""
    (finding,) = _lint(f"-A FORWARD {rule} -j ACCEPT\n")
    assert finding.hint == hint


def test_what_belongs_to_others_is_told_once_for_each_file() -> None:
    """The rules of a Docker host would bury all else."""
    text = b":DOCKER -\n:DOCKER-USER -\n-A FORWARD -j DOCKER\n"
    findings = compose_files((RuleFile("a.rules", text), RuleFile("b.rules", text)), CONTEXT).findings
    told = [finding for finding in findings if finding.code == "preserved-chain"]
    assert [finding.origin for finding in told] == [Origin("a.rules", 1), Origin("b.rules", 3)]
    assert told[0].message.endswith("; the same holds for 2 more lines of this file")


@pytest.mark.parametrize(
    "rules",
    [
        "-P INPUT DROP\n-P OUTPUT DROP\n-A OUTPUT -p tcp --dport 21 -j ACCEPT\n",
        "-4 -P INPUT DROP\n-4 -A INPUT -i lo -j ACCEPT\n-4 -A INPUT -m conntrack --ctstate ESTABLISHED -j ACCEPT\n",
        "-A INPUT -p tcp --dport 22 -j ACCEPT\n-A INPUT -j DROP\n",
        "-A INPUT -i lo -j ACCEPT\n-A INPUT -j REJECT --reject-with icmp-host-prohibited\n",
        "-P INPUT DROP\n-4 -A INPUT -i lo -j ACCEPT\n-6 -A INPUT -m conntrack --ctstate ESTABLISHED -j ACCEPT\n",
    ],
)
def test_what_a_warning_says_to_add_ends_it(rules: str) -> None:
    """Whoever adds what all the hints say, and again where that closed something more, is warned of nothing."""
    assert _lint(rules)
    for _ in range(3):
        rules += "".join(f"{line}\n" for told in _lint(rules) for line in re.findall(r'"(-[^"]+)"', told.hint))
    assert _lint(rules) == ()


@pytest.mark.parametrize(
    ("rules", "warned"),
    [
        ("-A FORWARD -i lan -o wan -j ACCEPT\n", True),
        ("-A FORWARD -p tcp --dport 80 -j ACCEPT\n", True),
        ("-A FORWARD -d 10.0.0.1 -p tcp --dport 80 -j ACCEPT\n-A FORWARD -i lan -o wan -j ACCEPT\n", True),
        ("-A FORWARD -i lan -o wan -j ACCEPT\n-A FORWARD -i wan -o lan -j ACCEPT\n", False),
        ("-A FORWARD -d 10.0.0.1 --dport 80 -j ACCEPT\n-A FORWARD -s 10.0.0.1 --sport 80 -j ACCEPT\n", False),
        ("-A FORWARD -i wan -m state --state ESTABLISHED -j ACCEPT\n-A FORWARD -i lan -o wan -j ACCEPT\n", False),
        ("-A FORWARD -i br0 -o br0 -j ACCEPT\n-A FORWARD -p icmp -j ACCEPT\n", False),
        ("", False),
    ],
)
def test_a_router_needs_its_answers_too(rules: str, *, warned: bool) -> None:
    """A closed FORWARD that lets packets through one way only; one that lets nothing through is a choice."""
    assert ("no-established" in _codes(f"-P FORWARD DROP\n{rules}")) is warned


def test_every_warning_that_can_be_silenced_is_known_and_documented() -> None:
    """The set of codes is what an allowance is held to; the README tells of each."""
    text = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    assert set(CASES) - {"port-without-protocol"} <= WARNINGS
    assert {code for code in WARNINGS if f"`{code}`" not in text} == set()


def test_an_allowance_for_nothing_is_told_with_what_was_meant() -> None:
    """Once, where it stands."""
    (finding,) = _lint("# fwguardd: allow host-nam, unreachable-rule\n-A INPUT -s 10.0.0.1 -j ACCEPT\n")
    assert (finding.code, finding.origin, finding.hint) == (
        "unknown-allowance",
        Origin("0.rules", 1),
        "write host-name",
    )
