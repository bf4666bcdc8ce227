"""The messages of nfnetlink_log, one for each packet that a `-j NFLOG` rule copied, parsed into values. PURE.

The numbers are those of linux/netfilter/nfnetlink_log.h; the values are big endian. `fwguardd.kernel.nflog` receives
the messages, and `fwguardd.denials.packets` parses the packet in them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeAlias

from fwguardd.kernel.netlink import FAMILY_HEADER, messages, read_attributes
from fwguardd.values import dataclass

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
"""The largest number of bytes that the kernel copies of a packet. All headers that are parsed fit into it, except for
long chains of IPv6 extension headers."""

_AROUND: Final = (
    NFULA_IFINDEX_INDEV, NFULA_IFINDEX_OUTDEV, NFULA_IFINDEX_PHYSINDEV, NFULA_IFINDEX_PHYSOUTDEV, NFULA_HWADDR,
    NFULA_HWTYPE, NFULA_HWHEADER, NFULA_VLAN,
)  # fmt: skip
Around: TypeAlias = tuple[bytes | None, ...]
"""The attributes of devices and link-layer header, as bytes: a host has few different ones."""


@dataclass(frozen=True, slots=True)
class LoggedPacket:
    """A packet as the kernel copied it, and the kernel's attributes of it.

    `family` is a netfilter protocol family (NFPROTO_*, linux/netfilter.h). The attributes are kept as bytes by their
    type, and parsed on access, since few of them are used for most packets of a flood. A missing attribute is None, or
    empty.
    """

    family: int
    attributes: Mapping[int, bytes]

    @property
    def hook(self) -> int:
        """The number of the hook in its family."""
        return self.attributes[NFULA_PACKET_HDR][2]

    @property
    def ethertype(self) -> int:
        """The EtherType of the frame."""
        return int.from_bytes(self.attributes[NFULA_PACKET_HDR][:2], "big")

    @property
    def prefix(self) -> bytes:
        """The --nflog-prefix of the rule."""
        return self.attributes.get(NFULA_PREFIX, b"").partition(b"\0")[0]

    @property
    def payload(self) -> bytes:
        """The beginning of the packet."""
        return self.attributes.get(NFULA_PAYLOAD, b"")

    @property
    def link_header(self) -> bytes:
        """The bytes before the network layer, for bridge and netdev hooks."""
        return self.attributes.get(NFULA_L2HDR, b"")

    @property
    def seq(self) -> int | None:
        """The packet's number in its group; None for packets that arrive while the group is being configured."""
        return self._number(NFULA_SEQ)

    @property
    def mark(self) -> int | None:
        """The packet's mark."""
        return self._number(NFULA_MARK)

    @property
    def uid(self) -> int | None:
        """The id of the user whose socket sent it."""
        return self._number(NFULA_UID)

    @property
    def gid(self) -> int | None:
        """The id of the group whose socket sent it."""
        return self._number(NFULA_GID)

    @property
    def around(self) -> Around:
        """The attributes that `devices` and `hardware` parse: a key to cache them by."""
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
        # If a packet no longer has a link-layer header the kernel copies other bytes in its place, but then there is no
        # NFULA_HWADDR (__build_packet_message()).
        if kind is None or not header or (kind == ARPHRD_ETHER and NFULA_HWADDR not in self.attributes):
            return None
        return LinkLayer(kind, header, *self._vlan())

    def _vlan(self) -> tuple[int, int] | tuple[()]:
        """Protocol and tag; empty without a VLAN."""
        vlan = read_attributes(self.attributes.get(NFULA_VLAN, b"")) or {}
        protocol, tag = vlan.get(NFULA_VLAN_PROTO), vlan.get(NFULA_VLAN_TCI)
        if protocol is None or tag is None:
            return ()
        return int.from_bytes(protocol, "big"), int.from_bytes(tag, "big")

    def _number(self, kind: int) -> int | None:
        value = self.attributes.get(kind)
        if value is None:
            return None
        return int.from_bytes(value, "big")


@dataclass(frozen=True, slots=True)
class LinkLayer:
    """A link-layer header, the kind of its device (ARPHRD_*, linux/if_arp.h), and its VLAN tag."""

    kind: int
    header: bytes
    vlan_protocol: int | None = None
    vlan_tag: int | None = None


def parse_packets(data: bytes) -> list[LoggedPacket]:
    """The packets in a netlink datagram, in order. Never raises.

    A message that is cut off, or whose attributes do not fit into it, is skipped; the next number shows the gap.
    """
    packets: list[LoggedPacket] = []
    for kind, body in messages(data):
        if kind == NFULNL_MSG_PACKET:
            packet = _parse_packet(body)
            if packet is not None:
                packets.append(packet)
    return packets


def _parse_packet(body: bytes) -> LoggedPacket | None:
    if len(body) < FAMILY_HEADER.size:
        return None
    found = read_attributes(body, FAMILY_HEADER.size)
    if found is None or len(found.get(NFULA_PACKET_HDR, b"")) < 3:
        return None
    return LoggedPacket(body[0], found)
