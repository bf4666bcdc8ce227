"""From a copied packet to a denial, where tests/corpus and tests/netns do not reach: odd lengths, families, headers."""

from __future__ import annotations

import pytest

from fwguardd.denials.model import (
    Arp,
    Bare,
    Denial,
    Extent,
    Hardware,
    Incomplete,
    IPv4,
    Meaning,
    PacketFamily,
    SocketOwner,
    Tcp,
    Watched,
)
from fwguardd.denials.packets import PacketReader
from fwguardd.denials.sentences import sentence
from fwguardd.kernel.nflog_message import COPIED, LoggedPacket
from tests.corpus.denials.copied import copied
from tests.netns.frames import arp, ipv4, ipv6, tcp, udp

DENIED = Watched("denied", "iptables denied: ", Meaning.DENIED)
NAMES = {1: b"lo", 2: b"eth0", 3: b"SRC=6.6.6.6", 4: b"\x1b[31m"}


def read(logged: LoggedPacket) -> Denial:
    """The denial that a packet must be."""
    denial = PacketReader([DENIED], NAMES.get).read(logged)
    assert denial is not None
    return denial


SYN = ipv4(tcp(), 6)


def test_the_sentence_is_that_of_a_line() -> None:
    """A person cannot tell how a denial was heard of."""
    logged = copied(ipv6(udp(dpt=443), 17, src="2001:db8::9"), family=10, devices=(2,))
    assert sentence(read(logged)) == "denied UDP [2001:db8::9]:53124 → [2001:db8:9::1]:443 in eth0"


@pytest.mark.parametrize("prefix", [b"", b"iptables denied:", b"iptables denied: x", b"Iptables denied: ", b"\xff"])
def test_another_prefix_is_none_of_ours(prefix: bytes) -> None:
    """Only the whole prefix counts."""
    assert PacketReader([DENIED], NAMES.get).read(copied(SYN, prefix=prefix)) is None


def test_the_first_bytes_are_kept_as_evidence() -> None:
    """Where a line would be, the packet's first 128 bytes stand in hexadecimal."""
    payload = ipv4(udp(bytes(300)), 17)
    assert read(copied(payload)).text == payload[:128].hex()


def test_names_of_devices_are_spelled_safely() -> None:
    """A name is spelled as /dev/kmsg spells it; a device without a name has its index, in a form that no name can
    have."""
    devices = read(copied(SYN, devices=(4, 3, 77, 3))).devices
    assert devices.incoming == "\\x1b[31m"
    assert devices.outgoing == "SRC=6.6.6.6"
    assert devices.incoming_port == "index:77"
    assert devices.outgoing_port is None


def test_owner_and_mark_are_read_where_the_kernel_gives_them() -> None:
    """User 0 and mark 0 are values, not absence; an owner needs both its halves."""
    denial = read(copied(SYN, uid=0, gid=0, mark=7))
    assert (denial.owner, denial.mark) == (SocketOwner(0, 0), 7)
    assert read(copied(SYN, uid=0)).owner is None


def test_an_ethernet_header_has_addresses_and_any_other_only_octets() -> None:
    """The header is read by the kind of its device; of a VLAN tag the parts are fields."""
    header = bytes.fromhex("0200000000010200000000020800")
    ethernet = read(copied(SYN, hardware=(1, header), vlan=(0x8100, 0xE005)))
    assert ethernet.hardware == Hardware(
        "02:00:00:00:00:02", "02:00:00:00:00:01", 0x0800, header.hex(":"), 0x8100, 5, 7
    )
    other = read(copied(SYN, hardware=(32, header))).hardware
    assert other == Hardware(None, None, None, header.hex(":"))
    assert read(copied(SYN, hardware=(65534, b""))).hardware is None


def test_a_tunnel_has_its_ends() -> None:
    """Of a sit device with a header, the outer IPv4 addresses are fields, as with TUNNEL= in a line."""
    header = bytes(14) + ipv4(b"", 41, src="192.0.2.1", dst="192.0.2.2")
    hardware = read(copied(SYN, hardware=(776, header))).hardware
    assert hardware is not None
    assert hardware.tunnel == ("192.0.2.1", "192.0.2.2")


@pytest.mark.parametrize("size", range(40))
def test_a_copy_of_any_size_is_not_called_a_short_packet(size: int) -> None:
    """IP hooks see whole packets only, so what is missing there was not copied; all that was copied is in the event."""
    denial = read(copied(SYN[:size]))
    assert denial.extent is Extent.CUT_COPY
    assert (denial.src == "10.9.0.2") == (size >= 20)
    assert denial.transport in (None, Bare("tcp"))


def test_a_short_packet_on_an_ip_hook_claims_to_be_short() -> None:
    """A header that does not fit into the length that IP claims is short, with as many bytes as there were."""
    denial = read(copied(ipv4(tcp()[:8], 6)))
    assert (denial.extent, denial.transport) == (Extent.SHORT_PACKET, Incomplete("tcp", 8))


def test_a_packet_may_be_short_before_ip_has_seen_it() -> None:
    """On a device's own hooks a packet can be shorter than its header claims; there the copy is the packet."""
    whole = ipv4(tcp(), 6)
    denial = read(copied(whole[:30], family=5, hook=0))
    assert (denial.family, denial.extent) == (PacketFamily.IPV4, Extent.SHORT_PACKET)
    assert denial.transport == Incomplete("tcp", 10)
    big = ipv4(tcp(options=bytes(40), words=15), 6, options=bytes(40)) + bytes(COPIED)
    assert read(copied(big[:COPIED], family=5, hook=0)).extent is Extent.WHOLE


def test_on_its_way_out_a_frame_has_its_header_before_the_copied() -> None:
    """Netdev egress copies the link-layer header too; the event is about the packet behind it."""
    frame = bytes(14) + ipv4(tcp(), 6)
    denial = read(copied(frame, family=5, hook=1, link_header=bytes(14)))
    assert isinstance(denial.network, IPv4)
    assert isinstance(denial.transport, Tcp)


def test_arp_and_unknown_frames() -> None:
    """ARP has its addresses; a packet of unknown type has only devices and the link layer."""
    request = read(copied(arp(), family=3, ethertype=0x0806))
    assert isinstance(request.network, Arp)
    assert (request.src, request.dst, request.family) == ("10.9.0.2", "10.9.0.1", PacketFamily.ARP)
    unknown = read(copied(bytes(40), family=7, ethertype=0x88CC))
    assert (unknown.family, unknown.network, unknown.extent) == (PacketFamily.OTHER, None, Extent.WHOLE)


def test_links_are_kept_up_to_a_bound() -> None:
    """Forged hardware addresses cost time but no memory."""
    reader = PacketReader([DENIED], NAMES.get)
    for number in range(2000):
        header = number.to_bytes(14, "big")
        reader.read(copied(SYN, hardware=(1, header)))
    assert len(reader._links) <= 512
