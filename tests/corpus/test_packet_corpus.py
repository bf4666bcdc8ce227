"""The packets of the corpus, read from their bytes, against the lines that the real kernel printed about them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import pytest

from fwguardd.denials.fields import denial_fields
from fwguardd.denials.model import Extent, PacketFamily
from fwguardd.denials.packets import PacketReader
from fwguardd.kernel.nflog_message import COPIED
from tests.corpus.denials.copied import copied
from tests.corpus.test_denial_corpus import SHAPES, Shape, parsed
from tests.each import each

if TYPE_CHECKING:
    from fwguardd.denials.model import Denial
    from fwguardd.kernel.nflog_message import LoggedPacket

FAMILIES: Final = {PacketFamily.IPV4: 2, PacketFamily.IPV6: 10, PacketFamily.ARP: 3, PacketFamily.OTHER: 5}
ETHERTYPES: Final = {
    PacketFamily.IPV4: 0x0800,
    PacketFamily.IPV6: 0x86DD,
    PacketFamily.ARP: 0x0806,
    PacketFamily.OTHER: 0,
}
LONG_CHAINS: Final = ("6-cut-40", "6-cut-options")
"""Packets whose headers fill the line to its end; a copy has more of the one, and less of the other."""
ONLY_IN_A_LINE: Final = {"in", "out", "physin", "physout", "uid", "gid"}
"""What a packet's bytes do not hold."""
TOLD_DIFFERENTLY: Final = {
    # Only with --log-ip-options does the kernel print AH of IPv6; without, it reads on as if it were none.
    "6-fragment-later-ah": {"proto"},
    "6-ah-short": {"proto", "available"},
    # Without --log-ip-options the kernel does not notice that options are missing.
    "icmp-about-ip-options-missing": {"inner_proto"},
    # Nothing in the line tells that this was ARP, other than the MAC header.
    "arp-truncated ingress": {"family"},
    "arp-truncated ingress all": {"family"},
}
SHAPES_WITH_PACKETS: Final = [shape for shape in SHAPES if shape.packet and shape.name not in LONG_CHAINS]


def copied_shape(shape: Shape, line: Denial) -> LoggedPacket:
    """The packet of a shape as NFLOG would copy it, with what the line says of things around the packet."""
    octets = line.hardware.octets if line.hardware is not None else None
    return copied(
        shape.packet[:COPIED],
        prefix=line.watched.prefix.encode(),
        family=5 if "gress" in shape.name else FAMILIES[line.family],
        hook=0,
        ethertype=0x0806 if shape.name.startswith("arp") else ETHERTYPES[line.family],
        hardware=(1, bytes.fromhex(octets.replace(":", ""))) if octets else None,
        mark=line.mark,
    )


@each(SHAPES_WITH_PACKETS, lambda shape: shape.name)
def test_a_packet_has_all_fields_of_its_line(shape: Shape) -> None:
    """Every field of the line's denial is in the packet's, with the same value."""
    line = parsed(shape.text)
    packet = PacketReader([line.watched], lambda _: None).read(copied_shape(shape, line))
    assert packet is not None
    left_out = ONLY_IN_A_LINE | TOLD_DIFFERENTLY.get(shape.name, set())
    if line.hardware is not None and line.hardware.octets is None:
        left_out |= {"mac_src", "mac_dst", "ethertype", "vlan"}
    if "forward" in shape.name or "postrouting" in shape.name:
        # A forwarded packet has lost one by the time it is logged.
        left_out |= {"ttl"}
    shown: dict[str, Any] = {key: value for key, value in denial_fields(line).items() if key not in left_out}
    assert {key: value for key, value in denial_fields(packet).items() if key in shown} == shown


def test_every_difference_is_still_one() -> None:
    """No shape is excused that need not be."""
    for shape in SHAPES_WITH_PACKETS:
        if shape.name in TOLD_DIFFERENTLY:
            line = parsed(shape.text)
            packet = PacketReader([line.watched], lambda _: None).read(copied_shape(shape, line))
            assert packet is not None
            said, heard = denial_fields(line), denial_fields(packet)
            assert all(said.get(key) != heard.get(key) for key in TOLD_DIFFERENTLY[shape.name]), shape.name


@pytest.mark.parametrize("name", LONG_CHAINS)
def test_a_long_chain_is_read_to_its_end(name: str) -> None:
    """A chain of headers that fills a line is read as a whole when the copy holds it, else up to the end of the
    copy."""
    shape = next(shape for shape in SHAPES if shape.name == name)
    line = parsed(shape.text)
    packet = PacketReader([line.watched], lambda _: None).read(copied_shape(shape, line))
    assert packet is not None
    assert packet.src == line.src
    if len(shape.packet) <= COPIED:
        assert (packet.extent, packet.proto, packet.dpt) == (Extent.WHOLE, "tcp", 22)
    else:
        assert packet.extent is Extent.CUT_COPY
