"""Results of policy tests as JUnit XML, which CI systems read.

There is no standard; this is what the schema of Jenkins' xunit plugin (junit-10.xsd) and GitLab take.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from xml.sax.saxutils import escape, quoteattr

from fwguardd.escaping import printable
from fwguardd.packets.policy_results import PolicyOutcome

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fwguardd.ctl.policy_run import PolicyRun, TimedResult
    from fwguardd.proof.invariant_results import InvariantResult
    from fwguardd.ruleset.model import Origin


def junit(run: PolicyRun) -> str:
    """The document."""
    standings = [*(timed.result.standing for timed in run.results), *(result.standing for result in run.invariants)]
    counts = (
        f'tests="{len(standings)}" failures="{standings.count(PolicyOutcome.FAILED)}" '
        f'skipped="{standings.count(PolicyOutcome.UNDECIDED)}" errors="0" time="{run.seconds:.6f}"'
    )
    lines = ['<?xml version="1.0" encoding="UTF-8"?>', f"<testsuites {counts}>"]
    lines.append(f'  <testsuite name="fwguardd policy tests" {counts}>')
    for timed in run.results:
        lines += _case(timed)
    for result in run.invariants:
        lines += _invariant(result)
    lines += ["  </testsuite>", "</testsuites>", ""]
    return "\n".join(lines)


def _case(timed: TimedResult) -> Iterator[str]:
    result, test = timed.result, timed.result.case.test
    name = f"line {test.origin.line}: {test.expect} {result.packet_words}"
    yield from _element(name, test.origin, timed.seconds, result.standing, (result.sentence, test.because))


def _invariant(result: InvariantResult) -> Iterator[str]:
    invariant = result.invariant
    name = f"line {invariant.origin.line}: {invariant.kind}"
    why = result.sentence, invariant.because
    yield from _element(name, invariant.origin, result.seconds, result.standing, why)


def _element(name: str, origin: Origin, seconds: float, standing: PolicyOutcome, why: tuple[str, str]) -> Iterator[str]:
    """A test case. ``why`` is the sentence about one that did not pass, and what its author says."""
    place = f'classname={_attribute(origin.path)} file={_attribute(origin.path)} line="{origin.line}"'
    head = f'    <testcase name={_attribute(name)} {place} time="{seconds:.6f}"'
    if standing is PolicyOutcome.PASSED:
        yield f"{head}/>"
        return
    element = "failure"
    if standing is PolicyOutcome.UNDECIDED:
        element = "skipped"
    sentence, because = why
    yield f"{head}>"
    yield f"      <{element} message={_attribute(sentence)}>{escape(printable(because))}</{element}>"
    yield "    </testcase>"


def _attribute(text: str) -> str:
    return quoteattr(printable(text))
