"""The packet of an answer: as one that can be sent, in words, and with the rule that decides about it.

This module is pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING, Final

from fwguardd.packets.model import TCP_FLAGS, ConnectionState, Direction, Packet, Verdict
from fwguardd.packets.packet_words import packet_in_words
from fwguardd.proof.fields import (
    ESTABLISHED,
    ICMP,
    ICMPV6,
    INVALID,
    NEW,
    NO_OWNER,
    RELATED,
    SCTP,
    TCP,
    UDP,
    UNTRACKED,
    PacketField,
    packet_variables,
)
from fwguardd.proof.formulas import both
from fwguardd.proof.parts import RuleEffect
from fwguardd.proof.traversal import traverse
from fwguardd.ruleset.model import Family

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from fwguardd.proof.answers import Values
    from fwguardd.proof.fields import HostFacts
    from fwguardd.proof.formulas import Variable
    from fwguardd.proof.packet_sets import PacketSet
    from fwguardd.proof.reading import ReadTables
    from fwguardd.proof.traversal import Outcome
    from fwguardd.proof.walk import Meeting, Visit
    from fwguardd.ruleset.model import Origin, Rule

_PROTOCOLS: Final = {TCP: "tcp", UDP: "udp", SCTP: "sctp"}
_ICMP: Final = {(Family.IPV4, ICMP): "icmp", (Family.IPV6, ICMPV6): "icmpv6"}
_STATES: Final = {
    NEW: ConnectionState.NEW,
    ESTABLISHED: ConnectionState.ESTABLISHED,
    RELATED: ConnectionState.RELATED,
    UNTRACKED: ConnectionState.UNTRACKED,
    INVALID: ConnectionState.NEW,
}


def protocol_text(number: int, family: Family) -> str:
    """The name of a protocol of packets, or its number as text."""
    return _ICMP.get((family, number)) or _PROTOCOLS.get(number) or str(number)


def packet_of(fields: Mapping[PacketField, int], known: HostFacts, direction: Direction) -> Packet:
    """The packet with these numbers in its fields. One whose state is INVALID is made as a new one: the kernel sees
    itself that it can belong to no connection."""
    protocol = fields[PacketField.PROTOCOL]
    name = protocol_text(protocol, known.family)
    has_ports = protocol in _PROTOCOLS
    return Packet(
        known.family,
        name,
        _address(fields[PacketField.SOURCE], known.family),
        _address(fields[PacketField.DESTINATION], known.family),
        _if(has_ports, fields[PacketField.SPORT]),
        _if(has_ports, fields[PacketField.DPORT]),
        *_interfaces(fields, known, direction),
        _STATES[fields[PacketField.STATE]],
        _if(name in _ICMP.values(), fields[PacketField.TYPE]),
        fields[PacketField.CODE] * (name in _ICMP.values()),
        _flags(fields[PacketField.FLAGS]),
        *_owner(fields, direction),
        mark=fields[PacketField.MARK],
    )


def _if(condition: bool, number: int) -> int | None:  # noqa: FBT001 - a value, not a switch.
    if condition:
        return number
    return None


def _address(number: int, family: Family) -> IPv4Address | IPv6Address:
    if family is Family.IPV4:
        return IPv4Address(number)
    return IPv6Address(number)


def _interfaces(
    fields: Mapping[PacketField, int], known: HostFacts, direction: Direction
) -> tuple[str | None, str | None]:
    """The interfaces by which the packet comes in and leaves."""
    names = known.interfaces.names
    came_in, leaves = names[fields[PacketField.IN]], names[fields[PacketField.OUT]]
    if direction is Direction.INBOUND:
        return came_in, None
    if direction is Direction.OUTBOUND:
        return None, leaves
    return came_in, leaves


def _flags(bits: int) -> frozenset[str]:
    return frozenset(name for place, name in enumerate(TCP_FLAGS) if bits >> place & 1)


def _owner(fields: Mapping[PacketField, int], direction: Direction) -> tuple[int | None, int | None]:
    if direction is not Direction.OUTBOUND:
        return None, None
    return tuple(_if(fields[name] < NO_OWNER, fields[name]) for name in (PacketField.UID, PacketField.GID))  # type: ignore[return-value]


@dataclass(frozen=True, slots=True)
class Decided:
    """What the model says of one packet: the verdict, and the rule or policy that made it. ``rule`` is None for a
    policy, ``chain`` is "" where nothing of the ruleset is met."""

    verdict: Verdict
    table: str = ""
    chain: str = ""
    position: int | None = None
    rule: Rule | None = None
    origin: Origin | None = None

    @property
    def words(self) -> str:
        """The rule as it is in the ruleset, or the policy, with its place."""
        if not self.chain:
            return "no rule or policy"
        place = f"-t {self.table} ".replace("-t filter ", "")
        text = f"the policy of {place}{self.chain}"
        if self.rule is not None:
            text = f'"{place}-A {self.chain} {self.rule.text}"'
        if self.origin is None:
            return text
        return f"{text} at {self.origin}"


@dataclass(frozen=True, slots=True)
class Witness:
    """A packet that shows an answer, with what the model says of it. Packets whose state is INVALID have the state
    "new" here: no test can name the other."""

    packet: Packet
    is_invalid: bool
    decided: Decided

    @property
    def words(self) -> str:
        """The packet in words."""
        words = packet_in_words(self.packet)
        if self.is_invalid:
            return f"{words} (of no connection: INVALID)"
        return words


def witness_of(rules: ReadTables, packets: PacketSet, values: Values, known: HostFacts) -> Witness:
    """The packet with these values, with what a ruleset does with it if the free parts are as they are there."""
    packet = packet_of(values.fields, known, packets.direction)
    return Witness(packet, values.fields[PacketField.STATE] == INVALID, decided(rules, packets, values, known))


def decided(rules: ReadTables, packets: PacketSet, values: Values, known: HostFacts) -> Decided:
    """What a ruleset does with a packet, if the free parts are as they are in these values. Free parts that have none
    there are taken as 0."""
    outcome = _point_outcome(rules, packets, values, known)
    for verdict, formula in (
        (Verdict.ACCEPT, outcome.accept),
        (Verdict.DROP, outcome.drop),
        (Verdict.REJECT, outcome.reject),
    ):
        if formula is True:
            return _by(verdict, outcome)
    raise AssertionError("a packet with all its values has a verdict")


def _point_outcome(rules: ReadTables, packets: PacketSet, values: Values, known: HostFacts) -> Outcome:
    """What becomes of one packet: each formula of it is True or False."""
    variables = packet_variables(known.family)
    point: dict[Variable, int] = {variables[name]: number for name, number in values.fields.items()}
    scope = packets.scope(known.family).fixed({**point, **values.free})
    scope.default_free = 0
    return traverse(rules, packets.direction, scope, known)


def rules_met(rules: ReadTables, packets: PacketSet, values: Values, known: HostFacts) -> Iterator[Decided]:
    """The rules that match a packet, in the order in which it meets them, whatever they do with it. The verdict is that
    of the packet in the end."""
    verdict = decided(rules, packets, values, known).verdict
    for visit in _point_outcome(rules, packets, values, known).visits:
        if visit.entered() is True:
            for meeting in visit.meetings:
                if both(meeting.comes, meeting.matches) is True:
                    rule = meeting.rule
                    yield Decided(verdict, visit.table, visit.chain, rule.position, rule.rule, rule.rule.origin)


def _by(verdict: Verdict, outcome: Outcome) -> Decided:
    """The last rule or policy that made this verdict; of those that accept, that of the table filter."""
    found = [one for one in _deciding(outcome.visits) if one.verdict is verdict]
    if not found:
        return Decided(verdict)
    if verdict is Verdict.ACCEPT:
        return next((one for one in reversed(found) if one.table == "filter"), found[-1])
    return found[-1]


_VERDICTS: Final = {
    RuleEffect.ACCEPT: (Verdict.ACCEPT,),
    RuleEffect.DNAT: (Verdict.ACCEPT,),
    RuleEffect.DROP: (Verdict.DROP,),
    RuleEffect.REJECT: (Verdict.REJECT,),
    **dict.fromkeys((RuleEffect.PROGRAM, RuleEffect.UNKNOWN), (Verdict.ACCEPT, Verdict.DROP)),
}
"""What a rule that a packet meets may have done with it. Of the last two the verdict of the packet says which."""


def _deciding(visits: Iterable[Visit]) -> Iterator[Decided]:
    """The rules and policies that the packet of a point scope met, and that ended its way in a table."""
    for visit in visits:
        entered = visit.entered()
        if entered is not True:
            continue
        for meeting in visit.meetings:
            yield from _ended_by(visit, meeting)
        if visit.policy and visit.passage is not None and visit.passage.returns is True:
            yield Decided(Verdict(visit.policy.lower()), visit.table, visit.chain, origin=visit.origin)


def _ended_by(visit: Visit, meeting: Meeting) -> Iterator[Decided]:
    rule = meeting.rule
    if both(meeting.comes, meeting.matches) is not True:
        return
    verdicts = _VERDICTS.get(rule.meaning.target.effect, ())
    for verdict in verdicts:
        yield Decided(verdict, visit.table, visit.chain, rule.position, rule.rule, rule.rule.origin)
