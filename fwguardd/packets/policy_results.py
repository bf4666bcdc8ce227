"""What became of the packets of policy tests -> results, and findings about those that failed or could not be decided.

A test passes if every packet meets the verdict that it expects, by the way that it names. A packet that a bed cannot
decide about makes the test undecided, never passed.

This module is pure.
"""

from __future__ import annotations

from dataclasses import replace
from enum import Enum
from typing import TYPE_CHECKING, TypeGuard

from fwguardd.packets.host_routes import host_routes
from fwguardd.packets.journeys import origin_of, rule_of, verdict_in_words
from fwguardd.packets.model import Direction, Journey, Undecided, Verdict
from fwguardd.packets.packet_words import packet_in_words
from fwguardd.packets.straight_answer import straight_answer, turns_back
from fwguardd.ruleset.model import Finding, Findings, Origin, Severity
from fwguardd.values import dataclass
from fwguardd.wording import counted

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from fwguardd.packets.host import Host
    from fwguardd.packets.model import Packet, Step
    from fwguardd.packets.policy_cases import Case
    from fwguardd.packets.policy_tests import PolicyTest
    from fwguardd.packets.straight_answer import StraightAnswer
    from fwguardd.ruleset.model import Family, Ruleset

    Rulesets = Mapping[Family, Ruleset]
    Outcome = Journey | Undecided

FAILED_TEST, UNDECIDED_TEST, MISROUTED_TEST = "failed-test", "undecided-test", "misrouted-test"
"""The codes of findings about results. The last one is a failure that the routes of this host cause, not the rules."""


class PolicyOutcome(Enum):
    """What became of a test."""

    PASSED = "passed"
    FAILED = "failed"
    UNDECIDED = "undecided"


@dataclass(frozen=True, slots=True)
class Deciding:
    """What ended the journey of a packet, in a clause, and where it is written; None for what no file says.

    ``by_routes``: the interfaces and routes of this host. ``besides`` is a clause about what follows from it.
    """

    words: str
    origin: Origin | None = None
    by_routes: bool = False
    besides: str = ""

    def __str__(self) -> str:
        place = ""
        if self.origin is not None:
            place = f" at {self.origin}"
        return f"{self.words}{place}{self.besides}"


_SENTENCES = {
    PolicyOutcome.PASSED: "{0}: {1}",
    PolicyOutcome.FAILED: "{0}: expected {2}, but {1}",
    PolicyOutcome.UNDECIDED: "{0}: cannot be decided by packets: {1}",
}


@dataclass(frozen=True, slots=True)
class PolicyResult:
    """A test, what became of it, and the first packet that says so with what decided about it.

    ``differing`` is the number of packets that did not meet the verdict, or could not be decided. ``straight`` is the
    answer to a packet of a test that passed, if it does not come back through this host.
    """

    case: Case
    standing: PolicyOutcome
    packet: Packet
    verdict: Verdict | None
    deciding: Deciding
    differing: int = 0
    straight: StraightAnswer | None = None

    @property
    def is_accepted(self) -> bool:
        """Whether all packets were accepted, as they should."""
        return self.standing is PolicyOutcome.PASSED and self.verdict is Verdict.ACCEPT

    @property
    def packet_words(self) -> str:
        """The packet in words."""
        return packet_in_words(self.packet)

    @property
    def sentence(self) -> str:
        """What the packet met, in a sentence without a full stop."""
        text = _SENTENCES[self.standing].format(self.packet_words, self.deciding, self.case.test.expect)
        if self.differing > 1:
            text = f"{text}; the same holds for {counted(self.differing - 1, 'more packet')} of this test"
        return text


def results_of(
    cases: Iterable[Case], outcomes: Sequence[Outcome], rulesets: Rulesets, host: Host | None = None
) -> list[PolicyResult]:
    """The result of each case, where ``outcomes`` are those of all packets, in order, under these rulesets. With the
    ``host`` it is known which answers do not come back through it."""
    results: list[PolicyResult] = []
    first = 0
    for case in cases:
        after = first + len(case.packets)
        if case.packets:
            result = _result(case, outcomes[first:after], rulesets)
            straight = _straight(result, outcomes[first:after], rulesets, host)
            results.append(replace(result, straight=straight))
        first = after
    return results


def findings_of(results: Iterable[PolicyResult], *, undecided_fails: bool) -> Findings:
    """The findings about results; with ``undecided_fails`` an undecided test is an error."""
    findings: list[Finding] = []
    for result in results:
        if result.standing is not PolicyOutcome.PASSED:
            findings.append(_finding(result, undecided_fails=undecided_fails))
        elif result.straight is not None:
            findings.append(result.straight.finding(result.packet_words, result.case.test.origin))
    return Findings(findings)


def _straight(
    result: PolicyResult, outcomes: Sequence[Outcome], rulesets: Rulesets, host: Host | None
) -> StraightAnswer | None:
    """The first answer to a packet of a test that expects it to be accepted which does not come back. The routes are
    read only where a packet turns back."""
    turning = list(filter(_turns_back, outcomes))
    if host is None or not result.is_accepted or not turning:
        return None
    routes = host_routes(host)
    return next(filter(None, (straight_answer(journey, rulesets, routes) for journey in turning)), None)


def _turns_back(outcome: Outcome) -> TypeGuard[Journey]:
    return isinstance(outcome, Journey) and turns_back(outcome)


def _finding(result: PolicyResult, *, undecided_fails: bool) -> Finding:
    test = result.case.test
    code, severity = FAILED_TEST, Severity.ERROR
    if result.deciding.by_routes:
        code = MISROUTED_TEST
    if result.standing is PolicyOutcome.UNDECIDED:
        code, severity = UNDECIDED_TEST, _UNDECIDED[undecided_fails]
    hint = "correct the rules, or the test"
    if test.because:
        hint = f"the test says: {test.because}"
    return Finding(code, result.sentence, test.origin, severity, hint, family=result.packet.family)


_UNDECIDED = {True: Severity.ERROR, False: Severity.WARNING}


def _result(case: Case, outcomes: Sequence[Outcome], rulesets: Rulesets) -> PolicyResult:
    failed, undecided = _not_passed(case, outcomes, rulesets)
    if failed:
        return _of_journey(case, PolicyOutcome.FAILED, failed[0], rulesets, len(failed))
    if undecided:
        first = undecided[0]
        return PolicyResult(case, PolicyOutcome.UNDECIDED, first.packet, None, _blamed(first, rulesets), len(undecided))
    passed = outcomes[0]
    assert isinstance(passed, Journey)
    return _of_journey(case, PolicyOutcome.PASSED, passed, rulesets, 0)


def _not_passed(case: Case, outcomes: Sequence[Outcome], rulesets: Rulesets) -> tuple[list[Journey], list[Undecided]]:
    """The journeys that do not meet what the test expects, and the packets that are undecided."""
    undecided = [outcome for outcome in outcomes if isinstance(outcome, Undecided)]
    failed = [outcome for outcome in outcomes if isinstance(outcome, Journey) and _fails(outcome, case)]
    if _leaves_interfaces_open(case.test):
        failed, misrouted = _without_misrouted(failed, rulesets)
        undecided = [*misrouted, *undecided]
    return failed, undecided


def _leaves_interfaces_open(test: PolicyTest) -> bool:
    """Whether the host chooses an interface of the test."""
    return any(name.endswith("+") for name in (*test.in_interface, *test.out_interface))


def _without_misrouted(failed: list[Journey], rulesets: Rulesets) -> tuple[list[Journey], list[Undecided]]:
    """The journeys that rules ended, and the packets that the routes of the host ended: not every interface takes the
    packet of such a test."""
    kept: list[Journey] = []
    misrouted: list[Undecided] = []
    for journey in failed:
        deciding = deciding_of(journey, rulesets)
        if deciding.by_routes:
            misrouted.append(Undecided(journey.packet, deciding.words))
        else:
            kept.append(journey)
    return kept, misrouted


def _fails(journey: Journey, case: Case) -> bool:
    return journey.verdict is not case.test.expect or _goes_astray(journey)


def _blamed(outcome: Undecided, rulesets: Rulesets) -> Deciding:
    """Why a packet is undecided, with the rule to blame if there is one."""
    if outcome.step is None:
        return Deciding(outcome.because)
    ruleset = rulesets[outcome.packet.family]
    return Deciding(f"{outcome.because}, in {_words(outcome.step, ruleset)}", origin_of(outcome.step, ruleset))


def _of_journey(
    case: Case, standing: PolicyOutcome, journey: Journey, rulesets: Rulesets, differing: int
) -> PolicyResult:
    deciding = deciding_of(journey, rulesets)
    return PolicyResult(case, standing, journey.packet, journey.verdict, deciding, differing)


def _goes_astray(journey: Journey) -> bool:
    """Whether an accepted packet leaves by another interface than the one that it names."""
    wanted = journey.packet.out_interface
    return journey.verdict is Verdict.ACCEPT and wanted is not None and journey.routed not in ("", wanted)


_VERBS = {Verdict.ACCEPT: "accepts it", Verdict.DROP: "drops it", Verdict.REJECT: "rejects it"}


def deciding_of(journey: Journey, rulesets: Rulesets) -> Deciding:
    """What ended the journey of a packet under these rulesets."""
    if _goes_astray(journey):
        return Deciding(f"it leaves by {journey.routed}, by the routes of this host", by_routes=True)
    if journey.deciding is None:
        by_routes = journey.verdict is not Verdict.ACCEPT
        return Deciding(f"it is {verdict_in_words(journey, rulesets)}", by_routes=by_routes)
    ruleset = rulesets[journey.packet.family]
    words = f"{_words(journey.deciding, ruleset)} {_VERBS[journey.verdict]}"
    besides = ""
    if _is_published(journey):
        way = f"it is forwarded to {journey.routed}, so that INPUT does not see it"
        besides = f"; {way}: filter it in FORWARD or DOCKER-USER"
    return Deciding(words, origin_of(journey.deciding, ruleset), besides=besides)


def _is_published(journey: Journey) -> bool:
    """Whether a packet to this host was accepted and forwarded, as one to a published port of a container is."""
    inbound = journey.packet.direction is Direction.INBOUND
    return journey.verdict is Verdict.ACCEPT and inbound and journey.routed != "local"


def _words(step: Step, ruleset: Ruleset) -> str:
    """A rule as it is in the ruleset, or a policy."""
    place = f"-t {step.table} ".replace("-t filter ", "")
    if step.position is None:
        return f"the policy of {place}{step.chain}"
    rule = rule_of(step, ruleset)
    if rule is None:
        return f"rule {step.position} of {place}{step.chain}"
    return f'"{place}-A {step.chain} {rule.text}"'
