"""From the text of one kernel record to a `Denial`; total, by position, in time proportional to the text.

`LineReader` anchors on the exact configured prefix at the very start and then reads layer by layer: devices,
link-layer header, network, transport, tail. Each layer begins where the one before ended, and device names, the
only free text after the prefix, cannot hold a blank (dev_valid_name() in net/core/dev.c): so a device called
`SRC=6.6.6.6` or `OUT=` is a device with that name, and never a source or a direction. What is not in the kernel's
grammar (net/netfilter/nf_log_syslog.c) to the last byte is `Unparsed`, never a guess.

The text is spelled as /dev/kmsg spells it (see `fwguardd.denials.spelling`). Only records of facility 0 may be
given to it: others can be forged by any process that may write to /dev/kmsg or to syslog.

A rule's own prefix that merely begins with a watched one, as `iptables denied: IN=` begins with `iptables denied: `,
is for the kernel log the same text as a device with a longer name. It changes the device's name and nothing else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fwguardd.denials import grammar
from fwguardd.denials.flow import glance
from fwguardd.denials.grammar import GrammarError
from fwguardd.denials.layers import read_arp, read_ip, read_payload
from fwguardd.denials.link import LinkReader
from fwguardd.denials.model import Denial, Extent, Family, IPv4, Meaning, Owner, Unparsed, Watched
from fwguardd.denials.spelling import kernel_spelling, spelled_length
from fwguardd.denials.transport import Ending, bare

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fwguardd.denials.flow import Seen
    from fwguardd.denials.link import Link

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
_FAMILIES: Final = {0x0800: Family.IPV4, 0x86DD: Family.IPV6, 0x0806: Family.ARP}


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
            spelled = kernel_spelling(item.prefix.encode())
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
    family = Family.IPV4 if isinstance(network, IPv4) else Family.IPV6
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
    if len(text) >= grammar.LONGEST_LINE and spelled_length(text) == grammar.LONGEST_LINE:
        extent = Extent.CUT_LINE
    return Denial(watched, text, link.devices, link.hardware, family, network, transport, owner, mark, extent)


def _is_cut(text: str, position: int) -> bool:
    """Whether the kernel's full buffer explains that the text from a position on is not in the grammar.

    Only the layer that holds the end of the line can have been cut. Were more allowed, a container's root could
    choose a prefix that reads as another packet's addresses, and make the line long with extension headers.
    """
    length = spelled_length(text)
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
        family = _FAMILIES.get(hardware.ethertype or 0, Family.OTHER) if hardware else Family.OTHER
        extent = Extent.SHORT_PACKET
        position = truncated.end()
    elif position == len(line) and link.printed:
        family = Family.OTHER
    else:
        family = Family.ARP
        network, position = read_arp(line, position)
        if network.available is not None:
            extent = Extent.SHORT_PACKET
    if position != len(line):
        raise GrammarError(position, "the end of the line")
    return Denial(watched, text, link.devices, hardware, family, network, None, None, None, extent)
