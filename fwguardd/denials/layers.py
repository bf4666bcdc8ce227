"""From the text of a network layer to its value: IPv4, IPv6 with its extension headers, ARP, embedded packets.

Every function takes the whole line and the position where its layer begins, and gives the position where the next
one begins; none looks anywhere else, so a value can never come from another layer's text. Where the text is not
the kernel's, `GrammarError` says where and what was wanted. This module refuses to know prefixes and devices.

This module is pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fwguardd.denials import grammar
from fwguardd.denials.grammar import GrammarError, compress_ipv6
from fwguardd.denials.model import (
    Arp,
    AuthenticationHeader,
    FragmentHeader,
    Incomplete,
    Ipsec,
    IPv4,
    IPv6,
    OptionsHeader,
    Packet,
)
from fwguardd.denials.transport import (
    IPV4_READERS,
    IPV6_READERS,
    Ending,
    available_bytes,
    read_protocol,
    read_transport,
)

if TYPE_CHECKING:
    import re

    from fwguardd.denials.model import Extension, Transport
    from fwguardd.denials.transport import Embed

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
        8 * int(units) if units else 0,
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


def _read_extensions(text: str, position: int) -> tuple[tuple[Extension, ...], str | None, int]:
    extensions: list[Extension] = []
    proto = None
    while proto is None:
        match = grammar.EXTENSION.match(text, position)
        if match is None or match.end() == position:
            break
        _, offset, more, ident, spi = match.groups()
        if offset is not None:
            extensions.append(FragmentHeader(int(offset), more is not None, int(ident, 16)))
        elif spi is not None:
            extensions.append(AuthenticationHeader(int(spi, 16)))
        else:
            extensions.append(OptionsHeader())
        position = match.end()
        following = grammar.PROTO.match(text, position)
        if following is not None:
            proto, position = following[1], following.end()
    return tuple(extensions), proto, position


def _read_ipv6_payload(
    text: str, position: int, network: IPv6, proto: str | None, embed: Embed | None
) -> tuple[Transport | None, int, Ending]:
    """What an IPv6 packet carries, or how the kernel broke off before it could tell."""
    later_fragment = bool(network.extensions) and network.is_later_fragment
    if proto is not None:
        if later_fragment:
            return read_protocol(IPV6_READERS, position, proto), position, Ending.OPEN
        return read_transport(IPV6_READERS, text, position, proto, embed)
    match = grammar.EXTENSION_STOP.match(text, position)
    if match is not None and (match[0] not in _BARE_STOP or later_fragment):
        return _broken_off(match)
    if position < len(text) and text[position] != "]":
        raise GrammarError(position, "PROTO= or an extension header")
    return _silent_ending(text, position, later_fragment=later_fragment), position, Ending.STOP


def _broken_off(match: re.Match[str]) -> tuple[Transport | None, int, Ending]:
    """What a line tells that the kernel ended among the extension headers, and said so."""
    no_header, no_fragment_header, ipsec, available, spi = match.groups()
    if no_header is not None or no_fragment_header is not None:
        return None, match.end(), Ending.SHORT_STOP
    if available is not None:
        return Incomplete(ipsec.lower(), available_bytes(available)), match.end(), Ending.SHORT_STOP
    if ipsec is not None:
        return Ipsec(ipsec.lower(), int(spi, 16) if spi else None), match.end(), Ending.STOP
    return None, match.end(), Ending.STOP


def _silent_ending(text: str, position: int, *, later_fragment: bool) -> Ipsec | None:
    """Without `--log-ip-options` the kernel returns in silence at ESP, and at an options header of a later fragment."""
    if later_fragment:
        return None
    # A bracket before tells that the rule logs IP options: then the kernel names ESP. A long line may have been cut.
    if text.endswith(") ", 0, position) or len(text) >= grammar.SHORTEST_CUT_LINE:
        raise GrammarError(position, "PROTO= or an extension header")
    return Ipsec("esp", None)


def _read_embedded_ipv4(text: str, position: int) -> tuple[Packet, int]:
    """The IPv4 packet inside the brackets of an ICMP error, up to the closing bracket."""
    truncated = grammar.TRUNCATED.match(text, position)
    if truncated is not None:
        return Packet(None, None), truncated.end()
    network, proto, position = _read_ipv4(text, position)
    transport, position, _ = _read_ipv4_payload(text, position, network, proto, None)
    return Packet(network, transport), position


def _read_embedded_ipv6(text: str, position: int) -> tuple[Packet, int]:
    """The IPv6 packet inside the brackets of an ICMPv6 error, up to the closing bracket."""
    truncated = grammar.TRUNCATED.match(text, position)
    if truncated is not None:
        return Packet(None, None), truncated.end()
    network, proto, position = _read_ipv6(text, position)
    transport, position, _ = _read_ipv6_payload(text, position, network, proto, None)
    return Packet(network, transport), position


def read_arp(text: str, position: int) -> tuple[Arp, int]:
    """An ARP packet."""
    match = grammar.ARP.match(text, position)
    if match is None:
        raise GrammarError(position, "the words of an IP header or of an ARP packet")
    hardware, protocol, opcode, mac_src, src, mac_dst, dst, available = match.groups()
    arp = Arp(
        int(hardware),
        int(protocol, 16),
        int(opcode),
        mac_src,
        src,
        mac_dst,
        dst,
        available_bytes(available) if available else None,
    )
    return arp, match.end()
