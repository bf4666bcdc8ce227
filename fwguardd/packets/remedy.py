"""The least that would have to be added for a packet to be accepted: a rule, its place, and the proof by the packet.

The rule is the narrowest one in the words of a rule file, and its place is in front of the rule that ended the packet,
or at the end of the chain whose policy did, in front of the rules that log what is denied.

This module is pure.
"""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import chain
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final

from fwguardd.packets.journeys import chain_of, ends_at, met_in, origin_document
from fwguardd.packets.model import ConnectionState, Journey, Packet, Undecided, Verdict
from fwguardd.ruleset.model import Family, Rule, Ruleset, Table
from fwguardd.ruleset.rule_view import RuleView
from fwguardd.ruleset.save_format import rules_in_order
from fwguardd.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from contextlib import AbstractContextManager

    from fwguardd.packets.bed import Bed
    from fwguardd.packets.journeys import Ends
    from fwguardd.packets.model import Step
    from fwguardd.ruleset.model import Chain, Origin

    Rulesets = Mapping[Family, Ruleset]
    OpenBed = Callable[[Rulesets], AbstractContextManager[Bed]]

MOST_ADDITIONS: Final = 6
"""Rules that are tried for one packet: several chains may each drop it."""

_LOGGING: Final = frozenset({"LOG", "NFLOG", "ULOG", "TRACE", "AUDIT"})
"""Targets that let a packet go on, and report it."""
_STATE_OPTION: Final = re.compile("--(?:ct)?state ")
_WITH_IN: Final = frozenset({"PREROUTING", "INPUT", "FORWARD"})
_WITH_OUT: Final = frozenset({"OUTPUT", "FORWARD", "POSTROUTING"})


_POSITIONS: Final = {True: "before", False: "after"}


@dataclass(frozen=True, slots=True)
class AddedRule:
    """A rule that is to be added. ``index`` is its place in the chain, counted from 0.

    ``before`` and ``after`` are the clients in the rule files of the rules routes it, as far as a file has them.
    """

    family: Family
    table: str
    chain: str
    index: int
    text: str
    before: Origin | None
    after: Origin | None
    inserted: bool = False

    @property
    def line(self) -> str:
        """The line to write in a rule file."""
        line = f"-A {self.chain} {self.text}"
        if self.inserted:
            line = f"-I {self.chain} {self.text}"
        if self.table != "filter":
            line = f"-t {self.table} {line}"
        return line

    @property
    def place(self) -> str:
        """Where to write it."""
        if self.before is not None and not self.inserted:
            return f"in {self.before.path}, before line {self.before.line}"
        neighbour = self.before or self.after
        if neighbour is not None:
            return f"in {neighbour.path}, after line {neighbour.line}"
        return f"in a rule file, so that it becomes rule {self.index + 1} of {self.chain}"

    def document(self) -> dict[str, Any]:
        """The addition as JSON values. The keys are a contract."""
        return {
            "rule": self.line,
            **origin_document(self.before or self.after),
            "position": _POSITIONS[self.before is not None and not self.inserted],
            "table": self.table,
            "chain": self.chain,
            "index": self.index + 1,
            "place": self.place,
        }


@dataclass(frozen=True, slots=True)
class Remedy:
    """Rules that would have to be added for a packet, and what became of it through the ruleset with them.

    ``proven`` is false where the packet is not accepted with them either, or no rule helps.
    """

    additions: tuple[AddedRule, ...]
    journey: Journey | Undecided

    @property
    def proven(self) -> bool:
        """Whether the packet was accepted with the additions."""
        return bool(self.additions) and isinstance(self.journey, Journey) and self.journey.verdict is Verdict.ACCEPT


def find_remedy(journey: Journey, rulesets: Rulesets, open_bed: OpenBed) -> Remedy:
    """Add rules until the packet is accepted, or no rule can be named. Raises what ``open_bed`` raises."""
    additions: list[AddedRule] = []
    lines: set[str] = set()
    last: Journey | Undecided = journey
    while len(additions) < MOST_ADDITIONS:
        addition = addition_for(last, rulesets)
        if addition is None or addition.line in lines:
            break
        lines.add(addition.line)
        additions.append(addition)
        rulesets = with_addition(rulesets, addition)
        with open_bed(rulesets) as bed:
            (last,) = bed.send([journey.packet])
    return Remedy(tuple(additions), last)


def addition_for(journey: Journey | Undecided, rulesets: Rulesets) -> AddedRule | None:
    """The rule in front of what ended the packet; None where it is accepted, or no rule of the ruleset ended it."""
    if isinstance(journey, Undecided) or journey.verdict is Verdict.ACCEPT or journey.deciding is None:
        return None
    found = chain_of(journey.deciding, rulesets[journey.packet.family])
    if found is None:
        return None
    return _addition(journey, journey.deciding, found, rulesets)


def _addition(journey: Journey, step: Step, place: Chain, rulesets: Rulesets) -> AddedRule:
    index = _index(step, place)
    text = " ".join((*_conditions(journey, step, rulesets), "-j ACCEPT"))
    return AddedRule(journey.packet.family, step.table, place.name, index, text, *_neighbours(place, index))


def _index(step: Step, chain: Chain) -> int:
    """The place in front of a rule; of a policy, in front of the last rules that only log."""
    if step.position is not None:
        return step.position - 1
    index = len(chain.rules)
    while index and RuleView.of(chain.rules[index - 1].text).target in _LOGGING:
        index -= 1
    return index


def _neighbours(chain: Chain, index: int) -> tuple[Origin | None, Origin | None]:
    """The clients of the rule behind, and of the one in front; in front of the first rule that is the policy."""
    origins = [chain.origin, *map(attrgetter("origin"), chain.rules), None]
    return origins[index + 1], origins[index]


def _conditions(journey: Journey, step: Step, rulesets: Rulesets) -> Iterator[str]:
    """The narrowest conditions that the packet meets at a step, as a rule file has them."""
    packet = journey.packet
    yield from _interface_conditions(packet, _hook_of(journey, step, rulesets))
    if packet.state is not ConnectionState.ESTABLISHED:
        yield from _address_conditions(packet, ends_at(step.packet, packet))
        yield from _protocol_conditions(packet, ends_at(step.packet, packet))
    if step.table != "raw" and uses_states(rulesets):
        yield f"-m conntrack --ctstate {_STATES[packet.state]}"


_STATES: Final = {
    ConnectionState.NEW: "NEW",
    ConnectionState.ESTABLISHED: "ESTABLISHED,RELATED",
    ConnectionState.RELATED: "RELATED",
    ConnectionState.UNTRACKED: "UNTRACKED",
}


def _hook_of(journey: Journey, step: Step, rulesets: Rulesets) -> str:
    """The built-in chain that a step was reached from."""
    hooks = {met.step: met.hook for met in met_in(journey, rulesets)}
    return hooks.get(step, step.chain)


def _interface_conditions(packet: Packet, hook: str) -> Iterator[str]:
    if packet.in_interface and hook in _WITH_IN:
        yield f"-i {packet.in_interface}"
    if packet.out_interface and hook in _WITH_OUT:
        yield f"-o {packet.out_interface}"


def _address_conditions(packet: Packet, ends: Ends) -> Iterator[str]:
    """The addresses of other hosts."""
    if packet.in_interface:
        yield f"-s {ends.source}"
    if packet.out_interface:
        yield f"-d {ends.destination}"


def _protocol_conditions(packet: Packet, ends: Ends) -> Iterator[str]:
    yield f"-p {_RULE_NAMES.get(packet.protocol, packet.protocol)}"
    for option, value in (
        ("--dport", ends.destination_port),
        (f"--{packet.protocol}-type", packet.icmp_type),
        ("-m owner --uid-owner", packet.uid),
    ):
        if value is not None:
            yield f"{option} {value}"


_RULE_NAMES: Final = {"icmpv6": "ipv6-icmp"}


def uses_states(rulesets: Rulesets) -> bool:
    """Whether a rule asks for the state of the connection, so that an added rule should name it too."""
    rules = chain.from_iterable(map(rules_in_order, rulesets.values()))
    return any(_STATE_OPTION.search(rule.text) for rule in rules)


def with_addition(rulesets: Rulesets, addition: AddedRule) -> dict[Family, Ruleset]:
    """The rulesets with the rule at its place."""
    ruleset = rulesets[addition.family]
    table = ruleset.tables[addition.table]
    before = table.chains[addition.chain]
    rules = (*before.rules[: addition.index], Rule(addition.text), *before.rules[addition.index :])
    chains = {**table.chains, before.name: replace(before, rules=rules)}
    tables = {**ruleset.tables, table.name: Table(table.name, chains)}
    return {**rulesets, addition.family: Ruleset(addition.family, tables)}
