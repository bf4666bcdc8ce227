"""The parser against lines that the real kernel printed, and against lines that it never would.

`kernel-lines.txt` holds the lines beside the packets that they are about. `expected.jsonl` says what each must become;
that file was reviewed, but it was first written by the parser, so the packets' own bytes are the second witness.
"""

from __future__ import annotations

import ipaddress
import json
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from fwguardd.denials.fields import denial_fields
from fwguardd.denials.line_parser import LineReader
from fwguardd.denials.model import (
    Arp,
    Bare,
    Denial,
    Extent,
    Icmp,
    Incomplete,
    IPv4,
    IPv6,
    Meaning,
    Tcp,
    Udp,
    Unparsed,
    Watched,
)
from fwguardd.denials.sentences import sentence
from tests.each import each

HERE: Final = Path(__file__).parent / "denials"
KERNELS_OWN_CHOICE: Final = {"id", "flow_label", "window"}
"""What the kernel chooses anew for each packet that it makes itself."""


@dataclass(frozen=True)
class Shape:
    """One line of the corpus; `packet` is empty where the kernel made the packet itself."""

    name: str
    packet: bytes
    text: str


def read_shapes() -> list[Shape]:
    """The lines of the corpus, in the order of the file."""
    lines = (HERE / "kernel-lines.txt").read_text(encoding="ascii").splitlines()
    split = [line.split("\t") for line in lines]
    return [Shape(name, bytes.fromhex(packet.strip("-")), text) for name, packet, text in split]


def read_jsonl(name: str) -> list[dict[str, Any]]:
    """A file of one JSON object a line."""
    return [json.loads(line) for line in (HERE / name).read_text(encoding="utf-8").splitlines()]


SHAPES: Final = read_shapes()
EXPECTED: Final = {entry["name"]: entry for entry in read_jsonl("expected.jsonl")}
FORGED: Final = read_jsonl("forged-lines.jsonl")
PREFIXES: Final = json.loads((HERE / "prefixes.json").read_text(encoding="ascii"))
READER: Final = LineReader(Watched(name, prefix, Meaning(meaning)) for name, prefix, meaning in PREFIXES)

every_shape = each(SHAPES, lambda shape: shape.name)
every_packet = each([shape for shape in SHAPES if shape.packet], lambda shape: shape.name)


def parsed(text: str) -> Denial:
    """The denial that a line must be."""
    denial = READER.read(text)
    assert isinstance(denial, Denial), denial
    return denial


def test_corpus_is_as_large_as_promised() -> None:
    """At least 150 shapes, each with one expected result, and no expectation without a shape."""
    assert len(SHAPES) >= 150
    assert [shape.name for shape in SHAPES] == list(EXPECTED)
    assert len({shape.text for shape in SHAPES}) >= 350


@every_shape
def test_line_becomes_what_is_expected(shape: Shape) -> None:
    """Each line of the kernel's becomes the fields and the sentence that the reviewed file says."""
    entry = EXPECTED[shape.name]
    denial = parsed(shape.text)
    shown = json.loads(json.dumps(denial_fields(denial)))
    wanted = dict(entry["fields"])
    if not shape.packet:
        for key in KERNELS_OWN_CHOICE & wanted.keys():
            assert isinstance(shown.pop(key), int)
            wanted.pop(key)
    assert shown == wanted
    assert sentence(denial) == entry["sentence"]
    assert denial.text == shape.text


@every_shape
def test_line_may_have_lost_its_last_blank(shape: Shape) -> None:
    """The journal and syslog daemons strip lines; nothing that the line says depends on the blank at its end."""
    shown = denial_fields(parsed(shape.text))
    assert denial_fields(parsed(shape.text.rstrip(" "))) == shown


@every_shape
def test_sentence_is_one_printable_line(shape: Shape) -> None:
    """No name of a device, however hostile, brings a control character into the sentence."""
    words = sentence(parsed(shape.text))
    assert words.replace("→", "").isascii()
    assert words.isprintable()


@every_packet
def test_network_layer_is_that_of_the_packet(shape: Shape) -> None:
    """Addresses, lengths, and all else that the line says about IP or ARP is what the packet's own bytes say."""
    denial = parsed(shape.text)
    network = denial.network
    if isinstance(network, IPv4):
        check_ipv4(network, shape)
    elif isinstance(network, IPv6):
        check_ipv6(network, shape.packet)
    elif isinstance(network, Arp):
        check_arp(network, shape.packet)
    else:
        assert denial.extent is Extent.SHORT_PACKET or denial.family.value == "other"


def check_ipv4(network: IPv4, shape: Shape) -> None:
    """Compare with an IPv4 header (RFC 791)."""
    packet = shape.packet
    length, ident, fragment = struct.unpack_from("!HHH", packet, 2)
    assert network.src == str(ipaddress.IPv4Address(packet[12:16]))
    assert network.dst == str(ipaddress.IPv4Address(packet[16:20]))
    assert (network.length, network.ident) == (length, ident)
    # The lowest bit of the byte is in neither of the kernel's two masks (IPTOS_TOS_MASK, IPTOS_PREC_MASK).
    assert network.tos | network.precedence == packet[1] & 0xFE
    # A forwarded packet has lost one by the time it is logged.
    assert packet[8] - network.ttl == ("forward" in shape.name or "postrouting" in shape.name)
    assert network.fragment_offset == 8 * (fragment & 0x1FFF)
    named = tuple(name for bit, name in ((0x8000, "CE"), (0x4000, "DF"), (0x2000, "MF")) if fragment & bit)
    assert network.flags == named
    if network.options is not None:
        assert network.options == packet[20 : 4 * (packet[0] & 0x0F)].hex().upper()


def check_ipv6(network: IPv6, packet: bytes) -> None:
    """Compare with an IPv6 header (RFC 8200)."""
    first, payload, _, hop_limit = struct.unpack_from("!IHBB", packet)
    assert ipaddress.IPv6Address(network.src) == ipaddress.IPv6Address(packet[8:24])
    assert ipaddress.IPv6Address(network.dst) == ipaddress.IPv6Address(packet[24:40])
    assert network.length == payload + 40
    assert (network.traffic_class, network.flow_label) == (first >> 20 & 0xFF, first & 0xFFFFF)
    assert hop_limit - network.hop_limit in (0, 1)


def check_arp(network: Arp, packet: bytes) -> None:
    """Compare with an ARP packet (RFC 826)."""
    hardware, protocol, _, opcode = struct.unpack_from("!HHHH", packet)
    assert (network.hardware_type, network.protocol_type, network.opcode) == (hardware, protocol, opcode)
    if network.src is not None:
        assert network.mac_src == packet[8:14].hex(":")
        assert network.src == str(ipaddress.IPv4Address(packet[14:18]))
        assert network.mac_dst == packet[18:24].hex(":")
        assert network.dst == str(ipaddress.IPv4Address(packet[24:28]))


@every_packet
def test_transport_layer_is_that_of_the_packet(shape: Shape) -> None:
    """Ports, flags, types: what the line says about the transport is what the packet's own bytes say."""
    denial = parsed(shape.text)
    found = transport_of(shape.packet) if isinstance(denial.network, (IPv4, IPv6)) else None
    if found is None or denial.transport is None:
        return
    proto, data = found
    match denial.transport:
        case Tcp() as tcp:
            check_tcp(tcp, proto, data)
        case Udp() as udp:
            assert proto == {"udp": 17, "udplite": 136}[udp.proto]
            assert (udp.spt, udp.dpt, udp.length) == struct.unpack_from("!HHH", data)
        case Icmp() as icmp:
            assert proto == {"icmp": 1, "ipv6-icmp": 58}[icmp.proto]
            assert (icmp.type, icmp.code) == (data[0], data[1])
            if icmp.ident is not None:
                assert (icmp.ident, icmp.seq) == struct.unpack_from("!HH", data, 4)
            if icmp.gateway is not None:
                assert icmp.gateway == str(ipaddress.IPv4Address(data[4:8]))
        case Incomplete() as short:
            assert short.available == len(data) < 20
        case Bare(proto=name):
            names = {6: "tcp", 17: "udp", 136: "udplite", 1: "icmp", 58: "ipv6-icmp", 51: "ah", 50: "esp"}
            assert name in {str(proto), names.get(proto)}


def check_tcp(tcp: Tcp, proto: int, data: bytes) -> None:
    """Compare with a TCP header (RFC 9293)."""
    spt, dpt, seq, ack, bits, window, _, urgent = struct.unpack_from("!HHIIHHHH", data)
    assert proto == 6
    assert (tcp.spt, tcp.dpt, tcp.window, tcp.urgent) == (spt, dpt, window, urgent)
    assert (tcp.seq, tcp.ack) in ((seq, ack), (None, None))
    lowest_first = ("FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR", "AE")
    assert set(tcp.flags) == {name for bit, name in enumerate(lowest_first) if bits >> bit & 1}
    if tcp.options is not None:
        assert tcp.options == data[20 : 4 * (bits >> 12)].hex().upper()


def transport_of(packet: bytes) -> tuple[int, bytes] | None:
    """Protocol and bytes of the first transport header, by the formats of the RFCs; None when it is not there."""
    if packet[0] >> 4 == 4:
        return packet[9], packet[4 * (packet[0] & 0x0F) :]
    proto, position = packet[6], 40
    while proto in (0, 43, 44, 51, 60):
        if position + 8 > len(packet):
            return None
        following, words = packet[position], packet[position + 1]
        position += {44: 8, 51: 4 * (words + 2)}.get(proto, 8 * (words + 1))
        proto = following
    return (proto, packet[position:]) if position <= len(packet) else None


@pytest.mark.parametrize("case", FORGED, ids=lambda case: case["name"])
def test_forged_line_is_refused(case: dict[str, Any]) -> None:
    """What the kernel would not print is another's line, or an unparsed one that says where; never a denial."""
    outcome = READER.read(case["text"])
    if case["expected"] is None:
        assert outcome is None
    else:
        assert isinstance(outcome, Unparsed)
        assert outcome.text == case["text"]
        assert len(outcome.watched.prefix) <= outcome.position <= len(case["text"])
        assert outcome.expected
