"""The first words of a line: the devices, and the link-layer header where the kernel prints one.

Few of these differ on a host, and they take a third of the reading: `LinkReader` keeps those it has seen, up to a
bound, so that forged MAC addresses cost time but no memory. This module refuses to look past the link layer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from fwguardd.denials import grammar
from fwguardd.denials.grammar import GrammarError
from fwguardd.denials.model import Devices, Hardware

if TYPE_CHECKING:
    import re

_KEPT: Final = 512
_ETHERNET_TEXT: Final = 14 * 3 - 1


@dataclass(frozen=True, slots=True)
class Link:
    """Devices and link-layer header; `printed` tells whether the kernel printed one at all, be it an empty one."""

    devices: Devices
    hardware: Hardware | None
    printed: bool


class LinkReader:
    """Reads devices and link-layer header, and remembers what it read."""

    def __init__(self) -> None:
        self._seen: dict[str, Link] = {}

    def read(self, line: str, position: int) -> tuple[Link, int]:
        """The link at a position and the position after it. Raises GrammarError."""
        match = grammar.DEVICES.match(line, position)
        if match is None:
            raise GrammarError(position, "IN= and OUT= with the names of devices")
        spelled = match[0]
        link = self._seen.get(spelled)
        if link is None:
            link = _link(match)
            if len(self._seen) >= _KEPT:
                self._seen.clear()
            self._seen[spelled] = link
        if not link.printed:
            return _decoded(line, match.end(), link)
        return link, match.end()


def _link(match: re.Match[str]) -> Link:
    incoming, outgoing, incoming_port, outgoing_port, octets, tunnel_src, tunnel_dst = match.groups()
    for name in (incoming, outgoing, incoming_port, outgoing_port):
        if name and grammar.DEVICE_NAME.fullmatch(name) is None:
            raise GrammarError(match.start(), "names of devices, of at most 15 bytes")
    devices = Devices(incoming or None, outgoing or None, incoming_port, outgoing_port)
    tunnel = (tunnel_src, tunnel_dst) if tunnel_src else None
    if octets and len(octets) >= _ETHERNET_TEXT:
        ethertype = int(octets[36:38] + octets[39:41], 16)
        return Link(devices, Hardware(octets[18:35], octets[:17], ethertype, octets, tunnel=tunnel), printed=True)
    if octets or tunnel:
        return Link(devices, Hardware(None, None, None, octets or None, tunnel=tunnel), printed=True)
    return Link(devices, None, printed=octets is not None)


def _decoded(line: str, position: int, link: Link) -> tuple[Link, int]:
    """The link-layer header as `--log-macdecode` prints it, if it is there."""
    match = grammar.DECODED_MAC.match(line, position)
    if match is None:
        return link, position
    source, destination, vlan_protocol, tag, ethertype = match.groups()
    # What the kernel prints as VID= is the whole tag word, priority bits included (nf_log_dump_vlan()).
    hardware = Hardware(
        source,
        destination,
        int(ethertype, 16),
        vlan_protocol=int(vlan_protocol, 16) if vlan_protocol else None,
        vlan=int(tag) & 0xFFF if tag else None,
        vlan_priority=int(tag) >> 13 if tag else None,
    )
    return Link(link.devices, hardware, printed=True), match.end()
