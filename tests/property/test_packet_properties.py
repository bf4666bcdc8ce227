"""What must hold of the reader of copied packets for all bytes, and for all mutations of the packets of the corpus."""

from __future__ import annotations

from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fwguardd.denials.fields import denial_fields
from fwguardd.denials.model import Denial, Meaning, Watched
from fwguardd.denials.packets import PacketReader
from fwguardd.denials.sentences import sentence
from fwguardd.kernel.nflog_message import COPIED, NFULA_PACKET_HDR, NFULA_PREFIX, LoggedPacket, parse_packets
from tests.corpus.denials.copied import copied
from tests.corpus.denials.packets import extension, fragment, icmp_packets, ipv4_packets, ipv6_packets
from tests.counting import steps
from tests.netns.frames import ipv4, ipv6

READER: Final = PacketReader([Watched("denied", "denied: ", Meaning.DENIED)], lambda _: b"eth0")
PACKETS: Final = [*ipv4_packets().values(), *icmp_packets().values(), *ipv6_packets().values()]
families = st.sampled_from([0, 1, 2, 3, 5, 7, 10, 255])


def check(payload: bytes, family: int) -> None:
    """Read a packet, and tell it."""
    denial = READER.read(copied(payload, prefix=b"denied: ", family=family, hook=0))
    assert isinstance(denial, Denial)
    words = sentence(denial)
    assert words.isprintable() and words.replace("→", "").isascii()
    assert denial_fields(denial)["prefix"] == "denied: "


@given(st.one_of(st.binary(max_size=200), st.sampled_from(PACKETS)), families, st.integers(0, 0xFFFF))
def test_any_bytes_are_a_denial(payload: bytes, family: int, ethertype: int) -> None:
    """Reading is total: any bytes of any family become a denial whose message is one printable line."""
    denial = READER.read(copied(payload, prefix=b"denied: ", family=family, ethertype=ethertype))
    assert isinstance(denial, Denial)
    assert sentence(denial).isprintable()


@given(st.dictionaries(st.integers(0, 25), st.binary(max_size=80)), families)
def test_anything_around_a_packet_is_read(around: dict[int, bytes], family: int) -> None:
    """Whatever the kernel says of devices, hardware and owners, in however many bytes, reading does not raise."""
    packet = copied(PACKETS[0], prefix=b"denied: ", family=family)
    mangled = {**around, NFULA_PACKET_HDR: packet.attributes[NFULA_PACKET_HDR], NFULA_PREFIX: b"denied: "}
    denial = READER.read(LoggedPacket(family, mangled))
    assert isinstance(denial, Denial)
    assert sentence(denial).isprintable()


@given(st.binary())
def test_any_datagram_is_read(data: bytes) -> None:
    """Reading netlink messages is total, with and without a good header before the bytes."""
    parse_packets(data)
    length = (len(data) + 20).to_bytes(4, "little")
    parse_packets(length + b"\0\4" + bytes(10) + b"\2\0\0\0" + data)


@pytest.mark.parametrize("value", [0x00, 0x01, 0x2C, 0x33, 0x3A, 0x45, 0x7F, 0xFF])
def test_mutations_of_every_packet_at_every_byte(value: int) -> None:
    """A packet with one byte changed never raises, whichever byte it is."""
    for payload in PACKETS:
        for position in range(min(len(payload), 80)):
            check(payload[:position] + bytes([value]) + payload[position + 1 :], 10 if payload[0] >> 4 == 6 else 2)


def test_every_beginning_of_every_packet() -> None:
    """A copy that ends anywhere never raises, on any kind of hook."""
    for payload in PACKETS:
        for end in range(min(len(payload), 120)):
            check(payload[:end], 10 if payload[0] >> 4 == 6 else 2)
            check(payload[:end], 5)


@pytest.mark.parametrize(
    "payload",
    [
        ipv6(fragment(44) * 8000, 44),
        ipv6(extension(60) * 8000, 60),
        ipv6(b"\x33\0" * 32000, 51),
        ipv6(bytes(64000), 0),
        ipv4(bytes(64000), 1),
    ],
    ids=["fragments", "options", "ah", "hop-by-hop", "icmp"],
)
def test_work_is_linear_in_the_packet(payload: bytes) -> None:
    """A packet a hundred times as large as what the kernel copies takes at most twenty times the steps of a tenth of
    it: no work is quadratic."""
    assert len(payload) > 100 * COPIED
    family = 10 if payload[0] >> 4 == 6 else 2
    tenth = steps(lambda: check(payload[: len(payload) // 10], family))
    assert steps(lambda: check(payload, family)) < 20 * tenth
