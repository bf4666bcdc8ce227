"""The nouns of a proof by packets: a packet, the steps that it takes through the tables, and its journey.

A `Packet` says what is sent; a `Journey` says what the running kernel did with it in a bed, a rehearsal namespace that
has the interfaces, addresses and routes of a host; an `Undecided` says why a bed cannot answer for a packet. A verdict
is never guessed.

This module is pure.
"""

from __future__ import annotations

from enum import Enum, StrEnum
from typing import TYPE_CHECKING

from fwguardd.values import dataclass

if TYPE_CHECKING:
    from ipaddress import IPv4Address, IPv6Address

    from fwguardd.ruleset.model import Family


class Verdict(StrEnum):
    """What becomes of a packet."""

    ACCEPT = "accept"
    DROP = "drop"
    REJECT = "reject"


class ConnectionState(StrEnum):
    """The state of the connection that a packet belongs to (iptables-extensions(8), "conntrack")."""

    NEW = "new"
    ESTABLISHED = "established"
    RELATED = "related"
    UNTRACKED = "untracked"


class Direction(Enum):
    """Which of the chains INPUT, OUTPUT and FORWARD a packet is sent to."""

    INBOUND = "inbound"
    OUTBOUND = "outbound"
    FORWARDED = "forwarded"


SYN = frozenset({"SYN"})
"""The flags of the first packet of a TCP connection."""

TCP_FLAGS = ("FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR")
"""The flags of TCP by bit, from the lowest (RFC 9293)."""


@dataclass(frozen=True, slots=True)
class Packet:
    """One packet that is sent through a ruleset.

    ``protocol`` is "tcp", "udp", "icmp", "icmpv6" or "sctp", or a number from 0 to 255 as text. A packet with only
    ``in_interface`` is inbound, with only ``out_interface`` outbound, with both forwarded. ``flags`` are those of TCP,
    from `TCP_FLAGS`. ``uid`` and ``gid`` are those of the socket that sends it, so only of an outbound packet; None
    means root. ``fragment`` means that the packet is sent in two fragments; it is accepted if both are.
    """

    family: Family
    protocol: str
    source: IPv4Address | IPv6Address
    destination: IPv4Address | IPv6Address
    source_port: int | None = None
    destination_port: int | None = None
    in_interface: str | None = None
    out_interface: str | None = None
    state: ConnectionState = ConnectionState.NEW
    icmp_type: int | None = None
    icmp_code: int = 0
    flags: frozenset[str] = SYN
    uid: int | None = None
    gid: int | None = None
    mark: int = 0
    fragment: bool = False

    @property
    def direction(self) -> Direction:
        """Inbound, outbound or forwarded, by its interfaces. One without an interface is inbound."""
        if self.out_interface is None:
            return Direction.INBOUND
        if self.in_interface is None:
            return Direction.OUTBOUND
        return Direction.FORWARDED


@dataclass(frozen=True, slots=True)
class PacketView:
    """What a packet looked like at a step, as far as the trace shows it: NAT and routing change it on its way.

    ``mark`` is that of the packet. None is a value that the trace does not have.
    """

    source: IPv4Address | IPv6Address | None = None
    destination: IPv4Address | IPv6Address | None = None
    source_port: int | None = None
    destination_port: int | None = None
    in_interface: str | None = None
    out_interface: str | None = None
    mark: int | None = None


UNKNOWN_VIEW = PacketView()


@dataclass(frozen=True, slots=True)
class Step:
    """One message of a trace: a rule that matched, or the policy of a base chain.

    ``position`` counts the rules of the chain from 1, as ``iptables -L --line-numbers`` does; None is the policy.
    ``outcome`` is "continue", "accept", "drop", "reject", "queue", "return", "jump CHAIN" or "goto CHAIN".
    """

    table: str
    chain: str
    position: int | None
    outcome: str
    packet: PacketView = UNKNOWN_VIEW


@dataclass(frozen=True, slots=True)
class Journey:
    """What the kernel did with one packet.

    ``routed`` is where routing sent it: "local", the name of an interface, "no route", "forwarding is off", "invalid
    address" (one that must not come from outside), or "reverse path" for a packet whose source address is not reached
    by the interface that it came in by (rp_filter). It is "" where no routing decision was made, since a rule ended the
    packet before. ``deciding`` is the step that ended it, or the last rule or
    policy that accepted it; None where no rule was met.
    """

    packet: Packet
    steps: tuple[Step, ...]
    verdict: Verdict
    routed: str
    deciding: Step | None


@dataclass(frozen=True, slots=True)
class Undecided:
    """A packet for which a bed cannot answer, and why.

    ``because`` names the match or the fact that a bed does not have, for a message. ``step`` is the rule to blame, with
    the outcome "continue"; None where no rule is.
    """

    packet: Packet
    because: str
    step: Step | None = None
