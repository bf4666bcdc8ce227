"""The network of a host as a document, and packets as bytes."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from ipaddress import ip_address
from typing import TYPE_CHECKING

import pytest

from fwguardd.ctl.policy_run import HostFileError, host_of
from fwguardd.packets.documents import packet_document, packet_of
from fwguardd.packets.frames import checksum, datagrams
from fwguardd.packets.host import Hop, Host, HostError, Interface, Route, RoutingRule, Sysctls
from fwguardd.packets.model import ConnectionState, Packet
from fwguardd.ruleset.model import Family

if TYPE_CHECKING:
    from pathlib import Path

HOST = Host(
    (
        Interface("lo", "loopback", ("127.0.0.1/8",), 65536),
        Interface("eth0", addresses=("192.0.2.1/24", "2001:db8::1/64"), rp_filter=1, forwarding=True),
        Interface("wg0", "wireguard", up=False, master="br0"),
    ),
    (
        Route("0.0.0.0/0", "192.0.2.254", "eth0", metric=100),
        Route("10.0.0.0/8", hops=(Hop("192.0.2.2", "eth0", 3), Hop(dev="wg0"))),
    ),
    (RoutingRule(2, 100, table=7, source="10.0.0.0/8", mark=1, mask=255, uids="0-99", suppress_prefix=0),),
    Sysctls(ipv6_forwarding=True),
    ("the route to 10.9.0.0/16 in table 254: Invalid argument",),
)
PACKET = Packet(Family.IPV4, "tcp", ip_address("192.0.2.7"), ip_address("192.0.2.1"), 40000, 22, "eth0")


def test_a_host_is_what_its_document_says() -> None:
    """A document that was written as JSON describes the same host."""
    assert Host.of(json.loads(json.dumps(HOST.document()))) == HOST


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"interface": []}, 'unknown key "interface" of a host'),
        ({"routes": {}}, '"routes" of a host: expected a list'),
        ({"interfaces": [{"name": "a", "mtu": "big"}]}, "\"mtu\" of an interface: expected a number, not 'big'"),
        ({"interfaces": [{"name": "a", "speed": 1}]}, 'unknown key "speed" of an interface'),
        ({"interfaces": [{"mtu": 1}]}, "an interface of a host lacks a key"),
        ({"interfaces": ["eth0"]}, "an interface of a host: expected keys with values"),
        ({"rules": [{"family": "inet", "priority": 1}]}, '"family" of a routing rule: expected a number'),
        ({"routes": [{"to": "0.0.0.0/0", "hops": 1}]}, '"hops" of a route: expected a list'),
    ],
)
def test_a_fault_in_a_document_names_the_key(document: dict[str, object], message: str) -> None:
    """What is not a host is an error that says which key is wrong, and what was expected."""
    with pytest.raises(HostError) as error:
        Host.of(document)
    assert message in str(error.value)


HOST_FILE = """\
interfaces:
- {name: lo, kind: loopback}
- name: eth0
  addresses: [192.0.2.1/24]
  mtu: 1500
routes:
- to: 0.0.0.0/0
  hops:
  - via: 192.0.2.2
    weight: 3
"""


@pytest.mark.parametrize(
    ("right", "wrong", "message"),
    [
        ("mtu: 1500", "mtu: big", ":5: \"mtu\" of an interface: expected a number, not 'big'"),
        ("mtu: 1500", "speed: 1", ':5: unknown key "speed" of an interface'),
        (
            "[192.0.2.1/24]",
            "\n  - fe80::1/64\n  - 192.0.2.256/24",
            ':6: "addresses": expected an address with its pref',
        ),
        ("weight: 3", "weight: heavy", ":10: \"weight\" of a next hop: expected a number, not 'heavy'"),
        ("via: 192.0.2.2", "via: there", ":9: \"via\": expected an address, not 'there'"),
        ("- name: eth0\n  a", "- a", ":3: an interface of a host lacks a key"),
        ("routes:", "route:", ':6: unknown key "route" of a host'),
        ("routes:\n", "routes: {}\nrules:\n", ':6: "routes" of a host: expected a list'),
        ("mtu: 1500", "mtu: [", ":7: not YAML"),
        ("mtu: 1500", "mtu: 2026-99-99", ": not YAML"),
    ],
)
def test_a_fault_in_a_host_file_names_its_line(tmp_path: Path, right: str, wrong: str, message: str) -> None:
    """A mistake in a file for --host is reported at its line, also in an entry of a list."""
    path = tmp_path / "host.yaml"
    path.write_text(HOST_FILE)
    assert host_of(path).interfaces[1].name == "eth0"
    path.write_text(HOST_FILE.replace(right, wrong))
    with pytest.raises(HostFileError, match=f"^{re.escape(str(path))}") as error:
        host_of(path)
    assert f"{path}{message}" in str(error.value)


def test_a_packet_is_what_its_document_says() -> None:
    """Every field of a packet is in its document."""
    packet = replace(
        PACKET,
        out_interface="eth1",
        state=ConnectionState.RELATED,
        flags=frozenset({"ACK", "FIN"}),
        uid=33,
        gid=34,
        mark=5,
        icmp_type=3,
        icmp_code=1,
        fragment=True,
    )
    assert packet_of(json.loads(json.dumps(packet_document(packet)))) == packet


@pytest.mark.parametrize("protocol", ["tcp", "udp", "icmp", "sctp", "47"])
@pytest.mark.parametrize("fragment", [False, True])
def test_ipv4_headers_are_whole(protocol: str, *, fragment: bool) -> None:
    """Each datagram has its length, its number and a checksum; fragments together have the bytes of the whole."""
    packet = replace(PACKET, protocol=protocol)
    (whole,) = datagrams(packet, 4711)
    parts = datagrams(replace(packet, fragment=fragment), 4711)
    for part in parts:
        assert int.from_bytes(part[2:4], "big") == len(part)
        assert int.from_bytes(part[4:6], "big") == 4711
        assert checksum(part[:20]) == 0
    assert len(parts) == 1 + fragment
    if protocol != "tcp":  # A fragmented one has data.
        assert b"".join(part[20:] for part in parts) == whole[20:]


def test_ipv6_headers_are_whole() -> None:
    """The flow label has the number, and the checksum covers the pseudo header."""
    source, destination = ip_address("2001:db8::7"), ip_address("2001:db8::1")
    packet = replace(PACKET, family=Family.IPV6, source=source, destination=destination)
    (datagram,) = datagrams(packet, 4711)
    assert int.from_bytes(datagram[1:4], "big") == 4711
    pseudo = datagram[8:40] + (len(datagram) - 40).to_bytes(4, "big") + (6).to_bytes(4, "big")
    assert checksum(pseudo + datagram[40:]) == 0
    udp = replace(packet, protocol="udp")
    (whole,) = datagrams(udp, 4711)
    first, second = datagrams(replace(udp, fragment=True), 4711)
    assert first[6] == second[6] == 44
    assert first[48:] + second[48:] == whole[40:]


def test_a_checksum_of_sctp_is_a_crc() -> None:
    """CRC-32C over a packet with its own checksum, as every receiver computes it (RFC 9260, appendix A)."""
    (datagram,) = datagrams(replace(PACKET, protocol="sctp"), 1)
    segment = bytearray(datagram[20:])
    claimed = int.from_bytes(segment[8:12], "little")
    segment[8:12] = bytes(4)
    value = 0xFFFFFFFF
    for byte in segment:
        value ^= byte
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
    assert claimed == value ^ 0xFFFFFFFF
