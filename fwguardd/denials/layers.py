"""From the text of the link and network layers to their values: devices, link-layer header, IPv4, IPv6, ARP.

Every function takes the whole line and the position where its layer begins, and returns the position where the next
one begins. None reads anywhere else, so a value can never come from the text of another layer. Where the text is not
the kernel's, `GrammarError` says where, and what the grammar has there.

This module is pure.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from fwguardd.denials import grammar
from fwguardd.denials.grammar import GrammarError, compress_ipv6
from fwguardd.denials.model import (
    Arp,
    AuthenticationHeader,
    Devices,
    FragmentHeader,
    Hardware,
    Incomplete,
    InnerPacket,
    Ipsec,
    IPv4,
    IPv6,
    OptionsHeader,
)
from fwguardd.denials.transport import (
    IPV4_READERS,
    IPV6_READERS,
    Ending,
    available_bytes,
    read_protocol,
    read_transport,
)
from fwguardd.values import dataclass

if TYPE_CHECKING:
    import re

    from fwguardd.denials.model import Extension, Transport
    from fwguardd.denials.transport import Embed

_KEPT: Final = 512
_ETHERNET_TEXT: Final = 14 * 3 - 1


@dataclass(frozen=True, slots=True)
class Link:
    """Devices and link-layer header; `printed` is whether the kernel printed a header, even an empty one."""

    devices: Devices
    hardware: Hardware | None
    printed: bool


class LinkReader:
    """Reads devices and link-layer header. A host has few different ones, and they take a third of the time of reading:
    those that were read are kept, up to a bound, so that forged MAC addresses cost time but no memory."""

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
    *names, octets, tunnel_src, tunnel_dst = match.groups()
    devices = _devices(match.start(), *names)
    tunnel = None
    if tunnel_src:
        tunnel = (tunnel_src, tunnel_dst)
    return Link(devices, _hardware(octets, tunnel), printed=octets is not None)


def _hardware(octets: str | None, tunnel: tuple[str, str] | None) -> Hardware | None:
    if octets and len(octets) >= _ETHERNET_TEXT:
        ethertype = int(octets[36:38] + octets[39:41], 16)
        return Hardware(octets[18:35], octets[:17], ethertype, octets, tunnel=tunnel)
    if octets or tunnel:
        return Hardware(None, None, None, octets or None, tunnel=tunnel)
    return None


def _devices(position: int, incoming: str, outgoing: str, port_in: str | None, port_out: str | None) -> Devices:
    for name in (incoming, outgoing, port_in, port_out):
        if name and grammar.DEVICE_NAME.fullmatch(name) is None:
            raise GrammarError(position, "names of devices, of at most 15 bytes")
    return Devices(incoming or None, outgoing or None, port_in, port_out)


def _decoded(line: str, position: int, link: Link) -> tuple[Link, int]:
    """The link-layer header as `--log-macdecode` prints it, if it is there."""
    match = grammar.DECODED_MAC.match(line, position)
    if match is None:
        return link, position
    source, destination, vlan_protocol, tag, ethertype = match.groups()
    hardware = Hardware(source, destination, int(ethertype, 16))
    if tag:
        # What the kernel prints as VID= is the whole tag word, priority bits included (nf_log_dump_vlan()).
        hardware = replace(
            hardware, vlan_protocol=int(vlan_protocol, 16), vlan=int(tag) & 0xFFF, vlan_priority=int(tag) >> 13
        )
    return Link(link.devices, hardware, printed=True), match.end()


_BARE_STOP: Final = ("OPT ( )", "OPT ( ) ")
"""An options header of a later fragment; of any other packet the kernel goes on after it."""

_IPV4_FLAGS: Final = {
    "": (),
    "DF ": ("DF",),
    "MF ": ("MF",),
    "DF MF ": ("DF", "MF"),
    "CE ": ("CE",),
    "CE DF ": ("CE", "DF"),
    "CE MF ": ("CE", "MF"),
    "CE DF MF ": ("CE", "DF", "MF"),
}


def read_ip(text: str, position: int) -> tuple[IPv4 | IPv6, str | None, int]:
    """An IP header; the word after `PROTO=`, None where the kernel prints none; the position after both."""
    # An IPv6 address is printed in full, so its first colon has a fixed place; no IPv4 address has a colon.
    if text.startswith(":", position + 8):
        return _read_ipv6(text, position)
    return _read_ipv4(text, position)


def read_payload(
    text: str, position: int, network: IPv4 | IPv6, proto: str | None
) -> tuple[Transport | None, int, Ending]:
    """What the outermost packet carries, and how its line goes on."""
    if isinstance(network, IPv4):
        return _read_ipv4_payload(text, position, network, proto, _read_embedded_ipv4)
    return _read_ipv6_payload(text, position, network, proto, _read_embedded_ipv6)


def _read_ipv4(text: str, position: int) -> tuple[IPv4, str | None, int]:
    match = grammar.IPV4.match(text, position)
    if match is None:
        raise GrammarError(position, "the words of an IPv4 header, SRC= to ID=")
    src, dst, length, tos, precedence, ttl, ident, flags, units, options, proto = match.groups()
    network = IPv4(
        src,
        dst,
        int(length),
        int(tos, 16),
        int(precedence, 16),
        int(ttl),
        int(ident),
        _IPV4_FLAGS[flags],
        8 * int(units or 0),
        options,
    )
    return network, proto, match.end()


def _read_ipv4_payload(
    text: str, position: int, network: IPv4, proto: str | None, embed: Embed | None
) -> tuple[Transport | None, int, Ending]:
    """Of a later fragment the kernel prints the protocol only, of an AH one not even that."""
    if proto is not None:
        if network.fragment_offset:
            return read_protocol(IPV4_READERS, position, proto), position, Ending.OPEN
        return read_transport(IPV4_READERS, text, position, proto, embed)
    truncated = grammar.TRUNCATED.match(text, position)
    if truncated is not None:
        return None, truncated.end(), Ending.SHORT_STOP
    if network.fragment_offset:
        return None, position, Ending.OPEN
    raise GrammarError(position, "PROTO=")


def _read_ipv6(text: str, position: int) -> tuple[IPv6, str | None, int]:
    match = grammar.IPV6.match(text, position)
    if match is None:
        raise GrammarError(position, "the words of an IPv6 header, SRC= to FLOWLBL=")
    src, dst, length, traffic_class, hop_limit, flow_label, proto = match.groups()
    position = match.end()
    extensions: tuple[Extension, ...] = ()
    if proto is None:
        extensions, proto, position = _read_extensions(text, position)
    network = IPv6(
        compress_ipv6(src),
        compress_ipv6(dst),
        int(length),
        int(traffic_class),
        int(hop_limit),
        int(flow_label),
        extensions,
    )
    return network, proto, position


def _extension(match: re.Match[str]) -> Extension:
    _, offset, more, ident, spi = match.groups()
    if offset is not None:
        return FragmentHeader(int(offset), more is not None, int(ident, 16))
    if spi is not None:
        return AuthenticationHeader(int(spi, 16))
    return OptionsHeader()


def _read_extensions(text: str, position: int) -> tuple[tuple[Extension, ...], str | None, int]:
    extensions: list[Extension] = []
    proto = None
    while proto is None:
        match = grammar.EXTENSION.match(text, position)
        if match is None or match.end() == position:
            break
        extensions.append(_extension(match))
        position = match.end()
        following = grammar.PROTO.match(text, position)
        if following is not None:
            proto, position = following[1], following.end()
    return tuple(extensions), proto, position


def _read_ipv6_payload(
    text: str, position: int, network: IPv6, proto: str | None, embed: Embed | None
) -> tuple[Transport | None, int, Ending]:
    """What an IPv6 packet carries, or how the kernel stopped among its extension headers."""
    later_fragment = network.is_later_fragment
    if proto is not None:
        if later_fragment:
            return read_protocol(IPV6_READERS, position, proto), position, Ending.OPEN
        return read_transport(IPV6_READERS, text, position, proto, embed)
    match = grammar.EXTENSION_STOP.match(text, position)
    if match is not None and (match[0] not in _BARE_STOP or later_fragment):
        return _stopped(match)
    if position < len(text) and text[position] != "]":
        raise GrammarError(position, "PROTO= or an extension header")
    return _unmarked_stop(text, position, later_fragment=later_fragment), position, Ending.STOP


def _stopped(match: re.Match[str]) -> tuple[Transport | None, int, Ending]:
    """The end of a line where the kernel stopped among the extension headers and printed why."""
    no_header, no_fragment_header, ipsec, available, spi = match.groups()
    if no_header is not None or no_fragment_header is not None:
        return None, match.end(), Ending.SHORT_STOP
    if available is not None:
        return Incomplete(ipsec.lower(), available_bytes(available)), match.end(), Ending.SHORT_STOP
    if ipsec is not None:
        return _ipsec(ipsec, spi), match.end(), Ending.STOP
    return None, match.end(), Ending.STOP


def _ipsec(name: str, spi: str | None) -> Ipsec:
    if spi:
        return Ipsec(name.lower(), int(spi, 16))
    return Ipsec(name.lower(), None)


def _unmarked_stop(text: str, position: int, *, later_fragment: bool) -> Ipsec | None:
    """Without `--log-ip-options` the kernel prints nothing at ESP, and at an options header of a later fragment."""
    if later_fragment:
        return None
    # After a bracket the rule logs IP options, and the kernel prints ESP by name. A long line may have been cut.
    if text.endswith(") ", 0, position) or len(text) >= grammar.SHORTEST_CUT_LINE:
        raise GrammarError(position, "PROTO= or an extension header")
    return Ipsec("esp", None)


def _read_embedded_ipv4(text: str, position: int) -> tuple[InnerPacket, int]:
    """The IPv4 packet inside the brackets of an ICMP error, up to the closing bracket."""
    truncated = grammar.TRUNCATED.match(text, position)
    if truncated is not None:
        return InnerPacket(None, None), truncated.end()
    network, proto, position = _read_ipv4(text, position)
    transport, position, _ = _read_ipv4_payload(text, position, network, proto, None)
    return InnerPacket(network, transport), position


def _read_embedded_ipv6(text: str, position: int) -> tuple[InnerPacket, int]:
    """The IPv6 packet inside the brackets of an ICMPv6 error, up to the closing bracket."""
    truncated = grammar.TRUNCATED.match(text, position)
    if truncated is not None:
        return InnerPacket(None, None), truncated.end()
    network, proto, position = _read_ipv6(text, position)
    transport, position, _ = _read_ipv6_payload(text, position, network, proto, None)
    return InnerPacket(network, transport), position


def read_arp(text: str, position: int) -> tuple[Arp, int]:
    """An ARP packet."""
    match = grammar.ARP.match(text, position)
    if match is None:
        raise GrammarError(position, "the words of an IP header or of an ARP packet")
    hardware, protocol, opcode, mac_src, src, mac_dst, dst, available = match.groups()
    arp = Arp(int(hardware), int(protocol, 16), int(opcode), mac_src, src, mac_dst, dst)
    if available:
        arp = replace(arp, available=available_bytes(available))
    return arp, match.end()
