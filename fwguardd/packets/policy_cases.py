"""Policy tests -> the packets that each sends, on a host with these interfaces.

A test may leave open what the host decides. ``to`` is then the address of the host, for a packet that arrives. ``from``
of a packet that arrives and ``to`` of one that leaves are another address in the network of the interface, which is
routed through it on every host. What a test names and the host lacks, an interface or an address, is assumed to be
there, and a warning says so (`fwguardd.packets.surroundings`).

This module is pure.
"""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, TypeVar

from fwguardd.packets.case_values import ECHO_REQUEST, MOST_PACKETS, PORT_PROTOCOLS
from fwguardd.packets.model import ConnectionState, Packet
from fwguardd.packets.surroundings import LOOPBACK, LOOPBACKS, OWN, Surroundings, neighbour, of_family, own_address
from fwguardd.ruleset.model import Family, Findings, Severity
from fwguardd.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from fwguardd.packets.case_values import Address
    from fwguardd.packets.policy_tests import PolicyTest
    from fwguardd.packets.surroundings import Assumptions, Interface, Reached

_Value = TypeVar("_Value")
_ACK = frozenset({"ACK"})
_SYN = frozenset({"SYN"})
_CLIENT_PORT = 49_152
"""The source port where none is named: the first of those that IANA leaves to clients."""


@dataclass(frozen=True, slots=True)
class Case:
    """A test and its packets, each of which has to meet the verdict that the test expects."""

    test: PolicyTest
    packets: tuple[Packet, ...]


@dataclass(frozen=True, slots=True)
class Cases:
    """The cases of all tests. A finding that is an error stands for a test that has none."""

    cases: tuple[Case, ...]
    assumptions: Assumptions
    findings: Findings

    @property
    def packets(self) -> list[Packet]:
        """All packets, in the order of the cases."""
        found: list[Packet] = []
        for case in self.cases:
            found += case.packets
        return found


def cases_of(
    tests: Sequence[PolicyTest], interfaces: Mapping[str, tuple[Interface, ...]], reached: Reached | None = None
) -> Cases:
    """The cases of these tests on a host with these interfaces; it reaches other hosts by those ``reached``."""
    surroundings = Surroundings(dict(interfaces), reached)
    cases: list[Case] = []
    left = MOST_PACKETS
    for test in tests:
        surroundings.prepare(test)
        way = _Way(test, surroundings)
        count = way.count()
        if count > left:
            surroundings.note(test, _too_many(count, left), Severity.ERROR, "name fewer values, or shorter ranges")
            continue
        left -= count
        cases.append(Case(test, tuple(way.packets())))
    return Cases(tuple(cases), surroundings.assumptions(), Findings(surroundings.findings))


def _too_many(count: int, left: int) -> str:
    if left == MOST_PACKETS:
        return f"the test sends {count:,} packets; {MOST_PACKETS:,} are permitted"
    return f"the test sends {count:,} packets, and all tests together may send {MOST_PACKETS:,}"


@dataclass(frozen=True, slots=True)
class _Way:
    """How one test becomes packets."""

    test: PolicyTest
    surroundings: Surroundings

    @property
    def interfaces(self) -> Mapping[str, tuple[Interface, ...]]:
        """The interfaces, with those that are assumed."""
        return self.surroundings.interfaces

    def count(self) -> int:
        """The number of its packets."""
        test, total = self.test, 0
        others = (test.state, test.uid, test.gid, test.mark, test.flags)
        each = math.prod(max(len(values), 1) for values in others)
        for family, proto in self._protocols():
            sport, dport = self._ports(proto)
            ends = len(self._ends(test.in_interface, family)) * len(self._ends(test.out_interface, family))
            sources, destinations = of_family(test.source, family), of_family(test.destination, family)
            addresses = max(len(sources), 1) * max(len(destinations), 1)
            total += each * ends * addresses * len(sport) * len(dport) * len(self._messages(family, proto))
        return total

    def _protocols(self) -> Iterator[tuple[Family, str]]:
        """The families and protocols that go together."""
        for family, proto in itertools.product(self.test.family, self.test.proto):
            if (proto, family) not in (("icmp", Family.IPV6), ("icmpv6", Family.IPV4)):
                yield family, proto

    def packets(self) -> Iterator[Packet]:
        """The packets, in the order of the values."""
        test = self.test
        for family, proto in self._protocols():
            ins, outs = self._ends(test.in_interface, family), self._ends(test.out_interface, family)
            for came_in, goes_out in itertools.product(ins, outs):
                yield from self._of_protocol(family, proto, came_in, goes_out)

    def _ends(self, patterns: Sequence[str], family: Family) -> Sequence[str | None]:
        """The interfaces at one end of the way; one that is None where the test names none."""
        if not patterns:
            return (None,)
        return self.surroundings.matching(patterns, family)

    def _of_protocol(self, family: Family, proto: str, came_in: str | None, goes_out: str | None) -> Iterator[Packet]:
        test = self.test
        sport, dport = self._ports(proto)
        for source, destination, from_port, to_port, message, state, uid, gid, mark, flags in itertools.product(
            self._sources(family, came_in, goes_out),
            self._destinations(family, came_in, goes_out),
            sport,
            dport,
            self._messages(family, proto),
            test.state,
            _or_none(test.uid),
            _or_none(test.gid),
            test.mark,
            _or_none(test.flags),
        ):
            yield Packet(
                family,
                proto,
                source,
                destination,
                from_port,
                to_port,
                came_in,
                goes_out,
                state,
                *message,
                _flags(flags, state),
                uid,
                gid,
                mark,
                test.fragment,
            )

    def _ports(self, proto: str) -> tuple[Sequence[int | None], Sequence[int | None]]:
        if proto not in PORT_PROTOCOLS:
            return (None,), (None,)
        return self.test.sport or (_CLIENT_PORT,), self.test.dport

    def _messages(self, family: Family, proto: str) -> Sequence[tuple[int | None, int]]:
        """The types and codes of ICMP; for another protocol none, and the code 0."""
        if proto not in ("icmp", "icmpv6"):
            return ((None, 0),)
        named = [message[1:] for message in self.test.icmp_type if message[0] is family]
        return named or (ECHO_REQUEST[family][1:],)

    def _sources(self, family: Family, came_in: str | None, goes_out: str | None) -> Sequence[Address]:
        named = of_family(self.test.source, family)
        if named:
            return named
        if came_in is not None:
            return (neighbour(self.interfaces, came_in, family),)
        return (self._own(goes_out or "", family),)

    def _destinations(self, family: Family, came_in: str | None, goes_out: str | None) -> Sequence[Address]:
        named = of_family(self.test.destination, family)
        if named:
            return named
        if goes_out is not None:
            return (neighbour(self.interfaces, goes_out, family),)
        return (self._own(came_in or "", family),)

    def _own(self, name: str, family: Family) -> Address:
        if name == LOOPBACK:
            return LOOPBACKS[family]
        found = own_address(self.interfaces, name, family)
        if found is None:
            return OWN[family].ip
        return found.ip


def _or_none(values: Sequence[_Value]) -> Sequence[_Value | None]:
    """The values; one that is None where there are none."""
    return values or (None,)


def _flags(named: frozenset[str] | None, state: ConnectionState) -> frozenset[str]:
    if named is not None:
        return named
    if state in (ConnectionState.NEW, ConnectionState.UNTRACKED):
        return _SYN
    return _ACK
