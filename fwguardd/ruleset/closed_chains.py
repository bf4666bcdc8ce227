"""Chains that drop all packets which no rule accepts, and what they accept nevertheless.

A chain is closed if a new connection from anywhere, to a port that no rule names, is dropped, by the policy or by a
rule, in this chain or in one that it leads to. A chain whose policy no file states is not closed by it.

This module is pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fwguardd.ruleset.conditions import states_of
from fwguardd.ruleset.reachability import End, ReadRuleset, may_accept, usual_end
from fwguardd.ruleset.sample_packets import SamplePacket, is_loopback_network
from fwguardd.ruleset.values import read_ports
from fwguardd.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from fwguardd.ruleset.conditions import Condition
    from fwguardd.ruleset.model import Chain, Origin
    from fwguardd.ruleset.read_rules import ReadRule

PROTOCOLS = ("tcp", "udp")
_WIDE = 1_000
"""Ports of a range that is meant for clients, rather than for a service."""
_SOLICITATION = ("135", "neighbour-solicitation", "neighbor-solicitation")
_ADVERTISEMENT = ("136", "neighbour-advertisement", "neighbor-advertisement")


def first_origin(chain: Chain) -> Origin | None:
    """Where the chain is declared, or else where its first rule is."""
    if chain.origin is None and chain.rules:
        return chain.rules[0].origin
    return chain.origin


def _is_for_replies(condition: Condition) -> bool:
    """Whether a rule with this condition is meant for replies: by the state of the connection, by the flags of TCP, by
    the port that a reply comes from or the range that it goes to."""
    if condition.name == "--dport":
        return any(ports.last - ports.first > _WIDE for ports in read_ports(condition.value))
    return condition.name == "--tcp-flags" or (condition.name in ("--ctstate", "--sport") and not condition.negated)


def _is_for_established(rule: ReadRule) -> bool:
    return any("ESTABLISHED" in states_of(one.value) for one in rule.kind.conditions if one.name == "--ctstate")


def _is_for_loopback(condition: Condition) -> bool:
    if condition.negated:
        return False
    if condition.name in ("-i", "-o"):
        return condition.value == "lo"
    return condition.name in ("-s", "-d") and any(is_loopback_network(network) for network in condition.networks)


def _is_for_neighbours(condition: Condition) -> bool:
    return condition.name in ("-i", "-o", "-s", "-p") and not condition.negated


def _dropped(ruleset: ReadRuleset, chain: Chain) -> dict[str, End | None]:
    """The protocols whose new connections are dropped, each with the rule that does it, or None for the policy."""
    dropped: dict[str, End | None] = {}
    for protocol in PROTOCOLS:
        end = usual_end(ruleset.kinds, chain.name, SamplePacket(protocol))
        result = chain.policy
        if end is not None:
            result = end.result
        if result == "DROP":
            dropped[protocol] = end
    return dropped


@dataclass(frozen=True, slots=True)
class ClosedChain:
    """A chain that drops packets which no rule accepts. ``protocols`` are those whose new connections are dropped, and
    ``end`` is the rule that drops them; None for the policy. With the policy DROP all new connections may be accepted:
    then ``drops_new`` is False, and all protocols are looked at."""

    ruleset: ReadRuleset
    chain: Chain
    protocols: tuple[str, ...]
    end: End | None
    drops_new: bool

    @classmethod
    def of(cls, ruleset: ReadRuleset, name: str) -> ClosedChain | None:
        """The chain of this name, if it is closed."""
        chain = ruleset.chains[name]
        found = cls._of(ruleset, chain, _dropped(ruleset, chain))
        # A chain of policy ACCEPT in which a rule drops all UDP is not closed.
        if chain.policy != "DROP" and len(found.protocols) < len(PROTOCOLS):
            return None
        if chain.policy != "DROP" and not found.drops_new:
            return None
        return found

    @classmethod
    def for_one_protocol(cls, ruleset: ReadRuleset, name: str) -> ClosedChain | None:
        """The chain of this name, if a rule of it drops what is left of one protocol, and the chain is not closed."""
        chain = ruleset.chains[name]
        dropped = _dropped(ruleset, chain)
        if chain.policy == "DROP" or len(dropped) != 1:
            return None
        return cls._of(ruleset, chain, dropped)

    @classmethod
    def _of(cls, ruleset: ReadRuleset, chain: Chain, dropped: Mapping[str, End | None]) -> ClosedChain:
        protocols = tuple(dropped) or PROTOCOLS
        return cls(ruleset, chain, protocols, dropped.get(protocols[0]), bool(dropped))

    @property
    def accepts_nothing(self) -> bool:
        """Whether no packet at all is accepted."""
        if self.ruleset.accepting_kinds(self.chain.name):
            return False
        return self.chain.policy == "DROP" or (self.end is not None and not self.end.rule.kind.conditions)

    @property
    def place(self) -> Origin | None:
        """The place of the rule that drops new packets, or else of the policy."""
        return self.end_origin or first_origin(self.chain)

    @property
    def origin(self) -> Origin | None:
        """The place that closes it: where the policy DROP is stated, or else the rule."""
        if self.end is None or self.chain.policy == "DROP":
            return first_origin(self.chain)
        return self.end.rule.rule.origin

    @property
    def end_origin(self) -> Origin | None:
        """The place of the rule that ends the way of new packets; None where the policy does."""
        if self.end is None:
            return None
        return self.end.rule.rule.origin

    def may_accept(self, packet: SamplePacket) -> bool:
        """Whether a rule accepts packets of this kind."""
        return may_accept(self.ruleset.kinds, self.chain, packet)

    @property
    def accepts_replies(self) -> bool:
        """Whether replies are accepted, of the first protocol that is dropped otherwise."""
        return self.may_accept(SamplePacket(self.protocols[0], "ESTABLISHED", is_sign=_is_for_replies))

    @property
    def accepts_replies_of_tcp_alone(self) -> bool:
        """Whether a rule accepts replies by the state of the connection, and no rule accepts any over UDP."""
        accepting = self.ruleset.accepting_kinds(self.chain.name)
        if self.protocols != PROTOCOLS or not any(map(_is_for_established, accepting)):
            return False
        return not self.may_accept(SamplePacket("udp", "ESTABLISHED", is_sign=_is_for_replies))

    @property
    def accepts_loopback(self) -> bool:
        """Whether packets on loopback are accepted, of any of the protocols."""
        for protocol in self.protocols:
            if self.may_accept(SamplePacket(protocol, is_loopback=True, is_sign=_is_for_loopback)):
                return True
        return False

    @property
    def accepts_neighbours(self) -> bool:
        """Whether solicitations and advertisements of neighbours are accepted. Conntrack does not track them."""
        for types in (_SOLICITATION, _ADVERTISEMENT):
            packet = SamplePacket("ipv6-icmp", "UNTRACKED", icmp_types=types, is_sign=_is_for_neighbours)
            if not self.may_accept(packet):
                return False
        return True

    @property
    def is_one_way(self) -> bool:
        """Whether packets are accepted, and none the other way: no reply of a connection, and none between the same two
        ends with source and destination exchanged."""
        if self.accepts_replies:
            return False
        ways = _ways(self.ruleset.accepting(self.chain.name))
        back = {(destination, source) for source, destination in ways}
        return bool(ways) and ways.isdisjoint(back)


def _ways(rules: Iterable[ReadRule]) -> set[tuple[_Side, _Side]]:
    """Where packets come from and go to by the rules that say it."""
    ways: set[tuple[_Side, _Side]] = set()
    for rule in rules:
        source, destination = _way(rule)
        if source != destination and not _is_icmpv6(rule):
            ways.add((source, destination))
    return ways


def _is_icmpv6(rule: ReadRule) -> bool:
    return rule.value("-p") == "ipv6-icmp"


_Side = tuple[str, str, bool]


def _way(rule: ReadRule) -> tuple[_Side, _Side]:
    """Where a packet comes from and where it goes to, as far as the rule says. The number of a port does not count."""
    return _side(rule, "-i", "-s", "--sport"), _side(rule, "-o", "-d", "--dport")


def _side(rule: ReadRule, interface: str, address: str, port: str) -> _Side:
    return rule.value(interface) or "", rule.value(address) or "", rule.value(port) is not None
