"""A class of packets in words: "TCP to port 8443 from anywhere, new, in by eth0: dropped before, accepted now".

This module is pure.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, summarize_address_range
from itertools import starmap
from typing import TYPE_CHECKING, Final

from fwguardd.packets.model import TCP_FLAGS, Direction, Verdict
from fwguardd.proof.fields import (
    ADDRESS_BITS,
    ESTABLISHED,
    ICMP,
    ICMPV6,
    INVALID,
    NEW,
    RELATED,
    SCTP,
    STATES,
    TCP,
    UDP,
    UNTRACKED,
    PacketField,
)
from fwguardd.proof.intervals import complement, contains, count_of, intersection, numbers_in, of_numbers
from fwguardd.proof.packet_sets import all_packets
from fwguardd.ruleset.model import Family

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from fwguardd.proof.fields import HostFacts, Interfaces
    from fwguardd.proof.intervals import Intervals
    from fwguardd.proof.packet_classes import Bits, PacketClass
    from fwguardd.proof.treatments import Treatment

MOST_LISTED: Final = 6
"""Networks or ports that are listed; others are counted."""

_PROTOCOLS: Final = {TCP: "TCP", UDP: "UDP", SCTP: "SCTP", ICMP: "ICMP", ICMPV6: "ICMPv6"}
_NAMES: Final = {Family.IPV4: "IPv4", Family.IPV6: "IPv6"}
_VERDICTS: Final = {Verdict.ACCEPT: "accepted", Verdict.DROP: "dropped", Verdict.REJECT: "rejected"}
_STATE_WORDS: Final = {
    of_numbers((NEW, INVALID, UNTRACKED)): "of no known connection",
    of_numbers((ESTABLISHED, RELATED)): "of known connections",
}


def family_names(families: Sequence[Family]) -> str:
    """Families for people."""
    return " and ".join(map(_NAMES.__getitem__, families))


def verdict_words(verdict: Verdict) -> str:
    """What became of a packet, as a participle."""
    return _VERDICTS[verdict]


def treatment_words(before: Treatment, after: Treatment) -> str:
    """What becomes of packets before and after a change."""
    return f"{_treated(before)} before, {_treated(after)} now"


def _treated(treatment: Treatment) -> str:
    words = _VERDICTS[treatment.verdict]
    if treatment.translations:
        return f"{words} with {' and '.join(treatment.translations)}"
    return words


def depends_words(each: PacketClass) -> str:
    """The parts of rules on which it depends; "" for none."""
    words = {True: "it matches", False: "it does not match"}
    parts = [f"{part} (if {words[matches]})" for part, matches in each.depends]
    if not parts:
        return ""
    return f"depends on {', and on '.join(parts)}"


def class_words(each: PacketClass, known: HostFacts) -> str:
    """The packets, without what becomes of them."""
    return _Words(each, known).text()


class _Words:
    """Words for one class."""

    def __init__(self, each: PacketClass, known: HostFacts) -> None:
        self._each, self._known, self._limits = each, known, each.limits

    def text(self) -> str:
        """All of them."""
        details = [*self._ways(), self._state(), *self._numbers(), *map(_bit_words, sorted(self._each.bits, key=str))]
        return ", ".join(filter(None, [self._head(), *details]))

    def _head(self) -> str:
        """Protocol, ports and addresses."""
        kind = {Direction.FORWARDED: "forwarded ", Direction.OUTBOUND: "outgoing "}.get(self._each.direction, "")
        words = f"{kind}{self._protocol()}{self._to()}{self._from()}"
        if kind:
            return words
        return f"{words[0].upper()}{words[1:]}"

    def _protocol(self) -> str:
        values = self._limits.get(PacketField.PROTOCOL)
        if values is None:
            return "packets"
        names = _few(values)
        if names:
            return " and ".join(map(_protocol_name, names))
        possible = all_packets(self._known, self._each.direction).limits[PacketField.PROTOCOL]
        others = _few(intersection(complement(values, 8), possible))
        if not others:
            return "packets of some protocols"
        return f"packets of protocols other than {' and '.join(map(_protocol_name, others))}"

    def _to(self) -> str:
        ports, addresses = self._limits.get(PacketField.DPORT), self._addresses(PacketField.DESTINATION)
        words = ""
        if ports is not None:
            words = f" to {port_words(ports)}"
        if not addresses:
            return words
        return f"{words or ' to'} of {addresses}".replace(" to of ", " to ")

    def _from(self) -> str:
        ports, addresses = self._limits.get(PacketField.SPORT), self._addresses(PacketField.SOURCE)
        words = ""
        if ports is not None:
            words = f" from {port_words(ports)}"
        if not addresses and self._each.direction is Direction.OUTBOUND:
            return words
        return f"{words or ' from'} of {addresses or 'anywhere'}".replace(" from of ", " from ")

    def _addresses(self, name: PacketField) -> str:
        values = self._limits.get(name)
        if values is None:
            return ""
        width = ADDRESS_BITS[self._known.family]
        around = _network_around(values)
        networks, others = _networks(values, width), _networks(intersection(around, complement(values, width)), width)
        if not others or len(others) >= len(networks):
            return _listed(networks)
        (whole,) = _networks(around, width)
        return f"{whole.replace(_EVERYWHERE[width], 'anywhere')} but {_listed(others)}"

    def _ways(self) -> Iterator[str]:
        for name, words in ((PacketField.IN, "in by"), (PacketField.OUT, "out by")):
            values = self._limits.get(name)
            if values is not None:
                yield f"{words} {_interface_words(values, self._known.interfaces)}"

    def _state(self) -> str:
        values = self._limits.get(PacketField.STATE)
        if values is None:
            return ""
        names = [name.lower() for name, number in STATES.items() if contains(values, number)]
        return _STATE_WORDS.get(values) or " or ".join(names)

    def _numbers(self) -> Iterator[str]:
        """Fields that are plain numbers."""
        for name, (words, width) in _NUMBERS.items():
            values = self._limits.get(name)
            if values is not None:
                yield f"{words}{_ranges_or_others(values, width)}"
        flags = self._limits.get(PacketField.FLAGS)
        if flags is not None:
            yield f"TCP flags {_listed(list(map(_flag_names, _few(flags)))) or 'of some kinds'}"


_NUMBERS: Final = {
    PacketField.TYPE: ("of type", 8),
    PacketField.CODE: ("of code", 8),
    PacketField.MARK: ("with mark", 32),
    PacketField.UID: ("of user", 33),
    PacketField.GID: ("of group", 33),
}
"""Words and the width of fields that are plain numbers."""


def _protocol_name(number: int) -> str:
    return _PROTOCOLS.get(number, f"protocol {number}")


def _few(values: Intervals) -> list[int]:
    """The numbers, if they are few; none else."""
    if count_of(values) > MOST_LISTED:
        return []
    return list(numbers_in(values))


def _listed(words: Sequence[str]) -> str:
    if len(words) <= MOST_LISTED:
        return ", ".join(words)
    return f"{', '.join(words[:MOST_LISTED])} and {len(words) - MOST_LISTED:,} more"


def _ranges(values: Intervals) -> list[str]:
    return list(starmap(_range, values))


def _range(first: int, last: int) -> str:
    if first == last:
        return str(first)
    return f"{first}-{last}"


def _ranges_or_others(values: Intervals, width: int) -> str:
    """Numbers, or those that are not meant if they are fewer."""
    others = complement(values, width)
    if len(others) < len(values):
        return f"s other than {_listed(_ranges(others))}"
    return f" {_listed(_ranges(values))}"


def port_words(values: Intervals) -> str:
    """Ports in words, with the word "port"."""
    words = _ranges_or_others(values, 16)
    if values[0][0] != values[-1][1]:
        words = f"s{words.removeprefix('s')}"
    return f"port{words}"


_EVERYWHERE: Final = {32: "0.0.0.0/0", 128: "::/0"}


def _network_around(values: Intervals) -> Intervals:
    """The smallest network that all of these addresses are in."""
    first, last = values[0][0], values[-1][1]
    free = (first ^ last).bit_length()
    return ((first >> free << free, last | (1 << free) - 1),)


def _networks(values: Intervals, width: int) -> list[str]:
    """Addresses and networks; a range that is many of these as FIRST-LAST."""
    found: list[str] = []
    for first, last in values:
        low, high = _address(first, width), _address(last, width)
        networks = list(summarize_address_range(low, high))
        if len(networks) > 2:
            found.append(f"{low}-{high}")
        else:
            for network in networks:
                found.append(str(network).removesuffix(f"/{width}"))  # noqa: PERF401 - plain statements.
    return found


def _address(number: int, width: int) -> IPv4Address | IPv6Address:
    if width == 32:
        return IPv4Address(number)
    return IPv6Address(number)


def _interface_words(values: Intervals, interfaces: Interfaces) -> str:
    others = intersection(complement(values, 16), interfaces.real)
    if contains(values, len(interfaces.names) - 1) and others:
        return f"any interface but {_names_of(others, interfaces)}"
    return _names_of(values, interfaces)


def _names_of(values: Intervals, interfaces: Interfaces) -> str:
    """Names, and patterns that stand for some of these interfaces and for no others."""
    words: list[str] = []
    for pattern, matching in interfaces.patterns():
        if matching and intersection(values, matching) == matching:
            words.append(pattern)
            values = intersection(values, complement(matching, 16))
    names = map(interfaces.names.__getitem__, numbers_in(values))
    return _listed([*words, *names])


def _bit_words(bits: Bits) -> str:
    """Bits of a field, as iptables-extensions(8) writes them."""
    having = {True: "without", False: "with"}[bits.negated]
    if bits.field is PacketField.FLAGS:
        return f"{having} TCP flags {_flag_names(bits.value)} of {_flag_names(bits.mask)}"
    if bits.field is PacketField.MARK:
        return f"{having} mark {bits.value:#x}/{bits.mask:#x}"
    return f"{having} {bits.field} {bits.value:#x}/{bits.mask:#x}"


def _flag_names(number: int) -> str:
    return ",".join(name for place, name in enumerate(TCP_FLAGS) if number >> place & 1) or "NONE"
