"""What became of the packets of policy tests -> results, and findings about those that failed or could not be decided.

A test passes if every packet meets the verdict that it expects, by the way that it names. A packet that a bed cannot
decide about makes the test undecided, never passed.

This module is pure.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING

from fwguardd.packets.model import ConnectionState, Direction, Journey, Undecided, Verdict
from fwguardd.ruleset.model import Family, Finding, Findings, Origin, Severity
from fwguardd.wording import counted

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from fwguardd.packets.model import Packet, Step
    from fwguardd.packets.policy_cases import Case
    from fwguardd.ruleset.model import Ruleset

    Rulesets = Mapping[Family, Ruleset]
    Outcome = Journey | Undecided

FAILED_TEST, UNDECIDED_TEST = "failed-test", "undecided-test"
"""The codes of findings about results."""


class Standing(Enum):
    """What became of a test."""

    PASSED = "passed"
    FAILED = "failed"
    UNDECIDED = "undecided"


@dataclass(frozen=True, slots=True)
class Deciding:
    """What ended the journey of a packet, in a clause, and where it is written; None for what no file says."""

    words: str
    origin: Origin | None = None

    @property
    def brief(self) -> str:
        """The name of the file and the line; without one, the words."""
        if self.origin is None:
            return self.words
        return f"{self.origin.path.rpartition('/')[2]}:{self.origin.line}"

    def __str__(self) -> str:
        if self.origin is None:
            return self.words
        return f"{self.words} at {self.origin}"


@dataclass(frozen=True, slots=True)
class PolicyResult:
    """A test, what became of it, and the first packet that says so with what decided about it.

    ``differing`` is the number of packets that did not meet the verdict, or could not be decided.
    """

    case: Case
    standing: Standing
    packet: Packet
    verdict: Verdict | None
    deciding: Deciding
    differing: int = 0

    @property
    def packet_words(self) -> str:
        """The packet in words."""
        return describe(self.packet)

    @property
    def sentence(self) -> str:
        """What the packet met, in a sentence without a full stop."""
        if self.standing is Standing.UNDECIDED:
            return f"{describe(self.packet)}: cannot be decided by packets: {self.deciding}"
        if self.standing is Standing.PASSED:
            return f"{describe(self.packet)}: {self.deciding}"
        text = f"{describe(self.packet)}: expected {self.case.test.expect}, but {self.deciding}"
        if self.differing > 1:
            text = f"{text}; the same holds for {counted(self.differing - 1, 'more packet')} of this test"
        return text

    @property
    def finding(self) -> Finding | None:
        """The finding about it; None if it passed. That a test is undecided is a warning."""
        if self.standing is Standing.PASSED:
            return None
        severity, code = Severity.ERROR, FAILED_TEST
        if self.standing is Standing.UNDECIDED:
            severity, code = Severity.WARNING, UNDECIDED_TEST
        hint = "correct the rules, or the test"
        if self.case.test.because:
            hint = f"the test says: {self.case.test.because}"
        return Finding(code, self.sentence, self.case.test.origin, severity, hint, family=self.packet.family)


def results_of(cases: Iterable[Case], outcomes: Sequence[Outcome], rulesets: Rulesets) -> list[PolicyResult]:
    """The result of each case, where ``outcomes`` are those of all packets, in order, under these rulesets."""
    results: list[PolicyResult] = []
    first = 0
    for case in cases:
        after = first + len(case.packets)
        if case.packets:
            results.append(_result(case, outcomes[first:after], rulesets))
        first = after
    return results


def findings_of(results: Iterable[PolicyResult], *, undecided_fails: bool) -> Findings:
    """The findings about results; with ``undecided_fails`` an undecided test is an error."""
    findings: list[Finding] = []
    for result in results:
        finding = result.finding
        if finding is None:
            continue
        if undecided_fails and finding.severity is Severity.WARNING:
            finding = replace(finding, severity=Severity.ERROR)
        findings.append(finding)
    return Findings(findings)


def _result(case: Case, outcomes: Sequence[Outcome], rulesets: Rulesets) -> PolicyResult:
    failed: list[Journey] = []
    undecided: list[Undecided] = []
    for outcome in outcomes:
        if isinstance(outcome, Undecided):
            undecided.append(outcome)
        elif outcome.verdict is not case.test.expect or _goes_astray(outcome):
            failed.append(outcome)
    if failed:
        return _of_journey(case, Standing.FAILED, failed[0], rulesets, len(failed))
    if undecided:
        first = undecided[0]
        return PolicyResult(case, Standing.UNDECIDED, first.packet, None, _blamed(first, rulesets), len(undecided))
    passed = outcomes[0]
    assert isinstance(passed, Journey)
    return _of_journey(case, Standing.PASSED, passed, rulesets, 0)


def _blamed(outcome: Undecided, rulesets: Rulesets) -> Deciding:
    """Why a packet is undecided, with the rule to blame if there is one."""
    if outcome.step is None:
        return Deciding(outcome.because)
    ruleset = rulesets.get(outcome.packet.family)
    return Deciding(f"{outcome.because}, in {_words(outcome.step, ruleset)}", _origin(outcome.step, ruleset))


def _of_journey(case: Case, standing: Standing, journey: Journey, rulesets: Rulesets, differing: int) -> PolicyResult:
    deciding = deciding_of(journey, rulesets)
    return PolicyResult(case, standing, journey.packet, journey.verdict, deciding, differing)


def _goes_astray(journey: Journey) -> bool:
    """Whether an accepted packet leaves by another interface than the one that it names."""
    wanted = journey.packet.out_interface
    return journey.verdict is Verdict.ACCEPT and wanted is not None and journey.routed not in ("", wanted)


_VERBS = {Verdict.ACCEPT: "accepts it", Verdict.DROP: "drops it", Verdict.REJECT: "rejects it"}
_PASSIVE = {Verdict.ACCEPT: "accepted", Verdict.DROP: "dropped", Verdict.REJECT: "rejected"}


def deciding_of(journey: Journey, rulesets: Rulesets) -> Deciding:
    """What ended the journey of a packet under these rulesets."""
    packet = journey.packet
    if journey.routed == "no route":
        return Deciding(f"it is dropped: this host has no route to {packet.destination}")
    if journey.routed == "reverse path":
        why = f"this host would not send answers to {packet.source} by {packet.in_interface}"
        return Deciding(f"the reverse path filter (rp_filter, ip-sysctl) drops it: {why}")
    if _goes_astray(journey):
        return Deciding(f"it leaves by {journey.routed}, by the routes of this host")
    if journey.deciding is None:
        return Deciding(_without_rule(journey))
    ruleset = rulesets.get(packet.family)
    words = f"{_words(journey.deciding, ruleset)} {_VERBS[journey.verdict]}"
    if journey.verdict is Verdict.ACCEPT and packet.direction is Direction.INBOUND and journey.routed != "local":
        words = f"{words}; it is forwarded to {journey.routed}, so that chain INPUT does not see it"
    return Deciding(words, _origin(journey.deciding, ruleset))


def _without_rule(journey: Journey) -> str:
    """What became of a packet that met no rule."""
    if journey.packet.direction is Direction.FORWARDED and journey.verdict is Verdict.DROP:
        return "it is dropped before any rule: this host does not forward packets (net.ipv4.ip_forward, ip-sysctl)"
    return f"it is {_PASSIVE[journey.verdict]}, and met no rule"


def _words(step: Step, ruleset: Ruleset | None) -> str:
    """A rule as it is in the ruleset, or a policy."""
    table = ""
    if step.table != "filter":
        table = f"-t {step.table} "
    if step.position is None:
        return f"the policy of {table}{step.chain}"
    text = _rule_text(step, ruleset)
    if text is None:
        return f"rule {step.position} of {table}{step.chain}"
    return f'"{table}-A {step.chain} {text}"'


def _rule_text(step: Step, ruleset: Ruleset | None) -> str | None:
    if ruleset is None or step.position is None or step.table not in ruleset.tables:
        return None
    chain = ruleset.tables[step.table].chains.get(step.chain)
    if chain is None or step.position > len(chain.rules):
        return None
    return chain.rules[step.position - 1].text


def _origin(step: Step, ruleset: Ruleset | None) -> Origin | None:
    if ruleset is None or step.table not in ruleset.tables:
        return None
    chain = ruleset.tables[step.table].chains.get(step.chain)
    if chain is None:
        return None
    if step.position is None:
        return chain.origin
    if step.position > len(chain.rules):
        return None
    return chain.rules[step.position - 1].origin


def describe(packet: Packet) -> str:
    """A packet in the words of a test: "tcp from 198.51.100.7 to 192.0.2.1:22, in eth0"."""
    protocol = packet.protocol
    if packet.icmp_type is not None:
        protocol = f"{protocol} type {packet.icmp_type}"
        if packet.icmp_code:
            protocol = f"{protocol}/{packet.icmp_code}"
    destination = str(packet.destination)
    if packet.destination_port is not None:
        if packet.family is Family.IPV6:
            destination = f"[{destination}]"
        destination = f"{destination}:{packet.destination_port}"
    parts = [f"{protocol} from {packet.source} to {destination}"]
    parts += _details(packet)
    return ", ".join(parts)


def _details(packet: Packet) -> Iterator[str]:
    if packet.in_interface is not None:
        yield f"in {packet.in_interface}"
    if packet.out_interface is not None:
        yield f"out {packet.out_interface}"
    if packet.state is not ConnectionState.NEW:
        yield packet.state.value
    for name, value in (("uid", packet.uid), ("gid", packet.gid), ("mark", packet.mark or None)):
        if value is not None:
            yield f"{name} {value}"
    if packet.fragment:
        yield "in fragments"
