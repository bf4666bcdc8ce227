"""What the kernel says of a packet that a `-j NFLOG` rule copied: the messages of nfnetlink_log, as values.

Everything here is pure. The numbers are those of linux/netfilter/nfnetlink_log.h; the values are big endian. This
module refuses to know what is in a packet (`fwguardd.denials.packets` does), and to receive any
(`fwguardd.kernel.nflog` does).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

from fwguardd.kernel.netlink import FAMILY_HEADER, messages, read_attributes

if TYPE_CHECKING:
    from collections.abc import Mapping

NFULNL_MSG_PACKET: Final = 0x0400
NFULNL_MSG_CONFIG: Final = 0x0401
"""linux/netfilter/nfnetlink.h, where 4 is NFNL_SUBSYS_ULOG, and linux/netfilter/nfnetlink_log.h, as all below."""

NFULA_PACKET_HDR: Final = 1
NFULA_MARK: Final = 2
NFULA_IFINDEX_INDEV: Final = 4
NFULA_IFINDEX_OUTDEV: Final = 5
NFULA_IFINDEX_PHYSINDEV: Final = 6
NFULA_IFINDEX_PHYSOUTDEV: Final = 7
NFULA_HWADDR: Final = 8
NFULA_PAYLOAD: Final = 9
NFULA_PREFIX: Final = 10
NFULA_UID: Final = 11
NFULA_SEQ: Final = 12
NFULA_GID: Final = 14
NFULA_HWTYPE: Final = 15
NFULA_HWHEADER: Final = 16
NFULA_VLAN: Final = 20
NFULA_L2HDR: Final = 21
NFULA_VLAN_PROTO: Final = 1
NFULA_VLAN_TCI: Final = 2

ARPHRD_ETHER: Final = 1
"""linux/if_arp.h."""

COPIED: Final = 512
"""Bytes of each packet that the kernel copies, at most. All headers that are read fit in, but for long chains of IPv6
extension headers."""

_AROUND: Final = (
    NFULA_IFINDEX_INDEV, NFULA_IFINDEX_OUTDEV, NFULA_IFINDEX_PHYSINDEV, NFULA_IFINDEX_PHYSOUTDEV, NFULA_HWADDR,
    NFULA_HWTYPE, NFULA_HWHEADER, NFULA_VLAN,
)  # fmt: skip
Around: TypeAlias = tuple[bytes | None, ...]
"""What the kernel says of devices and link-layer header, as bytes: few of these differ on a host."""


@dataclass(frozen=True, slots=True)
class LoggedPacket:
    """A packet as the kernel copied it, and what the kernel says about it.

    `family` is a netfilter protocol family (NFPROTO_*, linux/netfilter.h). The attributes stay as they came, by their
    type, and are read when asked for, since most packets of a flood are asked for little. What the kernel does not say
    is None, or empty.
    """

    family: int
    attributes: Mapping[int, bytes]

    @property
    def hook(self) -> int:
        """The number of the hook, in its family."""
        return self.attributes[NFULA_PACKET_HDR][2]

    @property
    def ethertype(self) -> int:
        """What the frame said that it carries."""
        return int.from_bytes(self.attributes[NFULA_PACKET_HDR][:2], "big")

    @property
    def prefix(self) -> bytes:
        """The prefix that the rule gave it."""
        return self.attributes.get(NFULA_PREFIX, b"").partition(b"\0")[0]

    @property
    def payload(self) -> bytes:
        """The beginning of the packet."""
        return self.attributes.get(NFULA_PAYLOAD, b"")

    @property
    def link_header(self) -> bytes:
        """What came before the network layer, for bridge and netdev hooks."""
        return self.attributes.get(NFULA_L2HDR, b"")

    @property
    def seq(self) -> int | None:
        """The packet's number in its group; there is none in the instant in which the group is taken."""
        return self._number(NFULA_SEQ)

    @property
    def mark(self) -> int | None:
        """The packet's mark."""
        return self._number(NFULA_MARK)

    @property
    def uid(self) -> int | None:
        """The user whose socket sent it."""
        return self._number(NFULA_UID)

    @property
    def gid(self) -> int | None:
        """The group whose socket sent it."""
        return self._number(NFULA_GID)

    @property
    def around(self) -> Around:
        """Devices and link-layer header, to be read with `devices` and `hardware`."""
        return tuple(map(self.attributes.get, _AROUND))

    @property
    def devices(self) -> tuple[int | None, int | None, int | None, int | None]:
        """Indexes of the devices: incoming, outgoing, bridge port in, bridge port out."""
        number = self._number
        return (
            number(NFULA_IFINDEX_INDEV),
            number(NFULA_IFINDEX_OUTDEV),
            number(NFULA_IFINDEX_PHYSINDEV),
            number(NFULA_IFINDEX_PHYSOUTDEV),
        )

    @property
    def hardware(self) -> LinkLayer | None:
        """The link-layer header."""
        kind, header = self._number(NFULA_HWTYPE), self.attributes.get(NFULA_HWHEADER)
        # Of a packet that has no link-layer header any more the kernel copies what happens to lie there instead; but
        # then it names no sender (__build_packet_message()).
        if kind is None or not header or (kind == ARPHRD_ETHER and NFULA_HWADDR not in self.attributes):
            return None
        vlan = read_attributes(self.attributes.get(NFULA_VLAN, b"")) or {}
        protocol, tag = vlan.get(NFULA_VLAN_PROTO), vlan.get(NFULA_VLAN_TCI)
        if protocol is None or tag is None:
            return LinkLayer(kind, header)
        return LinkLayer(kind, header, int.from_bytes(protocol, "big"), int.from_bytes(tag, "big"))

    def _number(self, kind: int) -> int | None:
        value = self.attributes.get(kind)
        return int.from_bytes(value, "big") if value is not None else None


@dataclass(frozen=True, slots=True)
class LinkLayer:
    """A link-layer header, of a kind of device (ARPHRD_*, linux/if_arp.h), and the VLAN tag that was before it."""

    kind: int
    header: bytes
    vlan_protocol: int | None = None
    vlan_tag: int | None = None


def parse_packets(data: bytes) -> list[LoggedPacket]:
    """The packets that a netlink datagram tells of, in order. Never raises.

    A message that breaks off, or whose attributes do not fit, yields nothing; the next number will show the gap.
    """
    found = (_read_packet(body) for kind, body in messages(data) if kind == NFULNL_MSG_PACKET)
    return [packet for packet in found if packet is not None]


def _read_packet(body: bytes) -> LoggedPacket | None:
    found = read_attributes(body, FAMILY_HEADER.size) if len(body) >= FAMILY_HEADER.size else None
    if found is None or len(found.get(NFULA_PACKET_HDR, b"")) < 3:
        return None
    return LoggedPacket(body[0], found)
