"""What is said about the packets of policy tests and of the lockout guard: results, findings, JUnit."""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import pytest

from fwguardd.ctl.junit import junit
from fwguardd.ctl.policy_run import PolicyRun, TimedResult
from fwguardd.packets.assumed_host import interfaces_of, with_assumptions
from fwguardd.packets.endpoints import ListeningSocket, Program
from fwguardd.packets.host import Host, Interface, Route
from fwguardd.packets.host_routes import host_routes
from fwguardd.packets.keys import Accounts
from fwguardd.packets.lockout import denied_packets, guarded_packets, listed_sessions, lockout_finding, lost_by_change
from fwguardd.packets.model import Journey, Packet, Step, Undecided, Verdict
from fwguardd.packets.policy_cases import cases_of
from fwguardd.packets.policy_results import PolicyOutcome, findings_of, results_of
from fwguardd.packets.tests_file import read_policy_tests
from fwguardd.packets.written_tests import probes, written
from fwguardd.ruleset.error_reasons import may_pass_later
from fwguardd.ruleset.model import Chain, Family, Origin, Rule, RuleFile, Ruleset, Severity, Table
from fwguardd.ruleset.ssh_sessions import SshSession, session_of

if TYPE_CHECKING:
    from fwguardd.packets.policy_cases import Case
    from fwguardd.packets.policy_results import PolicyResult

RULES = tuple(
    Rule(text, Origin("/etc/fwguard.d/10.rules", line))
    for line, text in enumerate(("-p tcp -m tcp --dport 22 -j ACCEPT", "-p udp -j REJECT", "-m quota -j DROP"), 1)
)
INPUT = Chain("INPUT", "DROP", RULES, Origin("/etc/fwguard.d/00.rules", 3))
RULESET = Ruleset(Family.IPV4, {"filter": Table("filter", {"INPUT": INPUT, "OUTPUT": Chain("OUTPUT", "ACCEPT")})})
RULESETS = {Family.IPV4: RULESET}
HOST = Host(
    (
        Interface("eth0", addresses=("192.0.2.1/24",)),
        Interface("eth1", addresses=("10.0.0.1/24", "fe80::1/64")),
    ),
    (Route("192.0.2.0/24", dev="eth0"), Route("10.0.0.0/24", dev="eth1"), Route("0.0.0.0/0", dev="eth0")),
)
SESSION = SshSession(ip_address("198.51.100.7"), ip_address("192.0.2.1"), 22)
OTHER = SshSession(ip_address("10.0.0.9"), ip_address("10.0.0.1"), 22)
POLICY, FIRST, SECOND, THIRD = (Step("filter", "INPUT", position, "") for position in (None, 1, 2, 3))


def a_case(line: str) -> Case:
    """The only case of a test."""
    tests = read_policy_tests([RuleFile("/etc/fwguard.d/p.tests.yaml", f"tests: [{{{line}}}]".encode())], NOBODY)
    (case,) = cases_of(tests.tests, interfaces_of(HOST)).cases
    return case


IDS: dict[str, int] = {}
NOBODY = Accounts(IDS.get, IDS.get)
TO_SSH = "expect: accept, in: eth0, from: 198.51.100.7, proto: tcp, dport: [22, 80]"


def journey(packet: Packet, verdict: Verdict, deciding: Step | None, routed: str = "local") -> Journey:
    """A journey of one step."""
    return Journey(packet, (deciding,) if deciding else (), verdict, routed, deciding)


def the_result(line: str, *outcomes: tuple[Verdict, Step | None, str] | str) -> PolicyResult:
    """The result of a test whose packets have these journeys, or cannot be decided for a reason."""
    case = a_case(line)
    made = [
        Undecided(packet, outcome, THIRD) if isinstance(outcome, str) else journey(packet, *outcome)
        for packet, outcome in zip(case.packets, outcomes, strict=True)
    ]
    (result,) = results_of([case], made, RULESETS)
    return result


ACCEPTED = (Verdict.ACCEPT, FIRST, "local")
DROPPED = (Verdict.DROP, POLICY, "local")


def test_a_failed_test_names_its_place_and_the_deciding_rule() -> None:
    """The finding stands at the line of the test, and names packet, verdict, rule and origin, and the reason given."""
    result = the_result(f"{TO_SSH}, because: for the admins", ACCEPTED, DROPPED)
    (finding,) = findings_of([result], undecided_fails=False)
    assert str(finding) == (
        "/etc/fwguard.d/p.tests.yaml:1: error: tcp 198.51.100.7:49152 → 192.0.2.1:80, new, in eth0: expected accept, "
        "but the policy of INPUT drops it at /etc/fwguard.d/00.rules:3 (ipv4) [failed-test]; the test says: "
        "for the admins"
    )
    passed = the_result(TO_SSH, ACCEPTED, ACCEPTED)
    assert findings_of([passed], undecided_fails=True) == ()
    assert '"-A INPUT -p tcp -m tcp --dport 22 -j ACCEPT" accepts it at /etc/fwguard.d/10.rules:1' in passed.sentence


@pytest.mark.parametrize(
    ("outcome", "words"),
    [
        ((Verdict.REJECT, SECOND, "local"), '"-A INPUT -p udp -j REJECT" rejects it at /etc/fwguard.d/10.rules:2'),
        ((Verdict.DROP, None, "no route"), "it is dropped, since there is no route to 192.0.2.1"),
        (
            (Verdict.DROP, None, "reverse path"),
            "it is dropped by rp_filter, since packets to 198.51.100.7 do not leave by eth0",
        ),
        ((Verdict.DROP, Step("nat", "PREROUTING", 7, ""), ""), "rule 7 of -t nat PREROUTING drops it"),
    ],
)
def test_what_decided_is_said_in_words(outcome: tuple[Verdict, Step | None, str], words: str) -> None:
    """A rule, a policy, routing and the reverse path filter have words of their own."""
    assert words in the_result(TO_SSH.replace("[22, 80]", "22"), outcome).sentence


def test_a_packet_that_leaves_by_another_interface_fails() -> None:
    """An accepted packet passes only by the way that the test names; a published port of a container is pointed out."""
    out = Step("filter", "OUTPUT", None, "accept")
    result = the_result("expect: accept, out: eth1, to: 203.0.113.9, proto: icmp", (Verdict.ACCEPT, out, "eth0"))
    assert (result.standing, "it leaves by eth0" in result.sentence) == (PolicyOutcome.FAILED, True)
    (misrouted,) = findings_of([result], undecided_fails=False)
    assert (misrouted.code, may_pass_later(misrouted)) == ("misrouted-test", True)
    chosen = the_result("expect: accept, out: eth+, to: 203.0.113.9, proto: icmp", *[(Verdict.ACCEPT, out, "eth0")] * 2)
    assert (chosen.standing, "it leaves by eth0" in chosen.sentence) == (PolicyOutcome.UNDECIDED, True)
    published = the_result(
        "expect: drop, in: eth0, proto: tcp, dport: 80, family: 4",
        (Verdict.ACCEPT, Step("filter", "FORWARD", None, "accept"), "docker0"),
    )
    assert "it is forwarded to docker0, so that INPUT does not see it" in published.sentence


def test_an_undecided_test_never_passes() -> None:
    """It is a warning that names the rule to blame, or an error where the settings say so; a failed packet comes
    first."""
    result = the_result(TO_SSH, ACCEPTED, "quota counts packets")
    assert result.standing is PolicyOutcome.UNDECIDED
    (warning,), (error,) = (findings_of([result], undecided_fails=fails) for fails in (False, True))
    assert (warning.code, warning.severity, error.severity) == ("undecided-test", Severity.WARNING, Severity.ERROR)
    assert 'cannot be decided by packets: quota counts packets, in "-A INPUT -m quota -j DROP" at' in warning.message
    assert the_result(TO_SSH, DROPPED, "quota counts packets").standing is PolicyOutcome.FAILED


def test_results_are_junit_xml() -> None:
    """Each test is a testcase; one that failed has a failure, an undecided one is skipped. Nothing breaks the XML."""
    because = "because: 'a <b> & \"c\" \\x07'"
    results = [
        the_result(TO_SSH, ACCEPTED, ACCEPTED),
        the_result(f"{TO_SSH}, {because}", ACCEPTED, DROPPED),
        the_result(TO_SSH, ACCEPTED, "because of \x1b"),
    ]
    run = PolicyRun([TimedResult(result, 2, 0.001) for result in results], seconds=0.5)
    root = ET.fromstring(junit(run))
    (suite,) = root
    assert (suite.get("tests"), suite.get("failures"), suite.get("skipped")) == ("3", "1", "1")
    assert [[child.tag for child in case] for case in suite] == [[], ["failure"], ["skipped"]]
    assert suite[1].get("file") == "/etc/fwguard.d/p.tests.yaml"


def test_the_guard_sends_new_and_established_packets_and_answers() -> None:
    """Each session is tried with the interface that leads to its peer; the one that asks comes first; those within this
    host are left out."""
    within = SshSession(ip_address("192.0.2.1"), ip_address("192.0.2.1"), 22)
    guarded = guarded_packets([SESSION, within, OTHER], HOST, asking=OTHER)
    assert [(str(each.packet.source), each.packet.in_interface, each.packet.state.value) for each in guarded] == [
        ("10.0.0.9", "eth1", "new"), ("10.0.0.9", "eth1", "established"), ("10.0.0.1", None, "established"),
        ("198.51.100.7", "eth0", "new"), ("198.51.100.7", "eth0", "established"), ("192.0.2.1", None, "established"),
    ]  # fmt: skip
    listed = listed_sessions([ip_address("10.0.0.9"), ip_address("2001:db8::9")], [2222, 22], HOST)
    assert listed == (OTHER, SshSession(OTHER.peer, OTHER.local, 2222))


def test_the_guard_names_peer_rule_and_way_out() -> None:
    """What was accepted before and is denied now is an error with the deciding rule; a forced change warns."""
    guarded = guarded_packets([OTHER], HOST, asking=SESSION)
    outcomes = [journey(each.packet, Verdict.DROP, POLICY) for each in guarded]
    denied = denied_packets(guarded, outcomes)
    before = [journey(each.guarded.packet, Verdict.ACCEPT, FIRST) for each in denied]
    lost, not_lost = lost_by_change(denied, before), lost_by_change(denied, [each.journey for each in denied])
    assert ([each.guarded.session for each in lost], not_lost) == ([SESSION, OTHER], [])
    finding, forced = (
        lockout_finding(lost[0], RULESETS, "repeat with --force", forced=forced) for forced in (False, True)
    )
    assert str(finding) == (
        "/etc/fwguard.d/00.rules:3: error: 198.51.100.7, from which this change is asked for, has an ssh session, and "
        "could not open a new connection to port 22: the policy of INPUT drops it (ipv4) [closes-ssh]; "
        "accept it before this change; to apply the change all the same: repeat with --force"
    )
    assert (forced.severity, forced.code) == (Severity.WARNING, "closes-ssh")
    assert denied_packets(guarded, [Undecided(each.packet, "time") for each in guarded]) == []


def test_ssh_connection_is_read() -> None:
    """SSH_CONNECTION names the session that asks, IPv4 in IPv6 form too; anything else names none."""
    assert session_of("198.51.100.7 54321 192.0.2.1 22") == SESSION
    assert session_of("::ffff:198.51.100.7 54321 ::ffff:192.0.2.1 22") == SESSION
    assert session_of("fe80::7%eth0 1 fe80::1%eth0 22") == SshSession(ip_address("fe80::7"), ip_address("fe80::1"), 22)
    for text in ("", "a b c d", "198.51.100.7 1 2001:db8::1 22", "198.51.100.7 1 192.0.2.1 99999", "1 2 3 4 5"):
        assert session_of(text) is None


def test_a_host_gets_what_the_tests_assume() -> None:
    """Interfaces, addresses and routes are added, a default route only where there is none; the rest stays."""
    text = """
    - {expect: drop, in: new0, family: ipv6, proto: icmpv6}
    - {expect: drop, out: new1, to: 203.0.113.9, proto: icmp}
    - {expect: drop, out: eth1, to: ['203.0.113.8', '2001:db8:1::1'], proto: [icmp, icmpv6]}
    """
    tests = read_policy_tests([RuleFile("t", f"tests:{text}".encode())], NOBODY).tests
    host = with_assumptions(HOST, cases_of(tests, interfaces_of(HOST)).assumptions)
    assert host.interfaces[:2] == HOST.interfaces
    assert [(each.name, each.addresses) for each in host.interfaces[2:]] == [
        ("new0", ("2001:db8::1/64",)), ("new1", ()),
    ]  # fmt: skip
    assert [(route.to, route.dev) for route in host.routes[3:]] == [
        ("203.0.113.9/32", "new1"), ("2001:db8::/64", "new0"), ("::/0", "eth1"),
    ]  # fmt: skip


def test_tests_are_written_from_what_packets_met() -> None:
    """Listening ports, and one that nothing listens on, are tried on each interface in its families; ports with one
    verdict are one test, and the file can be read again."""
    sockets = [
        ListeningSocket("tcp", ip_address("::"), 22, program=Program("sshd")),
        ListeningSocket("tcp", ip_address("127.0.0.1"), 3306, program=Program("mariadbd")),
    ]
    tried = list(probes(sockets, host_routes(HOST)))
    tests = read_policy_tests([RuleFile("p", "\n".join(["tests:", *(each.test for each in tried)]).encode())], NOBODY)
    packets = cases_of(tests.tests, interfaces_of(HOST)).packets
    outcomes = [
        journey(packet, Verdict.ACCEPT if packet.destination_port == 22 else Verdict.DROP, FIRST) for packet in packets
    ]
    text = written(tried, outcomes, "now")
    assert text.splitlines()[:6] == [
        "# now",
        "tests:",
        "  # 9 (nothing listens: an example of all other ports)",
        "  - {expect: drop, in: eth0, proto: tcp, dport: [9], family: ipv4}",
        "  # 22 (sshd)",
        "  - {expect: accept, in: eth0, proto: tcp, dport: [22], family: ipv4}",
    ]
    again = read_policy_tests([RuleFile("p", text.encode())], NOBODY)
    assert again.findings == ()
    assert {packet.destination_port for packet in cases_of(again.tests, interfaces_of(HOST)).packets} == {
        9, 22, 25, 53, 80, 123, 443,
    }  # fmt: skip
