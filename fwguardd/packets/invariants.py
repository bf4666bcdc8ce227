"""Invariants of tests files: what must hold for every packet, not only for those that a test sends.

``never`` names packets none of which may be accepted, ``always`` packets that all have to be. The keys are those of
policy tests, where a network or a range stands for all addresses in it; and not_from and not_to, which leave addresses
out, and to_port, the port that a packet gets to behind DNAT. A key that is not there means every value, but for those
that say what begins a connection: see `Invariant`.

This module is pure.
"""

from __future__ import annotations

from dataclasses import field, replace
from enum import StrEnum
from ipaddress import ip_network
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from fwguardd.packets import case_values
from fwguardd.packets.case_values import PORT_PROTOCOLS
from fwguardd.packets.keys import Mistake, mapping, read_values
from fwguardd.packets.model import ConnectionState
from fwguardd.packets.policy_tests import family_of
from fwguardd.packets.yaml_tree import MapNode
from fwguardd.ruleset.model import FAMILIES, Family, Finding, Findings, Origin, Severity
from fwguardd.values import dataclass
from fwguardd.wording import quoted

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from fwguardd.packets.case_values import IcmpType
    from fwguardd.packets.keys import Readers
    from fwguardd.packets.yaml_tree import Node

KEYS: Final = (
    *("because", "family", "proto", "from", "not_from", "to", "not_to", "sport", "dport", "to_port", "in", "out"),
    *("icmp-type", "state", "uid", "gid", "mark", "flags"),
)
"""The keys of an invariant."""


NOT_CHECKED: Final = "no-proof"
"""The code of the finding that invariants were not checked."""
NO_NETWORK: Final = "the network of this host, or the rules, could not be read"
NO_SETS: Final = "the set files beside the rules could not be read"


class InvariantKind(StrEnum):
    """Whether none of the packets may be accepted, or all have to be."""

    NEVER = "never"
    ALWAYS = "always"


class AddressRange(NamedTuple):
    """Addresses of a family from the first to the last one, as numbers."""

    family: Family
    first: int
    last: int


PortRange = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Invariant:
    """An invariant as it is written: the values of each key, none where the key is not there.

    Without a ``state`` it is about packets that begin a connection. Packets without an interface are those that arrive
    from other hosts, for this one, or, with ``never``, through it. The families are those that its values permit.
    """

    kind: InvariantKind
    origin: Origin
    because: str = ""
    family: tuple[Family, ...] = FAMILIES
    proto: tuple[str, ...] = ()
    source: tuple[AddressRange, ...] = ()
    not_source: tuple[AddressRange, ...] = ()
    destination: tuple[AddressRange, ...] = ()
    not_destination: tuple[AddressRange, ...] = ()
    sport: tuple[PortRange, ...] = ()
    dport: tuple[PortRange, ...] = ()
    to_port: tuple[PortRange, ...] = ()
    in_interface: tuple[str, ...] = ()
    out_interface: tuple[str, ...] = ()
    icmp_type: tuple[IcmpType, ...] = ()
    state: tuple[ConnectionState, ...] = field(default=(ConnectionState.NEW,))
    uid: tuple[int, ...] = ()
    gid: tuple[int, ...] = ()
    mark: tuple[int, ...] = ()
    flags: tuple[frozenset[str], ...] = ()


_FIELDS: Final[Mapping[str, str]] = {
    "from": "source",
    "not_from": "not_source",
    "to": "destination",
    "not_to": "not_destination",
    "in": "in_interface",
    "out": "out_interface",
    "icmp-type": "icmp_type",
}


def is_invariant(node: Node) -> bool:
    """Whether an item of the list of tests is an invariant: it has the key never or always."""
    if not isinstance(node, MapNode):
        return False
    return any(key.text in tuple(InvariantKind) for key, _ in node.entries)


def read_invariant(path: str, node: Node, readers: Readers) -> Invariant:
    """The invariant of a node. ``readers`` are those of the keys of policy tests. Raises Mistake."""
    found = mapping(node, tuple(InvariantKind), "an invariant", 'expected "never:" or "always:"')
    if len(found) > 1:
        raise Mistake(node.line, "never and always are two invariants", "write each after a dash of its own")
    kind, inner = next(iter(found.items()))
    fields: dict[str, Any] = {}
    own = {**readers, **dict.fromkeys(_ADDRESS_KEYS, _addresses), **dict.fromkeys(_PORT_KEYS, _ports)}
    for key, value in mapping(inner, KEYS, kind, f'expected "key: value" in {kind}').items():
        fields[_FIELDS.get(key, key)] = read_values(key, value, own[key])
    fields["because"] = "".join(fields.get("because", ()))
    invariant = Invariant(InvariantKind(kind), Origin(path, node.line), **fields)
    _check(invariant)
    return _limited(invariant)


_ADDRESS_KEYS: Final = ("from", "not_from", "to", "not_to")
_PORT_KEYS: Final = ("sport", "dport", "to_port")


def _addresses(text: str) -> tuple[AddressRange]:
    """An address, a network or a range. Raises ValueError."""
    if "/" in text:
        return (_network(text),)
    first, dash, last = text.partition("-")
    low = case_values.addresses(first)[0]
    if not dash:
        return (AddressRange(family_of(low), int(low), int(low)),)
    high = case_values.addresses(last)[0]
    if low.version != high.version or int(low) > int(high):
        raise ValueError(f"the range {quoted(text)} is empty, or of two families")
    return (AddressRange(family_of(low), int(low), int(high)),)


def _network(text: str) -> AddressRange:
    try:
        network = ip_network(text)
    except ValueError as error:
        reason = str(error).removeprefix(repr(text)).strip()[:80]
        raise ValueError(f"{quoted(text)} is not a network: {reason}") from error
    first = network.network_address
    return AddressRange(family_of(first), int(first), int(first) + network.num_addresses - 1)


def _ports(text: str) -> tuple[PortRange]:
    """A port, or a range of them. Raises ValueError."""
    numbers = case_values.ports(text)
    return ((numbers[0], numbers[-1]),)


def _check(invariant: Invariant) -> None:
    """Raises Mistake."""
    line = invariant.origin.line
    protocols = frozenset(invariant.proto or ("any",))
    if _ports_of(invariant) and not protocols <= PORT_PROTOCOLS:
        raise Mistake(line, "ports go with proto: tcp, udp and sctp only")
    if invariant.icmp_type and not protocols <= _ICMP:
        raise Mistake(line, "icmp-type goes with proto: icmp and icmpv6 only")
    if invariant.flags and protocols != _TCP:
        raise Mistake(line, "flags go with proto: tcp only")
    _check_owner(invariant)


def _ports_of(invariant: Invariant) -> tuple[PortRange, ...]:
    return (*invariant.sport, *invariant.dport, *invariant.to_port)


def _check_owner(invariant: Invariant) -> None:
    """Raises Mistake."""
    is_sent_here = invariant.out_interface and not invariant.in_interface
    if (invariant.uid or invariant.gid) and not is_sent_here:
        message = "uid and gid are those of a program of this host that sends a packet"
        raise Mistake(invariant.origin.line, message, "write out, not in")


_ICMP: Final = frozenset({"icmp", "icmpv6"})
_TCP: Final = frozenset({"tcp"})


def _limited(invariant: Invariant) -> Invariant:
    """The invariant with the families that its values have. Raises Mistake where none is left."""
    families = set(invariant.family)
    for ranges in filter(None, (invariant.source, invariant.destination)):
        families.intersection_update(map(attrgetter("family"), ranges))
    families &= _of_protocols(invariant.proto)
    if not families:
        raise Mistake(invariant.origin.line, "the families do not fit together", "write one invariant for each family")
    wanted = tuple(filter(families.__contains__, FAMILIES))
    return replace(invariant, family=wanted)


def _of_protocols(names: Iterable[str]) -> set[Family]:
    found: set[Family] = set()
    for name in names or ("any",):
        if name != "icmpv6":
            found.add(Family.IPV4)
        if name != "icmp":
            found.add(Family.IPV6)
    return found


def not_checked(invariants: Iterable[Invariant], why: str, *, undecided_fails: bool) -> Findings:
    """The finding that no invariant was checked, at the first one; nothing where there is none."""
    first = next(iter(invariants), None)
    if first is None:
        return Findings()
    severity = {True: Severity.ERROR, False: Severity.WARNING}[undecided_fails]
    message = f"never and always were not checked, here and in the lines below: {why}"
    return Findings([Finding(NOT_CHECKED, message, first.origin, severity)])
