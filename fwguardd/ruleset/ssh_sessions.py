"""The warning `closes-ssh`: a change after which the peer of a live ssh session could not open a new one.

The rules are read plainly: a rule counts only if it is certain that the packet meets its conditions, and whenever the
packet may be accepted, by a set, a time or an interface that is not known here, nothing is reported.

This module is pure.
"""

from __future__ import annotations

from dataclasses import field
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import TYPE_CHECKING

from fwguardd.ruleset.model import Family, Finding, Severity
from fwguardd.ruleset.reachability import result_of, returns
from fwguardd.ruleset.read_rules import RuleReader
from fwguardd.ruleset.sample_packets import Certainty, SamplePacket, meets
from fwguardd.ruleset.values import PortRange, read_ports
from fwguardd.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from fwguardd.ruleset.conditions import Condition
    from fwguardd.ruleset.model import Chain, Origin, Ruleset
    from fwguardd.ruleset.read_rules import ReadChains, ReadRule

Address = IPv4Address | IPv6Address

MOST_REPORTED = 5
"""Sessions that are reported one by one."""

_SAMPLE = SamplePacket("tcp")


@dataclass(frozen=True, slots=True)
class SshSession:
    """An established connection to a port of sshd on this host."""

    peer: Address
    local: Address
    port: int

    @property
    def family(self) -> Family:
        """The family of its addresses."""
        if self.peer.version == 6:
            return Family.IPV6
        return Family.IPV4


def session_of(text: str) -> SshSession | None:
    """The session in the form of SSH_CONNECTION (ssh(1)): addresses and ports of the client and of the server; None
    for a text of another form."""
    parts = text.split()
    if len(parts) != 4 or not parts[3].isdecimal():
        return None
    try:
        peer, local = (_plain(ip_address(part.partition("%")[0])) for part in (parts[0], parts[2]))
    except ValueError:
        return None
    if peer.version != local.version or not 0 < int(parts[3]) < 65_536:
        return None
    return SshSession(peer, local, int(parts[3]))


def _plain(address: Address) -> Address:
    """An IPv4 address that is written as an IPv6 one, as IPv4."""
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def closed_sessions(
    before: Mapping[Family, Ruleset], after: Mapping[Family, Ruleset], sessions: Iterable[SshSession]
) -> tuple[Finding, ...]:
    """A warning for each session whose peer could open a new one under the rules before, and cannot afterwards.

    Under rulesets without the table filter everything is accepted.
    """
    findings: list[Finding] = []
    for session in dict.fromkeys(sessions):
        if _is_on_this_host(session):
            continue
        closed = _closed_by(after, session)
        if closed is not None and _closed_by(before, session) is None:
            findings.append(_finding(session, closed))
    return tuple(findings[:MOST_REPORTED])


def _finding(session: SshSession, closed: _Closed) -> Finding:
    by = "the policy of INPUT drops it"
    if closed.rule is not None:
        by = f"-A {closed.chain} {closed.rule.rule.text} denies it"
    message = f"{session.peer} has an ssh session to port {session.port}, and could not open a new one: {by}"
    hint = "accept it before this change, or apply the change with: fwguardctl reload --force --confirm 60s"
    return Finding("closes-ssh", message, closed.origin, Severity.WARNING, hint, family=session.family)


@dataclass(frozen=True, slots=True)
class _Closed:
    """What denies a new connection: a rule of a chain, or the policy of INPUT."""

    chain: str
    rule: ReadRule | None
    origin: Origin | None


def _is_on_this_host(session: SshSession) -> bool:
    return session.peer == session.local or session.peer.is_loopback


def _closed_by(rulesets: Mapping[Family, Ruleset], session: SshSession) -> _Closed | None:
    """What certainly denies a new connection like this session; None where it may be accepted."""
    ruleset = rulesets.get(session.family)
    if ruleset is None or "filter" not in ruleset.tables:
        return None
    table = ruleset.tables["filter"]
    chain = table.chains.get("INPUT")
    if chain is None:
        return None
    walk = _Walk(RuleReader().read_chains(table), session)
    if walk.may_be_accepted("INPUT"):
        return None
    return walk.denied or _denied_by_policy(chain)


def _denied_by_policy(chain: Chain) -> _Closed | None:
    if chain.policy == "DROP":
        return _Closed("INPUT", None, chain.origin)
    return None


@dataclass(slots=True)
class _Walk:
    """The way of a new connection through the chains. ``denied`` is what ends it for certain."""

    chains: ReadChains
    session: SshSession
    denied: _Closed | None = None
    known: dict[str, tuple[bool, _Closed | None]] = field(default_factory=dict)

    def may_be_accepted(self, name: str) -> bool:
        """Whether a rule of the chain may accept it; otherwise ``denied`` says whether one certainly denies it."""
        may_have_returned = False
        for rule in self.chains[name]:
            answer = self._matches(rule)
            if answer is Certainty.NEVER:
                continue
            if self._accepts(rule):
                return True
            certain = answer is Certainty.ALWAYS and not may_have_returned
            self._deny(name, rule, certain=certain)
            if self.denied is not None:
                return False
            if returns(rule):
                if answer is Certainty.ALWAYS:
                    return False
                may_have_returned = True
        return False

    def _accepts(self, rule: ReadRule) -> bool:
        if rule.kind.target in self.chains:
            return self._inner(rule.kind.target)[0]
        return result_of(self.chains, rule) in ("ACCEPT", "QUEUE")

    def _inner(self, name: str) -> tuple[bool, _Closed | None]:
        """Whether a chain that a rule leads to may accept it, and what there denies it; each chain is read once."""
        if name not in self.known:
            self.known[name] = False, None  # Of a chain that leads to itself.
            inner = _Walk(self.chains, self.session, known=self.known)
            self.known[name] = inner.may_be_accepted(name), inner.denied
        return self.known[name]

    def _deny(self, name: str, rule: ReadRule, *, certain: bool) -> None:
        """Note what the rule denies for certain, itself or in the chain that it leads to."""
        if not certain:
            return
        if rule.kind.target in self.chains:
            self.denied = self._inner(rule.kind.target)[1]
        elif result_of(self.chains, rule) == "DROP":
            self.denied = _Closed(name, rule, rule.rule.origin)

    def _matches(self, rule: ReadRule) -> Certainty:
        answer = Certainty.ALWAYS
        for condition in rule.conditions:
            answer = min(answer, self._meets(condition))
        return answer

    def _meets(self, condition: Condition) -> Certainty:
        """Whether the connection meets a condition: NEVER, ALWAYS, or what may be."""
        known = self._known(condition)
        if known is None:
            return meets(condition, _SAMPLE)
        if known is not condition.negated:
            return Certainty.ALWAYS
        return Certainty.NEVER

    def _known(self, condition: Condition) -> bool | None:
        """Whether its addresses and its port are those of a condition, apart from a negation; None for others."""
        addresses = {"-s": self.session.peer, "-d": self.session.local}
        if condition.name in addresses:
            return _is_in(addresses[condition.name], condition)
        if condition.name == "--dport":
            port = PortRange(self.session.port, self.session.port)
            return any(ports.covers(port) for ports in read_ports(condition.value))
        return None


def _is_in(address: Address, condition: Condition) -> bool | None:
    networks = condition.networks
    if not networks:
        return None  # A host name.
    return any(
        network.version == address.version and int(address) & network.mask == network.address & network.mask
        for network in networks
    )
