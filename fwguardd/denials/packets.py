"""From a packet that an NFLOG rule copied to a `Denial`, the same as the LOG line about it gives; total and linear.

`PacketReader` takes the packets whose prefix is exactly a watched one. `fwguardd.kernel.nflog` receives the packets;
the names of devices come from a function that the caller passes.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from fwguardd.denials.grammar import kernel_escaped
from fwguardd.denials.headers import Copy, read_arp, read_ipv4, read_ipv6
from fwguardd.denials.model import Denial, Devices, Extent, Hardware, PacketFamily, SocketOwner
from fwguardd.kernel.nflog_message import ARPHRD_ETHER, COPIED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from fwguardd.denials.model import Network, Transport, Watched
    from fwguardd.kernel.nflog_message import Around, LinkLayer, LoggedPacket

_NFPROTO_IPV4, _NFPROTO_ARP, _NFPROTO_NETDEV, _NFPROTO_IPV6 = 2, 3, 5, 10
_FAMILIES: Final = {_NFPROTO_IPV4: PacketFamily.IPV4, _NFPROTO_ARP: PacketFamily.ARP, _NFPROTO_IPV6: PacketFamily.IPV6}
_FAMILIES_BY_ETHERTYPE: Final = {
    0x0800: PacketFamily.IPV4,
    0x86DD: PacketFamily.IPV6,
    0x0806: PacketFamily.ARP,
    0x8035: PacketFamily.ARP,
}
"""The last is reverse ARP, which has the form of ARP."""
_EGRESS: Final = 1
"""NF_NETDEV_EGRESS, linux/netfilter.h."""
_ARPHRD_SIT: Final = 776
_WITH_ETHERNET_HEADER: Final = (ARPHRD_ETHER, 772)
"""The latter is ARPHRD_LOOPBACK, linux/if_arp.h."""

_KEPT: Final = 512
_EVIDENCE: Final = 128
"""Bytes of the packet that the event has in hexadecimal."""


class PacketReader:
    """Reads copied packets for a fixed set of watched prefixes. ``device_name`` gives the name of a device's index,
    None for one that is gone."""

    def __init__(self, watched: Iterable[Watched], device_name: Callable[[int], bytes | None]) -> None:
        self._watched = {item.prefix.encode(): item for item in watched}
        self._device_name = device_name
        self._links: dict[Around, tuple[Devices, Hardware | None]] = {}

    def read(self, packet: LoggedPacket) -> Denial | None:
        """What a packet is, or None when its prefix is not watched. Never raises, whatever the packet."""
        watched = self._watched.get(packet.prefix)
        if watched is None:
            return None
        payload = _payload(packet)
        family = _family(packet)
        copy = Copy(payload, _whole_length(packet.family, payload, family))
        network, transport = _read(copy, family)
        devices, hardware = self._link(packet)
        return Denial(
            watched,
            payload[:_EVIDENCE].hex(),
            devices,
            hardware,
            family,
            network,
            transport,
            _owner(packet),
            packet.mark,
            _extent(copy),
        )

    def forget_devices(self) -> None:
        """Look up the names of devices again: they may have changed."""
        self._links.clear()

    def _link(self, packet: LoggedPacket) -> tuple[Devices, Hardware | None]:
        """Devices and link-layer header. A host has few different ones: those that were read are kept, up to a
        bound."""
        key = packet.around
        link = self._links.get(key)
        if link is None:
            link = self._devices(packet), _hardware(packet)
            if len(self._links) >= _KEPT:
                self._links.clear()
            self._links[key] = link
        return link

    def _devices(self, packet: LoggedPacket) -> Devices:
        incoming, outgoing, port_in, port_out = packet.devices
        return Devices(
            self._name(incoming),
            self._name(outgoing),
            self._port_name(port_in, incoming),
            self._port_name(port_out, outgoing),
        )

    def _port_name(self, port: int | None, device: int | None) -> str | None:
        if port == device:
            return None
        return self._name(port)

    def _name(self, index: int | None) -> str | None:
        if not index:
            return None
        name = self._device_name(index)
        if name is not None:
            return kernel_escaped(name)
        # No device's name can hold a colon (dev_valid_name(), net/core/dev.c), so no device has this one.
        return f"index:{index}"


def _payload(packet: LoggedPacket) -> bytes:
    """The packet from its network header on."""
    if packet.family == _NFPROTO_NETDEV and packet.hook == _EGRESS:
        # On its way out the packet has its link-layer header before it.
        return packet.payload.removeprefix(packet.link_header)
    return packet.payload


def _owner(packet: LoggedPacket) -> SocketOwner | None:
    uid, gid = packet.uid, packet.gid
    if uid is None or gid is None:
        return None
    return SocketOwner(uid, gid)


def _family(packet: LoggedPacket) -> PacketFamily:
    if packet.family in _FAMILIES:
        return _FAMILIES[packet.family]
    return _FAMILIES_BY_ETHERTYPE.get(packet.ethertype, PacketFamily.OTHER)


_LENGTH_FIELDS: Final = {PacketFamily.IPV4: (2, 20, 0), PacketFamily.IPV6: (4, 40, 40)}
"""Of an IP header: the offset of the length, the size of the header, and how much of it the length does not count."""


def _whole_length(hooks: int, payload: bytes, family: PacketFamily) -> int:
    """The length of the packet: longer than the copy only if the copy may have been cut.

    IP drops a packet that is shorter than its header says before the hooks of IP see it, so there the length in the
    header is right; a rule may set any size for the copy (`--nflog-size`). On other hooks a packet can be shorter than
    its header says, and only a copy of the full size that fwguardd asked for counts as cut.
    """
    if family not in _LENGTH_FIELDS or (hooks not in (_NFPROTO_IPV4, _NFPROTO_IPV6) and len(payload) < COPIED):
        return len(payload)
    offset, header, not_counted = _LENGTH_FIELDS[family]
    if len(payload) < offset + 2:
        return header
    return int.from_bytes(payload[offset : offset + 2], "big") + not_counted


def _read(copy: Copy, family: PacketFamily) -> tuple[Network | None, Transport | None]:
    match family:
        case PacketFamily.IPV4:
            return read_ipv4(copy, 0)
        case PacketFamily.IPV6:
            return read_ipv6(copy, 0)
        case PacketFamily.ARP:
            return read_arp(copy), None
        case _:
            return None, None


def _extent(copy: Copy) -> Extent:
    if copy.is_cut:
        return Extent.CUT_COPY
    if copy.is_short:
        return Extent.SHORT_PACKET
    return Extent.WHOLE


def _hardware(packet: LoggedPacket) -> Hardware | None:
    link = packet.hardware
    if link is None:
        return None
    header = link.header
    octets = header.hex(":")
    if link.kind == _ARPHRD_SIT and len(header) >= 34:
        return Hardware(None, None, None, octets, tunnel=_tunnel(header))
    if not _has_ethernet_header(link):
        return Hardware(None, None, None, octets)
    return _ethernet(link)


def _has_ethernet_header(link: LinkLayer) -> bool:
    """Whether all the bytes of an Ethernet header are there."""
    return link.kind in _WITH_ETHERNET_HEADER and len(link.header) >= 14


def _tunnel(header: bytes) -> tuple[str, str]:
    """The addresses in the outer IPv4 header, which follows fourteen other bytes."""
    return ".".join(map(str, header[26:30])), ".".join(map(str, header[30:34]))


def _ethernet(link: LinkLayer) -> Hardware:
    header, tag = link.header, link.vlan_tag
    octets = header.hex(":")
    hardware = Hardware(header[6:12].hex(":"), header[:6].hex(":"), header[12] << 8 | header[13], octets)
    if tag is not None:
        hardware = replace(hardware, vlan=tag & 0xFFF, vlan_priority=tag >> 13)
    return replace(hardware, vlan_protocol=link.vlan_protocol)
