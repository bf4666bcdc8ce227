"""What the kernel's trace of a packet says, as a `Journey`: rules by their position in the ruleset, and the verdict.

The trace of nf_tables has the outcome of each rule, that of legacy iptables does not: there the rule's target says it.
Where there is no trace, the counters of the rules do (`fwguardd.packets.counted`).

This module is pure.
"""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, Final

from fwguardd.packets.bed_rules import bed_rules
from fwguardd.packets.counted import CountedWay
from fwguardd.packets.model import Journey, PacketView, Step, Undecided, Verdict
from fwguardd.packets.outcomes import outcome_of
from fwguardd.ruleset.model import BUILTIN_CHAINS, Ruleset
from fwguardd.ruleset.rule_view import target_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fwguardd.packets.bed_rules import BedRules, Stand
    from fwguardd.packets.model import Packet

_SEEN: Final = {
    True: "the kernel dropped the packet, and no rule did",
    False: "the packet did not arrive at the first hook",
}
NOT_CERTAIN: Final = "the kernel reports no trace of packets, and the counters of the rules do not say which it met"
NOT_ROUTED: Final = frozenset({"no route", "forwarding is off", "invalid address", "reverse path"})
"""What `Journey.routed` says of packets that routing ends."""
_ENDINGS: Final = {"drop": Verdict.DROP, "reject": Verdict.REJECT}


def read_journey(packet: Packet, result: Mapping[str, Any], rules: BedRules | None) -> Journey | Undecided:
    """What became of a packet, from the answer of the bed. ``rules`` are those of its family; None without any."""
    if "undecided" in result:
        return Undecided(packet, result["undecided"])
    if rules is None:
        rules = bed_rules(Ruleset(packet.family, {}))
    reading = _Reading(rules, list(map(_view, result["views"])))
    if "counted" in result:
        return _counted_journey(packet, result, reading, rules)
    for step in result["steps"]:
        reading.add(*step)
    return _journey(packet, result, reading)


def _counted_journey(
    packet: Packet, result: Mapping[str, Any], reading: _Reading, rules: BedRules
) -> Journey | Undecided:
    """The journey of a packet that no trace shows. Where it arrived has to be what the rules say that it met."""
    way = CountedWay(rules, result["counted"], result["hooks"])
    for step in way.steps:
        reading.add(*step)
    journey = _journey(packet, result, reading)
    ended = any(step.outcome in _ENDINGS for step in reading.steps)
    if isinstance(journey, Journey) and not (way.is_certain and _agrees(result, ended=ended)):
        return Undecided(packet, NOT_CERTAIN)
    return journey


def _agrees(result: Mapping[str, Any], *, ended: bool) -> bool:
    """Whether a packet arrived if no rule ended it, and only then. Routing may end it between the hooks."""
    accepted = bool(result["accepted"])
    if ended or accepted:
        return ended != accepted
    return result["routed"] in NOT_ROUTED


class _Reading:
    """The steps of a packet, and the questions that it met: whether a rule matches whose match a bed does not have."""

    def __init__(self, rules: BedRules, views: Sequence[PacketView]) -> None:
        self._rules = rules
        self._views = views
        self.steps: list[Step] = []
        self.questions: list[tuple[Step, Stand]] = []

    def add(self, table: str, chain: str, position: int | None, outcome: str, view: int) -> None:
        """Add what one message says."""
        packet = self._views[view]
        if position is None:
            self.steps.append(Step(table, chain, None, outcome, packet))
        elif not outcome and position > self._rules.length(table, chain):
            self._add_end(table, chain, packet)
        else:
            self._add_rule(table, chain, self._rules.stand(table, chain, position), outcome, packet)

    def _add_end(self, table: str, chain: str, packet: PacketView) -> None:
        """Legacy iptables gives the policy, and the end of a chain, the number behind the last rule."""
        if chain in BUILTIN_CHAINS[table]:
            self.steps.append(Step(table, chain, None, self._rules.policy(table, chain).lower(), packet))

    def _add_rule(self, table: str, chain: str, stand: Stand, outcome: str, packet: PacketView) -> None:
        step = Step(table, chain, stand.position, "continue", packet)
        if stand.match:
            self.questions.append((step, stand))
            return
        rule = self._rules.rule(table, chain, stand.position)
        if rule is not None:
            outcome = outcome_of(self._rules, table, rule, outcome)
        self.steps.append(replace(step, outcome=outcome or "continue"))

    def question_about(self, packet: Packet, verdict: Verdict) -> tuple[Step, Stand] | None:
        """The first question on which the verdict depends; None if it depends on none."""
        for step, stand in self.questions:
            if stand.first_is_decided and packet.state.value in ("new", "untracked"):
                continue
            if self._matched(step) or self._target(step) != verdict.value.upper():
                return step, stand
        return None

    def _matched(self, question: Step) -> bool:
        """Whether the rule matched in the bed. If not, a target that makes the same verdict changes nothing."""
        place = (question.table, question.chain, question.position)
        return any((step.table, step.chain, step.position) == place for step in self.steps)

    def _target(self, step: Step) -> str | None:
        rule = self._rules.rule(step.table, step.chain, step.position or 0)
        if rule is None:
            return None
        return target_of(rule.text)


def _journey(packet: Packet, result: Mapping[str, Any], reading: _Reading) -> Journey | Undecided:
    steps = tuple(reading.steps)
    left = _left_to_a_program(steps)
    if left is not None:
        return Undecided(packet, "the verdict is left to a program, which a bed does not have", left)
    verdict, deciding = _verdict(steps, accepted=result["accepted"])
    question = reading.question_about(packet, verdict)
    if question is not None:
        step, stand = question
        return Undecided(packet, f"whether the rule matches depends on {stand.match}, which a bed does not have", step)
    if deciding is None and not result["routed"]:
        return Undecided(packet, _SEEN[result["seen"]])
    return Journey(packet, steps, verdict, result["routed"], deciding)


def _left_to_a_program(steps: Sequence[Step]) -> Step | None:
    for step in steps:
        if step.outcome in ("queue", "stolen"):
            return step
    return None


def _verdict(steps: Sequence[Step], *, accepted: bool) -> tuple[Verdict, Step | None]:
    """The verdict, and the step that made it."""
    for step in steps:
        if step.outcome in _ENDINGS:
            return _ENDINGS[step.outcome], step
    if accepted:
        return Verdict.ACCEPT, _last_accepting(steps)
    return Verdict.DROP, None


def _last_accepting(steps: Sequence[Step]) -> Step | None:
    """The last step that accepted the packet, of the table filter if there is one."""
    found: Step | None = None
    for step in steps:
        if step.outcome == "accept" and (step.table == "filter" or found is None or found.table != "filter"):
            found = step
    return found


def _view(values: Sequence[Any]) -> PacketView:
    source, destination, source_port, destination_port, in_interface, out_interface, mark = values
    return PacketView(
        ip_address(source),
        ip_address(destination),
        source_port,
        destination_port,
        in_interface or None,
        out_interface or None,
        mark,
    )
