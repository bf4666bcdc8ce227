"""Warnings about closed chains: what a chain lacks that drops all packets which no rule accepts, and what IPv6 leaves
open that IPv4 closes. `fwguardd.ruleset.closed_chains` says what a closed chain is.

This module is pure.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from fwguardd.ruleset.closed_chains import PROTOCOLS, ClosedChain, first_origin
from fwguardd.ruleset.model import Chain, Family, Finding, Origin, Severity
from fwguardd.ruleset.reachability import End, ReadRuleset, usual_end
from fwguardd.ruleset.sample_packets import SamplePacket
from fwguardd.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    from fwguardd.ruleset.preserve import Preserve

_REPLIES = {
    "INPUT": "replies to connections of this host",
    "OUTPUT": "replies of the services on this host",
    "FORWARD": "replies in the connections that it forwards",
}
_LOOPBACK_OPTIONS = {"INPUT": "-i", "OUTPUT": "-o"}
_STATES = "-m conntrack --ctstate ESTABLISHED,RELATED"


def lint_closed_chains(
    rulesets: Sequence[ReadRuleset], inserted: Collection[Origin], preserve: Preserve
) -> Iterator[Finding]:
    """Closed built-in chains in which no rule accepts replies, loopback or neighbour discovery; and those that are open
    for IPv6. ``inserted`` are the places of rules that -I puts before others."""
    for name in _REPLIES:
        closed = _closed_chains(rulesets, name)
        used = _without_ipv6_if(closed, is_off=is_turned_off(rulesets, name))
        yield from _lint_replies(name, _Hints(used, inserted))
        if name in _LOOPBACK_OPTIONS:
            yield from _lint_loopback(name, _Hints(_with_loopback(closed, rulesets), inserted))
            yield from _lint_neighbours(name, _Hints(used, inserted))
        if name in ("INPUT", "FORWARD") and _drops_new_only_for_ipv4(closed):
            yield from _lint_open(closed[Family.IPV4], rulesets, preserve)
    yield from _lint_single_protocols(rulesets, inserted)


_Chains = dict[Family, ClosedChain]


def _without_ipv6_if(closed: _Chains, *, is_off: bool) -> _Chains:
    if not is_off:
        return closed
    return {family: chain for family, chain in closed.items() if family is not Family.IPV6}


def _with_loopback(closed: _Chains, rulesets: Sequence[ReadRuleset]) -> _Chains:
    """The chains in which programs need loopback. They try ::1 first: where only INPUT drops it they wait for an
    answer, and where OUTPUT drops it they do not."""
    is_off = is_turned_off(rulesets, "INPUT") and is_turned_off(rulesets, "OUTPUT")
    return _without_ipv6_if(closed, is_off=is_off)


def is_turned_off(rulesets: Iterable[ReadRuleset], name: str) -> bool:
    """Whether a chain drops all packets of IPv6, by a policy or a rule that is not for IPv4 too: then that is meant."""
    by_family = {ruleset.family: ruleset for ruleset in rulesets}
    if Family.IPV6 not in by_family:
        return False
    closed = ClosedChain.of(by_family[Family.IPV6], name)
    if closed is None or not closed.accepts_nothing or closed.place is None:
        return False
    return closed.place != _place_for_ipv4(by_family, name)


def _place_for_ipv4(by_family: Mapping[Family, ReadRuleset], name: str) -> Origin | None:
    """The place that closes the chain for IPv4, or that states its policy."""
    ruleset = by_family.get(Family.IPV4)
    if ruleset is None:
        return None
    closed = ClosedChain.of(ruleset, name)
    if closed is None:
        return first_origin(ruleset.chains[name])
    return closed.place


def _lint_single_protocols(rulesets: Iterable[ReadRuleset], inserted: Collection[Origin]) -> Iterator[Finding]:
    """An open INPUT in which a rule drops all of TCP or UDP that no rule accepts, replies included."""
    found: dict[Family, ClosedChain] = {}
    for ruleset in rulesets:
        closed = ClosedChain.for_one_protocol(ruleset, "INPUT")
        if closed is not None and not closed.accepts_replies:
            found[ruleset.family] = closed
    for closed in list(found.values())[:1]:
        packets = f"{closed.protocols[0].upper()} packets"
        message = f"INPUT drops {packets} that no rule accepts, and no rule accepts {_REPLIES['INPUT']}"
        yield from _Hints(found, inserted).lacking(found, Finding("no-established", message), _STATES)


def _closed_chains(rulesets: Iterable[ReadRuleset], name: str) -> dict[Family, ClosedChain]:
    closed: dict[Family, ClosedChain] = {}
    for ruleset in rulesets:
        found = ClosedChain.of(ruleset, name)
        if found is not None:
            closed[ruleset.family] = found
    return closed


def _drops_new_only_for_ipv4(closed: Mapping[Family, ClosedChain]) -> bool:
    return _drops_new(closed, Family.IPV4) and not _drops_new(closed, Family.IPV6)


def _drops_new(closed: Mapping[Family, ClosedChain], family: Family) -> bool:
    return family in closed and closed[family].drops_new


@dataclass(frozen=True, slots=True)
class _Hints:
    """The families in which a chain is closed, and what is needed to say where a rule has to be added."""

    closed: Mapping[Family, ClosedChain]
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

    def _hint(self, closed: ClosedChain, alone: Family | None, match: str) -> str:
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
    lacking = [family for family, closed in hints.closed.items() if _lacks_replies(name, closed)]
    message = f"{name} is closed, and no rule accepts {_REPLIES[name]}"
    yield from hints.lacking(lacking, Finding("no-established", message), _STATES)
    if name == "INPUT":
        yield from _lint_replies_over_udp([family for family in hints.closed if family not in lacking], hints)


def _lacks_replies(name: str, closed: ClosedChain) -> bool:
    """Whether a chain lacks replies. A FORWARD that accepts nothing at all lacks nothing."""
    return closed.is_one_way or (name != "FORWARD" and not closed.accepts_replies)


def _lint_replies_over_udp(families: Iterable[Family], hints: _Hints) -> Iterator[Finding]:
    lacking = [family for family in families if hints.closed[family].accepts_replies_of_tcp_alone]
    message = "INPUT is closed, and no rule accepts replies over UDP, such as those of DNS"
    yield from hints.lacking(lacking, Finding("no-established", message), _STATES)


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


def _lint_open(ipv4: ClosedChain, rulesets: Sequence[ReadRuleset], preserve: Preserve) -> Iterator[Finding]:
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
    for protocol in PROTOCOLS:
        end = usual_end(ruleset.kinds, name, SamplePacket(protocol))
        if end is not None and end.result != "DROP":
            return end
    return None


def _jumps_to_preserved(closed: ClosedChain, preserve: Preserve) -> bool:
    return any(preserve.keeps_name(rule.target) for rule in closed.ruleset.rules[closed.chain.name])


def _how_to_close(ipv4: ClosedChain, end: End | None, policy: Chain | None) -> str:
    """What to write; ``end`` is the rule that accepts all packets of IPv6, if there is one."""
    if end is not None:
        return f"the rule at {end.rule.rule.origin} accepts every packet; limit it, or remove it for IPv6"
    return _how_to_close_without_rule(ipv4, policy)


def _how_to_close_without_rule(ipv4: ClosedChain, policy: Chain | None) -> str:
    name, origin = ipv4.chain.name, ipv4.origin
    if origin is not None and origin.path.endswith(".v4.rules"):
        return f'add "-6 -P {name} DROP", in a file whose name does not end in .v4.rules'
    if ipv4.end is not None:
        return f'close it for IPv6 too: add "-6 -A {name} -j REJECT"{_at("after", origin)}'
    if policy is not None and policy.origin:
        return f"write DROP as the policy for IPv6 too, at {policy.origin}"
    return f'add "-6 -P {name} DROP"{_at("after", origin)}'
