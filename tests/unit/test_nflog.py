"""Copied packets as netlink bytes, and their numbers.

What only the kernel can do (copying them, dropping them, refusing) is tested in tests/netns/test_nflog_real.py.
"""

from __future__ import annotations

import errno
import struct

import pytest

from fwguardd.kernel.kmsg import Lost
from fwguardd.kernel.nflog import Numbers, PacketLogNotPermittedError, PacketLogUnsupportedError, _refusal
from fwguardd.kernel.nflog_message import LinkLayer, LoggedPacket, parse_packets
from tests.corpus.denials.copied import copied

PAYLOAD = bytes(range(28))


def attribute(kind: int, value: bytes, length: int | None = None) -> bytes:
    """One attribute, padded; `length` for a wrong one."""
    said = len(value) + 4 if length is None else length
    return struct.pack("=HH", said, kind) + value + bytes(-len(value) % 4)


def message(*attributes: bytes, kind: int = 0x0400, family: int = 2, length: int | None = None) -> bytes:
    """One netlink message of nfnetlink_log; `length` for a wrong one."""
    body = struct.pack("=BBH", family, 0, 0) + b"".join(attributes)
    return struct.pack("=IHHII", len(body) + 16 if length is None else length, kind, 0, 0, 0) + body


HEADER = attribute(1, bytes.fromhex("08000100"))
PREFIX = attribute(10, b"denied: \0")
SEQ = attribute(12, b"\0\0\0\x07")
CARRIED = attribute(9, PAYLOAD)
PACKET = copied(PAYLOAD, prefix=b"denied: ", seq=7)


def numbered(*numbers: int | None) -> list[LoggedPacket]:
    """Packets with these numbers."""
    return [copied(b"", seq=number) for number in numbers]


def test_a_packet_has_family_hook_prefix_number_and_bytes() -> None:
    """The values are big endian, the prefix ends at its zero byte, and a missing attribute is None."""
    (packet,) = parse_packets(message(HEADER, PREFIX, SEQ, CARRIED))
    assert (packet.family, packet.hook, packet.ethertype, packet.prefix) == (2, 1, 0x0800, b"denied: ")
    assert (packet.seq, packet.payload, packet.link_header) == (7, PAYLOAD, b"")
    assert (packet.devices, packet.hardware) == ((None, None, None, None), None)
    assert (packet.mark, packet.uid, packet.gid) == (None, None, None)
    assert packet == PACKET


def test_all_attributes_are_parsed() -> None:
    """Devices, mark, owner, link-layer header and VLAN tag."""
    vlan = attribute(2, b"\x20\x05") + attribute(1, b"\x81\x00")
    (packet,) = parse_packets(
        message(
            HEADER,
            *(attribute(kind, number.to_bytes(4, "big")) for kind, number in ((4, 3), (5, 4), (6, 5), (7, 6), (2, 9))),
            attribute(8, bytes(12)),
            attribute(15, b"\0\1"),
            attribute(17, b"\0\x0e"),
            attribute(16, bytes(14)),
            attribute(11, (1000).to_bytes(4, "big")),
            attribute(14, (100).to_bytes(4, "big")),
            attribute(20 | 0x8000, vlan),
            attribute(21, b"link"),
            family=5,
        )
    )
    assert (packet.family, packet.prefix, packet.seq, packet.payload) == (5, b"", None, b"")
    assert packet.devices == (3, 4, 5, 6)
    assert packet.hardware == LinkLayer(1, bytes(14), 0x8100, 0x2005)
    assert (packet.link_header, packet.mark, packet.uid, packet.gid) == (b"link", 9, 1000, 100)


def test_bytes_without_a_sender_are_not_a_link_layer_header() -> None:
    """For an Ethernet header the kernel also sends NFULA_HWADDR; bytes without it are not a header."""
    header = attribute(15, b"\0\1") + attribute(16, bytes(14))
    assert parse_packets(message(HEADER, header))[0].hardware is None
    assert parse_packets(message(HEADER, header, attribute(8, bytes(12))))[0].hardware == LinkLayer(1, bytes(14))


def test_a_batch_is_several_messages() -> None:
    """Every packet of a batch is parsed, and the end mark of the batch is skipped."""
    batch = message(HEADER, PREFIX, SEQ, CARRIED) * 3 + message(kind=3)
    assert parse_packets(batch) == [PACKET] * 3


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0" * 15,
        message(length=1 << 20),
        message(),
        message(attribute(1, b"\x08\x00")),
        message(HEADER, attribute(9, PAYLOAD, length=200)),
        message(HEADER, attribute(9, PAYLOAD, length=3)),
        message(HEADER, kind=0x0A0F),
        struct.pack("=IHHII", 18, 0x0400, 0, 0, 0) + b"\0\0",
    ],
)
def test_what_is_not_a_packet_is_skipped(data: bytes) -> None:
    """Impossible lengths, missing headers and other messages are skipped; nothing raises."""
    assert parse_packets(data) == []


def test_numbers_in_a_row_lose_nothing() -> None:
    """A group's first packet is number 0, and each has one more than the one before."""
    numbers = Numbers()
    assert numbers.account(numbered(0, 1)) == numbered(0, 1)
    assert numbers.account(numbered(2)) == numbered(2)


def test_a_gap_is_reported_before_the_packet_after_it() -> None:
    """Packets lost before the first one count too."""
    assert Numbers().account(numbered(2, 3, 7)) == [Lost(2), *numbered(2, 3), Lost(3), *numbered(7)]


def test_numbers_start_over() -> None:
    """After 2**32 - 1 comes 0, and a gap across that is counted like any other."""
    numbers = Numbers()
    numbers.account(numbered(0xFFFFFFFE))
    assert numbers.account(numbered(0xFFFFFFFF, 0, 2)) == [*numbered(0xFFFFFFFF, 0), Lost(1), *numbered(2)]


def test_an_overrun_is_reported_at_once_and_counted_once() -> None:
    """One of the lost packets is reported when the socket overflows, the others with the next number; never more."""
    numbers = Numbers()
    numbers.account(numbered(0))
    assert numbers.overrun() == Lost(1)
    assert numbers.account(numbered(1)) == numbered(1)
    assert numbers.account(numbered(12)) == [Lost(9), *numbered(12)]
    assert numbers.account(numbered(14)) == [Lost(1), *numbered(14)]


def test_overruns_before_their_gaps_are_counted_once() -> None:
    """Two overruns may be reported before the first gap is known; the sum is the sum of the gaps."""
    numbers = Numbers()
    shown = [numbers.overrun(), numbers.overrun(), *numbers.account(numbered(1, 101))]
    assert sum(item.count for item in shown if isinstance(item, Lost)) == 1 + 99


def test_a_packet_without_a_number_is_returned() -> None:
    """While a group is being configured the kernel does not number its packets."""
    assert Numbers().account(numbered(None, 0)) == numbered(None, 0)


def test_each_errno_has_its_exception() -> None:
    """Known errors of the kernel become exceptions that say what to do; other ones stay OSError."""
    assert isinstance(_refusal(errno.EPERM, 64999), PacketLogNotPermittedError)
    unsupported = _refusal(errno.EAFNOSUPPORT, 5)
    assert isinstance(unsupported, PacketLogUnsupportedError)
    assert "RestrictAddressFamilies=" in str(unsupported)
    other = _refusal(errno.ENOMEM, 5)
    assert isinstance(other, OSError)
    assert "NFLOG group 5" in str(other)
