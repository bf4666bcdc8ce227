"""Lints: for each code a rule that gets the warning and one that does not, and how a warning is silenced."""

from __future__ import annotations

import re
from datetime import UTC, datetime
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

NOW = datetime(2026, 7, 1, tzinfo=UTC)
CONTEXT = LintContext(("iptables denied: ",), Preserve.from_patterns(["DOCKER", "DOCKER-*", "f2b-*"]), NOW)
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
    "log-prefix-overlap": (LOG.replace("denied: ", "denied: INVALID "), LOG),
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
    "never-matches": (
        "-A INPUT -m iprange --src-range 10.0.0.9-10.0.0.1 -j DROP\n",
        "-A INPUT -m iprange --src-range 10.0.0.1-10.0.0.9 -j DROP\n",
    ),
    "any-address": ("-A INPUT -s 203.0.113.7/0 -j ACCEPT\n", "-A INPUT -s 0.0.0.0/0 -d 203.0.113.7 -j ACCEPT\n"),
    "host-bits": ("-A INPUT -s 192.168.0.1/8 -j ACCEPT\n", "-A INPUT -s 192.168.0.0/16 -d 10/8 -j ACCEPT\n"),
    "mask-with-holes": (
        "-A INPUT -s 192.168.1.0/255.0.255.0 -j ACCEPT\n",
        "-A INPUT -s 192.168.1.0/255.255.255.0 -j ACCEPT\n",
    ),
    "odd-number": ("-A INPUT -p tcp --dport 026 -j ACCEPT\n", "-A INPUT -p tcp -m mark --mark 0x10 --dport 22\n"),
    "v4-mapped": ("-A INPUT -s ::ffff:192.0.2.1 -j ACCEPT\n", "-A INPUT -s 64:ff9b::192.0.2.1 -j ACCEPT\n"),
    "chain-hides-target": (":LOG -\n-A INPUT -j LOG\n", ":LOGGING -\n-A INPUT -j LOGGING\n"),
    "comment-too-long": (
        f'-A INPUT -m comment --comment "{"c" * 256}" -j ACCEPT\n',
        f'-A INPUT -m comment --comment "{"c" * 255}" -j ACCEPT\n',
    ),
    "time-passed": (
        "-A INPUT -m time --datestop 2026-06-30 -j ACCEPT\n",
        "-A INPUT -m time --datestop 2026-07-02 -j ACCEPT\n",
    ),
    "nat-both-families": (
        "-t nat -A POSTROUTING -o eth0 -j MASQUERADE\n",
        "-4 -t nat -A POSTROUTING -o eth0 -j MASQUERADE\n-6 -t nat -A POSTROUTING -o eth0 -j MASQUERADE\n",
    ),
    "nat-policy": ("*nat\n:PREROUTING DROP [0:0]\nCOMMIT\n", "*nat\n:PREROUTING ACCEPT [0:0]\nCOMMIT\n"),
    "new-not-syn": (
        "-A INPUT -p tcp ! --syn -m conntrack --ctstate NEW -j DROP\n",
        "-A INPUT -p tcp --syn -m conntrack --ctstate NEW -j DROP\n-A INPUT -m conntrack --ctstate INVALID -j DROP\n",
    ),
    "single-quotes": (
        "-A INPUT -p tcp -m comment --comment 'dapp_Apache' -j ACCEPT\n",
        '-A INPUT -p tcp -m comment --comment "dapp_Apache" -j ACCEPT\n',
    ),
    "trace-everything": ("-t raw -A PREROUTING -j TRACE\n", "-t raw -A PREROUTING -p tcp --dport 80 -j TRACE\n"),
    "notrack-everything": ("-t raw -A OUTPUT -j CT --notrack\n", "-t raw -A OUTPUT -o lo -j CT --notrack\n"),
    "missing-commit": ("*filter\n-A INPUT -p tcp -j ACCEPT\n", "*filter\n-A INPUT -p tcp -j ACCEPT\nCOMMIT\n"),
    "chain-loop": (
        ":A -\n:B -\n-A A -j B\n-A B -j A\n",
        ":A -\n:B -\n-A INPUT -j A\n-A A -j B\n-A B -p tcp -j ACCEPT\n",
    ),
    "policy-twice": ("-P INPUT DROP\n-P INPUT DROP\n", "-P INPUT DROP\n-P OUTPUT DROP\n"),
}


NOT_FROM_RULES_ALONE = {
    *("duplicate-file", "preserved-rule", "set-directions", "unseen-set"),
    *("dead-rule", "needless-rule", "one-family-open"),
}


def _lint(*texts: str) -> tuple[Finding, ...]:
    readings = [read_rules(f"{number}.rules", text.encode()) for number, text in enumerate(texts)]
    composition = compose(readings)
    return (*unsilenced(composition.findings, readings), *lint(composition.candidate, readings, CONTEXT))


def _codes(*texts: str) -> set[str]:
    return {finding.code for finding in _lint(*texts)}


@pytest.mark.parametrize("code", CASES)
def test_each_code_has_a_rule_that_gets_it_and_one_that_does_not(code: str) -> None:
    """The first text of the case gets the finding, with a hint, an origin and the line; the second does not."""
    bad, good = CASES[code]
    (finding, *_) = [finding for finding in _lint(bad) if finding.code == code]
    assert finding.hint
    assert finding.origin is not None
    assert finding.line_text == bad.splitlines()[finding.origin.line - 1]
    assert code not in _codes(good)


@pytest.mark.parametrize("code", [code for code in CASES if code != "port-without-protocol"])
def test_each_warning_can_be_silenced(code: str) -> None:
    """``# fwguard: allow CODE`` above every line silences the warning, and so does
    ``allow-file CODE`` for the whole file; another code does not."""
    bad, _ = CASES[code]

    def with_comment(allowed: str) -> str:
        return "".join(f"# fwguard: allow {allowed}\n{line}\n" for line in bad.splitlines())

    assert code not in _codes(with_comment(code))
    assert code in _codes(with_comment("something-else"))
    assert code not in _codes(f"# fwguard: allow-file {code}\n\n{bad}")
    assert code in _codes(f"# fwguard: allow-file something-else\n\n{bad}")


def test_a_warning_is_silenced_on_its_own_line() -> None:
    """A trailing comment silences its line, and only that one."""
    rule = "-A INPUT -s example.org -j ACCEPT"
    findings = _lint(f"{rule} # fwguard: allow host-name\n{rule} -p tcp\n")
    assert [finding.origin.line for finding in findings if finding.origin and finding.code == "host-name"] == [2]


def test_errors_cannot_be_silenced() -> None:
    """A line that the kernel refuses stays an error, whatever its author allows."""
    assert "port-without-protocol" in _codes("-A INPUT --dport 22 -j ACCEPT # fwguard: allow port-without-protocol\n")


def test_a_rule_of_both_families_gets_one_finding() -> None:
    """A rule of both families is one rule to its author, and gets one finding."""
    findings = _lint("-A INPUT -m limit --limit 1/s -j DROP\n")
    assert len(findings) == 1


def test_duplicate_files_get_a_warning() -> None:
    """Two files with the same content get a warning."""
    assert "duplicate-file" in _codes("-A INPUT -p tcp -j ACCEPT\n", "-A INPUT -p tcp -j ACCEPT\n")


def test_a_chain_may_accept_for_its_caller() -> None:
    """What a chain needs may stand in a chain that it jumps to."""
    text = f":BASE -\n-P INPUT DROP\n-A INPUT -j BASE\n{OPEN.replace('INPUT', 'BASE')}"
    assert not _codes(text) & {"no-established", "no-loopback", "no-neighbour-discovery"}


def _only(code: str, *texts: str) -> Finding:
    (finding,) = [finding for finding in _lint(*texts) if finding.code == code]
    return finding


def test_a_rule_that_one_family_lacks_is_reported_for_that_family() -> None:
    """The finding names the family, and the hint adds the rule for it."""
    rules = "-A INPUT -i lo -j ACCEPT\n-4 -A INPUT -m conntrack --ctstate ESTABLISHED -j ACCEPT\n"
    finding = _only("no-established", f"-P INPUT DROP\n{rules}")
    assert finding.family is Family.IPV6
    rule = "-6 -A INPUT -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT"
    assert finding.hint == f'add "{rule}" after line 1 of 0.rules'
    assert _only("no-established", "-P INPUT DROP\n").family is None


def test_a_chain_that_a_last_rule_closes_is_closed() -> None:
    """Policy ACCEPT and a REJECT of everything is how some distributions close a chain. A missing rule goes before."""
    finding = _only("no-loopback", "-P INPUT ACCEPT\n-A INPUT -p tcp --dport 22 -j ACCEPT\n-A INPUT -j REJECT\n")
    assert (finding.origin, finding.hint) == (
        Origin("0.rules", 3),
        'add "-A INPUT -i lo -j ACCEPT" before line 3 of 0.rules',
    )


def test_a_reject_of_one_family_leaves_the_other_open() -> None:
    """icmp-host-prohibited exists for IPv4 alone: the last rule of many a saved ruleset closes nothing for IPv6."""
    text = f"{OPEN}-A INPUT -j REJECT --reject-with icmp-host-prohibited\n"
    finding = _only("ipv6-open", text)
    assert finding.origin == Origin("0.rules", 4)
    assert finding.hint == 'close it for IPv6 too: add "-6 -A INPUT -j REJECT" after line 4 of 0.rules'
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
    """Neither a ping nor one of the two types is enough."""
    assert ("no-neighbour-discovery" not in _codes(f"-P INPUT DROP\n{rules}")) is enough


def test_a_log_prefix_gets_one_warning() -> None:
    """A prefix without its space is not reported as unwatched too; a missing prefix is; NFLOG writes no lines."""
    assert _codes(LOG.replace("denied: ", "denied:")) == {"log-prefix-space"}
    assert _codes("-A INPUT -m limit --limit 1/s -j LOG\n") == {"log-prefix-unwatched"}
    assert _codes("-A INPUT -j NFLOG --nflog-group 1\n") == set()
    assert _codes(f'-A INPUT -j NFLOG --nflog-prefix "{"p" * 63}"\n') == set()
    assert _codes(f'-A INPUT -j NFLOG --nflog-prefix "{"p" * 64}"\n') == {"log-prefix-too-long"}


def test_a_reject_with_a_limit_gets_no_warning() -> None:
    """What is above the limit goes on to the next rule, which is what people mean by it."""
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
def test_the_hint_for_an_odd_value_says_what_to_write(rule: str, hint: str) -> None:
    """Iptables accepts each of them."""
    (finding,) = _lint(f"-A FORWARD {rule} -j ACCEPT\n")
    assert finding.hint == hint


@pytest.mark.parametrize(("ports", "read"), [("80:65536", "0"), ("70000:70001", "4464"), ("1024:65535", "")])
def test_a_range_of_ports_that_is_cut_gets_a_warning(ports: str, read: str) -> None:
    """Iptables refuses a port that is too large, but in a range of udp takes what is left of it in 16 bits."""
    findings = _lint(f"{OPEN}-A INPUT -p udp --dport {ports} -j ACCEPT\n")
    found = [each.message for each in findings if each.code == "odd-number"]
    assert bool(found) == bool(read)
    assert all("larger than 65535" in message for message in found)
    assert not read or found[0].endswith(f"may be read as {read}")


def test_rules_of_other_programs_are_reported_once_per_file() -> None:
    """A dump of a Docker host would otherwise hide all other findings."""
    text = b":DOCKER -\n:DOCKER-USER -\n-A FORWARD -j DOCKER\n"
    findings = compose_files((RuleFile("a.rules", text), RuleFile("b.rules", text)), CONTEXT).findings
    reported = [finding for finding in findings if finding.code == "preserved-chain"]
    assert [finding.origin for finding in reported] == [Origin("a.rules", 1), Origin("b.rules", 3)]
    assert reported[0].message.endswith("; the same holds for 1 more line of this file")


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
def test_the_rules_that_hints_propose_end_the_warnings(rules: str) -> None:
    """Rules that are written where the hints say leave no warning, in at most three rounds: a proposed rule may close
    another chain."""
    assert _lint(rules)
    for _ in range(3):
        lines = rules.splitlines()
        found = [proposal for finding in _lint(rules) if (proposal := _proposed_rule(finding, len(lines)))]
        for place, rule in sorted(found, reverse=True):
            lines.insert(place, rule)
        rules = "".join(f"{line}\n" for line in lines)
    assert _lint(rules) == ()


def _proposed_rule(finding: Finding, count: int) -> tuple[int, str] | None:
    """The rule that a hint proposes, and the number of lines before its place."""
    match = re.search(r'"(-[^"]+)"(?: (before|after) line ([0-9]+))?', finding.hint)
    if match is None:
        return None
    rule, place, line = match.groups()
    if line is None:
        return count, rule
    return int(line) - (place == "before"), rule


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
def test_a_router_must_accept_replies(rules: str, *, warned: bool) -> None:
    """A closed FORWARD that accepts packets in one direction only; one that accepts nothing is intended."""
    assert ("no-established" in _codes(f"-P FORWARD DROP\n{rules}")) is warned


def test_every_warning_that_can_be_silenced_is_known_and_documented() -> None:
    """Every code is in the set that suppressions are compared with, and in the manual."""
    page = Path(__file__).parents[2] / "packaging" / "man" / "fwguard.d.5"
    text = page.read_text(encoding="utf-8").partition(".Sh WARNINGS")[2].partition("\n.Sh ")[0]
    assert set(CASES) - {"port-without-protocol"} <= WARNINGS <= set(CASES) | NOT_FROM_RULES_ALONE
    assert {code for code in WARNINGS if not re.search(rf"^\.It Sy (.* )?{code}( |$)", text, re.MULTILINE)} == set()


def test_a_suppression_of_an_unknown_code_gets_the_nearest_code() -> None:
    """One finding, at the comment."""
    (finding,) = _lint("# fwguardd: allow host-nam, unreachable-rule\n-A INPUT -s 10.0.0.1 -j ACCEPT\n")
    assert (finding.code, finding.origin, finding.hint) == (
        "unknown-allowance",
        Origin("0.rules", 1),
        "write host-name",
    )
