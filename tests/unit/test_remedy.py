"""Journeys in words, and the least that would have to be added for a packet, through a simulated bed."""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING

import pytest

from fwguardd.ctl.answers import AnswerPainter
from fwguardd.ctl.explain_lines import WIDTH, journey_lines, remedy_lines
from fwguardd.packets.journeys import journey_document, reply_to, verdict_in_words
from fwguardd.packets.model import ConnectionState, Journey, Packet, PacketView, Step, Verdict
from fwguardd.packets.remedy import find_remedy
from fwguardd.ruleset.compose import compose
from fwguardd.ruleset.model import BOTH, Family
from fwguardd.ruleset.parser import read_rules
from tests.unit.simulated_bed import simulated

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fwguardd.ruleset.model import Ruleset

CLOSED = """\
-P INPUT DROP
-P OUTPUT ACCEPT
-A INPUT -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT
-A INPUT -p tcp --dport 22 -m conntrack --ctstate NEW -j ACCEPT
-N guests
-A INPUT -i eth1 -j guests
-A guests -p tcp --dport 80 -j ACCEPT
-A guests -j REJECT
-A INPUT -j LOG --log-prefix "iptables denied: "
"""


def rulesets(text: str) -> Mapping[Family, Ruleset]:
    """What one rule file makes."""
    composition = compose([read_rules("/etc/fwguard.d/10.rules", text.encode(), BOTH)], whole=True)
    assert not composition.findings.errors
    return composition.candidate.rulesets


def to_port(port: int, interface: str = "eth0", **changes: object) -> Packet:
    """A packet to a port of this host."""
    values: dict[str, object] = {
        "family": Family.IPV4,
        "protocol": "tcp",
        "source": ip_address("203.0.113.9"),
        "destination": ip_address("192.0.2.1"),
        "source_port": 49152,
        "destination_port": port,
        "in_interface": interface,
    }
    return Packet(**(values | changes))  # type: ignore[arg-type]


def journey(packet: Packet, text: str = CLOSED) -> tuple[Journey, Mapping[Family, Ruleset]]:
    """What becomes of a packet, and the rulesets."""
    loaded = rulesets(text)
    with simulated(loaded) as bed:
        (found,) = bed.send([packet])
    assert isinstance(found, Journey)
    return found, loaded


@pytest.mark.parametrize(
    ("packet", "line", "place"),
    [
        (
            to_port(8443),
            "-A INPUT -i eth0 -s 203.0.113.9 -p tcp --dport 8443 -m conntrack --ctstate NEW -j ACCEPT",
            "in /etc/fwguard.d/10.rules, before line 9",
        ),
        (
            to_port(443, "eth1"),
            "-A guests -i eth1 -s 203.0.113.9 -p tcp --dport 443 -m conntrack --ctstate NEW -j ACCEPT",
            "in /etc/fwguard.d/10.rules, before line 8",
        ),
    ],
)
def test_the_least_to_add_is_one_narrow_rule_in_front_of_what_ended_the_packet(
    packet: Packet, line: str, place: str
) -> None:
    """The rule names interface, source, protocol, port and state; it comes before the rules that log denials."""
    found, loaded = journey(packet)
    assert found.verdict is not Verdict.ACCEPT
    remedy = find_remedy(found, loaded, simulated)
    assert [(one.line, one.place) for one in remedy.additions] == [(line, place)]
    assert remedy.proven


def test_a_lost_established_rule_is_the_remedy_of_a_packet_that_goes_on() -> None:
    """For a packet of a connection that exists, the rule for all such packets is named, and no address."""
    found, loaded = journey(to_port(22, state=ConnectionState.ESTABLISHED), CLOSED.replace("ESTABLISHED,", ""))
    (addition,) = find_remedy(found, loaded, simulated).additions
    assert addition.line == "-A INPUT -i eth0 -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT"


def test_an_accepted_packet_needs_nothing() -> None:
    """There is no remedy where there is no harm."""
    found, loaded = journey(to_port(22))
    remedy = find_remedy(found, loaded, simulated)
    assert (remedy.additions, remedy.proven) == ((), False)
    assert verdict_in_words(found, loaded) == "accepted by rule 2 of INPUT (/etc/fwguard.d/10.rules:4)"


def test_no_rule_helps_where_routing_ended_the_packet() -> None:
    """The words say what did, and no rule is named."""
    lost = Journey(to_port(22), (), Verdict.DROP, "reverse path", None)
    loaded = rulesets(CLOSED)
    assert find_remedy(lost, loaded, simulated).additions == ()
    assert verdict_in_words(lost, loaded) == "dropped by rp_filter, since packets to 203.0.113.9 do not leave by eth0"


def test_a_journey_is_shown_in_80_columns() -> None:
    """Each rule that was met is there with its file and line, under its chain, and no line is longer."""
    found, loaded = journey(to_port(443, "eth1"))
    ink = AnswerPainter(colours=False)
    remedy = find_remedy(found, loaded, simulated)
    lines = [*journey_lines(found, loaded, ink), *remedy_lines(remedy, loaded, ink)]
    assert lines == [
        "tcp 203.0.113.9:49152 → 192.0.2.1:443, new, in eth1",
        "routing: to this host",
        "filter INPUT",
        "   3  -i eth1 -j guests",
        "      /etc/fwguard.d/10.rules:6",
        "filter guests (from INPUT)",
        "   2  -j REJECT",
        "      /etc/fwguard.d/10.rules:8",
        "rejected by rule 2 of guests (/etc/fwguard.d/10.rules:8)",
        "To accept it, add:",
        "  -A guests -i eth1 -s 203.0.113.9 -p tcp --dport 443 -m conntrack --ctstate NEW -j ACCEPT",
        "  in /etc/fwguard.d/10.rules, before line 8",
        "With this the packet was accepted in a rehearsal.",
    ]
    assert [line for line in lines if len(line) > WIDTH and not line.startswith("  -A ")] == []


def test_nat_is_shown_where_it_changes_the_packet() -> None:
    """The step after which the packet has other addresses says which; the reply starts from them."""
    packet = to_port(8080)
    steps = (
        Step("nat", "PREROUTING", 1, "accept", PacketView(packet.source, packet.destination, 49152, 8080)),
        Step("filter", "INPUT", 2, "accept", PacketView(packet.source, packet.destination, 49152, 22)),
    )
    translated = Journey(packet, steps, Verdict.ACCEPT, "local", steps[-1])
    document = journey_document(
        translated, rulesets(f"{CLOSED}\n-t nat -A PREROUTING -p tcp --dport 8080 -j REDIRECT --to-ports 22")
    )
    assert [step["change"] for step in document["steps"]] == [
        "The packet is now 203.0.113.9:49152 → 192.0.2.1:22.",
        None,
    ]
    reply = reply_to(translated)
    assert reply is not None
    assert (reply.source_port, reply.destination_port, reply.out_interface) == (22, 49152, "eth0")
