"""Kinds of packets, and whether they meet the conditions of a rule.

A packet here stands for many: a new TCP connection from anywhere to a port that no rule names, a reply to a connection
of this host, a packet on loopback. Whether a rule matches it is therefore one of four answers: a rule for one address
rarely matches it, and a rule for all but one address usually does.

This module is pure.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING

from fwguardd.ruleset.conditions import states_of
from fwguardd.ruleset.values import PortRange, read_ports
from fwguardd.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from fwguardd.ruleset.conditions import Condition
    from fwguardd.ruleset.read_rules import RuleKind
    from fwguardd.ruleset.values import Network


class Certainty(IntEnum):
    """Whether the packets of a kind meet a condition."""

    NEVER = 0
    RARELY = 1
    USUALLY = 2
    ALWAYS = 3

    def negated(self) -> Certainty:
        """The answer to the opposite condition."""
        return Certainty(Certainty.ALWAYS - self)


def _yes_or_no(yes: object) -> Certainty:
    if yes:
        return Certainty.ALWAYS
    return Certainty.NEVER


_EPHEMERAL = PortRange(32_768, 60_999)
"""The ports that Linux gives to clients (ip_local_port_range, ip(7))."""

_LAST_PRIVILEGED = 1_023
_REAL_STATES = frozenset({"NEW", "ESTABLISHED", "RELATED", "INVALID", "UNTRACKED"})


def _is_no_sign(_condition: Condition) -> bool:
    return False


@dataclass(frozen=True, slots=True)
class SamplePacket:
    """A kind of packet.

    ``state`` is its state for conntrack. ``is_sign`` says of a condition whether a rule with it is meant for packets of
    this kind: then the rule counts, although it is for some of them only.
    """

    protocol: str
    state: str = "NEW"
    is_loopback: bool = False
    icmp_types: tuple[str, ...] = ()
    is_sign: Callable[[Condition], bool] = _is_no_sign

    @property
    def is_reply(self) -> bool:
        """Whether it belongs to a connection that the other side did not begin."""
        return self.state == "ESTABLISHED"


def matches(kind: RuleKind, packet: SamplePacket) -> Certainty:
    """Whether these packets meet all conditions of the rules of a kind."""
    answer = Certainty.ALWAYS
    for condition in kind.conditions:
        answer = min(answer, meets(condition, packet))
        if answer is Certainty.NEVER:
            break
    return answer


def meets(condition: Condition, packet: SamplePacket) -> Certainty:
    """Whether the packets of this kind meet one condition."""
    if condition.name == "--mac-source":
        return _from_ethernet(packet)
    answer = _KINDS.get(condition.name, _special)(condition, packet)
    if condition.negated:
        return answer.negated()
    return answer


def _from_ethernet(packet: SamplePacket) -> Certainty:
    """The match ``mac`` fails for loopback, negated or not (net/netfilter/xt_mac.c). One address elsewhere may be that
    of the gateway, from which all packets come."""
    if packet.is_loopback:
        return Certainty.NEVER
    return Certainty.RARELY


def _special(_condition: Condition, _packet: SamplePacket) -> Certainty:
    """A condition that is not known here is one for special packets."""
    return Certainty.RARELY


def _protocol(condition: Condition, packet: SamplePacket) -> Certainty:
    return _yes_or_no(condition.value == packet.protocol)


def _matches_loopback(interface: str) -> bool:
    """Whether the name of an interface, or the beginning of one before a +, is that of the loopback interface."""
    return interface == "lo" or (interface.endswith("+") and "lo".startswith(interface[:-1]))


def _interface(condition: Condition, packet: SamplePacket) -> Certainty:
    name = condition.value
    if name == "+":
        return Certainty.ALWAYS
    is_loopback = _matches_loopback(name)
    if packet.is_loopback:
        return _yes_or_no(is_loopback)
    if is_loopback:
        return Certainty.NEVER
    return Certainty.RARELY


def is_loopback_network(network: Network) -> bool:
    """Whether all addresses of a network are those of loopback."""
    if network.version == 6:
        return network.base == "::1"
    return network.base.startswith("127.") and network.bits >= 8


def _address(condition: Condition, packet: SamplePacket) -> Certainty:
    networks = condition.networks
    if not networks:
        return Certainty.RARELY  # A host name.
    return max(_in_network(network, packet) for network in networks)


def _in_network(network: Network, packet: SamplePacket) -> Certainty:
    if network.is_everything:
        return Certainty.ALWAYS
    if packet.is_loopback:
        return _yes_or_no(is_loopback_network(network))
    return min(Certainty.RARELY, _yes_or_no(not is_loopback_network(network)))


def _destination_port(condition: Condition, packet: SamplePacket) -> Certainty:
    if _has_all_ports(condition):
        return Certainty.ALWAYS
    if packet.is_reply:
        return _yes_or_no(_covers_ephemeral(condition))
    return Certainty.RARELY


def _source_port(condition: Condition, packet: SamplePacket) -> Certainty:
    if _has_all_ports(condition):
        return Certainty.ALWAYS
    if packet.is_reply:
        return min(Certainty.RARELY, _yes_or_no(_has_service_port(condition)))
    if _covers_ephemeral(condition):
        return Certainty.USUALLY
    return Certainty.RARELY


def _either_port(condition: Condition, packet: SamplePacket) -> Certainty:
    return max(_destination_port(condition, packet), _source_port(condition, packet))


def _has_all_ports(condition: Condition) -> bool:
    return any(ports.is_everything for ports in read_ports(condition.value))


def _covers_ephemeral(condition: Condition) -> bool:
    return any(ports.covers(_EPHEMERAL) for ports in read_ports(condition.value))


def _has_service_port(condition: Condition) -> bool:
    return any(ports.first == ports.last or ports.first <= _LAST_PRIVILEGED for ports in read_ports(condition.value))


def _state(condition: Condition, packet: SamplePacket) -> Certainty:
    states = states_of(condition.value)
    if packet.state in states:
        return Certainty.ALWAYS
    if states <= _REAL_STATES:
        return Certainty.NEVER
    return Certainty.RARELY


_NEW_FLAGS = frozenset({"SYN"})
_REPLY_FLAGS = (frozenset({"SYN", "ACK"}), frozenset({"ACK"}), frozenset({"PSH", "ACK"}))


def _flags(condition: Condition, packet: SamplePacket) -> Certainty:
    """--tcp-flags MASK SET, of the first packet of a connection or of replies."""
    if len(condition.values) < 2:
        return Certainty.RARELY
    mask, wanted = frozenset(condition.values[0].split(",")), frozenset(condition.values[1].split(","))
    if not packet.is_reply:
        return _yes_or_no(_NEW_FLAGS & mask == wanted & mask)
    return _flags_of_replies(mask, wanted)


def _flags_of_replies(mask: frozenset[str], wanted: frozenset[str]) -> Certainty:
    found = {flags & mask == wanted & mask for flags in _REPLY_FLAGS}
    if len(found) > 1:
        return Certainty.RARELY
    return _yes_or_no(found == {True})


def _icmp_type(condition: Condition, packet: SamplePacket) -> Certainty:
    if not packet.icmp_types:
        return Certainty.RARELY
    value = condition.value.lower()
    if value.partition("/")[0] in packet.icmp_types:
        return Certainty.ALWAYS
    return _yes_or_no(len(value) > 2 and any(name.startswith(value) for name in packet.icmp_types))


def _hop_limit(condition: Condition, packet: SamplePacket) -> Certainty:
    """Packets of neighbour discovery have the hop limit 255 (RFC 4861, 7.1)."""
    if not packet.icmp_types:
        return Certainty.RARELY
    return _yes_or_no(condition.value == "255")


def _address_type(condition: Condition, packet: SamplePacket) -> Certainty:
    """Kinds of addresses: packets here are for this host, and from it only on loopback."""
    kind = condition.value.upper()
    if condition.name == "--src-type" and kind == "LOCAL":
        return _yes_or_no(packet.is_loopback)
    if kind == "UNICAST" or (kind == "LOCAL" and condition.name == "--dst-type"):
        return Certainty.USUALLY
    return Certainty.RARELY


def _packet_type(condition: Condition, _packet: SamplePacket) -> Certainty:
    if condition.value in ("host", "unicast"):
        return Certainty.USUALLY
    return Certainty.RARELY


def _policy(condition: Condition, _packet: SamplePacket) -> Certainty:
    if condition.value == "none":
        return Certainty.USUALLY
    return Certainty.RARELY


_KINDS: Mapping[str, Callable[[Condition, SamplePacket], Certainty]] = {
    "-p": _protocol,
    **dict.fromkeys(("-i", "-o"), _interface),
    **dict.fromkeys(("-s", "-d"), _address),
    "--dport": _destination_port,
    "--sport": _source_port,
    "--ports": _either_port,
    "--ctstate": _state,
    "--tcp-flags": _flags,
    "--icmpv6-type": _icmp_type,
    "--hl-eq": _hop_limit,
    **dict.fromkeys(("--src-type", "--dst-type"), _address_type),
    "--pkt-type": _packet_type,
    "--pol": _policy,
    "--dir": lambda _condition, _packet: Certainty.ALWAYS,
}
