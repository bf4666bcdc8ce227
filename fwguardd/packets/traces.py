"""What the kernel's trace of a packet says, as a `Journey`: rules by their position in the ruleset, and the verdict.

The trace of nf_tables has the outcome of each rule, that of legacy iptables does not: there the rule's target says it.

This module is pure.
"""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, Final

from fwguardd.packets.model import Journey, PacketView, Step, Undecided, Verdict
from fwguardd.ruleset.model import BUILTIN_CHAINS, NOT_STATED, VERDICTS
from fwguardd.ruleset.rule_view import RuleView, target_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fwguardd.packets.bed_rules import BedRules, Stand
    from fwguardd.packets.model import Packet
    from fwguardd.ruleset.model import Rule

_ENDS_WITH_ACCEPT: Final = frozenset({"DNAT", "SNAT", "MASQUERADE", "REDIRECT", "NETMAP", "SAME", "DNPT", "SNPT"})
"""Target extensions after which a packet traverses no other rule of its table."""
_BY_A_PROGRAM: Final = frozenset({"QUEUE", "NFQUEUE", "SYNPROXY", "TPROXY", "TARPIT", "CLUSTERIP"})
"""Targets that leave the verdict to something that a bed does not have: a program, a socket, another host."""
_SEEN: Final = {
    True: "the kernel dropped the packet, and no rule did",
    False: "the packet did not arrive at the first hook",
}
_ENDINGS: Final = {"drop": Verdict.DROP, "reject": Verdict.REJECT}


def read_journey(packet: Packet, result: Mapping[str, Any], rules: BedRules | None) -> Journey | Undecided:
    """What became of a packet, from the answer of the bed. ``rules`` are those of its family; None without any."""
    if "undecided" in result:
        return Undecided(packet, result["undecided"])
    reading = _Reading(rules, [_view(view) for view in result["views"]])
    for step in result["steps"]:
        reading.add(*step)
    return _journey(packet, result, reading)


class _Reading:
    """The steps of a packet, and the questions that it met: whether a rule matches whose match a bed does not have."""

    def __init__(self, rules: BedRules | None, views: Sequence[PacketView]) -> None:
        self._rules = rules
        self._views = views
        self.steps: list[Step] = []
        self.questions: list[tuple[Step, Stand]] = []

    def add(self, table: str, chain: str, position: int | None, outcome: str, view: int) -> None:
        """Add what one message says."""
        packet = self._views[view]
        if not outcome and position is not None and position > self._length(table, chain):
            # Legacy iptables gives the policy, and the end of a chain, the number behind the last rule.
            if chain not in BUILTIN_CHAINS[table]:
                return
            position = None
        if position is None:
            self.steps.append(Step(table, chain, None, outcome or self._policy(table, chain), packet))
            return
        if self._rules is None:
            self.steps.append(Step(table, chain, position, outcome or "continue", packet))
            return
        stand = self._rules.stand(table, chain, position)
        rule = self._rules.rule(table, chain, stand.position)
        if stand.match:
            self.questions.append((Step(table, chain, stand.position, "continue", packet), stand))
        else:
            self.steps.append(Step(table, chain, stand.position, self._outcome(table, rule, outcome), packet))

    def _length(self, table: str, chain: str) -> int:
        """How many rules the bed has in a chain."""
        if self._rules is None or table not in self._rules.loaded.tables:
            return 0
        known = self._rules.loaded.tables[table].chains.get(chain)
        if known is None:
            return 0
        return len(known.rules)

    def _policy(self, table: str, chain: str) -> str:
        if self._rules is None or table not in self._rules.proved.tables:
            return "accept"
        known = self._rules.proved.tables[table].chains.get(chain)
        if known is None or known.policy in (None, NOT_STATED):
            return "accept"
        return str(known.policy).lower()

    def _outcome(self, table: str, rule: Rule | None, traced: str) -> str:
        if rule is None:
            return traced or "continue"
        target = target_of(rule.text)
        if target == "REJECT":
            return "reject"
        if target in _BY_A_PROGRAM:
            return "queue"
        if traced:
            return traced
        return self._outcome_of_target(table, rule, target)

    def _outcome_of_target(self, table: str, rule: Rule, target: str | None) -> str:
        """What a target of legacy iptables does."""
        if target is None:
            return "continue"
        if target in VERDICTS:
            return target.lower()
        if target in _ENDS_WITH_ACCEPT:
            return "accept"
        if self._rules is not None and target in self._rules.proved.tables[table].chains:
            if RuleView.of(rule.text).is_goto:
                return f"goto {target}"
            return f"jump {target}"
        return "continue"

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
        if self._rules is None or step.position is None:
            return None
        rule = self._rules.rule(step.table, step.chain, step.position)
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
