"""Rule files that people wrote, and what should be reported: mistakes that passed in silence, and false alarms.

Each case is the smallest file of its kind. Beside it stand others of the same kind: long options, the other family,
other chains, negation, another order of options.
"""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from fwguardd.enforce.validate import compose_files
from fwguardd.ruleset.lint import LintContext
from fwguardd.ruleset.model import Finding, RuleFile, Severity
from fwguardd.ruleset.preserve import Preserve

PRESERVE = Preserve.from_patterns(["DOCKER", "DOCKER-*"])
CONTEXT = LintContext(("iptables denied: ",), PRESERVE, datetime(2026, 7, 1, tzinfo=UTC))
CLOSED = {"no-established", "no-loopback", "no-neighbour-discovery"}
ANSWERS = "-A INPUT -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT\n"
LOOPBACK = "-A INPUT -i lo -j ACCEPT\n"
BASE = f"-P INPUT DROP\n{LOOPBACK}{ANSWERS}"


def _findings(text: str, name: str = "10.rules") -> tuple[Finding, ...]:
    return compose_files((RuleFile(name, text.encode()),), CONTEXT).findings


def _codes(text: str, name: str = "10.rules") -> set[str]:
    return {finding.code for finding in _findings(text, name)}


def _only(code: str, text: str, name: str = "10.rules") -> Finding:
    (finding,) = [finding for finding in _findings(text, name) if finding.code == code]
    return finding


@pytest.mark.parametrize("line", [":INPUT", ":FORWARD ", "  :OUTPUT", "-P INPUT", ":INPUT # closed"])
def test_a_missing_policy_is_an_error(line: str) -> None:
    """A built-in chain that is declared without a policy is refused, as iptables-restore refuses it."""
    finding = _only("bad-policy", f"*filter\n{line}\nCOMMIT\n")
    assert finding.severity is Severity.ERROR
    assert finding.line_text == line


def test_a_chain_may_be_declared_without_a_policy() -> None:
    """A dash is no policy, and a user-defined chain has none."""
    assert "bad-policy" not in _codes("*filter\n:INPUT - [0:0]\n:WEB\n-A INPUT -j WEB\nCOMMIT\n")


@pytest.mark.parametrize("text", ["*filter\n", "*filter", "# rules\n\n*nat\n", "*nat\n# COMMIT\n"])
def test_a_table_that_is_only_opened_is_no_rules(text: str) -> None:
    """A file that was cut after its first line does not open the host."""
    assert "no-rules" in _codes(text)


def test_a_table_that_is_opened_and_ended_is_empty() -> None:
    """That is how a file says that a table has no rules."""
    assert _codes("*nat\nCOMMIT\n") == set()


@pytest.mark.parametrize(
    ("text", "severity"),
    [
        ("*filter\n:INPUT ACCEPT [0:0]\n-A INPUT -i eth0 -j ACCEPT\n", Severity.WARNING),
        ("*filter\n:INPUT ACCEPT [0:0]\n-A INPUT -i eth0 -j ACC", Severity.ERROR),
        ("*nat\nCOMMIT\n*filter\n-A INPUT -i eth0 -j ACCEPT\n# end\n", Severity.WARNING),
        ("*filter\n-A INPUT -i eth0 -j ACCEPT\nCOMMIT", None),
        ("-A INPUT -i eth0 -j ACCEPT", None),
    ],
)
def test_a_file_that_is_cut_short_is_noticed(text: str, severity: Severity | None) -> None:
    """A last table without COMMIT is a warning, and an error where the last line has no line break."""
    severities = [finding.severity for finding in _findings(text) if finding.code == "missing-commit"]
    assert severities == [severity] * (severity is not None)


@pytest.mark.parametrize(
    ("rule", "code", "means"),
    [
        ("-s 203.0.113.7/0 -p tcp --dport 22", "any-address", "every address"),
        ("--source 203.0.113.7/0.0.0.0", "any-address", "every address"),
        ("! --destination 2001:db8::1/0", "any-address", "every address"),
        ("-s 0.0.0.0/0", "", ""),
        ("-s ::/0", "", ""),
        ("-s 192.168.0.1/8", "host-bits", "192.0.0.0/8"),
        ("--dst 192.168.1.1/255.255.255.0", "host-bits", "192.168.1.0/24"),
        ("-d 10.0.0.0/8,192.168.0.1/16", "host-bits", "192.168.0.0/16"),
        ("-s 2001:db8::1/32", "host-bits", "2001:db8::/32"),
        ("-s 10.0.0.1/32", "", ""),
        ("-s 10.0.0.0/255.0.0.0", "", ""),
        ("-s 10.1.2.3/0.0.0.255", "mask-with-holes", "0.0.0.3/0.0.0.255"),
        ("-s 192.168.1.1/255.0.255.0", "mask-with-holes", "192.0.1.0/255.0.255.0"),
        ("-s 010.0.0.1", "odd-number", "8.0.0.1"),
        ("--src 10.0.0.0/010", "odd-number", "10.0.0.0/8"),
        ("-p tcp --dport 026", "odd-number", "22"),
        ("-p tcp --destination-port 0x16", "odd-number", "22"),
        ("-p udp --sport +53", "odd-number", "53"),
        ("-p tcp -m multiport --dports 80,0443", "odd-number", "291"),
        ("-p 017", "odd-number", "15"),
        ("-p tcp --dport 020:030", "odd-number", "16:24"),
        ("-m ttl --ttl-eq 064", "odd-number", "52"),
        ("-p tcp --dport 0:1023", "", ""),
        ("-m mark --mark 0x10/0xff -p tcp --dport 22", "", ""),
        ("-m mac --mac-source 00:0c:29:0a:00:01", "", ""),
        ("-m limit --limit 10/minute --limit-burst 5", "", ""),
        ("-s 2001:db8::0001", "", ""),
        ("-i +", "odd-interface", "every interface"),
        ("! --in-interface +", "odd-interface", "no interface"),
        ("-i eth+", "", ""),
        ("-s ::ffff:192.0.2.1", "v4-mapped", "no IPv6 packet"),
        ("-d ::FFFF:c000:0201/128", "v4-mapped", "no IPv6 packet"),
        ("-s ::ffff:0:0/96", "", ""),
        ("-m time --datestop 2020-01-01", "time-passed", "since 2020-01-01"),
        ("-m time --datestart 2025 --datestop 2026-06-30T12:00:00", "time-passed", "since 2026-06-30"),
        ("-m time --datestart 2030-01-01 --datestop 2029-01-01", "time-passed", "no packet"),
        ("-m time --datestop 2026-07-02", "", ""),
        ("-m time --timestart 08:00 --timestop 18:00", "", ""),
        ("-m comment --comment 'one'", "single-quotes", "part of the text"),
        ('-m comment --comment "it\'s fine"', "", ""),
        (f'-m comment --comment "{"ä" * 128}"', "comment-too-long", "256 bytes"),
    ],
)
def test_a_value_that_means_something_else_gets_a_warning(rule: str, code: str, means: str) -> None:
    """The warning says what iptables reads; a value that means what it looks like gets none."""
    findings = _findings(f"-A INPUT {rule} -j ACCEPT\n")
    assert [finding.code for finding in findings] == [code] * bool(code)
    assert all(means in finding.message for finding in findings)
    assert [finding.code for finding in _findings(f"-A INPUT -j ACCEPT {rule}\n")] == [code] * bool(code)


def test_each_word_of_a_line_gets_its_warning() -> None:
    """Two numbers that are read as octal are two findings, each at its column."""
    line = "-A INPUT -s 010.0.0.1 -p tcp --dport 026 -j ACCEPT"
    findings = _findings(f"{line}\n")
    assert [finding.code for finding in findings] == ["odd-number"] * 2
    assert [line[finding.column - 1 :].split(maxsplit=1)[0] for finding in findings] == ["010.0.0.1", "026"]
    assert "8.0.0.1" in findings[0].message
    assert findings[1].message.endswith("it means 22")


@pytest.mark.parametrize(
    ("line", "severity"),
    [
        ("-A INPUT -p tcp --dport 80 -j ACCEPT -m comment --comment 'dapp_Apache'", Severity.WARNING),
        ("-A INPUT -j NFLOG --nflog-prefix 'x:'", Severity.WARNING),
        ("-A INPUT -m recent --set --name 'SSH' -j ACCEPT", Severity.WARNING),
        ("-A INPUT -p tcp -m comment --comment 'Apache Full' -j ACCEPT", Severity.ERROR),
        ("-A INPUT -p tcp --dport '22' -j ACCEPT", Severity.ERROR),
        ("-A INPUT -i 'eth0' -j ACCEPT", Severity.ERROR),
    ],
)
def test_single_quotes_are_an_error_only_where_they_change_the_words(line: str, severity: Severity) -> None:
    """Iptables takes a text in single quotes if it has no blank; anything else in them is not what it looks like."""
    assert _only("single-quotes", f"{line}\n").severity is severity


def test_a_chain_is_not_compared_with_itself() -> None:
    """The hint of an unused chain names another chain, or none."""
    text = "-P INPUT DROP\n-N LOGREJECT\n-A LOGREJECT -j DROP\n-A INPUT -i lo -j ACCEPT\n"
    assert "case" not in _only("unused-chain", text).hint
    assert "write WEB" in _only("unused-chain", ":WEB -\n:web -\n-A INPUT -j WEB\n").hint


@pytest.mark.parametrize(
    ("text", "unused"),
    [
        ("-N X\n-A INPUT -p icmp -j X\n-A X -p icmp --icmp-type 8 -j ACCEPT\n", set()),
        ("-N X\n-A INPUT -s 2001:db8::1 -g X\n", set()),
        ("-N X\n-N Y\n-A X -j Y\n", {"X", "Y"}),
        ("-N X\n-N Y\n-A X -j Y\n-A Y -j X\n", {"X", "Y"}),
        ("-N X\n-N Y\n-A INPUT -p tcp -j X\n-A X -p tcp --jump Y\n", set()),
        ("*nat\n:X -\n-A OUTPUT -p tcp -j X\nCOMMIT\n*filter\n:X -\nCOMMIT\n", {"X"}),
    ],
)
def test_a_chain_is_used_if_packets_of_either_family_get_to_it(text: str, unused: set[str]) -> None:
    """A jump from a chain that is not used itself does not count."""
    found = {
        line.split()[-1]
        for line in (f.line_text.replace(" -", "") for f in _findings(text) if f.code == "unused-chain")
    }
    assert {name.lstrip(":") for name in found} == unused


@pytest.mark.parametrize(
    "rules",
    [
        "-N L\n-A INPUT -p tcp --dport 22 -j ACCEPT\n-A INPUT -j L\n-A L -m limit --limit 2/min -j LOG\n-A L -j DROP\n",
        "-N L\n-A INPUT -p tcp --dport 22 -j ACCEPT\n-A INPUT -g L\n-A L -j REJECT\n",
        "-N L\n-N M\n-A INPUT -j L\n-A L -j M\n-A M -p tcp -j DROP\n-A M -p udp -j DROP\n-A M -j DROP\n",
        f"-A INPUT -p tcp --dport 22 -j ACCEPT\n-A INPUT -j DROP\n{ANSWERS}{LOOPBACK}",
        "-A INPUT -p tcp --dport 22 -j ACCEPT\n-A INPUT -m state --state NEW,ESTABLISHED -j DROP\n-A INPUT -j DROP\n",
        "-A INPUT -m comment --comment closed -j DROP\n",
        "-P INPUT DROP\n-N L\n-A INPUT -j L\n-A L -j RETURN\n-A L -j ACCEPT\n",
        "-P INPUT DROP\n-A INPUT -s 192.0.2.0/24 -j ACCEPT\n",
        f"-P INPUT DROP\n-A INPUT -j DROP\n{ANSWERS}{LOOPBACK}",
    ],
)
def test_closed_is_what_lets_no_new_packet_through(rules: str) -> None:
    """It does not matter by which rule, in which chain, nor what stands behind."""
    assert _codes(rules) >= CLOSED


@pytest.mark.parametrize(
    "rules",
    [
        "-N L\n-A INPUT -j L\n-A L -p tcp --dport 22 -j DROP\n-A L -j RETURN\n-A L -j DROP\n",
        "-A INPUT -s 192.0.2.1 -j DROP\n",
        "-A INPUT -p tcp --syn -j DROP\n",
        "-A INPUT -m conntrack --ctstate INVALID -j DROP\n",
        "-A INPUT -m set --match-set bad src -j DROP\n",
        "-P INPUT DROP\n-A INPUT -j ACCEPT\n",
        "-P INPUT DROP\n-N ALL\n-A INPUT -j ALL\n-A ALL -j ACCEPT\n",
        "-A INPUT -j NFQUEUE --queue-num 1\n",
        ":INPUT ACCEPT [0:0]\n-A INPUT -i eth9 -j DROP\n",
    ],
)
def test_open_is_not_called_closed(rules: str) -> None:
    """Rules that drop some packets close no chain."""
    assert not _codes(rules) & (CLOSED | {"ipv6-open"})


def test_a_hint_names_the_place_where_it_works() -> None:
    """Before the rule that drops what is left; after the policy; behind an insertion, which reverses the order."""
    rules = f"-A INPUT -p tcp --dport 22 -j ACCEPT\n-A INPUT -j DROP\n{ANSWERS}{LOOPBACK}"
    assert _only("no-loopback", rules).hint == 'add "-A INPUT -i lo -j ACCEPT" before line 2 of 10.rules'
    assert _only("no-loopback", f"-P INPUT DROP\n{ANSWERS}").hint.endswith("after line 1 of 10.rules")
    inserted = "-I INPUT -j DROP\n-I INPUT -p tcp --dport 22 -j ACCEPT\n"
    assert _only("no-loopback", inserted).hint == 'add "-I INPUT -i lo -j ACCEPT" after line 1 of 10.rules'


@pytest.mark.parametrize(
    ("rules", "is_open"),
    [
        (f"-N D\n{LOOPBACK}{ANSWERS}-A INPUT -j D\n-A D -j REJECT --reject-with icmp-host-prohibited\n", True),
        (
            f"{LOOPBACK}{ANSWERS}-A INPUT -j REJECT --reject-with icmp-port-unreachable\n-A INPUT -p tcp -j ACCEPT\n",
            True,
        ),
        ("-A FORWARD -j REJECT --reject-with icmp-host-prohibited\n", True),
        ("-4 -P FORWARD DROP\n", True),
        (f"-N D\n{LOOPBACK}{ANSWERS}-A INPUT -j D\n-A D -j REJECT\n", False),
        (f"{LOOPBACK}{ANSWERS}-4 -A INPUT -j DROP\n-6 -A INPUT ! -i lo -j DROP\n", False),
        ("-4 -P INPUT DROP\n-6 -A INPUT -j NFQUEUE\n", False),
        ("-P INPUT DROP\n-A INPUT -j REJECT --reject-with icmp-host-prohibited\n", False),
        ("-A INPUT -s 192.0.2.0/24 -j DROP\n", False),
    ],
)
def test_open_for_ipv6_is_seen_through_chains(rules: str, *, is_open: bool) -> None:
    """INPUT and FORWARD are compared by what they let through."""
    assert ("ipv6-open" in _codes(rules)) is is_open


@pytest.mark.parametrize(
    ("rules", "enough"),
    [
        ("-A INPUT -p tcp -m multiport --sports 22,80,443 -j ACCEPT\n", True),
        ("-A INPUT -p tcp --source-port 80 -j ACCEPT\n", True),
        ("-A INPUT -p tcp --sport 80 --dport 1024:65535 -j ACCEPT\n", True),
        ("-A INPUT -p tcp --dport 1024:65535 -j ACCEPT\n", True),
        ("-A INPUT -p tcp ! --syn -j ACCEPT\n", True),
        ("-A INPUT -p tcp --tcp-flags ACK ACK -j ACCEPT\n", True),
        ("-A INPUT -p tcp ! --tcp-flags FIN,SYN,RST,ACK SYN -j ACCEPT\n", True),
        ("-A INPUT -m state --state RELATED,ESTABLISHED -j ACCEPT\n", True),
        ("-A INPUT -j ACCEPT -m conntrack --ctstate est\n", True),
        ("-A INPUT -m conntrack ! --ctstate NEW,INVALID -j ACCEPT\n", True),
        ("-A INPUT -i eth0 -m state --state ESTABLISHED -j ACCEPT\n", True),
        ("-N E\n-A INPUT -i eth0 -j E\n-A E -m state --state ESTABLISHED -j ACCEPT\n", True),
        ("-N E\n-A INPUT -m state --state ESTABLISHED -j E\n-A E -j ACCEPT\n", True),
        ("-A INPUT -p tcp --dport 22 -j ACCEPT\n", False),
        ("-A INPUT -p tcp --sport 1024:65535 --dport 22 -j ACCEPT\n", False),
        ("-A INPUT -p tcp --syn -j ACCEPT\n", False),
        ("-A INPUT -s 192.0.2.0/24 -j ACCEPT\n", False),
        ("-A INPUT -m state ! --state ESTABLISHED -j ACCEPT\n", False),
        ("-A INPUT ! -s 192.0.2.0/24 -j DROP\n-A INPUT -p tcp --dport 22 -j ACCEPT\n", False),
        ("-A INPUT -m state --state NEW -j ACCEPT\n", False),
        ("-N E\n-A E -m state --state ESTABLISHED -j ACCEPT\n", False),
        (f"-A INPUT -j DROP\n{ANSWERS}", False),
    ],
)
def test_replies_count_however_they_are_accepted(rules: str, *, enough: bool) -> None:
    """By the state of the connection, by ports, by flags; by an interface or network alone only from there."""
    assert ("no-established" not in _codes(f"-P INPUT DROP\n{rules}")) is enough


@pytest.mark.parametrize(
    ("rules", "enough"),
    [
        ("-A INPUT -s 127.0.0.1/32 -d 127.0.0.1/32 -j ACCEPT\n", True),
        ("-A INPUT -s 127.0.0.0/8 -j ACCEPT\n", True),
        ("-A INPUT --destination 127.0.0.1 -j ACCEPT\n", True),
        ("-A INPUT --in-interface lo -j ACCEPT\n", True),
        ("-A INPUT ! -i eth0 -j ACCEPT\n", True),
        ("-A INPUT -i lo -p tcp -j ACCEPT\n", True),
        ("-N LO\n-A INPUT -i lo -j LO\n-A LO -j ACCEPT\n", True),
        ("-A INPUT -m addrtype --src-type LOCAL -j ACCEPT\n", True),
        ("-A INPUT -i eth0 -j ACCEPT\n", False),
        ("-A INPUT ! -i lo -j ACCEPT\n", False),
        ("-A INPUT -s 192.168.0.0/16 -j ACCEPT\n", False),
        ("-A INPUT -p tcp --dport 22 -j ACCEPT\n", False),
        ("-A INPUT -i lo -j DROP\n-A INPUT -i lo -j ACCEPT\n", False),
    ],
)
def test_loopback_counts_by_interface_and_by_address(rules: str, *, enough: bool) -> None:
    """Rules for IPv4, in a file for IPv4."""
    assert ("no-loopback" not in _codes(f"-P INPUT DROP\n{rules}", "10.v4.rules")) is enough


@pytest.mark.parametrize(
    ("rules", "enough"),
    [
        ("-A INPUT -p ipv6-icmp -j ACCEPT\n", True),
        ("-A INPUT --protocol 58 -m hl --hl-eq 255 -j ACCEPT\n", True),
        ("-N ICMP\n-A INPUT -p icmpv6 -j ICMP\n-A ICMP -j ACCEPT\n", True),
        ("-A INPUT -s fe80::/10 -j ACCEPT\n", True),
        ("-A INPUT -m conntrack --ctstate UNTRACKED -j ACCEPT\n", True),
        ("-A INPUT -p ipv6-icmp ! --icmpv6-type 128 -j ACCEPT\n", True),
        ("-A INPUT -p ipv6-icmp --icmpv6-type 135 -j ACCEPT\n-A INPUT -p 58 --icmpv6-type 136 -j ACCEPT\n", True),
        ("-A INPUT -p ipv6-icmp --icmpv6-type 128 -j ACCEPT\n", False),
        ("-A INPUT -p ipv6-icmp -m conntrack --ctstate NEW,ESTABLISHED,RELATED -j ACCEPT\n", False),
        ("-A INPUT -p ipv6-icmp -j DROP\n-A INPUT -p ipv6-icmp -j ACCEPT\n", False),
        ("-A INPUT -p ipv6-icmp -m hl --hl-eq 64 -j ACCEPT\n", False),
    ],
)
def test_neighbour_discovery_is_not_tracked(rules: str, *, enough: bool) -> None:
    """Its packets have the state UNTRACKED and the hop limit 255."""
    assert ("no-neighbour-discovery" not in _codes(f"{BASE}{rules}")) is enough


@pytest.mark.parametrize(
    ("rules", "warned"),
    [
        (f"{BASE}-A INPUT -p tcp -m multiport --dports 21,49152:65534 -j ACCEPT\n", False),
        (f"{BASE}-A INPUT -p tcp --dport 21 -j ACCEPT\n-A INPUT -p tcp --dport 50000:50100 -j ACCEPT\n", False),
        (f"{BASE}-N FTP\n-A INPUT -j FTP\n-A FTP -p tcp --dport ftp -j ACCEPT\n", True),
        (f"{BASE}-A INPUT -p tcp -m multiport --destination-ports 20,21,22 -j ACCEPT\n", True),
        (f"{BASE}-A INPUT -j DROP\n-A INPUT -p tcp --dport 21 -j ACCEPT\n", False),
        ("-P INPUT ACCEPT\n-A INPUT -p tcp --dport 21 -j ACCEPT\n", False),
        ("-P FORWARD DROP\n-A FORWARD -p tcp --dport 21 -j ACCEPT\n", True),
        (
            f"{BASE}-A INPUT -p tcp --dport 21 -j ACCEPT\n-t raw -A PREROUTING -p tcp --dport 21 -j CT --helper ftp\n",
            False,
        ),
    ],
)
def test_ftp_needs_its_helper_where_data_connections_are_dropped(rules: str, *, warned: bool) -> None:
    """A range of ports, an open chain, or the helper is enough."""
    assert ("ftp-without-helper" in _codes(rules)) is warned


@pytest.mark.parametrize(
    ("rules", "line"),
    [
        ("-A INPUT -j DROP\n-A INPUT -p tcp -j ACCEPT\n", 2),
        ("-N D\n-A D -j DROP\n-A INPUT -j D\n-A INPUT -p tcp -j ACCEPT\n", 4),
        ("-N D\n-A D -p tcp -j DROP\n-A INPUT -g D\n-A INPUT -p tcp -j ACCEPT\n", 4),
        ("-A INPUT -m comment --comment x -j RETURN\n-A INPUT -p tcp -j ACCEPT\n", 2),
        ("-A INPUT -p tcp -j DROP\n-A INPUT -p tcp --dport 22 -j ACCEPT\n", 2),
        ("-A INPUT -s 10.0.0.0/8 -j DROP\n-A INPUT -p udp -s 10.1.2.3 -j ACCEPT\n", 2),
        ("-A INPUT -p tcp --dport 1:1024 -j DROP\n-A INPUT -p tcp -m multiport --dports 22,80 -j ACCEPT\n", 2),
        ("-A INPUT ! -i lo -j DROP\n-A INPUT -i eth0 -p tcp -j ACCEPT\n", 2),
        ("-A INPUT -i eth+ -j DROP\n-A INPUT -i eth1 -p tcp -j ACCEPT\n", 2),
        ("-A INPUT -s 192.0.2.1/32 -j DROP\n-A INPUT -p tcp -s 192.0.2.1 -j ACCEPT\n", 2),
        ("-A INPUT -d 0.0.0.0/0 -j DROP\n-4 -A INPUT -p tcp -j ACCEPT\n", 2),
        ("-A INPUT -m state --state NEW,INVALID -j DROP\n-A INPUT -p tcp -m state --state NEW -j ACCEPT\n", 2),
        (
            '-A INPUT -p tcp -j DROP\n-A INPUT -p tcp --dport 22 -j LOG --log-prefix "iptables denied: " -m limit\n',
            2,
        ),
        ("-N D\n-A INPUT -j D\n-A D -p tcp -j RETURN\n-A D -j DROP\n-A INPUT -p tcp -j ACCEPT\n", 0),
        ("-A INPUT -p tcp -j ACCEPT\n-A INPUT -p tcp --dport 22 -j ACCEPT\n", 0),
        ("-A INPUT -p tcp --dport 22 -j ACCEPT\n-A INPUT -p tcp -j DROP\n", 0),
        ("-A INPUT -p tcp -m limit --limit 1/s -j ACCEPT\n-A INPUT -p tcp --dport 22 -j DROP\n", 0),
        ("-A INPUT -p tcp -m recent --update --name A --seconds 9 -j DROP\n-A INPUT -p tcp -j ACCEPT\n", 0),
        ("-A INPUT -s 10.1.0.0/16 -j DROP\n-A INPUT -s 10.0.0.0/8 -j ACCEPT\n", 0),
        ('-A INPUT -p tcp -j LOG --log-prefix "iptables denied: " -m limit\n-A INPUT -p tcp -j DROP\n', 0),
        ("-t mangle -A OUTPUT -p tcp -j MARK --set-mark 1\n-t mangle -A OUTPUT -p tcp --dport 1 -j ACCEPT\n", 0),
        ("-A INPUT ! -s 10.0.0.0/8 -j DROP\n-A INPUT -s 10.1.0.0/16 -j ACCEPT\n", 0),
        ("-A INPUT -m mark --mark 1 -j ACCEPT\n-A INPUT -j MARK --set-mark 1\n-A INPUT -m mark --mark 1 -j DROP\n", 0),
    ],
)
def test_a_rule_that_no_packet_reaches_is_reported(rules: str, line: int) -> None:
    """Behind one that ends every packet, or all that it matches and with another target. Line 0 is no finding."""
    lines = [f.origin.line for f in _findings(rules) if f.code == "unreachable-rule" and f.origin is not None]
    assert lines == [line] * bool(line)


@pytest.mark.parametrize(
    ("rules", "code"),
    [
        ("*nat\n:PREROUTING DROP [0:0]\nCOMMIT\n", "nat-policy"),
        ("-t nat -P OUTPUT DROP\n", "nat-policy"),
        ("-t nat -A POSTROUTING -o eth0 -j MASQUERADE\n", "nat-both-families"),
        ("*nat\n:X -\n-A POSTROUTING -j X\n-A X --jump MASQUERADE --random\nCOMMIT\n", "nat-both-families"),
        ("*mangle\n-A PREROUTING -p tcp -m state --state NEW ! --syn -j DROP\nCOMMIT\n", "new-not-syn"),
        ("-N B\n-A INPUT -p tcp ! --syn -m conntrack --ctstate NEW,INVALID -j B\n-A B -j DROP\n", "new-not-syn"),
        ("-A INPUT -p tcp ! --tcp-flags FIN,SYN,RST,ACK SYN -m state --state NEW -j REJECT\n", "new-not-syn"),
        ("-A INPUT -p tcp ! --tcp-flags SYN,RST,ACK SYN -m state --state NEW -j DROP\n", "new-not-syn"),
        ("-4 -t raw -A PREROUTING -s 0.0.0.0/0 -j TRACE\n", "trace-everything"),
        ("-N TEE\n-A INPUT -j TEE\n", "chain-hides-target"),
        ("-t raw -A PREROUTING -j TRACE\n", "trace-everything"),
        ("-t raw -A OUTPUT -m comment --comment x -j NOTRACK\n", "notrack-everything"),
        ("-t raw -A PREROUTING --jump CT --notrack\n", "notrack-everything"),
        ("*filter\n:REJECT - [0:0]\n-A INPUT -p tcp -j REJECT\nCOMMIT\n", "chain-hides-target"),
        ("*nat\n:MASQUERADE - [0:0]\n-A POSTROUTING -s 192.0.2.1 -j MASQUERADE\nCOMMIT\n", "chain-hides-target"),
    ],
)
def test_a_rule_that_does_more_than_it_says_gets_a_warning(rules: str, code: str) -> None:
    """One finding, which says what happens."""
    assert [finding.code for finding in _findings(rules)] == [code]


@pytest.mark.parametrize(
    "rules",
    [
        "-t nat -A POSTROUTING -s 10.0.0.0/8 -j MASQUERADE\n",
        "-4 -t nat -A POSTROUTING -j MASQUERADE\n",
        '-A INPUT -p tcp ! --syn -m state --state NEW -j LOG --log-prefix "iptables denied: " -m limit\n',
        "-A INPUT -p tcp --syn -m state --state NEW -j DROP\n",
        "-t raw -A PREROUTING -p icmp -j TRACE\n",
        "-t raw -A PREROUTING -i lo -j NOTRACK\n",
        "-t mangle -P FORWARD DROP\n",
    ],
)
def test_rules_that_do_what_they_say_get_no_warning(rules: str) -> None:
    """The counterparts of the rules above."""
    assert _codes(rules) == set()


def test_many_ports_are_split() -> None:
    """The error names the lists for two rules. A range counts as two."""
    ports = ",".join(str(port) for port in range(1, 18))
    finding = _only("too-many-ports", f"-A INPUT -p tcp -m multiport --dports {ports} -j ACCEPT\n")
    assert finding.hint.endswith('"--dports 1,2,3,4,5,6,7,8,9,10,11,12,13,14,15" and "--dports 16,17"')
    ranges = ",".join(f"{port}:{port + 1}" for port in range(10, 26, 2))
    assert (
        '"--sports 24:25"' in _only("too-many-ports", f"-A INPUT -p udp -m multiport --sports {ranges} -j DROP\n").hint
    )
    assert _codes(f"-A INPUT -p tcp -m multiport --dports {ports.partition(',16')[0]} -j ACCEPT\n") == set()


def test_many_warnings_are_bounded() -> None:
    """The first ten of a code in a file, then a count; one comment silences them all."""
    text = "".join(f"-A FORWARD -s 10.0.{number >> 8}.1/16 -j ACCEPT\n" for number in range(5_000))
    same = [finding for finding in _findings(text) if finding.code == "duplicate-rule"]
    assert len(same) == 11
    assert same[-1].message == "… and 4,970 more of this kind"
    assert "allow-file duplicate-rule" in same[-1].hint
    assert _codes(f"# fwguard: allow-file duplicate-rule, host-bits\n\n{text}") == set()


def test_rules_that_count_are_one_warning_for_each_chain() -> None:
    """They are there to measure traffic, thousands of them."""
    text = "".join(f"-A FORWARD -s 10.0.0.{number}\n-A INPUT -d 10.0.0.{number}\n" for number in range(200))
    messages = [finding.message for finding in _findings(text) if finding.code == "no-target"]
    assert messages == ["a rule without -j only counts packets; this chain has 199 more of them"] * 2


def test_the_chains_of_other_programs_are_not_read_for_odd_values() -> None:
    """Their rules are not loaded from the file."""
    text = ":DOCKER -\n-A DOCKER -s 10.0.0.1/8 -j ACCEPT\n-t nat -N DOCKER\n-t nat -A DOCKER -j MASQUERADE\n"
    assert _codes(text) == {"preserved-chain"}


@pytest.mark.parametrize(
    ("rules", "warned"),
    [
        ('-N L\n-A INPUT -m limit --limit 5/min -j L\n-A L -j LOG --log-prefix "iptables denied: "\n', False),
        ('-N L\n-A INPUT -j L\n-A L -j LOG --log-prefix "iptables denied: "\n', True),
        (
            "-N L\n-A INPUT -m limit --limit 5/min -j L\n-A OUTPUT -j L\n-A L -j LOG\n",
            True,
        ),
    ],
)
def test_a_limit_may_stand_at_the_jump(rules: str, *, warned: bool) -> None:
    """A chain that logs is limited if every jump to it is."""
    assert ("log-without-limit" in _codes(rules)) is warned


@pytest.mark.parametrize("jump", ["-j OUTPUT", "-g FORWARD", "--jump PREROUTING", '-m comment --comment "a" -j INPUT'])
def test_no_rule_jumps_to_a_built_in_chain(jump: str) -> None:
    """That is an error before the kernel is asked; a comment that says so is none."""
    assert "built-in chain" in _only("jump-to-builtin", f"-A INPUT -p tcp {jump}\n").message
    assert "jump-to-builtin" not in _codes('-A INPUT -m comment --comment "-j OUTPUT" -j ACCEPT\n')


@pytest.mark.parametrize(
    ("name", "rule", "instead"),
    [
        ("10.v6.rules", "-p icmp", '"ipv6-icmp"'),
        ("10.v4.rules", "-p ipv6-icmp", '"icmp"'),
        ("10.v6.rules", "-p tcp -m ttl --ttl-eq 3", '"hl"'),
    ],
)
def test_a_word_of_the_other_family_has_a_word_of_this_one(name: str, rule: str, instead: str) -> None:
    """The hint offers to write it, and to move the line."""
    hint = _only("mixed-families", f"-A INPUT {rule} -j ACCEPT\n", name).hint
    assert f"write {instead}" in hint
    assert "in a file whose name" in hint


@pytest.mark.parametrize(
    ("data", "message"),
    [(b"\0" * 4096, "only NUL bytes"), (b"-A INPUT -j ACCEPT\n" + b"\0" * 4000, "ends in NUL bytes")],
)
def test_a_file_that_a_power_failure_filled_with_nul_is_called_that(data: bytes, message: str) -> None:
    """It is not called UTF-16."""
    findings = compose_files((RuleFile("10.rules", data),), CONTEXT).findings
    assert [finding.code for finding in findings] == ["nul-byte"]
    assert message in findings[0].message
    assert "power failure" in findings[0].message


@pytest.mark.parametrize(
    ("rule", "hint"),
    [
        ("-A INPUT -m iprange ! --dst-range 10.0.0.9-10.0.0.1 -j DROP", "write 10.0.0.1-10.0.0.9"),
        ("-A INPUT -m iprange --src-range 2001:db8::9-2001:db8::1 -j DROP", "write 2001:db8::1-2001:db8::9"),
        ("-A INPUT -m length --length 500:20 -j DROP", "write 20:500"),
        ("-A INPUT -p esp -m esp --espspi 0x20:3 -j DROP", "write 3:0x20"),
        ("-t nat -A POSTROUTING -j SNAT --to-source 10.0.0.9-10.0.0.1", "write 10.0.0.1-10.0.0.9"),
        ("-A INPUT -p tcp --tcp-flags SYN ACK -j DROP", "write --tcp-flags SYN,ACK ACK"),
        ("-A INPUT -p tcp ! --tcp-flags NONE SYN -j DROP", "write --tcp-flags SYN SYN"),
    ],
)
def test_a_match_that_holds_for_no_packet(rule: str, hint: str) -> None:
    """A range that ends before it begins, and TCP flags outside of their mask."""
    assert _only("never-matches", f"{rule}\n").hint == hint


@pytest.mark.parametrize(
    "rule",
    [
        "-A INPUT -m iprange --src-range 10.0.0.1-10.0.0.1 -j DROP",
        "-A INPUT -m iprange --src-range 10.0.0.1 -j DROP",
        "-A INPUT -m length --length 20:500 -j DROP",
        "-A INPUT -m length --length 20: -j DROP",
        "-t nat -A POSTROUTING -p tcp -j SNAT --to-source 10.0.0.9:80-90",
        "-t nat -A PREROUTING -p tcp -j DNAT --to-destination [2001:db8::1]:80",
        "-A INPUT -p tcp --tcp-flags ALL NONE -j DROP",
        "-A INPUT -p tcp --tcp-flags ALL FIN,PSH,URG -j DROP",
        "-A INPUT -p tcp --tcp-flags SYN,ACK NONE -j DROP",
        "-A INPUT -p tcp --tcp-flags FIN,SYN,RST,ACK SYN -j DROP",
    ],
)
def test_matches_that_hold_for_some_packets(rule: str) -> None:
    """The usual ways to match Xmas, null and SYN packets, open ranges, and ranges of ports."""
    assert "never-matches" not in _codes(f"{rule}\n")


@pytest.mark.parametrize(
    ("rules", "warns"),
    [
        ("-A INPUT -p tcp -m state --state ESTABLISHED -j ACCEPT\n", True),
        ("-A INPUT -p tcp -m state --state ESTABLISHED -j ACCEPT\n-A INPUT -p udp --sport 53 -j ACCEPT\n", False),
        ("-A INPUT -m conntrack --ctstate ESTABLISHED -j ACCEPT\n", False),
        ("-A INPUT -p tcp --sport 80 -j ACCEPT\n", False),
    ],
)
def test_replies_over_udp_count_where_states_are_used(rules: str, warns: bool) -> None:  # noqa: FBT001
    """Who accepts replies by their state for TCP alone gets no answers of DNS."""
    assert ("no-established" in _codes(f"-P INPUT DROP\n{LOOPBACK}{rules}")) is warns


@pytest.mark.parametrize(
    ("rules", "warns"),
    [
        ("-A INPUT -p tcp --dport 22 -j ACCEPT\n-A INPUT -p tcp -j DROP\n", True),
        ("-A INPUT -p udp -j REJECT\n", True),
        ("-A INPUT -p tcp --syn -j DROP\n", False),
        ("-A INPUT -p tcp --dport 25 -j DROP\n", False),
        (f"{ANSWERS}-A INPUT -p tcp -j DROP\n", False),
        ("-A INPUT -p tcp -s 203.0.113.0/24 -j DROP\n", False),
    ],
)
def test_an_open_chain_may_drop_replies_of_one_protocol(rules: str, warns: bool) -> None:  # noqa: FBT001
    """A rule that drops the rest of TCP or UDP drops the replies to connections of this host too."""
    assert ("no-established" in _codes(f"-P INPUT ACCEPT\n{rules}")) is warns


@pytest.mark.parametrize(
    ("rules", "codes"),
    [
        ("-6 -P INPUT DROP\n-6 -P FORWARD DROP\n-6 -P OUTPUT DROP\n", set()),
        ("-6 -P INPUT DROP\n", {"no-loopback"}),
        ("-6 -A INPUT -j DROP\n", {"no-loopback"}),
        ("-P INPUT DROP\n", CLOSED),
        ("-6 -P INPUT DROP\n-6 -A INPUT -p tcp --dport 22 -j ACCEPT\n", CLOSED),
    ],
)
def test_ipv6_that_is_turned_off_lacks_nothing(rules: str, codes: set[str]) -> None:
    """A policy or rule that drops all packets of IPv6 alone is meant. Loopback counts while programs may try ::1."""
    assert _codes(rules) & CLOSED == codes


def test_rules_for_both_families_are_not_unreachable_where_ipv6_is_turned_off() -> None:
    """A rule that drops all of IPv6 is inserted before rules for both families; for IPv4 they are reached."""
    rules = f"{BASE}-A INPUT -p tcp --dport 22 -j ACCEPT\n"
    assert "unreachable-rule" not in _codes(f"{rules}-6 -I INPUT -j DROP\n")
    assert "unreachable-rule" in _codes(f"{rules}-I INPUT -j DROP\n")
    assert "unreachable-rule" in _codes(f"{rules}-4 -I INPUT -j DROP\n")
