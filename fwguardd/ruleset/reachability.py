"""What becomes of a packet in a table: which rules it meets, and whether it gets through.

`usual_end` follows what usually happens to packets of a kind (`fwguardd.ruleset.sample_packets`): rules for special
packets are passed over. `may_accept` asks whether a packet of the kind can be accepted at all. Both follow jumps, gotos
and RETURN as the kernel does, and so never count a rule behind one that ends every packet.

This module is pure.
"""

from __future__ import annotations

from dataclasses import field, replace
from typing import TYPE_CHECKING

from fwguardd.ruleset.conditions import TERMINAL_TARGETS
from fwguardd.ruleset.read_rules import without_repeated_kinds
from fwguardd.ruleset.sample_packets import Certainty, matches
from fwguardd.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from fwguardd.ruleset.model import Chain, Family
    from fwguardd.ruleset.read_rules import ReadChains, ReadRule
    from fwguardd.ruleset.sample_packets import SamplePacket


@dataclass(frozen=True, slots=True)
class End:
    """Where the way of a packet through a chain ends. ``result`` is ACCEPT, DROP, or QUEUE for what a program
    decides; ``rule`` is the rule of that chain that ends it, also where it does so by a jump."""

    result: str
    rule: ReadRule


def result_of(chains: ReadChains, rule: ReadRule) -> str:
    """ACCEPT, DROP or QUEUE where the target of a rule decides about a packet; empty for jumps and other targets. A
    chain can have the name of a target."""
    if rule.kind.target in chains:
        return ""
    return TERMINAL_TARGETS.get(rule.kind.target, "")


def usual_end(chains: ReadChains, name: str, packet: SamplePacket) -> End | None:
    """What usually becomes of packets of a kind in a chain; None where they return from it, or reach its policy."""
    return _usual_end(chains, name, packet, {})


def _usual_end(chains: ReadChains, name: str, packet: SamplePacket, known: dict[str, End | None]) -> End | None:
    """The same. ``known`` has the chains that were followed; None also for those that are being followed."""
    if name not in known:
        known[name] = None
        known[name] = _follow(chains, name, packet, known)
    return known[name]


def _follow(chains: ReadChains, name: str, packet: SamplePacket, known: dict[str, End | None]) -> End | None:
    for rule in chains[name]:
        if matches(rule.kind, packet) < Certainty.USUALLY:
            continue
        result = _usual_result(chains, rule, packet, known)
        if result:
            return End(result, rule)
        if returns(rule):
            return None
    return None


def _usual_result(chains: ReadChains, rule: ReadRule, packet: SamplePacket, known: dict[str, End | None]) -> str:
    """What usually becomes of packets that a rule matches, also in a chain that it leads to; empty if they go on."""
    if rule.kind.target not in chains:
        return result_of(chains, rule)
    inner = _usual_end(chains, rule.kind.target, packet, known)
    if inner is None:
        return ""
    return inner.result


def returns(rule: ReadRule) -> bool:
    """Whether packets that a rule matches, and that nothing decides about, return from the chain of the rule."""
    return rule.kind.target == "RETURN" or rule.kind.is_goto


@dataclass(frozen=True, slots=True)
class _Way:
    """What is known of the packets that get to a place: how many of the kind do, and whether a rule on the way was
    meant for packets of the kind."""

    answer: Certainty = Certainty.ALWAYS
    is_meant: bool = False

    def through(self, rule: ReadRule, packet: SamplePacket, answer: Certainty) -> _Way:
        """The way behind a rule that matches with this answer."""
        meant = self.is_meant or any(packet.is_sign(condition) for condition in rule.kind.conditions)
        return _Way(min(self.answer, answer), meant)

    @property
    def counts(self) -> bool:
        """Whether to accept here is to accept packets of the kind."""
        return self.is_meant or self.answer >= Certainty.USUALLY


def may_accept(chains: ReadChains, chain: Chain, packet: SamplePacket) -> bool:
    """Whether packets of a kind are accepted in a built-in chain: by a rule of it or of the chains that it leads to, or
    by its policy."""
    returned = _Search(chains, packet).visit(chain.name, _Way())
    return returned is None or (returned >= Certainty.USUALLY and chain.policy != "DROP")


@dataclass(slots=True)
class _Search:
    """A search for a rule that accepts. ``visited`` has the result for each chain and way."""

    chains: ReadChains
    packet: SamplePacket
    visited: dict[tuple[str, _Way], Certainty | None] = field(default_factory=dict)

    def visit(self, name: str, way: _Way) -> Certainty | None:
        """How many of the packets return from a chain; None where one is accepted."""
        if (name, way) not in self.visited:
            self.visited[name, way] = way.answer  # Of a chain that leads to itself.
            self.visited[name, way] = self._search(name, way)
        return self.visited[name, way]

    def _search(self, name: str, way: _Way) -> Certainty | None:
        returned = Certainty.NEVER
        for rule in self.chains[name]:
            answer = matches(rule.kind, self.packet)
            if answer is Certainty.NEVER:
                continue
            onward = self._apply(rule, way.through(rule, self.packet, answer))
            if onward is None:
                return None
            if returns(rule):
                returned, onward = max(returned, onward), Certainty.NEVER
            way = replace(way, answer=max(onward, min(way.answer, answer.negated())))
            if way.answer is Certainty.NEVER:
                return returned
        return max(returned, way.answer)

    def _apply(self, rule: ReadRule, way: _Way) -> Certainty | None:
        """How many of the packets that a rule matches go on behind it; None where one is accepted."""
        if rule.kind.target in self.chains:
            return self.visit(rule.kind.target, way)
        result = result_of(self.chains, rule)
        if result in ("ACCEPT", "QUEUE") and way.counts:
            return None
        if result:
            return Certainty.NEVER
        return way.answer


def rules_reached(chains: ReadChains, start: str) -> Iterator[ReadRule]:
    """The rules of a chain, and of the chains that it leads to, that a packet can get to."""
    entered = {start}
    waiting = [start]
    while waiting:
        for rule in _before_end(chains, waiting.pop()):
            yield rule
            if rule.kind.target in chains and rule.kind.target not in entered:
                entered.add(rule.kind.target)
                waiting.append(rule.kind.target)


def _before_end(chains: ReadChains, name: str) -> Iterator[ReadRule]:
    """The rules of a chain, up to the first one that ends the way of every packet."""
    for rule in chains[name]:
        yield rule
        if not rule.kind.conditions and ends(chains, rule):
            return


def ends(chains: ReadChains, rule: ReadRule) -> bool:
    """Whether no packet that a rule matches goes on to the next rule of its chain."""
    if returns(rule):
        return True
    return is_final(chains, rule, {})


def is_final(chains: ReadChains, rule: ReadRule, known: dict[str, bool]) -> bool:
    """Whether a packet that a rule matches gets to no other rule of any chain."""
    if rule.kind.target not in chains:
        return result_of(chains, rule) != ""
    if rule.kind.target not in known:
        known[rule.kind.target] = False  # Of a chain that leads to itself.
        known[rule.kind.target] = _never_returns(chains, rule.kind.target, known)
    return known[rule.kind.target]


def _never_returns(chains: ReadChains, name: str, known: dict[str, bool]) -> bool:
    for rule in chains[name]:
        if not is_final(chains, rule, known):
            if returns(rule):
                return False
        elif not rule.kind.conditions:
            return True
    return False


@dataclass(frozen=True, slots=True)
class ReadRuleset:
    """The table filter of a family, with its rules read; ``kinds`` are the first rules of each kind."""

    family: Family
    chains: Mapping[str, Chain]
    rules: ReadChains
    kinds: ReadChains

    @classmethod
    def of(cls, family: Family, chains: Mapping[str, Chain], rules: ReadChains) -> ReadRuleset:
        """The table of a family with these chains."""
        return cls(family, chains, rules, without_repeated_kinds(rules))

    def accepting(self, name: str) -> list[ReadRule]:
        """The rules that accept packets in a chain, and in those that it leads to, as far as packets get to them."""
        return _accepting(self.rules, name)

    def accepting_kinds(self, name: str) -> list[ReadRule]:
        """The first of them of each kind."""
        return _accepting(self.kinds, name)


def _accepting(chains: ReadChains, name: str) -> list[ReadRule]:
    return [rule for rule in rules_reached(chains, name) if result_of(chains, rule) == "ACCEPT"]
