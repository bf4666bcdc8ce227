"""LOG lines with any prefix: where the kernel's grammar begins in a line decides what is prefix.

A prefix is free text, and may read as a part of a line. So the prefix ends before the first ``IN=`` from which on the
whole rest of the line is in the grammar: a prefix of 29 bytes (iptables) cannot hold a whole line. With nftables it can
have 127 bytes, which are also too few for the line of an IP packet and the line that follows it.

This module is pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fwguardd.denials import grammar
from fwguardd.denials.grammar import kernel_escaped
from fwguardd.denials.layers import LinkReader
from fwguardd.denials.line_parser import read_after, read_plain_flow
from fwguardd.denials.model import Denial, Meaning, Unparsed, Watched

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fwguardd.denials.aggregation import FlowPacket

_LONGEST_PREFIX: Final = 4 * 127
"""Characters of an nft prefix (NF_LOG_PREFIXLEN in linux/netfilter/nf_log.h) of which each byte is escaped."""

_MOST_STARTS: Final = 8
_KEPT: Final = 1024
_OTHER_GRAMMARS: Final = ("TRACE: ", "nf_ct_")
"""What else the kernel prints with a packet behind it: the TRACE target, and connection tracking."""

NO_PREFIX: Final = "no prefix"


def _starts(text: str) -> Iterable[int]:
    """The places where the grammar can begin, from left to right."""
    position = text.find("IN=", 0, _LONGEST_PREFIX + 3)
    for _ in range(_MOST_STARTS):
        if position < 0:
            return
        if not text.endswith("PHYS", 0, position):
            yield position
        position = text.find("IN=", position + 1, _LONGEST_PREFIX + 3)


def prefix_of(text: str) -> str | None:
    """The prefix of a text that looks like a LOG line; None for any other text."""
    if text.startswith(_OTHER_GRAMMARS):
        return None
    for position in _starts(text):
        match = grammar.DEVICES.match(text, position)
        if match is not None and text.startswith(("SRC=", "ARP ", "MACSRC="), match.end()):
            return text[:position]
    return None


class AnyPrefixReader:
    """Reads LOG lines with any prefix, as `fwguardd.denials.line_parser.LineReader` does those with a watched one. A
    prefix that is not watched means only that the packet was logged."""

    def __init__(self, watched: Iterable[Watched]) -> None:
        self._links = LinkReader()
        self._watched = {kernel_escaped(each.prefix.encode()): each for each in watched}
        self._named: dict[str, Watched] = {}

    def watched(self, prefix: str) -> Watched:
        """What a prefix means."""
        found = self._watched.get(prefix) or self._named.get(prefix)
        if found is None:
            if len(self._named) >= _KEPT:
                self._named.clear()
            found = self._named[prefix] = Watched(prefix.strip() or NO_PREFIX, prefix, Meaning.LOGGED)
        return found

    def read(self, text: str) -> Denial | Unparsed | None:
        """What the text of one kernel record says; None if it does not look like a LOG line. Never raises."""
        for position in _starts(text):
            read = read_after(self.watched(text[:position]), text, position, self._links)
            if isinstance(read, Denial) and not text.startswith(_OTHER_GRAMMARS):
                return read
        return self._read_unparsed(text)

    def _read_unparsed(self, text: str) -> Unparsed | None:
        """A text that looks like a LOG line and cannot be parsed."""
        prefix = prefix_of(text)
        if prefix is None:
            return None
        read = read_after(self.watched(prefix), text, len(prefix), self._links)
        if isinstance(read, Unparsed):
            return read
        return None

    def read_flow(self, text: str) -> FlowPacket | None:
        """The flow of a plain line of TCP or UDP, many times as fast as `read`; None for every other text."""
        if text.startswith(_OTHER_GRAMMARS):
            return None
        position = text.find("IN=", 0, _LONGEST_PREFIX + 3)
        if position < 0:
            return None
        return read_plain_flow(text[:position], text, position)
