"""The first words of a line: the devices, and the link-layer header where the kernel prints one.

Few of these differ on a host, and they take a third of the reading: `LinkReader` keeps those it has seen, up to a
bound, so that forged MAC addresses cost time but no memory. This module refuses to look past the link layer.

From the text of one kernel record to a `Denial`; total, by position, in time proportional to the text.

`LineReader` anchors on the exact configured prefix at the very start and then reads layer by layer: devices,
link-layer header, network, transport, tail. Each layer begins where the one before ended, and device names, the
only free text after the prefix, cannot hold a blank (dev_valid_name() in net/core/dev.c): so a device called
`SRC=6.6.6.6` or `OUT=` is a device with that name, and never a source or a direction. What is not in the kernel's
grammar (net/netfilter/nf_log_syslog.c) to the last byte is `Unparsed`, never a guess.

The text is spelled as /dev/kmsg spells it (see `fwguardd.denials.grammar`). Only records of facility 0 may be
given to it: others can be forged by any process that may write to /dev/kmsg or to syslog.

A rule's own prefix that merely begins with a watched one, as `iptables denied: IN=` begins with `iptables denied: `,
is for the kernel log the same text as a device with a longer name. It changes the device's name and nothing else.

This module is pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from fwguardd.denials import grammar
from fwguardd.denials.aggregation import glance
from fwguardd.denials.grammar import GrammarError, escaped_length, kernel_escaped
from fwguardd.denials.layers import read_arp, read_ip, read_payload
from fwguardd.denials.model import (
    Denial,
    Devices,
    Extent,
    Hardware,
    IPv4,
    Meaning,
    Owner,
    PacketFamily,
    Unparsed,
    Watched,
)
from fwguardd.denials.transport import Ending, bare

if TYPE_CHECKING:
    import re
    from collections.abc import Iterable

    from fwguardd.denials.aggregation import Seen


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


__all__ = ["Denial", "LineReader", "Meaning", "Unparsed", "Watched"]

_OPEN: Final = Ending.OPEN
_WHOLE: Final = Extent.WHOLE
_STOPS: Final = (Ending.STOP, Ending.SHORT_STOP)
_EXTENTS: Final = {
    Ending.OPEN: Extent.WHOLE,
    Ending.STOP: Extent.WHOLE,
    Ending.SHORT: Extent.SHORT_PACKET,
    Ending.SHORT_STOP: Extent.SHORT_PACKET,
}
_FAMILIES: Final = {0x0800: PacketFamily.IPV4, 0x86DD: PacketFamily.IPV6, 0x0806: PacketFamily.ARP}


class LineReader:
    """Reads lines for a fixed set of watched prefixes.

    Prefixes are written as in the rule; where the kernel log spells their bytes differently, the reader knows.
    Raises ValueError for a prefix that is empty (it would claim every line) or given twice.
    """

    def __init__(self, watched: Iterable[Watched]) -> None:
        by_prefix: dict[str, Watched] = {}
        for item in watched:
            if not item.prefix:
                raise ValueError(f"the prefix of {item.name!r} is empty: it would claim every kernel line")
            spelled = kernel_escaped(item.prefix.encode())
            if spelled in by_prefix:
                raise ValueError(f"{item.name!r} and {by_prefix[spelled].name!r} watch the same prefix {item.prefix!r}")
            by_prefix[spelled] = item
        self._prefixes = tuple(sorted(by_prefix, key=len, reverse=True))
        self._watched = by_prefix
        self._links = LinkReader()

    def read(self, text: str) -> Denial | Unparsed | None:
        """What the text of one kernel record says, or None when it does not begin with a watched prefix.

        Never raises, whatever the text. When one watched prefix is the beginning of another, the longer one wins.
        """
        for prefix in self._prefixes:
            if text.startswith(prefix):
                return self._read_after(prefix, text)
        return None

    def glance(self, text: str) -> Seen | None:
        """The flow of a plain line, many times as fast as reading it; None for all else, which `read` can tell apart.

        What has a flow here would be read as a `Denial` of that flow. Never raises.
        """
        for prefix in self._prefixes:
            if text.startswith(prefix):
                return glance(self._watched[prefix].prefix, text, len(prefix))
        return None

    def _read_after(self, prefix: str, text: str) -> Denial | Unparsed:
        watched = self._watched[prefix]
        # The kernel ends nearly every line with a blank; journald and syslog daemons take it off.
        line = text if text.endswith(" ") else text + " "
        try:
            link, position = self._links.read(line, len(prefix))
            if line.startswith("SRC=", position):
                return _read_ip(watched, text, line, position, link)
            return _read_other(watched, text, line, position, link)
        except GrammarError as error:
            return Unparsed(watched, text, min(error.position, len(text)), error.expected)


def _read_ip(watched: Watched, text: str, line: str, position: int, link: Link) -> Denial:
    network, proto, position = read_ip(line, position)
    family = PacketFamily.IPV4 if isinstance(network, IPv4) else PacketFamily.IPV6
    owner = mark = None
    try:
        transport, position, ending = read_payload(line, position, network, proto)
        if position != len(line):
            owner, mark = _read_tail(line, position, ending)
        extent = _WHOLE if ending is _OPEN else _EXTENTS[ending]
    except GrammarError as error:
        if not _is_cut(text, error.position):
            raise
        transport, extent = bare(proto) if proto else None, Extent.CUT_LINE
    if len(text) >= grammar.LONGEST_LINE and escaped_length(text) == grammar.LONGEST_LINE:
        extent = Extent.CUT_LINE
    return Denial(watched, text, link.devices, link.hardware, family, network, transport, owner, mark, extent)


def _is_cut(text: str, position: int) -> bool:
    """Whether the kernel's full buffer explains that the text from a position on is not in the grammar.

    Only the layer that holds the end of the line can have been cut. Were more allowed, a container's root could
    choose a prefix that reads as another packet's addresses, and make the line long with extension headers.
    """
    length = escaped_length(text)
    return grammar.SHORTEST_CUT_LINE <= length <= grammar.LONGEST_LINE and len(text) - position <= grammar.LONGEST_LAYER


def _read_tail(line: str, position: int, ending: Ending) -> tuple[Owner | None, int | None]:
    """Owner and mark, of which the kernel says nothing after it broke off."""
    match = grammar.TAIL.match(line, position)
    if match is None or match.end() != len(line) or ending in _STOPS:
        raise GrammarError(position, "the end of the line")
    uid, gid, mark = match.groups()
    return Owner(int(uid), int(gid)) if uid else None, int(mark, 16) if mark else None


def _read_other(watched: Watched, text: str, line: str, position: int, link: Link) -> Denial:
    """ARP, a packet too short for its IP or ARP header, or an ethertype that the kernel prints no more of."""
    network = None
    extent = Extent.WHOLE
    hardware = link.hardware
    truncated = grammar.TRUNCATED.match(line, position)
    if truncated is not None:
        family = _FAMILIES.get(hardware.ethertype or 0, PacketFamily.OTHER) if hardware else PacketFamily.OTHER
        extent = Extent.SHORT_PACKET
        position = truncated.end()
    elif position == len(line) and link.printed:
        family = PacketFamily.OTHER
    else:
        family = PacketFamily.ARP
        network, position = read_arp(line, position)
        if network.available is not None:
            extent = Extent.SHORT_PACKET
    if position != len(line):
        raise GrammarError(position, "the end of the line")
    return Denial(watched, text, link.devices, hardware, family, network, None, None, None, extent)
