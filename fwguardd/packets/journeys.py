"""Journeys with the rules of the ruleset: which rule of which file each step is, in which hook, and how NAT changed it.

This module is pure.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from fwguardd.packets.model import ConnectionState, Packet, PacketView, Undecided, Verdict
from fwguardd.packets.packet_words import WITH_PORTS, end_in_words
from fwguardd.ruleset.model import BUILTIN_CHAINS, NOT_STATED
from fwguardd.ruleset.rule_view import RuleView
from fwguardd.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from ipaddress import IPv4Address, IPv6Address

    from fwguardd.packets.model import Journey, Step
    from fwguardd.ruleset.model import Chain, Family, Origin, Rule, Ruleset

    Rulesets = Mapping[Family, Ruleset]
    Address = IPv4Address | IPv6Address

_AFTER_ROUTING: Final = frozenset({"INPUT", "FORWARD", "OUTPUT"})
_SOURCE_NAT: Final = {
    "MASQUERADE": "The source address becomes that of the interface by which the packet leaves.",
    "SNAT": "The source address becomes {to}.",
}
_REPLY_FLAGS: Final = frozenset({"ACK"})
"""Not SYN and ACK, which connection tracking takes for invalid where it has seen both directions."""


class Ends(NamedTuple):
    """What NAT changes of a packet."""

    source: Address
    source_port: int | None
    destination: Address
    destination_port: int | None

    def __str__(self) -> str:
        """`203.0.113.9:49152 → 192.0.2.1:443`."""
        source = end_in_words(self.source, self.source_port)
        return f"{source} → {end_in_words(self.destination, self.destination_port)}"


@dataclass(frozen=True, slots=True)
class Met:
    """A step with what it met: a rule, or the policy of a base chain.

    ``hook`` is the built-in chain from which the packet came to this chain. ``rule`` is None for a policy, and for a
    rule that the ruleset does not have. ``origin`` is None where no rule file has it. ``changed`` is what the packet
    looks like after it where that differs from before.
    """

    hook: str
    step: Step
    text: str
    rule: Rule | None
    origin: Origin | None
    changed: Ends | None = None

    @property
    def change(self) -> str:
        """What the step does to the packet, as a sentence; "" where it stays as it is. Behind the last chain no step
        shows what NAT of the source has done: there the rule says it."""
        if self.changed is not None:
            return f"The packet is now {self.changed}."
        if self.rule is None or self.step.table != "nat":
            return ""
        view = RuleView.of(self.rule.text)
        sentence = _SOURCE_NAT.get(view.target or "", "")
        return sentence.format(to=view.value("--to-source"))


def chain_of(step: Step, ruleset: Ruleset) -> Chain | None:
    """The chain that a step is in; None where the ruleset lacks it."""
    table = ruleset.tables.get(step.table)
    if table is None:
        return None
    return table.chains.get(step.chain)


def rule_of(step: Step, ruleset: Ruleset) -> Rule | None:
    """The rule that a step met; None for a policy, or where the ruleset lacks it."""
    chain = chain_of(step, ruleset)
    if chain is None or step.position is None:
        return None
    return next(iter(chain.rules[step.position - 1 : step.position]), None)


def origin_of(step: Step, ruleset: Ruleset) -> Origin | None:
    """The place in the rule files of the rule or the policy that a step met; None where no file has it."""
    rule = rule_of(step, ruleset)
    if rule is not None:
        return rule.origin
    return _origin_of_policy(step, chain_of(step, ruleset))


def _origin_of_policy(step: Step, chain: Chain | None) -> Origin | None:
    if chain is None or step.position is not None or chain.policy == NOT_STATED:
        return None
    return chain.origin


def met_in(journey: Journey, rulesets: Rulesets) -> tuple[Met, ...]:
    """All steps of a journey with their rules, in order."""
    ruleset = rulesets[journey.packet.family]
    hooks = _Hooks()
    found: list[Met] = []
    for step in journey.steps:
        rule = rule_of(step, ruleset)
        found.append(Met(hooks.of(step), step, _text(step, rule), rule, origin_of(step, ruleset)))
    return tuple(_with_changes(found, journey.packet))


@dataclass(slots=True)
class _Hooks:
    """The hook that a packet is in: a built-in chain starts it, and the chains that it jumps to stay in it."""

    current: str = ""

    def of(self, step: Step) -> str:
        if step.chain in BUILTIN_CHAINS.get(step.table, ()):
            self.current = step.chain
        return self.current


def _text(step: Step, rule: Rule | None) -> str:
    if rule is not None:
        return rule.text
    if step.position is None:
        return f"policy {step.outcome.upper()}"
    return f"rule {step.position}"


def _with_changes(found: list[Met], packet: Packet) -> Iterator[Met]:
    """The steps, each with the packet after it where the next step saw another one."""
    ends = [ends_at(met.step.packet, packet) for met in found]
    for met, before, after in zip(found, ends, [*ends[1:], *ends[-1:]], strict=True):
        if after == before:
            yield met
        else:
            yield replace(met, changed=after)


def ends_at(view: PacketView, packet: Packet) -> Ends:
    """The addresses and ports that a packet has at a step. A value that the trace lacks is that of the packet."""
    return Ends(
        view.source or packet.source,
        view.source_port or packet.source_port,
        view.destination or packet.destination,
        view.destination_port or packet.destination_port,
    )


def last_view(journey: Journey) -> PacketView:
    """What the packet looked like at its last step, or at its start."""
    if journey.steps:
        return journey.steps[-1].packet
    return PacketView()


def routing_in_words(routed: str, packet: Packet) -> str:
    """Where the kernel routed the packet; "" where it made no decision that is known."""
    if routed in _ROUTED:
        return _ROUTED[routed].format(source=packet.source, destination=packet.destination, way=packet.in_interface)
    return f"to the interface {routed}"


_ROUTED: Final = {
    "": "",
    "local": "to this host",
    "no route": "there is no route to {destination}",
    "forwarding is off": "{destination} is not an address of this host, which forwards no packets",
    "invalid address": "{source} or {destination} must not come from outside",
    "reverse path": "not by {way}, since packets to {source} do not leave by it (rp_filter)",
}


VERDICTS: Final = {Verdict.ACCEPT: "accepted", Verdict.DROP: "dropped", Verdict.REJECT: "rejected"}
"""What becomes of a packet, as a participle."""


def verdict_in_words(journey: Journey | Undecided, rulesets: Rulesets) -> str:
    """What became of the packet and by which rule, without a full stop."""
    if isinstance(journey, Undecided):
        return f"undecided{_at_rule(journey, rulesets)}: {journey.because}"
    verdict = VERDICTS[journey.verdict]
    if journey.deciding is None:
        return f"{verdict}{_without_rule(journey)}"
    return f"{verdict} by {step_in_words(journey.deciding, rulesets[journey.packet.family])}"


def _at_rule(undecided: Undecided, rulesets: Rulesets) -> str:
    if undecided.step is None:
        return ""
    return f" at {step_in_words(undecided.step, rulesets[undecided.packet.family])}"


def _without_rule(journey: Journey) -> str:
    """Why, where no rule decided: to be put behind the verdict."""
    packet = journey.packet
    if journey.verdict is Verdict.ACCEPT:
        return ", as no rule or policy is in its way"
    reason = _REASONS.get(journey.routed, ", but not by a rule of iptables")
    return reason.format(source=packet.source, destination=_destination(journey), way=packet.in_interface)


def _destination(journey: Journey) -> str:
    """Where the packet is going. The trace does not show what a last rule of NAT has made of its destination."""
    if journey.steps and journey.steps[-1].table == "nat" and journey.steps[-1].position is not None:
        return "the destination that NAT has given it"
    return str(last_view(journey).destination or journey.packet.destination)


_REASONS: Final = {
    "reverse path": " by rp_filter, since packets to {source} do not leave by {way}",
    "no route": ", since there is no route to {destination}",
    "forwarding is off": ", since {destination} is not an address of this host, which forwards no packets",
    "invalid address": ", since {source} or {destination} must not come from outside",
}


def step_in_words(step: Step, ruleset: Ruleset) -> str:
    """`rule 7 of INPUT (/etc/fwguard.d/20-web.rules:2)`, with the table where it is not filter."""
    place = f"{step.table} {step.chain}".removeprefix("filter ")
    words = f"rule {step.position} of {place}"
    if step.position is None:
        words = f"the policy of {place}"
    origin = origin_of(step, ruleset)
    if origin is None:
        return words
    return f"{words} ({origin})"


def starts_routing(met: Met) -> bool:
    """Whether a routing decision comes before a step: it is in INPUT, FORWARD or OUTPUT."""
    return met.hook in _AFTER_ROUTING


def reply_to(journey: Journey) -> Packet | None:
    """A packet of the answer to an accepted packet; None where NAT changes addresses of the source, and for a packet
    that has no answer or is one."""
    packet, ends = journey.packet, ends_at(last_view(journey), journey.packet)
    has_reply = packet.state is ConnectionState.NEW and packet.protocol in WITH_PORTS
    if not has_reply or (ends.source, ends.source_port) != (packet.source, packet.source_port):
        return None
    return replace(
        packet,
        source=ends.destination,
        destination=packet.source,
        source_port=ends.destination_port,
        destination_port=packet.source_port,
        in_interface=_left_by(journey),
        out_interface=packet.in_interface,
        state=ConnectionState.ESTABLISHED,
        flags=_REPLY_FLAGS,
        uid=None,
        gid=None,
        mark=0,
    )


def _left_by(journey: Journey) -> str | None:
    """The interface by which a packet left this host, so that the answer comes in by it; None if it stayed here. NAT
    may forward a packet that was sent to this host."""
    if journey.routed in ("", "local"):
        return journey.packet.out_interface
    return journey.routed


def packet_document(packet: Packet) -> dict[str, Any]:
    """A packet as JSON values; what does not apply to it is left out."""
    document: dict[str, Any] = {
        "family": packet.family.value,
        "protocol": packet.protocol,
        "source": str(packet.source),
        "destination": str(packet.destination),
        "source_port": packet.source_port,
        "destination_port": packet.destination_port,
        "in": packet.in_interface,
        "out": packet.out_interface,
        "direction": packet.direction.value,
        "state": packet.state.value,
        "icmp_type": packet.icmp_type,
        "uid": packet.uid,
        "mark": packet.mark or None,
    }
    return {name: value for name, value in document.items() if value is not None}


def origin_document(origin: Origin | None) -> dict[str, Any]:
    """File and line of a place in the rule files, both None where there is none."""
    if origin is None:
        return {"file": None, "line": None}
    return {"file": origin.path, "line": origin.line}


def step_document(met: Met) -> dict[str, Any]:
    """A step as JSON values. The keys are a contract."""
    return {
        "hook": met.hook,
        "table": met.step.table,
        "chain": met.step.chain,
        "position": met.step.position,
        "rule": met.text,
        "outcome": met.step.outcome,
        **origin_document(met.origin),
        "change": met.change or None,
    }


def _place_of_undecided(undecided: Undecided, rulesets: Rulesets) -> dict[str, Any]:
    """File and line of the rule to blame."""
    if undecided.step is None:
        return origin_document(None)
    return origin_document(origin_of(undecided.step, rulesets[undecided.packet.family]))


def journey_document(journey: Journey | Undecided, rulesets: Rulesets) -> dict[str, Any]:
    """A journey as JSON values. The keys are a contract."""
    document: dict[str, Any] = {
        "packet": packet_document(journey.packet),
        "sentence": verdict_in_words(journey, rulesets),
        "verdict": "undecided",
        "because": None,
        "routed": "",
        "steps": [],
    }
    if isinstance(journey, Undecided):
        return document | {"because": journey.because, **_place_of_undecided(journey, rulesets)}
    steps = list(map(step_document, met_in(journey, rulesets)))
    return document | {"verdict": journey.verdict.value, "routed": journey.routed, "steps": steps}
