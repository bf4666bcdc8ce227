"""The model of a ruleset over all packets, without a solver: what it says of single packets."""

from __future__ import annotations

import random
from ipaddress import ip_address, ip_interface
from typing import TYPE_CHECKING

import pytest

from fwguardd.packets.model import ConnectionState, Packet, Verdict
from fwguardd.proof.concrete import set_of
from fwguardd.proof.fields import Interfaces
from fwguardd.proof.formulas import variables_of
from fwguardd.proof.host_view import surroundings
from fwguardd.proof.intervals import complement, contains, covers, intersection, united
from fwguardd.proof.model import Model
from fwguardd.ruleset.model import Family
from fwguardd.ruleset.set_files import SetFile, read_set_file
from tests.proofs import CLOSED, HOST, ruleset, tcp

if TYPE_CHECKING:
    from fwguardd.proof.traversal import Outcome
    from fwguardd.ruleset.model import Ruleset


def outcome(rules: Ruleset, packet: Packet, sets: tuple[SetFile, ...] = ()) -> Outcome:
    """What the model says of one packet."""
    names = [name for name in (packet.in_interface, packet.out_interface) if name]
    known = surroundings(rules.family, [rules], HOST, sets, names)
    packets = set_of(packet, known)
    return Model.of(rules, known).outcome(packets, packets.scope(rules.family))


def verdict(rules: Ruleset, packet: Packet, sets: tuple[SetFile, ...] = ()) -> Verdict | str:
    """The verdict, or "free"."""
    found = outcome(rules, packet, sets)
    known = ((Verdict.ACCEPT, found.accept), (Verdict.DROP, found.drop), (Verdict.REJECT, found.reject))
    assert sum(formula is True for _, formula in known) < 2
    return next((name for name, formula in known if formula is True), "free")


@pytest.mark.parametrize(
    ("rule", "met", "other"),
    [
        ("-s 198.51.100.0/24", tcp(22), tcp(22, "203.0.113.9")),
        ("! -s 198.51.100.0/24", tcp(22, "203.0.113.9"), tcp(22)),
        ("-s 198.51.0.7/255.255.0.255", tcp(22), tcp(22, "198.51.100.8")),
        ("-i eth0", tcp(22), tcp(22, into="eth1")),
        ("-i eth+", tcp(22, into="eth7"), tcp(22, into="wlan0")),
        ("! -i eth0", tcp(22, into="eth1"), tcp(22)),
        ("-p tcp -m tcp --dport 22", tcp(22), tcp(23)),
        ("-p tcp -m tcp ! --dport 22", tcp(23), tcp(22)),
        ("-p tcp -m tcp --dport 1000:2000", tcp(2000), tcp(2001)),
        ("-p tcp -m multiport --dports 22,80,8000:8080", tcp(8001), tcp(81)),
        ("-p tcp -m multiport ! --dports 22,80", tcp(81), tcp(80)),
        ("-p tcp -m multiport --ports 22,40000", tcp(5), tcp(5, source_port=1)),
        ("-p tcp -m tcp --tcp-flags FIN,SYN,RST,ACK SYN", tcp(22), tcp(22, flags=frozenset({"ACK"}))),
        ("-m conntrack --ctstate NEW", tcp(22), tcp(22, state=ConnectionState.ESTABLISHED)),
        ("-m state --state RELATED,ESTABLISHED", tcp(22, state=ConnectionState.ESTABLISHED), tcp(22)),
        ("-m conntrack --ctstate INVALID", tcp(22, flags=frozenset({"FIN"})), tcp(22)),
        ("-m conntrack --ctstate UNTRACKED", tcp(22, state=ConnectionState.UNTRACKED), tcp(22)),
        ("-m mark --mark 0x1/0x3", tcp(22, mark=5), tcp(22, mark=2)),
        ("-m iprange --src-range 198.51.100.1-198.51.100.9", tcp(22), tcp(22, "198.51.100.10")),
        ("-m addrtype --dst-type LOCAL", tcp(22), tcp(22, destination=ip_address("224.0.0.1"))),
        ("-m addrtype ! --dst-type MULTICAST", tcp(22), tcp(22, destination=ip_address("224.0.0.1"))),
        ('-p tcp -m comment --comment "-s 10.0.0.0/8" -m tcp --dport 22', tcp(22), tcp(23)),
    ],
)  # fmt: skip
def test_a_match_is_read_as_the_kernel_reads_it(rule: str, met: Packet, other: Packet) -> None:
    """A packet that has what a rule asks for is accepted by it, and another one meets the policy."""
    rules = ruleset(*CLOSED, f"-A INPUT {rule} -j ACCEPT")
    assert verdict(rules, met) is Verdict.ACCEPT
    assert verdict(rules, other) is Verdict.DROP


CHAINS = (
    *(":INPUT DROP", ":FORWARD DROP", ":OUTPUT ACCEPT", ":one - [0:0]", ":two - [0:0]"),
    *("-A INPUT -p tcp -j one", "-A INPUT -p tcp -m tcp --dport 80 -j ACCEPT"),
    *("-A one -p tcp -m tcp --dport 80 -j RETURN", "-A one -s 198.51.100.0/24 -g two", "-A one -j REJECT"),
    *("-A two -p tcp -m tcp --dport 22 -j ACCEPT", "-A two -p tcp -m tcp --dport 23 -j RETURN"),
    "-A two -p tcp -m tcp --dport 24 -j DROP",
)


@pytest.mark.parametrize(
    ("packet", "expected"),
    [
        (tcp(80), Verdict.ACCEPT),
        (tcp(22), Verdict.ACCEPT),
        (tcp(22, "203.0.113.9"), Verdict.REJECT),
        (tcp(23), Verdict.DROP),
        (tcp(24), Verdict.DROP),
        (tcp(25), Verdict.DROP),
    ],
)
def test_chains_are_followed_as_the_kernel_does(packet: Packet, expected: Verdict) -> None:
    """RETURN and the end of a chain lead behind the jump, and after a goto to the end of the chain before: a packet
    that comes back there meets the policy."""
    assert verdict(ruleset(*CHAINS), packet) is expected


def test_a_mark_is_seen_by_later_rules_and_tables() -> None:
    """MARK changes the bits of its mask only, also in a chain that a packet returns from."""
    rules = ruleset(
        *("*mangle", ":PREROUTING ACCEPT", ":set - [0:0]", "-A PREROUTING -s 198.51.100.0/24 -j set"),
        *("-A set -j MARK --set-xmark 0x4/0xc", "-A set -j MARK --set-xmark 0x1/0x3", "COMMIT", "*filter"),
        *(*CLOSED, "-A INPUT -m mark --mark 0x5 -j ACCEPT"),
    )
    assert verdict(rules, tcp(22)) is Verdict.ACCEPT
    assert verdict(rules, tcp(22, "203.0.113.9")) is Verdict.DROP


def test_a_packet_that_raw_exempts_is_untracked() -> None:
    """Behind NOTRACK the state is UNTRACKED, and before connection tracking it is INVALID."""
    rules = ruleset(
        *("*raw", ":PREROUTING ACCEPT", "-A PREROUTING -m conntrack --ctstate NEW -j DROP"),
        *("-A PREROUTING -p tcp -m tcp --dport 53 -j CT --notrack", "COMMIT", "*filter"),
        *(*CLOSED, "-A INPUT -m conntrack --ctstate NEW -j ACCEPT"),
        "-A INPUT -m conntrack --ctstate UNTRACKED -j REJECT",
    )
    assert verdict(rules, tcp(22)) is Verdict.ACCEPT
    assert verdict(rules, tcp(53)) is Verdict.REJECT


PUBLISHED = (
    *("*nat", ":PREROUTING ACCEPT", "-A PREROUTING -p tcp -m tcp --dport 8080 -j DNAT --to-destination 172.17.0.2:80"),
    *("-A PREROUTING -p tcp -m tcp --dport 81 -j REDIRECT --to-ports 8081", "COMMIT", "*filter", *CLOSED),
    *("-A FORWARD -d 172.17.0.2/32 ! -i docker0 -o docker0 -p tcp -m tcp --dport 80 -j ACCEPT",),
    "-A INPUT -p tcp -m tcp --dport 8080:8081 -j ACCEPT",
)


def test_a_translated_packet_takes_the_way_to_its_new_destination() -> None:
    """A packet to a published port is forwarded, by the interface of the route, and INPUT does not see it; one that is
    redirected stays."""
    rules = ruleset(*PUBLISHED)
    published = outcome(rules, tcp(8080))
    assert published.accept is True
    assert published.delivered is False
    redirected = outcome(rules, tcp(81))
    assert redirected.delivered is True


def test_the_nat_of_an_established_connection_is_free() -> None:
    """What NAT made of a connection that was there before is not known, so the verdict depends on it."""
    assert verdict(ruleset(*PUBLISHED), tcp(8081, state=ConnectionState.ESTABLISHED)) == "free"


def test_what_is_not_modelled_is_free_and_named_with_its_place() -> None:
    """A match or a target that is not modelled may match or not; where a verdict depends on it, it has one name for the
    rule. Where none does, it does not matter."""
    rules = ruleset(
        *CLOSED, "-A INPUT -m time --timestart 08:00:00 -j ACCEPT", "-A INPUT -m limit --limit 1/sec -j LOG"
    )
    found = outcome(rules, tcp(22))
    parts = {str(variable.part) for variable in variables_of([found.accept])}
    assert parts == {"-m time --timestart 08:00:00"}
    assert verdict(ruleset(*CLOSED, "-A INPUT -m limit --limit 1/sec -j LOG"), tcp(22)) is Verdict.DROP
    assert verdict(ruleset(*CLOSED, "-A INPUT -j NFQUEUE --queue-num 1"), tcp(22)) == "free"
    assert verdict(ruleset(*CLOSED, "-A INPUT -j XYZZY"), tcp(22)) == "free"


def test_equal_rules_with_limits_have_answers_of_their_own() -> None:
    """Two rules with the same limit may have two answers about one packet, two with the same time have one."""
    limit, time = "-A INPUT -m limit --limit 1/sec", "-A INPUT -m time --timestart 08:00:00"
    for match, count in ((limit, 2), (time, 1)):
        found = outcome(ruleset(*CLOSED, f"{match} -j ACCEPT", f"{match} -j REJECT"), tcp(22))
        assert len(variables_of([found.accept, found.reject])) == count


def test_sets_are_known_by_their_contents() -> None:
    """The entries of a set file are addresses; a set that others may fill is free, and so is one of ports."""
    rules_text = "-A INPUT -m set --match-set office"
    rules = ruleset(*CLOSED, f"{rules_text} src -j ACCEPT")
    known = read_set_file("office.set", b"198.51.100.0/25\n198.51.100.200\n")
    assert isinstance(known, SetFile)
    assert verdict(rules, tcp(22), (known,)) is Verdict.ACCEPT
    assert verdict(rules, tcp(22, "198.51.100.201"), (known,)) is Verdict.DROP
    changing = read_set_file("office.set", b"# fwguard: set hash:net timeout=1h\n198.51.100.0/25\n")
    assert isinstance(changing, SetFile)
    assert verdict(rules, tcp(22), (changing,)) == "free"
    ports = read_set_file("office.set", b"# fwguard: set hash:ip,port\n198.51.100.7,tcp:22\n")
    assert isinstance(ports, SetFile)
    assert verdict(ruleset(*CLOSED, f"{rules_text} src,dst -j ACCEPT"), tcp(22), (ports,)) == "free"
    assert verdict(rules, tcp(22)) == "free"


def test_ipv6_is_read_like_ipv4() -> None:
    """Addresses of IPv6 have 128 bits, and its neighbour discovery is not tracked. Of several kinds of addresses the
    kernel asks in another way than for IPv4, so they are free."""
    rules = ruleset(*CLOSED, "-A INPUT -s 2001:db8:51::/48 -p tcp -m tcp --dport 22 -j ACCEPT", family=Family.IPV6)
    assert verdict(rules, tcp(22, "2001:db8:51::7")) is Verdict.ACCEPT
    assert verdict(rules, tcp(22, "2001:db8:52::7")) is Verdict.DROP
    rules = ruleset(*CLOSED, "-A INPUT -m conntrack --ctstate UNTRACKED -j ACCEPT", family=Family.IPV6)
    both = ruleset(*CLOSED, "-A INPUT -m addrtype --dst-type LOCAL,MULTICAST -j ACCEPT", family=Family.IPV6)
    assert verdict(both, tcp(22, "2001:db8:51::7")) == "free"
    addresses = ip_address("fe80::1"), ip_address("ff02::1")
    discovery = Packet(Family.IPV6, "icmpv6", *addresses, in_interface="eth0", icmp_type=135)
    assert verdict(rules, discovery) is Verdict.ACCEPT


def test_chains_that_lead_to_each_other_end() -> None:
    """A loop, which no kernel loads, is not followed for ever: what it does is free."""
    loop = ("-A INPUT -j one", "-A one -j two", "-A two -j one")
    assert verdict(ruleset(*CLOSED, ":one - [0:0]", ":two - [0:0]", *loop), tcp(22)) == "free"


def test_interfaces_stand_for_all_that_rules_can_tell_apart() -> None:
    """For each pattern there is a name that no longer pattern covers, and one that none covers."""
    interfaces = Interfaces.of(["eth0", "eth+", "eth1+", "veth12345678901+"])
    assert {"lo", "eth0"} <= set(interfaces.names)
    wide = interfaces.matching("eth+")
    assert covers(wide, interfaces.matching("eth1+"))
    assert len([number for number in range(len(interfaces.names)) if contains(wide, number)]) == 3
    assert not covers(wide, interfaces.real)
    assert interfaces.matching("veth12345678901+")
    assert interfaces.matching("+") == ((0, len(interfaces.names) - 1),)


def test_sets_of_numbers_are_computed_exactly() -> None:
    """Union, intersection and complement of ranges are those of the numbers in them."""
    chance = random.Random(7)
    for _ in range(200):
        one, other = (
            {number for number in range(32) if chance.random() < density} for density in (chance.random(), 0.5)
        )
        left, right = (united((number, number) for number in numbers) for numbers in (one, other))
        for result, expected in (
            (intersection(left, right), one & other),
            (united((*left, *right)), one | other),
            (complement(left, 5), set(range(32)) - one),
        ):
            assert {number for number in range(32) if contains(result, number)} == expected
        assert covers(left, right) == (other <= one)


def test_a_route_by_interface_is_that_of_the_longest_network() -> None:
    """The destinations of an interface are those that no longer network of another one takes."""
    known = surroundings(Family.IPV4, [ruleset(*CLOSED)], HOST)
    docker = known.routes[known.interfaces.number("docker0")]
    assert contains(docker, int(ip_address("172.17.0.2")))
    assert not contains(docker, int(ip_address("172.17.0.1")))
    assert contains(known.routes[known.interfaces.number("eth0")], int(ip_address("203.0.113.9")))
    assert known.own is not None
    assert contains(known.own, int(ip_interface("192.0.2.1").ip))
