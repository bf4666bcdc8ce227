"""Which packets two rulesets treat otherwise: classes that hold all of them and no others."""

from __future__ import annotations

import random
import time
from ipaddress import ip_address
from typing import TYPE_CHECKING

from fwguardd.kernel.z3_solver import Solver
from fwguardd.packets.model import ConnectionState, Verdict
from fwguardd.proof.changes import regions
from fwguardd.proof.concrete import set_of
from fwguardd.proof.dead_rules import dead_rules
from fwguardd.proof.differences import are_equal, differences
from fwguardd.proof.fields import PacketField
from fwguardd.proof.host_view import surroundings
from fwguardd.proof.intervals import contains, intersection
from fwguardd.proof.model import Model
from fwguardd.proof.reading import RuleModeller
from tests.proofs import CLOSED, HOST, ruleset, tcp
from tests.waiting import LONGEST

if TYPE_CHECKING:
    from fwguardd.packets.model import Packet
    from fwguardd.proof.differences import Differences
    from fwguardd.proof.packet_classes import PacketClass
    from fwguardd.ruleset.model import Ruleset

SOURCES = ("-s 198.51.100.0/24 ", "! -s 198.51.100.0/25 ", "-s 203.0.113.9/32 ", "", "")
WAYS = ("-i eth0 ", "-i eth+ ", "! -i eth0 ", "", "", "-m conntrack --ctstate ESTABLISHED,RELATED ")
PORTS = (
    *("-p tcp -m tcp --dport 22 ", "-p tcp -m multiport --dports 22,80 ", "-p tcp -m tcp --dport 20:100 "),
    *("-p tcp ", "", "-p tcp -m tcp ! --dport 80 "),
)
TARGETS = ("ACCEPT", "DROP", "REJECT", "two", "RETURN")


def models(one: Ruleset, other: Ruleset) -> tuple[Model, Model]:
    """The models of two rulesets that are compared."""
    known = surroundings(one.family, [one, other], HOST, interfaces=["eth0", "eth1", "wan"])
    reader = RuleModeller(known)
    return Model.of(one, known, reader), Model.of(other, known, reader)


def compared(one: Ruleset, other: Ruleset) -> Differences:
    """How they differ."""
    with Solver(time.monotonic() + LONGEST) as solver:
        return differences(*models(one, other), solver)


def some_rules(chooser: random.Random) -> list[str]:
    """Rules in two chains."""
    lines: list[str] = []
    for number in range(8):
        chain, target = ("INPUT", chooser.choice(TARGETS)) if number < 5 else ("two", chooser.choice(TARGETS[:3]))
        parts = [chooser.choice(each) for each in (SOURCES, WAYS, PORTS)]
        lines.append(f"-A {chain} {''.join(parts)}-j {target}")
    return lines


def some_packets() -> list[Packet]:
    """Packets that tell the rules of these apart."""
    return [
        tcp(port, source, into, state=state)
        for port in (22, 80, 99, 443)
        for source in ("198.51.100.7", "198.51.100.200", "203.0.113.9", "203.0.113.10")
        for into in ("eth0", "eth1", "wan")
        for state in (ConnectionState.NEW, ConnectionState.UNTRACKED)
    ]


def verdict(model: Model, packet: Packet) -> Verdict:
    """What becomes of a packet in a ruleset without free parts."""
    packets = set_of(packet, model.known)
    outcome = model.outcome(packets, packets.scope(model.known.family))
    ends = {Verdict.ACCEPT: outcome.accept, Verdict.DROP: outcome.drop, Verdict.REJECT: outcome.reject}
    return next(name for name, formula in ends.items() if formula is True)


def is_in(packet: Packet, each: PacketClass, model: Model) -> bool:
    """Whether a packet is in a class that asks for no bits."""
    packets = set_of(packet, model.known)
    limits = [packets.limits.get(name, ()) for name in each.limits]
    assert not each.bits
    return each.direction is packet.direction and all(
        intersection(mine, wanted) for mine, wanted in zip(limits, each.limits.values(), strict=True)
    )


def test_classes_hold_the_packets_that_are_treated_otherwise_and_no_others() -> None:
    """A packet is in a class if and only if the two rulesets do with it what the class says; else they do the same."""
    chooser = random.Random(18)
    for _ in range(4):
        lines = some_rules(chooser)
        others = list(lines)
        others[chooser.randrange(5)] = some_rules(chooser)[0]
        start = (*CLOSED, ":two - [0:0]")
        one, other = ruleset(*start, *lines), ruleset(*start, *others)
        before, after = models(one, other)
        classes = compared(one, other).classes
        for packet in some_packets():
            verdicts = verdict(before, packet), verdict(after, packet)
            inside = {(each.before.verdict, each.after.verdict) for each in classes if is_in(packet, each, before)}
            wanted = {verdicts} if verdicts[0] is not verdicts[1] else set()
            assert inside == wanted, (lines, others, packet)


def test_only_packets_of_changed_rules_are_asked_about() -> None:
    """One changed rule among many leaves the packets that it matches; a policy leaves all."""
    lines = [f"-A INPUT -p tcp -m tcp --dport {port} -j ACCEPT" for port in range(1, 60)]
    before, after = models(ruleset(*CLOSED, *lines), ruleset(*CLOSED, *lines[:20], *lines[21:]))
    (region,) = regions(before.rules, after.rules, with_nat=False)
    assert region[PacketField.DPORT] == ((21, 21),)
    opened, _ = models(ruleset(":INPUT ACCEPT", *lines), ruleset(*CLOSED))
    assert regions(before.rules, opened.rules, with_nat=False) == [{}]


def test_what_is_not_modelled_is_named() -> None:
    """A class that depends on a free match names it, with the answer for which the rulesets differ."""
    rule = "-A INPUT -p tcp -m tcp --dport 22 -j ACCEPT"
    (each,) = compared(
        ruleset(*CLOSED, rule), ruleset(*CLOSED, rule.replace("-j", "-m limit --limit 5/min -j"))
    ).classes
    ((part, matches),) = each.depends
    assert (part.words, matches) == ("-m limit --limit 5/min", False)
    assert contains(each.limits[PacketField.DPORT], 22)


def test_equality_includes_what_rules_log_and_count() -> None:
    """Two rulesets that give the same verdicts are not equal if one logs a packet that the other does not."""
    log, drop = "-A INPUT -p tcp -m tcp --dport 23 -j LOG", "-A INPUT -s 198.51.100.0/24 -j DROP"
    one, other = ruleset(*CLOSED, log, drop), ruleset(*CLOSED, drop, log)
    with Solver(time.monotonic() + LONGEST) as solver:
        assert differences(*models(one, other), solver).classes == ()
        assert not are_equal(*models(one, other), solver)
        assert are_equal(*models(one, ruleset(*CLOSED, log)), solver)


def test_a_witness_is_a_packet_of_its_class() -> None:
    """The packet that shows a class has the values of the class, and usual ones in other fields."""
    (each,) = compared(ruleset(*CLOSED), ruleset(*CLOSED, "-A INPUT -p tcp -m tcp --dport 90:99 -j ACCEPT")).classes
    fields = each.values.fields
    assert all(contains(values, fields[name]) for name, values in each.limits.items())
    assert (fields[PacketField.SOURCE], fields[PacketField.SPORT]) == (int(ip_address("198.51.100.7")), 49152)


def dead(*lines: str) -> dict[int, list[int]]:
    """The positions of rules of INPUT that no packet meets, each with those of the rules that take its packets."""
    rules = ruleset(*CLOSED, *lines)
    model = Model.of(rules, surroundings(rules.family, [rules]))
    with Solver(time.monotonic() + LONGEST) as solver:
        found = dead_rules(model, solver)
    return {each.rule.position: [taker.position for taker in each.takers] for each in found if each.chain == "INPUT"}


def test_a_rule_that_several_earlier_ones_shadow_together_is_dead() -> None:
    """The rules that take all its packets are named, and no others; a rule with a limit takes none for certain."""
    assert dead(
        "-A INPUT -i lo -j ACCEPT",
        "-A INPUT -s 10.0.0.0/9 -j DROP",
        "-A INPUT -s 10.128.0.0/9 -p tcp -j DROP",
        "-A INPUT -s 10.0.0.0/8 -p tcp -m tcp --dport 22 -j ACCEPT",
        "-A INPUT -p udp -m limit --limit 5/min -j DROP",
        "-A INPUT -p udp -m udp --dport 53 -j ACCEPT",
    ) == {4: [2, 3]}


def test_a_rule_that_nothing_matches_in_its_chain_is_dead() -> None:
    """Where the rules that lead to a chain let none of its packets through, no other rule takes them."""
    rules = ruleset(*CLOSED, ":web - [0:0]", "-A INPUT -p tcp -j web", "-A web -p udp -j ACCEPT")
    with Solver(time.monotonic() + LONGEST) as solver:
        found = dead_rules(Model.of(rules, surroundings(rules.family, [rules])), solver)
    assert [(each.chain, each.rule.position, each.takers) for each in found] == [("web", 1, ())]
