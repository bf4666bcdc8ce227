"""Invariants: what a file of them means, which mistakes are reported, and what is proved of which packets."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import yaml

from fwguardd.ctl.invariant_lines import invariant_document, invariant_lines
from fwguardd.ctl.junit import junit
from fwguardd.ctl.policy_run import PolicyRun
from fwguardd.ctl.terminal import Painter
from fwguardd.enforce.invariants import CheckedInvariants, check_invariants
from fwguardd.kernel import z3_solver
from fwguardd.kernel.namespaces import NamespaceError
from fwguardd.packets.invariants import KEYS, InvariantKind
from fwguardd.packets.keys import Accounts
from fwguardd.packets.model import Journey, Verdict
from fwguardd.packets.policy_results import PolicyOutcome
from fwguardd.packets.tests_file import read_policy_tests
from fwguardd.ruleset.model import FAMILIES, Family, RuleFile, Ruleset
from tests.proofs import CLOSED, HOST, ruleset
from tests.unit.simulated_bed import SimulatedBed, simulated
from tests.unit.test_policy_tests import SCHEMA, fits
from tests.waiting import LONGEST

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from fwguardd.packets.host import Host
    from fwguardd.packets.model import Packet, Undecided
    from fwguardd.packets.tests_of_files import PolicyTests

ISSUE = """\
tests:
- never: {to_port: 5432, proto: tcp, not_from: [10.0.0.0/8, 2001:db8::/32]}
- always: {from: 192.0.2.0/24, proto: tcp, dport: 22, in: eth0}
"""


def read(text: str) -> PolicyTests:
    """The tests and invariants of a file with this text."""
    accounts = Accounts({"www-data": 33}.get, dict[str, int]().get)
    return read_policy_tests([RuleFile("t.tests.yaml", text.encode())], accounts)


class Beds:
    """Beds without a kernel; ``verdict`` is what they say whatever the rules are."""

    def __init__(self, verdict: Verdict | None = None) -> None:
        self.verdict = verdict
        self.sent: list[Packet] = []

    @contextlib.contextmanager
    def prove(self, rulesets: Mapping[Family, Ruleset], _host: Host) -> Iterator[Beds]:
        """A bed with these rulesets."""
        with simulated(rulesets) as self.bed:
            yield self

    bed: SimulatedBed

    def send(self, packets: Sequence[Packet]) -> list[Journey | Undecided]:
        """What becomes of packets."""
        self.sent += packets
        journeys = self.bed.send(packets)
        if self.verdict is None:
            return journeys
        return [replace(journey, verdict=self.verdict) for journey in journeys if isinstance(journey, Journey)]


class NoBeds:
    """Where no packets can be sent."""

    @contextlib.contextmanager
    def prove(self, _rulesets: Mapping[Family, Ruleset], _host: Host) -> Iterator[SimulatedBed]:
        """Nothing."""
        raise NamespaceError("no namespaces here")
        yield


def check(
    rules: Ruleset, *lines: str, beds: Beds | NoBeds | None = None, seconds: float = LONGEST, fails: bool = False
) -> CheckedInvariants:
    """What becomes of invariants, one a line, under rules of IPv4 or IPv6; the other family is closed."""
    found = read("tests:\n" + "".join(f"- {line}\n" for line in lines))
    assert found.findings == ()
    rulesets = {family: ruleset(*CLOSED, family=family) for family in FAMILIES} | {rules.family: rules}
    beds = beds or Beds()
    return check_invariants(found.invariants, rulesets, HOST, beds, undecided_fails=fails, seconds=seconds)


def standings(rules: Ruleset, *lines: str) -> list[PolicyOutcome]:
    """The standing of each invariant."""
    return [result.standing for result in check(rules, *lines).results]


def test_the_invariants_of_the_issue_are_read() -> None:
    """An item of the tests with the key never or always is an invariant, with its line; the schema has its keys."""
    found = read(ISSUE)
    assert found.findings == ()
    never, always = found.invariants
    assert (never.kind, always.kind) == (InvariantKind.NEVER, InvariantKind.ALWAYS)
    assert (never.origin.line, always.origin.line) == (2, 3)
    assert never.to_port == ((5432, 5432),)
    assert never.family == FAMILIES
    assert always.family == (Family.IPV4,)
    assert fits(yaml.safe_load(ISSUE), SCHEMA)
    assert set(SCHEMA["definitions"]["allPackets"]["properties"]) == set(KEYS)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("never: {dprt: 22}", "unknown key 'dprt' in never; did you mean dport?"),
        ("never: 7", 'expected "key: value" in never'),
        ("never: {expect: drop}", "unknown key 'expect' in never"),
        ("never: {proto: tcp}, always: {proto: tcp}", "never and always are two invariants"),
        ("never: {proto: tcp}, expect: drop", "unknown key 'expect' in an invariant"),
        ("never: {dport: 22}", "ports go with proto: tcp, udp and sctp only"),
        ("never: {proto: icmp, to_port: 22}", "ports go with proto: tcp, udp and sctp only"),
        ("never: {proto: tcp, icmp-type: 8}", "icmp-type goes with proto: icmp and icmpv6 only"),
        ("never: {proto: udp, flags: SYN}", "flags go with proto: tcp only"),
        ("never: {in: eth0, uid: 33}", "uid and gid are those of a program of this host"),
        ("never: {from: 10.0.0.1/8}", "'10.0.0.1/8' is not a network"),
        ("never: {from: 10.0.0.9-10.0.0.1}", "the range '10.0.0.9-10.0.0.1' is empty"),
        ("never: {from: 10.0.0.0/8, to: '2001:db8::1'}", "the families do not fit together"),
    ],
)
def test_a_mistake_in_an_invariant_is_a_finding_at_its_line(line: str, message: str) -> None:
    """It is an error with the line of the invariant, and the others are read."""
    found = read(f"tests:\n- never: {{proto: tcp}}\n- {{{line}}}\n- never: {{proto: udp}}\n")
    (finding,) = found.findings
    assert (str(finding.place), finding.code, len(found.invariants)) == ("t.tests.yaml:3", "bad-test", 2)
    assert message in finding.message


DATABASE = ruleset(*CLOSED, "-A INPUT -i lo -j ACCEPT", "-A INPUT -s 10.0.0.0/8 -p tcp -m tcp --dport 5432 -j ACCEPT")


def test_never_and_always_are_about_all_packets() -> None:
    """Packets that begin a connection and come from other hosts: not those on loopback, and not those of connections
    that are there. Everything that is not written may have any value."""
    assert standings(
        DATABASE,
        "never: {to_port: 5432, proto: tcp, not_from: 10.0.0.0/8}",
        "never: {to_port: 5432, proto: tcp, not_from: 10.0.0.0/9}",
        "never: {proto: tcp, not_from: 10.0.0.0/8}",
        "never: {not_from: 10.0.0.0/8}",
        "never: {in: lo, proto: tcp, dport: 80}",
        "always: {from: 10.0.0.0/8, proto: tcp, dport: 5432, in: eth0}",
        "always: {from: 10.0.0.0/7, proto: tcp, dport: 5432}",
        "always: {from: 10.0.0.0/8, proto: tcp, dport: 5432, state: established}",
    ) == [
        *(PolicyOutcome.PASSED, PolicyOutcome.FAILED, PolicyOutcome.PASSED, PolicyOutcome.PASSED, PolicyOutcome.FAILED),
        *(PolicyOutcome.PASSED, PolicyOutcome.FAILED, PolicyOutcome.PASSED),
    ]


def test_never_is_about_forwarded_packets_too() -> None:
    """A packet that this host forwards gets to a port as well; with out, only those that leave so."""
    rules = ruleset(*CLOSED, "-A FORWARD -i eth0 -o docker0 -p tcp -m tcp --dport 80 -j ACCEPT")
    lines = ("never: {proto: tcp, dport: 80}", "never: {in: docker0, out: eth0, proto: tcp}", "never: {in: docker0}")
    assert standings(rules, *lines) == [PolicyOutcome.FAILED, PolicyOutcome.PASSED, PolicyOutcome.PASSED]
    always = "always: {in: eth0, proto: tcp, dport: 80, family: ipv4}"
    assert standings(rules, always, always.replace("in: eth0", "in: eth0, out: docker0")) == [
        PolicyOutcome.FAILED,
        PolicyOutcome.PASSED,
    ]


def test_to_port_is_the_port_behind_nat() -> None:
    """A packet that DNAT sends to a port gets to it, whatever it was sent to."""
    rules = ruleset(
        *(
            "*nat",
            ":PREROUTING ACCEPT",
            "-A PREROUTING -p tcp -m tcp --dport 8080 -j DNAT --to-destination 172.17.0.2:80",
        ),
        *("COMMIT", "*filter", *CLOSED, "-A FORWARD -o docker0 -p tcp -m tcp --dport 80 -j ACCEPT"),
    )
    lines = (
        "never: {in: eth0, proto: tcp, to_port: 80, to: 192.0.2.1}",
        "never: {proto: tcp, dport: 80, to: 192.0.2.1}",
    )
    assert [result.standing for result in check(rules, *lines, beds=NoBeds()).results] == [
        PolicyOutcome.FAILED,
        PolicyOutcome.PASSED,
    ]


def test_an_address_that_the_host_lacks_is_assumed() -> None:
    """A packet that arrives for this host is one for it, also where the host does not have the address now: as in the
    bed that the packet is sent through."""
    rules = ruleset(*CLOSED, "-A INPUT -m addrtype --dst-type LOCAL -j ACCEPT")
    lines = ("always: {to: 203.0.113.77, proto: tcp, dport: 22}", "never: {to: 203.0.113.77, proto: tcp, dport: 22}")
    assert [result.standing for result in check(rules, *lines, beds=NoBeds()).results] == [
        PolicyOutcome.PASSED,
        PolicyOutcome.FAILED,
    ]


def test_packets_of_this_host_are_asked_about_with_out() -> None:
    """With out alone, packets are those that this host sends, of any user or of one."""
    rules = ruleset(
        *(":INPUT DROP", ":FORWARD DROP", ":OUTPUT DROP"),
        "-A OUTPUT -p tcp -m tcp --dport 25 -m owner --uid-owner 33 -j ACCEPT",
    )
    line = "never: {out: eth0, proto: tcp, dport: 26, family: ipv4}"
    lines = (line, line.replace("26", "25"))
    assert [result.standing for result in check(rules, *lines, beds=NoBeds()).results] == [
        PolicyOutcome.PASSED,
        PolicyOutcome.FAILED,
    ]
    assert standings(rules, "always: {out: eth0, proto: tcp, dport: 25, uid: www-data, family: ipv4}") == [
        PolicyOutcome.PASSED
    ]


def test_a_violation_names_packet_rule_and_place_and_is_sent() -> None:
    """The finding is an error at the invariant, with a packet that the kernel has confirmed, in words, the rule, and
    the reason of the author."""
    beds = Beds()
    line = "never: {to_port: 5432, proto: tcp, not_from: 10.0.0.0/9, because: the office has 10.0.0.0/9}"
    checked = check(DATABASE, line, beds=beds)
    (finding,) = checked.findings
    assert (finding.code, str(finding.place), finding.hint) == (
        "failed-invariant", "t.tests.yaml:2", "the file says: the office has 10.0.0.0/9",
    )  # fmt: skip
    assert finding.message.startswith("never: tcp 10.")
    assert '-s 10.0.0.0/8 -p tcp -m tcp --dport 5432 -j ACCEPT" accepts it; confirmed by sending it' in finding.message
    (packet,) = beds.sent
    assert (str(packet.destination), packet.destination_port, packet.in_interface) == ("192.0.2.1", 5432, "eth0")
    (result,) = checked.results
    assert invariant_document(result)["result"] == "failed"
    assert any("FAILED  t.tests.yaml:2  never" in text for text in invariant_lines(result, Painter()))
    assert "<failure message=" in junit(PolicyRun(invariants=checked.results))


def test_a_contradiction_of_model_and_kernel_is_reported_as_a_defect() -> None:
    """Where the kernel does not do what the model says, nothing is refused, and the finding calls it a defect."""
    checked = check(DATABASE, "never: {to_port: 5432, proto: tcp}", beds=Beds(Verdict.DROP))
    (finding,) = checked.findings
    assert (finding.code, finding.severity.value) == ("model-defect", "warning")
    assert "this is a defect of fwguardd" in finding.message
    assert checked.results[0].is_defect


def test_a_violation_by_another_rule_is_one() -> None:
    """A packet that is refused in any case violates always, whether a match that is not modelled drops it before or a
    later rule rejects it: the finding names what the kernel did."""
    rules = ruleset(
        *(*CLOSED, "-A INPUT -p tcp -m tcp --dport 22 -m limit --limit 1/sec -j DROP"),
        "-A INPUT -p tcp -m tcp --dport 22 -j REJECT",
    )
    for verdict, verb in ((Verdict.DROP, "drops it"), (Verdict.REJECT, "rejects it")):
        line = "always: {in: eth0, proto: tcp, dport: 22, family: ipv4}"
        (finding,) = check(rules, line, beds=Beds(verdict)).findings
        assert finding.code == "failed-invariant"
        assert f"{verb}; confirmed by sending it" in finding.message


def test_what_depends_on_a_match_that_is_not_modelled_is_undecided() -> None:
    """It is a warning that names the match and its place, and an error where undecided tests are one."""
    rules = ruleset(*CLOSED, "-A INPUT -p tcp -m tcp --dport 22 -m time --timestart 08:00:00 -j ACCEPT")
    for fails, severity in ((False, "warning"), (True, "error")):
        (finding,) = check(rules, "never: {proto: tcp, dport: 22}", fails=fails).findings
        assert (finding.code, finding.severity.value) == ("undecided-invariant", severity)
        assert "that depends on -m time --timestart 08:00:00" in finding.message


def test_what_cannot_be_checked_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """After the time limit an invariant is undecided, a packet that cannot be sent is one by the rules alone, and
    without z3 one finding says that none was checked."""
    line = "never: {to_port: 5432, proto: tcp}"
    (late,) = check(DATABASE, line, seconds=0).findings
    assert "not decided within the time limit of 0 s" in late.message
    (alone,) = check(DATABASE, line, beds=NoBeds()).findings
    assert "by the rules alone: the packet could not be sent: no namespaces here" in alone.message
    assert alone.code == "failed-invariant"
    (nothing,) = check(DATABASE, "never: {from: 10.0.0.0/8, not_from: 10.0.0.0/8}").findings
    assert nothing.message == "never: no packet of this host fits it"
    monkeypatch.setattr(z3_solver, "find_spec", lambda _name: None)
    checked = check(DATABASE, line, "always: {proto: tcp}")
    (finding,) = checked.findings
    assert (finding.code, finding.severity.value, str(finding.place)) == ("no-proof", "warning", "t.tests.yaml:2")
    assert "were not checked" in finding.message
    assert "apt install python3-z3" in finding.message
    assert checked.results == ()


def test_both_families_are_asked() -> None:
    """An invariant without an address of one family is about both: a port that is open in IPv6 alone is found."""
    rules = ruleset(*CLOSED, "-A INPUT -p tcp -m tcp --dport 5432 -j ACCEPT", family=Family.IPV6)
    (finding,) = check(rules, "never: {to_port: 5432, proto: tcp, not_from: 10.0.0.0/8}").findings
    assert finding.family is Family.IPV6
    assert check(rules, "never: {proto: tcp, dport: 5433}").findings == ()
