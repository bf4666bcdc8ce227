"""The fields of a packet that rules can ask for, as variables; and what is known of the host and of sets.

Interfaces are numbers here: all names that occur, one for each pattern such as "eth+", and one that nothing names,
stand for all interfaces that there can be. Number 0 is no interface, as INPUT sees for -o.

This module is pure.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from fwguardd.proof.formulas import Leaf, Variable
from fwguardd.proof.intervals import Intervals, of_numbers
from fwguardd.ruleset.model import Family

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping


class PacketField(StrEnum):
    """A field of a packet. Some are those of its connection, of its socket or of the way that it takes. HERE is 1 as
    long as the destination is taken for an address of this host, since the packet is one that arrives for it."""

    IN = "in"
    OUT = "out"
    SOURCE = "source"
    DESTINATION = "destination"
    PROTOCOL = "protocol"
    SPORT = "sport"
    DPORT = "dport"
    TYPE = "icmp type"
    CODE = "icmp code"
    FLAGS = "flags"
    STATE = "state"
    MARK = "mark"
    UID = "uid"
    GID = "gid"
    DNAT = "dnat"
    SNAT = "snat"
    HERE = "here"


ADDRESS_BITS: Final = {Family.IPV4: 32, Family.IPV6: 128}

_WIDTHS: Final = {
    PacketField.IN: 16,
    PacketField.OUT: 16,
    PacketField.PROTOCOL: 8,
    PacketField.SPORT: 16,
    PacketField.DPORT: 16,
    PacketField.TYPE: 8,
    PacketField.CODE: 8,
    PacketField.FLAGS: 8,
    PacketField.STATE: 3,
    PacketField.MARK: 32,
    PacketField.UID: 33,
    PacketField.GID: 33,
    PacketField.DNAT: 1,
    PacketField.SNAT: 1,
    PacketField.HERE: 1,
}

NO_OWNER: Final = 1 << 32
"""The number of the user and the group of a packet that no socket of this host sends."""

NEW, ESTABLISHED, RELATED, INVALID, UNTRACKED = range(5)
STATES: Final = {
    "NEW": NEW,
    "ESTABLISHED": ESTABLISHED,
    "RELATED": RELATED,
    "INVALID": INVALID,
    "UNTRACKED": UNTRACKED,
}
"""The numbers of connection states, by their names in iptables-extensions(8), "conntrack"."""

TCP, UDP, SCTP, ICMP, ICMPV6, UDPLITE, DCCP = 6, 17, 132, 1, 58, 136, 33


def width_of(name: PacketField, family: Family) -> int:
    """The bits of a field."""
    return _WIDTHS.get(name) or ADDRESS_BITS[family]


def packet_variables(family: Family) -> dict[PacketField, Variable]:
    """A variable for each field of a packet of this family. Every call gives the same variables."""
    return {name: Variable(name.value, width_of(name, family)) for name in PacketField}


def packet_leaves(family: Family) -> dict[PacketField, Leaf]:
    """The values of all fields of a packet of this family, each a variable."""
    return {name: Leaf.of(variable) for name, variable in packet_variables(family).items()}


@dataclass(frozen=True, slots=True, eq=False)
class Fields:
    """The values of all fields of a packet at one place of its way."""

    values: Mapping[PacketField, Leaf]

    def __getitem__(self, name: PacketField) -> Leaf:
        return self.values[name]

    def changed(self, changes: Mapping[PacketField, Leaf]) -> Fields:
        """The fields with other values; the same object where nothing changes."""
        if all(self.values[name] == value for name, value in changes.items()):
            return self
        return Fields({**self.values, **changes})


NO_INTERFACE: Final = 0
_LOOPBACK: Final = "lo"
_LONGEST_NAME: Final = 15


@dataclass(frozen=True, slots=True)
class Interfaces:
    """The names of interfaces, by number."""

    names: tuple[str, ...] = ("", _LOOPBACK)
    _matching: dict[str, Intervals] = field(default_factory=dict, compare=False)

    @classmethod
    def of(cls, patterns: Iterable[str]) -> Interfaces:
        """All that these names and patterns, those of rules and hosts, can tell apart."""
        wanted = dict.fromkeys(("", _LOOPBACK, *patterns))
        names = dict.fromkeys(name for name in wanted if not name.endswith("+"))
        for pattern in (*filter(_is_pattern, wanted), "+"):
            example = _example_of(pattern, wanted)
            if example:
                names[example] = None
        return cls(tuple(names))

    def number(self, name: str) -> int:
        """The number of an interface. Raises ValueError for one that is not known."""
        return self.names.index(name)

    def matching(self, pattern: str) -> Intervals:
        """The numbers of the interfaces that a name or a pattern stands for."""
        if pattern not in self._matching:
            found = [number for number, name in enumerate(self.names) if _matches(name, pattern)]
            self._matching[pattern] = of_numbers(found)
        return self._matching[pattern]

    def patterns(self) -> Iterator[tuple[str, Intervals]]:
        """The patterns that were asked about, but for the one that stands for all, with the numbers of each."""
        for pattern, numbers in self._matching.items():
            if _is_pattern(pattern) and pattern != "+":
                yield pattern, numbers

    @property
    def real(self) -> Intervals:
        """The numbers of all interfaces."""
        return ((1, len(self.names) - 1),)


def _is_pattern(name: str) -> bool:
    return name.endswith("+")


def _matches(name: str, pattern: str) -> bool:
    if _is_pattern(pattern):
        return name.startswith(pattern[:-1])
    return name == pattern


def _example_of(pattern: str, known: Iterable[str]) -> str:
    """A name that the pattern stands for, and no longer pattern nor a known name; "" where there is none."""
    others = [name for name in known if len(name) > len(pattern) or not _is_pattern(name)]
    for candidate in _candidates(pattern[:-1]):
        if not any(_matches(candidate, other) for other in others):
            return candidate
    return ""


def _candidates(start: str) -> Iterator[str]:
    """Names that begin so."""
    for ending in (*map(str, range(10)), *"abcdefghijklmnopqrstuvwxyz_", "", *map(str, range(10, 1000))):
        name = f"{start or 'if'}{ending}"
        if name and len(name) <= _LONGEST_NAME:
            yield name


@dataclass(frozen=True, slots=True)
class HostFacts:
    """What is known besides the rules, in one family: the interfaces; the addresses of the host, None where the host is
    not known, and each with its interface; its broadcast addresses; the destinations that it sends by an interface, by
    number, as far as the destination decides; the interfaces that do not forward what they receive; and the contents
    of sets, by the kernel's names."""

    family: Family
    interfaces: Interfaces = field(default_factory=Interfaces)
    own: Intervals | None = None
    addresses: tuple[tuple[int, int], ...] = ()
    broadcast: Intervals = ()
    routes: Mapping[int, Intervals] = field(default_factory=dict)
    not_forwarding: Intervals = ()
    sets: Mapping[str, Intervals] = field(default_factory=dict)


MULTICAST: Final[Mapping[Family, Intervals]] = {
    Family.IPV4: ((0xE000_0000, 0xEFFF_FFFF),),
    Family.IPV6: ((0xFF << 120, (1 << 128) - 1),),
}

LOOPBACK_ADDRESS: Final = {Family.IPV4: 0x7F00_0001, Family.IPV6: 1}

LOOPBACK_NETWORK: Final[Mapping[Family, Intervals]] = {
    Family.IPV4: ((0x7F00_0000, 0x7FFF_FFFF),),
    Family.IPV6: ((1, 1),),
}

UNSENDABLE: Final[Mapping[Family, Intervals]] = {
    Family.IPV4: ((0, 0x00FF_FFFF), *MULTICAST[Family.IPV4], (0xFFFF_FFFF, 0xFFFF_FFFF)),
    Family.IPV6: ((0, 0), *MULTICAST[Family.IPV6]),
}
"""Source addresses that the kernel takes from no other host, nor those of loopback (ip_route_input_slow() in
net/ipv4/route.c, ip6_rcv_core() in net/ipv6/ip6_input.c)."""
