"""The command that why names in place of a rule: only one that lets the packet through."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from fwguardd.ctl.why_command import command_to_allow, command_to_remove
from fwguardd.packets.model import ConnectionState, Journey, Packet, PacketView, Step, Verdict
from fwguardd.packets.remedy import AddedRule, Remedy
from fwguardd.ruleset.model import Family, Origin

INBOUND = Packet(
    Family.IPV4, "tcp", ip_address("198.51.100.2"), ip_address("192.0.2.1"), 49152, 5432, in_interface="eth0"
)
OUTBOUND = Packet(
    Family.IPV6, "udp", ip_address("2001:db8::1"), ip_address("2001:db8::53"), 49152, 53, out_interface="eth0"
)


def step(chain: str, position: int | None) -> Step:
    """A rule of a chain of table filter that drops the packet; None for its policy."""
    return Step("filter", chain, position, "drop", PacketView())


def remedy(packet: Packet, verdict: Verdict, *chains: str) -> Remedy:
    """Rules that were tried in these chains, and what then became of the packet."""
    additions = [AddedRule(packet.family, "filter", chain, 0, "-j ACCEPT", None, None) for chain in chains]
    return Remedy(tuple(additions), Journey(packet, (), verdict, "local", None))


@pytest.mark.parametrize(
    ("packet", "chain", "command"),
    [
        (INBOUND, "INPUT", "fwguardctl allow 5432/tcp --from 198.51.100.2"),
        (OUTBOUND, "OUTPUT", "fwguardctl allow 53/udp --out --to 2001:db8::53"),
    ],
)
def test_allow_is_named_where_it_helps(packet: Packet, chain: str, command: str) -> None:
    """If the policy dropped the packet, or a rule behind the file of allow, it is named. It is not where a rule
    before that file decided, where more than one rule is missing or none helps, and for another chain or state."""
    accepted = remedy(packet, Verdict.ACCEPT, chain)
    late, early = Origin("/etc/fwguard.d/99-drop.rules", 3), Origin("/etc/fwguard.d/20-web.rules", 3)
    assert command_to_allow(packet, step(chain, None), early, accepted) == command
    assert command_to_allow(packet, step(chain, 4), late, accepted) == command
    assert command_to_allow(packet, step(chain, 4), early, accepted) == ""
    assert command_to_allow(packet, step(chain, 4), None, accepted) == ""
    for other in (
        None,
        remedy(packet, Verdict.DROP, chain),
        remedy(packet, Verdict.ACCEPT, chain, chain),
        remedy(packet, Verdict.ACCEPT, "FORWARD"),
    ):
        assert command_to_allow(packet, step(chain, None), late, other) == ""


def test_allow_is_for_new_connections_of_protocols_with_ports() -> None:
    """The verb writes rules for services: it is not named for a ping, nor for a packet of an established connection."""
    ping = Packet(Family.IPV4, "icmp", INBOUND.source, INBOUND.destination, in_interface="eth0", icmp_type=8)
    late = Packet(
        Family.IPV4, "tcp", INBOUND.source, INBOUND.destination, 49152, 22, "eth0", state=ConnectionState.ESTABLISHED
    )
    for packet in (ping, late):
        assert command_to_allow(packet, step("INPUT", None), None, remedy(packet, Verdict.ACCEPT, "INPUT")) == ""


ENTRIES = """\
# Written by fwguardctl

# fwguardctl block 203.0.113.9
# fwguard: until 2026-11-28T12:00:00Z
-I INPUT -s 203.0.113.9 -j DROP
-I FORWARD -s 203.0.113.9 -j DROP

-A INPUT -j DROP

# fwguardctl block bad
-I INPUT -m set --match-set bad src -j DROP
"""


@pytest.mark.parametrize(
    ("line", "command"),
    [
        (2, ""),
        (5, "fwguardctl remove block 203.0.113.9"),
        (6, "fwguardctl remove block 203.0.113.9"),
        (8, ""),
        (11, ""),
    ],
)
def test_an_entry_is_taken_out_by_its_command(line: int, command: str) -> None:
    """For a line of an entry the command that takes the entry out is named, but not for one about a whole list of
    addresses, and not for lines that a person has written."""
    assert command_to_remove(ENTRIES, line) == command
