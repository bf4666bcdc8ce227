"""The words that describe a packet, what the host's routes add to them, and the packets of denials and connections."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from fwguardd.ctl.why import read_question
from fwguardd.packets.connections import next_packets
from fwguardd.packets.denied import packet_of_denial
from fwguardd.packets.host import Hop, Host, Interface, Route
from fwguardd.packets.host_routes import completed, host_routes
from fwguardd.packets.model import ConnectionState, Direction
from fwguardd.packets.packet_words import PacketWordsError, packet_in_words, read_packet_words
from tests.unit.test_exposure import LIVE

HOST = Host(
    (
        Interface("lo", "loopback", ("127.0.0.1/8", "::1/128")),
        Interface("eth0", addresses=("fe80::1/64", "192.0.2.1/24", "2001:db8::1/64")),
        Interface("lan", addresses=("10.0.0.1/24",)),
        Interface("down", addresses=("172.16.0.1/24",), up=False),
    ),
    (
        Route("0.0.0.0/0", "192.0.2.254", "eth0"),
        Route("192.0.2.0/24", dev="eth0"),
        Route("10.0.0.0/24", dev="lan"),
        Route("10.9.0.0/16", hops=(Hop(dev="lan"), Hop(dev="eth0"))),
        Route("198.51.100.0/24", dev="lan", table=7),
        Route("2001:db8::/64", dev="eth0", metric=256),
    ),
)
ROUTES = host_routes(HOST)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("in eth0 tcp 203.0.113.9 192.0.2.1:22", "tcp 203.0.113.9:49152 → 192.0.2.1:22, new, in eth0"),
        ("in eth0 tcp 203.0.113.9 :22", "tcp 203.0.113.9:49152 → 192.0.2.1:22, new, in eth0"),
        ("tcp 203.0.113.9:4711 192.0.2.1:22", "tcp 203.0.113.9:4711 → 192.0.2.1:22, new, in eth0"),
        ("out eth0 udp 203.0.113.53:53", "udp 192.0.2.1:49152 → 203.0.113.53:53, new, out eth0"),
        ("udp 192.0.2.1 10.0.0.7:53", "udp 192.0.2.1:49152 → 10.0.0.7:53, new, out lan"),
        ("tcp 10.0.0.7 203.0.113.9:443", "tcp 10.0.0.7:49152 → 203.0.113.9:443, new, in lan out eth0"),
        ("in lan out eth0 icmp 10.0.0.7 203.0.113.9", "icmp 10.0.0.7 → 203.0.113.9, type 8, new, in lan out eth0"),
        ("tcp 127.0.0.1 127.0.0.1:80", "tcp 127.0.0.1:49152 → 127.0.0.1:80, new, in lo"),
        ("tcp 2001:db8::9 [2001:db8::1]:22", "tcp [2001:db8::9]:49152 → [2001:db8::1]:22, new, in eth0"),
        ("tcp 10.9.1.1 :22", "tcp 10.9.1.1:49152 → 10.0.0.1:22, new, in lan"),
        ("58 2001:db8::9 2001:db8::1 type 135", "icmpv6 2001:db8::9 → 2001:db8::1, type 135, new, in eth0"),
        ("in eth0 tcp 203.0.113.9 :22 state established", "tcp 203.0.113.9:49152 → 192.0.2.1:22, established, in eth0"),
        ("in eth0 tcp 203.0.113.9 :22 flags ack,fin", "tcp 203.0.113.9:49152 → 192.0.2.1:22, FIN,ACK, new, in eth0"),
        ("in eth0 udp 203.0.113.9 :53 mark 0x10", "udp 203.0.113.9:49152 → 192.0.2.1:53, new, mark 16, in eth0"),
        ("in eth0 udp 203.0.113.9 :53 fragment", "udp 203.0.113.9:49152 → 192.0.2.1:53, new, in fragments, in eth0"),
        ("in eth0 47 203.0.113.9 192.0.2.1", "47 203.0.113.9 → 192.0.2.1, new, in eth0"),
    ],
)
def test_words_and_routes_make_a_packet(words: str, expected: str) -> None:
    """Interfaces, addresses and ports that are left out are those of the host, and the words come back."""
    assert packet_in_words(completed(read_packet_words(words.split()), ROUTES)) == expected


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("", "expected a protocol"),
        ("in", 'expected the name of an interface after "in"'),
        ("in eth0 tpc 203.0.113.9 :22", "'tpc' is not a protocol"),
        ("in eth0 tcp", "expected an address"),
        ("in eth0 tcp 203.0.113.9", "expected a port after the destination"),
        ("in eth0 tcp :22", "expected two addresses"),
        ("in eth0 tcp 203.0.113.999 :22", "'203.0.113.999' is not an address"),
        ("in eth0 tcp 203.0.113.9 :70000", "70000 is not a port"),
        ("in eth0 icmp 203.0.113.9 192.0.2.1:22", "icmp has no ports"),
        ("in eth0 tcp 203.0.113.9 2001:db8::1 dport 22", "are of two families"),
        ("in eth0 tcp 203.0.113.9 :22 stat new", "did you mean state?"),
        ("in eth0 tcp 203.0.113.9 :22 state fresh", "'fresh' is not a connection state"),
        ("in eth0 tcp 203.0.113.9 :22 flags SIN", "'SIN' are not flags of TCP"),
        ("in eth0 tcp 203.0.113.9 :22 mark x", "'x' is not a mark"),
        ("in eth0 icmp 203.0.113.9 192.0.2.1 type ping", "'ping' is not a type of icmp"),
        ("tcp 2001:db8:9::9 [2001:db8::1]:22", "this host has no route to 2001:db8:9::9"),
        ("out lan tcp [2001:db8::9]:22 sport", 'expected a value after "sport"'),
    ],
)
def test_wrong_words_are_explained(words: str, reason: str) -> None:
    """The error names the word and what was expected."""
    with pytest.raises(PacketWordsError) as raised:
        completed(read_packet_words(words.split()), ROUTES)
    assert reason in str(raised.value)


def test_a_question_is_about_a_port_of_this_host_or_of_another() -> None:
    """FROM PORT, FROM TO PORT, "here", names of services and other protocols."""
    for words, expected in {
        "10.9.1.1 5432": "tcp 10.9.1.1:49152 → 10.0.0.1:5432, new, in lan",
        "here 203.0.113.53 53/udp": "udp 192.0.2.1:49152 → 203.0.113.53:53, new, out eth0",
        "10.0.0.7 203.0.113.9 https": "tcp 10.0.0.7:49152 → 203.0.113.9:443, new, in lan out eth0",
    }.items():
        assert packet_in_words(completed(read_question(words.split()), ROUTES)) == expected
    for words in ("5432", "here 5432", "10.9.1.1:1 5432", "10.9.1.1 no-such-service", "10.9.1.1 70000", "a b c d"):
        with pytest.raises(PacketWordsError):
            read_question(words.split())


def test_a_denial_is_a_packet_if_its_event_has_enough() -> None:
    """Ports, flags, types and marks are those of the event; one of ARP, or a summary without a port, is none."""
    fields = {"src": "203.0.113.9", "dst": "192.0.2.1", "proto": "tcp", "spt": 4711, "dpt": 23, "in": "eth0"}
    packet = packet_of_denial({**fields, "flags": ("SYN", "AE"), "mark": 1})
    assert packet is not None
    assert packet_in_words(packet) == "tcp 203.0.113.9:4711 → 192.0.2.1:23, new, mark 1, in eth0"
    ping = packet_of_denial({"src": "2001:db8::9", "dst": "2001:db8::1", "proto": "ipv6-icmp", "icmp_type": 128})
    assert ping is not None
    assert (ping.protocol, ping.icmp_type) == ("icmpv6", 128)
    for missing in ("src", "dst", "proto", "dpt"):
        assert packet_of_denial({name: value for name, value in fields.items() if name != missing}) is None
    assert packet_of_denial({**fields, "src": "02:00:00:00:00:01"}) is None


def test_a_connection_has_a_packet_in_each_direction() -> None:
    """What comes in is inbound, the answer outbound; both belong to a connection that exists."""
    onward, back = next_packets(LIVE, ROUTES)
    assert (onward.direction, back.direction) == (Direction.INBOUND, Direction.OUTBOUND)
    assert {onward.state, back.state} == {ConnectionState.ESTABLISHED}
    assert (back.source, back.source_port, back.out_interface) == (ip_address("192.0.2.1"), 22, "eth0")
