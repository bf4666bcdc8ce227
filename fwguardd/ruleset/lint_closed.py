"""Warnings about closed chains: what a chain lacks that drops all packets which no rule accepts, and what IPv6 leaves
open that IPv4 closes.

A chain is closed if a new connection from anywhere, to a port that no rule names, is dropped, by the policy or by a
rule, in this chain or in one that it leads to. A chain whose policy no file states is not closed by it.

This module is pure.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from fwguardd.ruleset.model import Chain, Family, Finding, Origin, Ruleset, Severity
from fwguardd.ruleset.reachability import End, ReadRuleset, may_accept, usual_end
from fwguardd.ruleset.rule_view import RuleView
from fwguardd.ruleset.sample_packets import SamplePacket, is_loopback_network
from fwguardd.ruleset.values import PortRange, read_ports

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    from fwguardd.ruleset.conditions import Condition
    from fwguardd.ruleset.preserve import Preserve
    from fwguardd.ruleset.read_rules import ReadRule, RuleKind

_FTP = PortRange(21, 21)
_FTP_DATA = PortRange(20, 20)
_LAST_PRIVILEGED = 1_023
_REPLIES = {
    "INPUT": "replies to connections of this host",
    "OUTPUT": "replies of the services on this host",
    "FORWARD": "replies in the connections that it forwards",
}
_LOOPBACK_OPTIONS = {"INPUT": "-i", "OUTPUT": "-o"}
_PROTOCOLS = ("tcp", "udp")
_WIDE = 1_000
"""Ports of a range that is meant for clients, rather than for a service."""
_SOLICITATION = ("135", "neighbour-solicitation", "neighbor-solicitation")
_ADVERTISEMENT = ("136", "neighbour-advertisement", "neighbor-advertisement")


def _is_for_replies(condition: Condition) -> bool:
    """Whether a rule with this condition is meant for replies: by the state of the connection, by the flags of TCP, by
    the port that a reply comes from or the range that it goes to."""
    if condition.name == "--dport":
        return any(ports.last - ports.first > _WIDE for ports in read_ports(condition.value))
    return condition.name == "--tcp-flags" or (condition.name in ("--ctstate", "--sport") and not condition.negated)


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
    for protocol in _PROTOCOLS:
        end = usual_end(ruleset.kinds, chain.name, SamplePacket(protocol))
        result = chain.policy
        if end is not None:
            result = end.result
        if result == "DROP":
            dropped[protocol] = end
    return dropped


@dataclass(frozen=True, slots=True)
class _Closed:
    """A chain that drops packets which no rule accepts. ``protocols`` are those whose new connections are dropped, and
    ``end`` is the rule that drops them; None for the policy. With the policy DROP all new connections may be accepted:
    then ``drops_new`` is False, and all protocols are looked at."""

    ruleset: ReadRuleset
    chain: Chain
    protocols: tuple[str, ...]
    end: End | None
    drops_new: bool

    @classmethod
    def of(cls, ruleset: ReadRuleset, name: str) -> _Closed | None:
        """The chain of this name, if it is closed."""
        chain = ruleset.chains[name]
        dropped = _dropped(ruleset, chain)
        # A chain of policy ACCEPT in which a rule drops all UDP is not closed.
        if chain.policy != "DROP" and len(dropped) < len(_PROTOCOLS):
            return None
        protocols = tuple(dropped) or _PROTOCOLS
        return cls(ruleset, chain, protocols, dropped.get(protocols[0]), bool(dropped))

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


def lint_closed_chains(
    rulesets: Sequence[ReadRuleset], inserted: Collection[Origin], preserve: Preserve
) -> Iterator[Finding]:
    """Closed built-in chains in which no rule accepts replies, loopback or neighbour discovery; and those that are open
    for IPv6. ``inserted`` are the places of rules that -I puts before others."""
    for name in _REPLIES:
        closed = _closed_chains(rulesets, name)
        hints = _Hints(closed, inserted)
        yield from _lint_replies(name, hints)
        if name in _LOOPBACK_OPTIONS:
            yield from _lint_loopback(name, hints)
            yield from _lint_neighbours(name, hints)
        if name in ("INPUT", "FORWARD") and _drops_new_only_for_ipv4(closed):
            yield from _lint_open(closed[Family.IPV4], rulesets, preserve)


def _closed_chains(rulesets: Iterable[ReadRuleset], name: str) -> dict[Family, _Closed]:
    closed: dict[Family, _Closed] = {}
    for ruleset in rulesets:
        found = _Closed.of(ruleset, name)
        if found is not None:
            closed[ruleset.family] = found
    return closed


def _drops_new_only_for_ipv4(closed: Mapping[Family, _Closed]) -> bool:
    return _drops_new(closed, Family.IPV4) and not _drops_new(closed, Family.IPV6)


def _drops_new(closed: Mapping[Family, _Closed], family: Family) -> bool:
    return family in closed and closed[family].drops_new


@dataclass(frozen=True, slots=True)
class _Hints:
    """The families in which a chain is closed, and what is needed to say where a rule has to be added."""

    closed: Mapping[Family, _Closed]
    inserted: Collection[Origin]

    def lacking(self, families: Iterable[Family], finding: Finding, match: str) -> Iterator[Finding]:
        """The finding for each place that closes the chain in a family that lacks a rule. It names the family where the
        chain of the other family has the rule."""
        places: dict[Origin | None, list[Family]] = {}
        for family in families:
            places.setdefault(self.closed[family].origin, []).append(family)
        for origin, lacking in places.items():
            alone: Family | None = None
            if len(lacking) < len(self.closed):
                alone = lacking[0]
            hint = self._hint(self.closed[lacking[0]], alone, match)
            yield replace(finding, origin=origin, severity=Severity.WARNING, hint=hint, family=alone)

    def _hint(self, closed: _Closed, alone: Family | None, match: str) -> str:
        """What to write, and where: before the rule that closes the chain, or anywhere behind its policy."""
        verb, place = "-A", _at("after", closed.origin)
        if closed.end is not None:
            place = _at("before", closed.end_origin)
        if closed.end_origin in self.inserted:
            # A rule that is inserted later comes before those that were inserted earlier.
            verb, place = "-I", _at("after", closed.end_origin)
        return f'add "{_option(alone)}{verb} {closed.chain.name} {match} -j ACCEPT"{place}'


def _option(family: Family | None) -> str:
    if family is None:
        return ""
    return f"-{family.number} "


def _at(place: str, origin: Origin | None) -> str:
    if origin is None:
        return ""
    return f" {place} line {origin.line} of {origin.path}"


def _lint_replies(name: str, hints: _Hints) -> Iterator[Finding]:
    lacking: list[Family] = []
    for family, closed in hints.closed.items():
        # A FORWARD that accepts nothing at all lacks nothing.
        if closed.is_one_way or (name != "FORWARD" and not closed.accepts_replies):
            lacking.append(family)
    message = f"{name} is closed, and no rule accepts {_REPLIES[name]}"
    yield from hints.lacking(lacking, Finding("no-established", message), "-m conntrack --ctstate ESTABLISHED,RELATED")


def _lint_loopback(name: str, hints: _Hints) -> Iterator[Finding]:
    lacking = [family for family, closed in hints.closed.items() if not closed.accepts_loopback]
    message = f"{name} is closed, and no rule accepts loopback: programs on this host cannot reach each other"
    yield from hints.lacking(lacking, Finding("no-loopback", message), f"{_LOOPBACK_OPTIONS[name]} lo")


def _lint_neighbours(name: str, hints: _Hints) -> Iterator[Finding]:
    closed = hints.closed.get(Family.IPV6)
    if closed is None or closed.accepts_neighbours:
        return
    message = f"{name} is closed, and no rule accepts neighbour discovery, without which IPv6 does not work"
    only_ipv6 = _Hints({Family.IPV6: closed}, hints.inserted)
    finding = Finding("no-neighbour-discovery", message)
    for placed in only_ipv6.lacking((Family.IPV6,), finding, "-p ipv6-icmp"):
        yield replace(placed, hint=f"{placed.hint}, or at least types 133 to 136")


def _lint_open(ipv4: _Closed, rulesets: Sequence[ReadRuleset], preserve: Preserve) -> Iterator[Finding]:
    """A chain that is closed for IPv4 and open for IPv6: the host looks closed and is not."""
    name = ipv4.chain.name
    if name == "FORWARD" and ipv4.end is None and _jumps_to_preserved(ipv4, preserve):
        return  # Docker, for one, closes FORWARD for IPv4 as soon as it makes the host forward packets.
    policy, end = _ipv6_chain(rulesets, name)
    if end is None or end.result == "ACCEPT":
        message = f"{name} is closed for IPv4 and open for IPv6"
        yield Finding("ipv6-open", message, ipv4.origin, Severity.WARNING, _how_to_close(ipv4, end, policy))


def _ipv6_chain(rulesets: Iterable[ReadRuleset], name: str) -> tuple[Chain | None, End | None]:
    """The chain of IPv6, and the rule that new connections usually end at in it. None where there is none."""
    for ruleset in rulesets:
        if ruleset.family is Family.IPV6:
            return ruleset.chains[name], _open_end(ruleset, name)
    return None, None


def _open_end(ruleset: ReadRuleset, name: str) -> End | None:
    """The rule that new connections usually end at, of the first protocol for which there is one."""
    for protocol in _PROTOCOLS:
        end = usual_end(ruleset.kinds, name, SamplePacket(protocol))
        if end is not None and end.result != "DROP":
            return end
    return None


def _jumps_to_preserved(closed: _Closed, preserve: Preserve) -> bool:
    return any(preserve.keeps_name(rule.target) for rule in closed.ruleset.rules[closed.chain.name])


def _how_to_close(ipv4: _Closed, end: End | None, policy: Chain | None) -> str:
    """What to write; ``end`` is the rule that accepts all packets of IPv6, if there is one."""
    if end is not None:
        return f"the rule at {end.rule.rule.origin} accepts every packet; limit it, or remove it for IPv6"
    name, origin = ipv4.chain.name, ipv4.origin
    if origin is not None and origin.path.endswith(".v4.rules"):
        return f'add "-6 -P {name} DROP", in a file whose name does not end in .v4.rules'
    if ipv4.end is not None:
        return f'close it for IPv6 too: add "-6 -A {name} -j REJECT"{_at("after", origin)}'
    if policy is not None and policy.origin:
        return f"write DROP as the policy for IPv6 too, at {policy.origin}"
    return f'add "-6 -P {name} DROP"{_at("after", origin)}'


def first_origin(chain: Chain) -> Origin | None:
    """Where the chain is declared, or else where its first rule is."""
    if chain.origin is None and chain.rules:
        return chain.rules[0].origin
    return chain.origin


def lint_ftp(rulesets: Sequence[ReadRuleset], candidates: Iterable[Ruleset]) -> Iterator[Finding]:
    """Rules that accept FTP where data connections are dropped, because there is no conntrack helper for them."""
    helped = [candidate.family for candidate in candidates if _has_helper(candidate)]
    for ruleset in rulesets:
        if ruleset.family not in helped:
            yield from _lint_ftp_of(ruleset)


def _lint_ftp_of(ruleset: ReadRuleset) -> Iterator[Finding]:
    for name in _REPLIES:
        yield from _lint_ftp_in(ruleset, name)


def _has_helper(ruleset: Ruleset) -> bool:
    for _, chain in ruleset.chains():
        for rule in chain.rules:
            if "--helper" in rule.text and RuleView.of(rule.text).value("--helper") == "ftp":
                return True
    return False


def _lint_ftp_in(ruleset: ReadRuleset, name: str) -> Iterator[Finding]:
    kinds = _kinds_that_lack_data(ruleset, name)
    if not kinds:
        return
    message = "FTP is accepted without its conntrack helper: logins work, transfers and listings hang"
    start = "PREROUTING"
    if name == "OUTPUT":
        start = "OUTPUT"
    hint = f'add "-t raw -A {start} -p tcp --dport 21 -j CT --helper ftp"'
    for rule in ruleset.accepting(name):
        if rule.kind in kinds:
            yield Finding("ftp-without-helper", message, rule.rule.origin, Severity.WARNING, hint)


def _kinds_that_lack_data(ruleset: ReadRuleset, name: str) -> Collection[RuleKind]:
    """The kinds of rules in a chain that accept FTP; none where its data connections are accepted too."""
    accepting = ruleset.accepting_kinds(name)
    kinds = {rule.kind for rule in accepting if _accepts_port(rule, _FTP)}
    if _is_known_to_be_open(ruleset, name) or any(map(_accepts_data, accepting)):
        return ()
    return kinds


def _is_known_to_be_open(ruleset: ReadRuleset, name: str) -> bool:
    """Whether new connections are accepted, by a rule or by a policy that a file states."""
    end = usual_end(ruleset.kinds, name, SamplePacket("tcp"))
    if end is not None:
        return end.result == "ACCEPT"
    chain = ruleset.chains[name]
    return chain.policy == "ACCEPT" and chain.origin is not None


def _accepts_port(rule: ReadRule, port: PortRange) -> bool:
    return port in read_ports(rule.value("--dport") or "")


def _accepts_data(rule: ReadRule) -> bool:
    """Whether a rule accepts a range of ports for passive data connections, or those of active ones."""
    ports = rule.value("--dport")
    if ports is None:
        return _FTP_DATA in read_ports(rule.value("--sport") or "")
    return any(one.last > max(one.first, _LAST_PRIVILEGED) for one in read_ports(ports))
