"""From the text of one kernel record to a `Denial`: every text has a result, found by position, in linear time.

`LineReader` expects a watched prefix at the very start and then reads layer by layer: devices and link-layer header,
network, transport, tail. Each layer begins where the one before ended, and device names, the only free text after the
prefix, cannot hold a blank (dev_valid_name() in net/core/dev.c): so a device called `SRC=6.6.6.6` or `OUT=` is read as
a device with that name, and never as a source or a direction. A line that differs from the kernel's grammar
(net/netfilter/nf_log_syslog.c) in a single byte is `Unparsed`, never a guess.

The text is spelled as in /dev/kmsg (see `fwguardd.denials.grammar`). Only records of facility 0 may be given to it:
processes that may write to /dev/kmsg or to syslog can forge all others.

A rule's own prefix that begins with a watched one, as `iptables denied: IN=` begins with `iptables denied: `, is in the
kernel log the same text as a device with a longer name. It changes the name of the device and nothing else.

This module is pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fwguardd.denials import grammar
from fwguardd.denials.aggregation import Flow, FlowPacket, is_udp_request
from fwguardd.denials.grammar import GrammarError, compress_ipv6, escaped_length, kernel_escaped
from fwguardd.denials.layers import LinkReader, read_arp, read_ip, read_payload
from fwguardd.denials.model import Denial, Extent, IPv4, PacketFamily, SocketOwner, Unparsed
from fwguardd.denials.transport import Ending, bare

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fwguardd.denials.layers import Link
    from fwguardd.denials.model import Hardware, Watched

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

    Prefixes are written as in the rule; the reader knows how the kernel log spells them. An empty prefix is of rules
    without one: their lines begin with ``IN=``. Raises ValueError for a prefix that is given twice.
    """

    def __init__(self, watched: Iterable[Watched]) -> None:
        by_prefix: dict[str, Watched] = {}
        for item in watched:
            spelled = kernel_escaped(item.prefix.encode())
            if spelled in by_prefix:
                raise ValueError(f"{item.name!r} and {by_prefix[spelled].name!r} watch the same prefix {item.prefix!r}")
            by_prefix[spelled] = item
        self._prefixes = tuple(sorted((prefix for prefix in by_prefix if prefix), key=len, reverse=True))
        self._watched = by_prefix
        self._as_written = {item.prefix: item for item in by_prefix.values()}
        self._without_prefix = by_prefix.get("")
        self._links = LinkReader()

    def read(self, text: str) -> Denial | Unparsed | None:
        """What the text of one kernel record says, or None when it does not begin with a watched prefix.

        Never raises, whatever the text. When one watched prefix is the beginning of another, the longer one counts.
        """
        for prefix in self._prefixes:
            if text.startswith(prefix):
                return read_after(self._watched[prefix], text, len(prefix), self._links)
        if self._without_prefix is not None and text.startswith("IN="):
            return read_after(self._without_prefix, text, 0, self._links)
        return None

    def watched(self, prefix: str) -> Watched:
        """The watched prefix with this text, as the rule has it."""
        return self._as_written[prefix]

    def read_flow(self, text: str) -> FlowPacket | None:
        """The flow of a plain line of TCP or UDP, many times as fast as `read`; None for every other text.

        Under a flood most lines are only counted. The whole line is checked against the same grammar: `read` gives a
        `Denial` of the same flow for each line that has a flow here. Never raises.
        """
        for prefix in self._prefixes:
            if text.startswith(prefix):
                return read_plain_flow(self._watched[prefix].prefix, text, len(prefix))
        if self._without_prefix is not None:
            return read_plain_flow("", text, 0)
        return None


def read_after(watched: Watched, text: str, position: int, links: LinkReader) -> Denial | Unparsed:
    """What a text says whose prefix ends at a position. Never raises."""
    # The kernel ends nearly every line with a blank; journald and syslog daemons remove it.
    line = text
    if not text.endswith(" "):
        line += " "
    try:
        link, position = links.read(line, position)
        if line.startswith("SRC=", position):
            return _read_ip(watched, text, line, position, link)
        return _read_other(watched, text, line, position, link)
    except GrammarError as error:
        return Unparsed(watched, text, min(error.position, len(text)), error.expected)


def read_plain_flow(prefix: str, text: str, position: int) -> FlowPacket | None:
    """The flow of a plain line of TCP or UDP whose prefix ends at a position; None for every other text."""
    match = grammar.PLAIN_IPV4.match(text, position)
    if match is not None:
        incoming, outgoing, src, dst, tcp, spt, dpt, flags = match.groups()
    else:
        match = grammar.PLAIN_IPV6.match(text, position)
        if match is None:
            return None
        incoming, outgoing, src, dst, tcp, spt, dpt, flags = match.groups()
        src, dst = compress_ipv6(src), compress_ipv6(dst)
    if tcp:
        is_request = "ACK" not in flags and "RST" not in flags
        return FlowPacket(Flow(prefix, incoming, outgoing, src, dst, "tcp", dpt), is_request)
    return FlowPacket(Flow(prefix, incoming, outgoing, src, dst, "udp", dpt), is_udp_request(int(spt), int(dpt)))


def _read_ip(watched: Watched, text: str, line: str, position: int, link: Link) -> Denial:
    network, proto, position = read_ip(line, position)
    family = PacketFamily.IPV6
    if isinstance(network, IPv4):
        family = PacketFamily.IPV4
    owner = mark = None
    extent = _WHOLE
    try:
        transport, position, ending = read_payload(line, position, network, proto)
        if position != len(line):
            owner, mark = _read_tail(line, position, ending)
        if ending is not _OPEN:
            extent = _EXTENTS[ending]
    except GrammarError as error:
        if not _is_cut(text, error.position):
            raise
        transport, extent = None, Extent.CUT_LINE
        if proto:
            transport = bare(proto)
    if _is_full(text):
        extent = Extent.CUT_LINE
    return Denial(watched, text, link.devices, link.hardware, family, network, transport, owner, mark, extent)


def _is_full(text: str) -> bool:
    """Whether the text fills the kernel's line buffer."""
    return len(text) >= grammar.LONGEST_LINE and escaped_length(text) == grammar.LONGEST_LINE


def _is_cut(text: str, position: int) -> bool:
    """Whether the text from a position on is not in the grammar because the kernel's line buffer was full.

    Only the layer at the end of the line can have been cut. If more were allowed, root in a container could choose a
    prefix that reads as the addresses of another packet, and make the line long with extension headers.
    """
    length = escaped_length(text)
    return grammar.SHORTEST_CUT_LINE <= length <= grammar.LONGEST_LINE and len(text) - position <= grammar.LONGEST_LAYER


def _read_tail(line: str, position: int, ending: Ending) -> tuple[SocketOwner | None, int | None]:
    """Owner and mark. The kernel prints neither after it has stopped in the middle of a packet."""
    match = grammar.TAIL.match(line, position)
    if match is None or match.end() != len(line) or ending in _STOPS:
        raise GrammarError(position, "the end of the line")
    uid, gid, mark_digits = match.groups()
    owner = mark = None
    if uid:
        owner = SocketOwner(int(uid), int(gid))
    if mark_digits:
        mark = int(mark_digits, 16)
    return owner, mark


def _read_other(watched: Watched, text: str, line: str, position: int, link: Link) -> Denial:
    """ARP, a packet too short for its IP or ARP header, or an ethertype that the kernel prints no more of."""
    network = None
    extent = Extent.WHOLE
    truncated = grammar.TRUNCATED.match(line, position)
    if truncated is not None:
        family = _family_of(link.hardware)
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
    return Denial(watched, text, link.devices, link.hardware, family, network, None, None, None, extent)


def _family_of(hardware: Hardware | None) -> PacketFamily:
    if hardware is None or hardware.ethertype is None:
        return PacketFamily.OTHER
    return _FAMILIES.get(hardware.ethertype, PacketFamily.OTHER)
