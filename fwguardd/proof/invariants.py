"""Invariants of tests files (`fwguardd.packets.invariants`) as questions about sets of packets.

This module is pure.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from fwguardd.packets.case_values import ECHO_REQUEST
from fwguardd.packets.frames import NUMBERS
from fwguardd.packets.invariants import InvariantKind
from fwguardd.packets.model import ConnectionState, Direction
from fwguardd.proof.answers import Counterexample, Possible, Proved
from fwguardd.proof.fields import (
    ADDRESS_BITS,
    ESTABLISHED,
    LOOPBACK_NETWORK,
    MULTICAST,
    NEW,
    NO_INTERFACE,
    RELATED,
    SCTP,
    TCP,
    UNSENDABLE,
    UNTRACKED,
    PacketField,
)
from fwguardd.proof.formulas import any_of, both
from fwguardd.proof.intervals import Intervals, complement, everything, intersection, of_numbers, single, united
from fwguardd.proof.model import USUAL, Model
from fwguardd.proof.packet_sets import PacketSet, all_packets, flag_bits, implies, message
from fwguardd.proof.parts import Opposite, Part, Some, Test
from fwguardd.ruleset.model import Family

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from fwguardd.packets.invariants import AddressRange, Invariant
    from fwguardd.proof.answers import Answer, Asker, Preference
    from fwguardd.proof.fields import HostFacts, Interfaces
    from fwguardd.proof.formulas import Formula, Scope
    from fwguardd.proof.traversal import Outcome

_STATES: Final = {
    ConnectionState.NEW: NEW,
    ConnectionState.ESTABLISHED: ESTABLISHED,
    ConnectionState.RELATED: RELATED,
    ConnectionState.UNTRACKED: UNTRACKED,
}
_LOOPBACK: Final = "lo"
_SYN, _ACK = flag_bits(("SYN",)), flag_bits(("ACK",))


@dataclass(frozen=True, slots=True)
class JudgedInvariant:
    """The answer to an invariant: whether a packet violates it. ``model`` and ``packets`` are those of the packet; both
    are None if there is none."""

    answer: Answer
    model: Model | None = None
    packets: PacketSet | None = None


def judge(invariant: Invariant, models: Mapping[Family, Model], solver: Asker) -> JudgedInvariant | None:
    """Whether a packet violates an invariant; None where no packet fits it. Raises ReportedError."""
    possible: JudgedInvariant | None = None
    asked = False
    for family in invariant.family:
        model = _assuming(models[family], invariant)
        for packets in packet_sets(_without_nat(invariant, model), model.known):
            asked = True
            answer = _ask(invariant, model, packets, solver)
            if isinstance(answer, Counterexample):
                return JudgedInvariant(answer, model, packets)
            if isinstance(answer, Possible):
                possible = possible or JudgedInvariant(answer, model, packets)
    if not asked:
        return None
    return possible or JudgedInvariant(Proved())


def _ask(invariant: Invariant, model: Model, packets: PacketSet, solver: Asker) -> Answer:
    """Whether one of these packets violates the invariant."""

    def violates(outcome: Outcome, scope: Scope) -> Formula:
        wrong = {InvariantKind.NEVER: outcome.accept, InvariantKind.ALWAYS: any_of((outcome.drop, outcome.reject))}[
            invariant.kind
        ]
        if not invariant.to_port:
            return wrong
        return both(wrong, scope.inside(outcome.reached[PacketField.DPORT], united(invariant.to_port)))

    return model.find(packets, violates, solver, (*_preferred(packets, model.known), *USUAL))


def _preferred(packets: PacketSet, known: HostFacts) -> Iterator[Preference]:
    """What a packet should have so that this host, as it is now, takes it: its addresses, and others with routes."""
    if packets.direction is Direction.INBOUND:
        yield tuple(_at_addresses(known, PacketField.IN, PacketField.SOURCE, PacketField.DESTINATION))
    elif packets.direction is Direction.OUTBOUND:
        yield tuple(_at_addresses(known, PacketField.OUT, PacketField.DESTINATION, PacketField.SOURCE))
    else:
        yield tuple(_by_routes(known, PacketField.IN, PacketField.SOURCE))
        yield tuple(_by_routes(known, PacketField.OUT, PacketField.DESTINATION))


def _at_addresses(
    known: HostFacts, way: PacketField, other: PacketField, own: PacketField
) -> Iterator[Mapping[PacketField, Intervals]]:
    """The addresses of this host, each on its interface, with others that are reached by it."""
    ways = list(_by_routes(known, way, other))
    for limits in ways:
        for number, address in known.addresses:
            if limits[way] == single(number):
                yield {**limits, own: single(address)}
    yield from ways
    if known.own is not None:
        yield {own: intersection(known.own, complement(LOOPBACK_NETWORK[known.family], ADDRESS_BITS[known.family]))}


def _by_routes(known: HostFacts, way: PacketField, other: PacketField) -> Iterator[Mapping[PacketField, Intervals]]:
    """Interfaces with addresses that are reached by them, known examples first; then the interface alone. The one with
    the default route comes first."""
    routes = sorted(known.routes.items(), key=_size_of_route, reverse=True)
    for number, addresses in routes:
        yield {way: single(number), other: intersection(addresses, _EXAMPLES[known.family])}
    for number, addresses in routes:
        yield {way: single(number), other: tuple(_without_edges(addresses))}
    for number, _ in routes:
        yield {way: single(number)}


def _size_of_route(route: tuple[int, Intervals]) -> int:
    return sum(last - first for first, last in route[1])


def _without_edges(addresses: Intervals) -> Iterator[tuple[int, int]]:
    """Addresses of hosts: the first one of a network is that of the network, and the second one mostly a router's."""
    for first, last in addresses:
        if last - first > 3:
            yield first + 2, last - 1


_EXAMPLES: Final = {
    Family.IPV4: ((0xC633_6407, 0xC633_6407),),
    Family.IPV6: ((0x2001_0DB8_FFFF << 80 | 7, 0x2001_0DB8_FFFF << 80 | 7),),
}
"""198.51.100.7 and 2001:db8:ffff::7, for documentation (RFC 5737, RFC 3849)."""


def _without_nat(invariant: Invariant, model: Model) -> Invariant:
    """The same invariant where no rule changes ports: there the port that a packet gets to is the one it is sent to."""
    if not invariant.to_port or invariant.dport or model.rules.translates:
        return invariant
    return replace(invariant, dport=invariant.to_port)


def _assuming(model: Model, invariant: Invariant) -> Model:
    """The model of a host that has the addresses which packets of this invariant have to reach here."""
    wanted = _of_family(invariant.destination, model.known.family)
    inbound = invariant.kind is InvariantKind.ALWAYS and not invariant.out_interface
    if not (wanted and inbound) or model.known.own is None:
        return model
    return Model.of(model.rules.ruleset, replace(model.known, own=united((*model.known.own, *wanted))))


def packet_sets(invariant: Invariant, known: HostFacts) -> list[PacketSet]:
    """The packets that an invariant is about, in one family."""
    found: list[PacketSet] = []
    for direction in _directions(invariant):
        packets = all_packets(known, direction).narrowed(_limits(invariant, known), _conditions(invariant, known))
        packets = packets.narrowed(_ways(invariant, known, direction))
        packets = packets.narrowed(_addresses(invariant, known, packets), _martians(known, packets))
        if not packets.is_empty:
            found.append(packets)
    return found


def _directions(invariant: Invariant) -> Iterator[Direction]:
    """The directions of packets: by the interfaces that are named."""
    if invariant.out_interface:
        yield {True: Direction.FORWARDED, False: Direction.OUTBOUND}[bool(invariant.in_interface)]
        return
    yield Direction.INBOUND
    if invariant.kind is InvariantKind.NEVER:
        yield Direction.FORWARDED


def _limits(invariant: Invariant, known: HostFacts) -> dict[PacketField, Intervals]:
    """The values of fields that are written, or that go without saying."""
    limits = {PacketField.STATE: of_numbers(map(_STATES.__getitem__, invariant.state))}
    for name, ranges in ((PacketField.SPORT, invariant.sport), (PacketField.DPORT, invariant.dport)):
        if ranges:
            limits[name] = united(ranges)
    for name, numbers in ((PacketField.UID, invariant.uid), (PacketField.GID, invariant.gid)):
        if numbers:
            limits[name] = of_numbers(numbers)
    if invariant.proto:
        limits[PacketField.PROTOCOL] = of_numbers(_protocols(invariant, known.family))
    flags = _flags(invariant)
    if flags:
        limits[PacketField.FLAGS] = of_numbers(flags)
    return limits


def _protocols(invariant: Invariant, family: Family) -> Iterator[int]:
    other = {Family.IPV4: "icmpv6", Family.IPV6: "icmp"}[family]
    for name in invariant.proto:
        if name != other:
            yield NUMBERS.get(name) or int(name)


def _flags(invariant: Invariant) -> list[int]:
    """The flags that packets have. Those that always have to be accepted have the usual ones, if none are written."""
    if invariant.flags or invariant.kind is InvariantKind.NEVER:
        return list(map(flag_bits, invariant.flags))
    begins = {ConnectionState.NEW, ConnectionState.UNTRACKED, ConnectionState.RELATED}
    return [_SYN] * (not begins.isdisjoint(invariant.state)) + [_ACK] * (not begins.issuperset(invariant.state))


def _conditions(invariant: Invariant, known: HostFacts) -> Iterator[Part]:
    """What else is written: types of ICMP, an echo request where packets have to be accepted and none is."""
    messages: Sequence[tuple[Family, int, int]] = invariant.icmp_type
    if not messages and invariant.kind is InvariantKind.ALWAYS:
        messages = tuple(ECHO_REQUEST.values())
    if not messages:
        return
    wanted = tuple(message(kind, code) for family, kind, code in messages if family is known.family)
    icmp = Test(PacketField.PROTOCOL, single({Family.IPV4: 1, Family.IPV6: 58}[known.family]))
    yield implies((icmp,), Some(wanted))


def _ways(invariant: Invariant, known: HostFacts, direction: Direction) -> dict[PacketField, Intervals]:
    """The interfaces, and the mark."""
    limits: dict[PacketField, Intervals] = {}
    if invariant.mark or invariant.kind is InvariantKind.ALWAYS:
        limits[PacketField.MARK] = of_numbers(invariant.mark or (0,))
    if direction is not Direction.OUTBOUND:
        limits[PacketField.IN] = _interfaces(invariant.in_interface or ("+",), known.interfaces)
    if direction is Direction.FORWARDED:
        limits[PacketField.IN] = intersection(limits[PacketField.IN], complement(known.not_forwarding, 16))
    if direction is not Direction.INBOUND:
        limits[PacketField.OUT] = _interfaces(invariant.out_interface or ("+",), known.interfaces)
    return limits


def _interfaces(patterns: Iterable[str], interfaces: Interfaces) -> Intervals:
    """The interfaces that are meant: loopback only where it is named."""
    found: list[tuple[int, int]] = []
    loopback = single(interfaces.number(_LOOPBACK))
    for pattern in patterns:
        matching = intersection(interfaces.matching(pattern), complement(single(NO_INTERFACE), 16))
        if pattern.endswith("+"):
            matching = intersection(matching, complement(loopback, 16))
        found += matching
    return united(found)


def _of_family(ranges: Iterable[AddressRange], family: Family) -> Intervals:
    return united((each.first, each.last) for each in ranges if each.family is family)


def _addresses(invariant: Invariant, known: HostFacts, packets: PacketSet) -> dict[PacketField, Intervals]:
    """The addresses that are written, and those that packets of the direction have."""
    sources = destinations = everything(ADDRESS_BITS[known.family])
    if known.own is not None:
        sources, destinations = _of_direction(invariant.kind, known, packets)
    return {
        PacketField.SOURCE: _chosen(sources, invariant.source, invariant.not_source, known.family),
        PacketField.DESTINATION: _chosen(destinations, invariant.destination, invariant.not_destination, known.family),
    }


def _chosen(
    possible: Intervals, written: Sequence[AddressRange], excluded: Sequence[AddressRange], family: Family
) -> Intervals:
    """Those of the possible addresses that are written, if any are, and that are not excluded."""
    if written:
        possible = intersection(possible, _of_family(written, family))
    return intersection(possible, complement(_of_family(excluded, family), ADDRESS_BITS[family]))


def _of_direction(kind: InvariantKind, known: HostFacts, packets: PacketSet) -> tuple[Intervals, Intervals]:
    """The sources and the destinations that packets of a direction have on this host. It may get other addresses than
    it has now: what must never be accepted has any destination."""
    width, own = ADDRESS_BITS[known.family], known.own or ()
    loopback = LOOPBACK_NETWORK[known.family]
    groups = united((*MULTICAST[known.family], *known.broadcast))
    others = complement(united((*own, *loopback)), width)
    if packets.direction is Direction.INBOUND:
        return everything(width), {InvariantKind.NEVER: everything(width), InvariantKind.ALWAYS: own}[kind]
    if packets.direction is Direction.OUTBOUND:
        return own, everything(width)
    return others, intersection(others, complement(groups, width))


def _martians(known: HostFacts, packets: PacketSet) -> Iterator[Part]:
    """What the kernel does not take, whatever rules say (net/ipv4/route.c, net/ipv6/ip6_input.c)."""
    family, width = known.family, ADDRESS_BITS[known.family]
    loopback, own = LOOPBACK_NETWORK[family], united((*(known.own or ()), *LOOPBACK_NETWORK[family]))
    number = single(known.interfaces.number(_LOOPBACK))
    if packets.direction is not Direction.OUTBOUND:
        outside = Test(PacketField.IN, complement(number, 16))
        strange = united((*own, *UNSENDABLE[family], *known.broadcast))
        yield implies((outside,), Test(PacketField.SOURCE, complement(strange, width)))
        yield implies((outside,), Test(PacketField.DESTINATION, complement(loopback, width)))
        yield implies((Opposite(outside),), Test(PacketField.SOURCE, own))
    else:
        outside = Test(PacketField.OUT, complement(number, 16))
        yield implies((outside,), Test(PacketField.SOURCE, complement(loopback, width)))
        yield implies((outside,), Test(PacketField.DESTINATION, complement(own, width)))
        yield implies((Opposite(outside),), Test(PacketField.DESTINATION, own))
    single_hosts = Test(PacketField.DESTINATION, complement(united((*MULTICAST[family], *known.broadcast)), width))
    yield implies((Test(PacketField.PROTOCOL, united(((TCP, TCP), (SCTP, SCTP)))),), single_hosts)
