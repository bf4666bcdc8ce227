"""The matches of a rule's text -> what they ask of a packet (`fwguardd.proof.parts`).

How the kernel reads each option is in net/netfilter/xt_*.c and net/ipv4/netfilter/ip_tables.c of Linux. What is not
read here becomes `UnmodelledMatch`, with the words by which a message names it. All options of a rule must hold.

This module is pure.
"""

from __future__ import annotations

from ipaddress import AddressValueError, IPv4Address, IPv6Address
from itertools import chain
from typing import TYPE_CHECKING, Final

from fwguardd.packets import case_values
from fwguardd.packets.model import TCP_FLAGS
from fwguardd.proof.fields import MULTICAST, NO_OWNER, STATES, PacketField
from fwguardd.proof.intervals import Intervals, everything, of_network, of_numbers, single, united
from fwguardd.proof.packet_sets import message
from fwguardd.proof.parts import MaskTest, Opposite, Part, Some, Test, UnmodelledMatch
from fwguardd.ruleset.conditions import SYN_ONLY, networks_of, protocol_name, states_of
from fwguardd.ruleset.model import Family
from fwguardd.ruleset.values import LAST_PORT, read_number, read_ports

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from fwguardd.proof.fields import HostFacts
    from fwguardd.ruleset.rule_view import Match, Option, RuleView

    Reader = Callable[[Option, HostFacts], Part]

_NEUTRAL: Final = frozenset({"comment", "nfacct", "tcp", "udp", "udplite", "sctp", "dccp", "icmp", "icmp6", "icmpv6"})
"""Matches that ask nothing without options."""

_STEADY: Final = frozenset(
    {"addrtype", "ah", "bpf", "cgroup", "dccp", "dscp", "dst", "ecn", "esp", "frag", "geoip", "hbh", "helper", "hl"}
    | {"ipv6header", "length", "mac", "mh", "owner", "physdev", "pkttype", "policy", "realm", "rpfilter", "rt", "sctp"}
    | {"set", "socket", "state", "conntrack", "string", "tcp", "tcpmss", "time", "tos", "ttl", "u32", "multiport"}
)
"""Matches that are not modelled and whose answer depends on nothing but the packet, the time and the host."""

_ALL_TCP_FLAGS: Final = "FIN,SYN,RST,PSH,ACK,URG"
_ANY_ICMP_TYPE: Final = 255
_PROTOCOL_NUMBERS: Final[Mapping[str, int]] = {
    "tcp": 6,
    "udp": 17,
    "icmp": 1,
    "ipv6-icmp": 58,
    "sctp": 132,
    "igmp": 2,
    "gre": 47,
    "esp": 50,
    "ah": 51,
    "dccp": 33,
    "udplite": 136,
    "ipencap": 4,
    "ipip": 4,
    "ipv6": 41,
    "ospf": 89,
    "ospfigp": 89,
    "pim": 103,
    "vrrp": 112,
    "mobility-header": 135,
    "ipv6-mh": 135,
    "mh": 135,
    "ipcomp": 108,
}


class NotModelledError(Exception):
    """An option or a value is not read here."""


def parts_of(view: RuleView, known: HostFacts) -> list[Part]:
    """What a rule asks, in no order."""
    parts = list(_core_parts(view, known))
    for match in view.matches:
        parts += _match_parts(match, known)
    return parts


def _core_parts(view: RuleView, known: HostFacts) -> Iterator[Part]:
    for option in view.options:
        read = _CORE.get(option.name)
        if read is not None:
            yield _read(read, option, known, f"{option.name} {option.value}".strip(), is_steady=True)


def _match_parts(match: Match, known: HostFacts) -> Iterator[Part]:
    """The parts of one match extension."""
    readers = _MODULES.get(match.module)
    options = [option for option in match.options if option.name not in _IGNORED]
    is_steady = match.module in _STEADY
    if (readers is None and match.module not in _NEUTRAL) or (match.module in _WHOLE and len(options) > 1):
        yield UnmodelledMatch(_in_words(match), is_steady)
    else:
        for option in options:
            read = (readers or {}).get(option.name, _not_modelled)
            words = f"-m {match.module} {option.name} {' '.join(option.values)}".strip()
            yield _read(read, option, known, words, is_steady=is_steady)


def _in_words(match: Match) -> str:
    """A match as it is written, for messages and as the name of its answer."""
    words = ["-m", match.module]
    for option in match.options:
        words += [*["!"] * option.negated, option.name, *option.values]
    return " ".join(words)


def _read(
    read: Reader,
    option: Option,
    known: HostFacts,
    words: str,
    *,
    is_steady: bool,
) -> Part:
    part: Part
    try:
        part = read(option, known)
    except NotModelledError:
        part = UnmodelledMatch(words, is_steady)
    if option.negated:
        return Opposite(part)
    return part


def _not_modelled(_option: Option, _known: HostFacts) -> Part:
    raise NotModelledError


def _fragments(_option: Option, _known: HostFacts) -> Part:
    raise NotModelledError


def _addresses(field: PacketField) -> Reader:
    """A reader of networks with commas between them."""

    def read(option: Option, known: HostFacts) -> Part:
        networks = networks_of(option.value)
        versions = {network.version for network in networks}
        if len(networks) != 1 + option.value.count(",") or versions != {known.family.number}:
            raise NotModelledError
        ranges = list(map(of_network, networks))
        if None not in ranges:
            return Test(field, united(chain.from_iterable(filter(None, ranges))))
        if len(networks) > 1:
            raise NotModelledError
        return MaskTest(field, networks[0].mask, networks[0].address & networks[0].mask)

    return read


def _interface(field: PacketField) -> Reader:
    def read(option: Option, known: HostFacts) -> Part:
        return Test(field, known.interfaces.matching(option.value))

    return read


def _protocol(option: Option, _known: HostFacts) -> Part:
    name = protocol_name(option.value)
    if name == "all":
        return Test(PacketField.PROTOCOL, everything(8))
    number = read_number(name)
    if number is None:
        number = _PROTOCOL_NUMBERS.get(name)
    if number is None or number > 255:
        raise NotModelledError
    return Test(PacketField.PROTOCOL, single(number))


def _port_numbers(value: str) -> Intervals:
    """Ports of a list. Raises NotModelledError for a name that is not known."""
    ranges = read_ports(value)
    if len(ranges) != 1 + value.count(","):
        raise NotModelledError
    for first, last in ranges:
        if first > last or last > LAST_PORT:
            raise NotModelledError
    return united(ranges)


def _ports(*fields: PacketField) -> Reader:
    """A reader of a list of ports: one of these fields has one of them."""

    def read(option: Option, _known: HostFacts) -> Part:
        numbers = _port_numbers(option.value)
        tests = tuple(Test(field, numbers) for field in fields)
        if len(tests) == 1:
            return tests[0]
        return Some(tests)

    return read


def flag_bits(names: str) -> int:
    """The bits of TCP flags with commas between them; ALL and NONE as in iptables-extensions(8), "tcp"."""
    text = names.upper().replace("ALL", _ALL_TCP_FLAGS)
    bits = 0
    for name in text.split(","):
        if name in TCP_FLAGS:
            bits |= 1 << TCP_FLAGS.index(name)
        elif name != "NONE":
            raise NotModelledError
    return bits


def _tcp_flags(option: Option, _known: HostFacts) -> Part:
    if len(option.values) != 2:
        raise NotModelledError
    return MaskTest(PacketField.FLAGS, flag_bits(option.values[0]), flag_bits(option.values[1]))


def _syn(_option: Option, _known: HostFacts) -> Part:
    return MaskTest(PacketField.FLAGS, *map(flag_bits, SYN_ONLY))


def _icmp(option: Option, known: HostFacts) -> Part:
    """A type, or type/code. "any" is one of IPv4 (net/ipv4/netfilter/ip_tables.c, icmp_type_code_match)."""
    if option.value == "any" or (known.family is Family.IPV4 and option.value == str(_ANY_ICMP_TYPE)):
        return Test(PacketField.TYPE, everything(8))
    number, slash, code = option.value.partition("/")
    if slash:
        return message(_byte(number), _byte(code))
    if number.isdigit():
        return Test(PacketField.TYPE, single(_byte(number)))
    return _named_icmp(number, known.family)


def _byte(text: str) -> int:
    number = read_number(text)
    if number is None or number > 255:
        raise NotModelledError
    return number


def _named_icmp(name: str, family: Family) -> Part:
    """A type by a name that stands for all its codes."""
    if name.endswith(("-unreachable", "-needed", "-route")) and name != "destination-unreachable":
        raise NotModelledError
    try:
        for of, kind, _ in case_values.icmp_types(name):
            if of is family:
                return Test(PacketField.TYPE, single(kind))
    except ValueError as error:
        raise NotModelledError from error
    raise NotModelledError


def _state(option: Option, _known: HostFacts) -> Part:
    """Connection states, and whether the addresses are translated (net/netfilter/xt_conntrack.c)."""
    states = states_of(option.value)
    if not states:
        raise NotModelledError
    tests: list[Part] = []
    numbers = [STATES[name] for name in states if name in STATES]
    if numbers:
        tests.append(Test(PacketField.STATE, of_numbers(numbers)))
    tests += [Test(field, single(1)) for field in (PacketField.SNAT, PacketField.DNAT) if field.name in states]
    if len(tests) == 1:
        return tests[0]
    return Some(tuple(tests))


def _mark(option: Option, _known: HostFacts) -> Part:
    value, mask = masked_number(option.value)
    return MaskTest(PacketField.MARK, mask, value)


def masked_number(text: str) -> tuple[int, int]:
    """The number and the mask of NUMBER/MASK; without a mask, all bits. Raises NotModelledError."""
    value, slash, mask = text.partition("/")
    numbers = read_number(value), read_number(mask) if slash else 0xFFFF_FFFF
    if numbers[0] is None or numbers[1] is None or max(numbers[0], numbers[1]) > 0xFFFF_FFFF:
        raise NotModelledError
    return numbers[0], numbers[1]


def _address_range(field: PacketField) -> Reader:
    def read(option: Option, known: HostFacts) -> Part:
        first, dash, last = option.value.partition("-")
        return Test(
            field, ((address_number(first, known.family), address_number(last if dash else first, known.family)),)
        )

    return read


def address_number(text: str, family: Family) -> int:
    """An address as a number. Raises NotModelledError."""
    try:
        if family is Family.IPV6:
            return int(IPv6Address(text))
        return int(IPv4Address(text))
    except AddressValueError as error:
        raise NotModelledError from error


def _owner(field: PacketField) -> Reader:
    """A reader of a user or a group, or a range of them, by number."""

    def read(option: Option, _known: HostFacts) -> Part:
        first, dash, last = option.value.partition("-")
        low = read_number(first)
        high = read_number(last) if dash else low
        if low is None or high is None:
            raise NotModelledError
        return Test(field, ((low, high),))

    return read


def _has_socket(_option: Option, _known: HostFacts) -> Part:
    return Test(PacketField.UID, ((0, NO_OWNER - 1),))


def _address_type(field: PacketField) -> Reader:
    """A reader of the kinds of addresses that are known here: those of the host, and multicast."""

    def read(option: Option, known: HostFacts) -> Part:
        parts: list[Part] = []
        kinds = option.value.split(",")
        if len(kinds) > 1 and known.family is Family.IPV6:
            # There not one of them has to hold but, for some, each (match_type6() in net/netfilter/xt_addrtype.c).
            raise NotModelledError
        for kind in kinds:
            if kind == "MULTICAST":
                parts.append(Test(field, MULTICAST[known.family]))
            elif kind == "LOCAL" and known.own is not None:
                parts += _local(field, known, known.own)
            else:
                raise NotModelledError
        return Some(tuple(parts))

    return read


def _local(field: PacketField, known: HostFacts, own: Intervals) -> Iterator[Part]:
    """An address of this host. That of a packet which is taken for one to this host is one, if it is not a group's."""
    yield Test(field, own)
    if field is PacketField.DESTINATION:
        groups = united((*MULTICAST[known.family], *known.broadcast))
        yield Opposite(Some((Test(PacketField.HERE, single(0)), Test(field, groups))))


_SET_FIELDS: Final = {"src": PacketField.SOURCE, "dst": PacketField.DESTINATION}


def _match_set(option: Option, known: HostFacts) -> Part:
    """A set of addresses whose contents are known."""
    if len(option.values) != 2:
        raise NotModelledError
    addresses, field = known.sets.get(option.values[0]), _SET_FIELDS.get(option.values[1])
    if addresses is None or field is None:
        raise NotModelledError
    return Test(field, addresses)


_CORE: Final[Mapping[str, Reader]] = {
    "-s": _addresses(PacketField.SOURCE),
    "-d": _addresses(PacketField.DESTINATION),
    "-i": _interface(PacketField.IN),
    "-o": _interface(PacketField.OUT),
    "-p": _protocol,
    "-f": _fragments,
}
_SINGLE_PORTS: Final = {"--sport": _ports(PacketField.SPORT), "--dport": _ports(PacketField.DPORT)}
_LISTED_PORTS: Final = {
    "--sports": _ports(PacketField.SPORT),
    "--dports": _ports(PacketField.DPORT),
    "--ports": _ports(PacketField.SPORT, PacketField.DPORT),
}
_TCP: Final = {**_SINGLE_PORTS, "--tcp-flags": _tcp_flags, "--syn": _syn}
_STATES: Final = {"--ctstate": _state, "--state": _state}
_ICMP: Final = {"--icmp-type": _icmp, "--icmpv6-type": _icmp}
_MODULES: Final[Mapping[str, Mapping[str, Reader]]] = {
    **dict.fromkeys(("udp", "udplite", "sctp", "dccp", "17", "132", "136", "33"), _SINGLE_PORTS),
    **dict.fromkeys(("tcp", "6"), _TCP),
    **dict.fromkeys(("icmp", "icmp6", "icmpv6", "ipv6-icmp", "1", "58"), _ICMP),
    "multiport": _LISTED_PORTS,
    **dict.fromkeys(("conntrack", "state"), _STATES),
    "mark": {"--mark": _mark},
    "iprange": {
        "--src-range": _address_range(PacketField.SOURCE),
        "--dst-range": _address_range(PacketField.DESTINATION),
    },
    "owner": {
        "--uid-owner": _owner(PacketField.UID),
        "--gid-owner": _owner(PacketField.GID),
        "--socket-exists": _has_socket,
    },
    "addrtype": {"--src-type": _address_type(PacketField.SOURCE), "--dst-type": _address_type(PacketField.DESTINATION)},
    "set": {"--match-set": _match_set},
}
_IGNORED: Final = frozenset({"--comment", "--nfacct-name", ""})
_WHOLE: Final = frozenset({"set"})
"""Matches that are read only if they have a single option: others count, or limit what they match."""
