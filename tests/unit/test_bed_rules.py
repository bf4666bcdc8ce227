"""What a bed loads in place of a ruleset, and how the trace of it is read as a journey through the ruleset."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

import pytest

from fwguardd.packets.bed_rules import Owner, bed_rules
from fwguardd.packets.model import ConnectionState, Journey, Packet, Undecided, Verdict
from fwguardd.packets.traces import read_journey
from fwguardd.ruleset.model import Chain, Family, Rule, Ruleset, Table, texts_of

SYN = Packet(Family.IPV4, "tcp", ip_address("192.0.2.7"), ip_address("192.0.2.1"), 40000, 22, "eth0")
VIEW = ["192.0.2.7", "192.0.2.1", 40000, 22, "eth0", "", 0]


def ruleset(*rules: str, policy: str = "DROP") -> Ruleset:
    """A ruleset with these rules in INPUT, and a chain of its own."""
    chains = {"INPUT": Chain("INPUT", policy, tuple(map(Rule, rules))), "ours": Chain("ours", None)}
    return Ruleset(Family.IPV4, {"filter": Table("filter", chains)})


def loaded(*rules: str, owner: Owner | None = None) -> list[str]:
    """What a bed loads for these rules."""
    return texts_of(bed_rules(ruleset(*rules), owner=owner).loaded.tables["filter"].chains["INPUT"].rules)


@pytest.mark.parametrize(
    ("rule", "in_the_bed"),
    [
        ("-p tcp -m tcp --dport 22 -j ACCEPT", ["-p tcp -m tcp --dport 22 -j ACCEPT"]),
        ('-m comment --comment "-m time and -j LOG" -j DROP', ['-m comment --comment "-m time and -j LOG" -j DROP']),
        ('-p udp -m limit --limit 5/min -j LOG --log-prefix "no: "', ["-p udp"]),
        ("-j TEE --gateway 192.0.2.9", [""]),
        ("-m limit --limit 5/min -j ACCEPT", ["-j ACCEPT"]),
        ("-p tcp -m hashlimit --hashlimit-upto 5/min --hashlimit-name a -j ACCEPT", ["-p tcp -j ACCEPT"]),
        ("-p tcp -m hashlimit --hashlimit-above 5/min --hashlimit-name a -j DROP", []),
        ("-p tcp -m connlimit --connlimit-above 3 --connlimit-mask 32 -j DROP", []),
        ("-p tcp -m connlimit --connlimit-upto 3 --connlimit-mask 32 -j ACCEPT", ["-p tcp -j ACCEPT"]),
        ("-p tcp -m connlimit --connlimit-above 0 --connlimit-mask 32 -j DROP", ["-p tcp -j DROP"]),
        ("-m recent --set --name a --mask 255.255.255.255 --rsource -j ACCEPT", ["-j ACCEPT"]),
        ("-m recent --rcheck --seconds 60 --name a --rsource -j DROP", []),
        ("-m recent ! --rcheck --name a --rsource -j DROP", ["-j DROP"]),
        ("-p tcp -m time --timestart 01:00:00 -j ACCEPT", ["-p tcp", "-p tcp -m time --timestart 01:00:00 -j ACCEPT"]),
        ("-p tcp -m time --timestart 01:00:00 -j LOG", ["-p tcp -m time --timestart 01:00:00"]),
        ("-m set --match-set bad src -j DROP", ["", "-m set --match-set bad src -j DROP"]),
    ],
)
def test_what_a_bed_loads_for_a_rule(rule: str, in_the_bed: list[str]) -> None:
    """Reports are left out, limits are as a first packet finds them, and an unknown match has a copy before it."""
    assert loaded(rule) == in_the_bed


@pytest.mark.parametrize(
    ("match", "holds"),
    [
        ("-m owner --uid-owner 33", True),
        ("-m owner --uid-owner 30-40", True),
        ("-m owner --uid-owner 34-40", False),
        ("-m owner ! --uid-owner 33", False),
        ("-m owner ! --uid-owner 0 --gid-owner 7", True),
        ("-m owner --uid-owner 33 --gid-owner 8", False),
        ("-m owner --socket-exists", True),
    ],
)
def test_an_owner_that_packets_cannot_have_is_decided_in_the_rules(match: str, *, holds: bool) -> None:
    """For a packet of a user, the match owner is left out where it holds, and its rule where it does not."""
    expected = []
    if holds:
        expected = ["-j DROP"]
    assert loaded(f"{match} -j DROP", owner=Owner(33, 7)) == expected
    assert loaded(f"{match} -j DROP") == [f"{match} -j DROP"]


def journey(rules: Ruleset, *steps: list[Any], packet: Packet = SYN, accepted: bool = False) -> Journey | Undecided:
    """The journey of a packet with this trace."""
    result = {"steps": [["filter", *step, 0] for step in steps], "views": [VIEW], "seen": True}
    return read_journey(packet, result | {"accepted": accepted, "routed": "local"}, bed_rules(rules))


def test_positions_are_those_of_the_ruleset() -> None:
    """The rules that a bed leaves out or adds do not shift the positions of a journey."""
    rules = ruleset("-m recent --rcheck --name a -j DROP", "-p udp -m time --timestart 01:00 -j DROP", "-j ACCEPT")
    found = journey(rules, ["INPUT", 3, "accept"], accepted=True)
    assert isinstance(found, Journey)
    assert [(step.position, step.outcome) for step in found.steps] == [(3, "accept")]


def test_a_packet_that_meets_an_unknown_match_is_undecided() -> None:
    """The rule to blame is named; not where it would have made the same verdict."""
    rules = ruleset("-p tcp -m time --timestart 01:00 -j ACCEPT")
    found = journey(rules, ["INPUT", 1, "continue"], ["INPUT", None, "drop"])
    assert isinstance(found, Undecided)
    assert "-m time" in found.because
    assert found.step is not None
    assert (found.step.chain, found.step.position) == ("INPUT", 1)
    rules = ruleset("-p tcp -m time --timestart 01:00 -j DROP")
    same = journey(rules, ["INPUT", 1, "continue"], ["INPUT", None, "drop"])
    assert isinstance(same, Journey)
    matched = journey(rules, ["INPUT", 1, "continue"], ["INPUT", 2, "drop"])
    assert isinstance(matched, Undecided)


def test_the_mark_of_a_connection_is_known_for_its_first_packet() -> None:
    """A new connection has the mark 0; that of an established one is known to the host alone."""
    rules = ruleset("-m connmark --mark 0x1 -j ACCEPT")
    trace: list[list[Any]] = [["INPUT", 1, "continue"], ["INPUT", None, "drop"]]
    assert isinstance(journey(rules, *trace), Journey)
    established = Packet(
        SYN.family, "tcp", SYN.source, SYN.destination, 1, 2, "eth0", state=ConnectionState.ESTABLISHED
    )
    assert isinstance(journey(rules, *trace, packet=established), Undecided)


@pytest.mark.parametrize(
    ("rule", "traced", "outcome"),
    [
        ("-j REJECT --reject-with icmp-port-unreachable", "drop", "reject"),
        ("-j REJECT --reject-with icmp-port-unreachable", "", "reject"),
        ("-j DROP", "", "drop"),
        ("-j ours", "", "jump ours"),
        ("-g ours", "", "goto ours"),
        ("-j MARK --set-xmark 0x1/0x1", "", "continue"),
        ("-p tcp", "", "continue"),
        ("-j RETURN", "", "return"),
    ],
)
def test_outcomes(rule: str, traced: str, outcome: str) -> None:
    """The trace of nf_tables says drop for a reject, that of legacy iptables nothing: the target says it."""
    found = journey(ruleset(rule), ["INPUT", 1, traced])
    assert isinstance(found, Journey)
    assert found.steps[0].outcome == outcome


def test_legacy_numbers_the_policy_behind_the_last_rule() -> None:
    """The policy, and the end of a chain, have the number behind the last rule in the trace of legacy iptables."""
    rules = ruleset("-j ours", "-p udp -j DROP")
    found = journey(rules, ["INPUT", 1, ""], ["ours", 1, ""], ["INPUT", 3, ""])
    assert isinstance(found, Journey)
    assert [(step.chain, step.position) for step in found.steps] == [("INPUT", 1), ("INPUT", None)]
    assert (found.verdict, found.deciding) == (Verdict.DROP, found.steps[1])


def test_a_queue_is_undecided() -> None:
    """What a program decides, a bed does not."""
    found = journey(ruleset("-j NFQUEUE --queue-num 3"), ["INPUT", 1, "queue"])
    assert isinstance(found, Undecided)
    assert found.step is not None
    assert found.step.position == 1
