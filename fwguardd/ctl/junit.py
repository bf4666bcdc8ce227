"""Results of policy tests as JUnit XML, which CI systems read.

There is no standard; this is what the schema of Jenkins' xunit plugin (junit-10.xsd) and GitLab take.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from xml.sax.saxutils import escape, quoteattr

from fwguardd.escaping import printable
from fwguardd.packets.policy_results import Standing

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fwguardd.ctl.policy_run import PolicyRun, TimedResult


def junit(run: PolicyRun) -> str:
    """The document."""
    counts = (
        f'tests="{len(run.results)}" failures="{run.count(Standing.FAILED)}" '
        f'skipped="{run.count(Standing.UNDECIDED)}" errors="0" time="{run.seconds:.6f}"'
    )
    lines = ['<?xml version="1.0" encoding="UTF-8"?>', f"<testsuites {counts}>"]
    lines.append(f'  <testsuite name="fwguardd policy tests" {counts}>')
    for timed in run.results:
        lines += _case(timed)
    lines += ["  </testsuite>", "</testsuites>", ""]
    return "\n".join(lines)


def _case(timed: TimedResult) -> Iterator[str]:
    result, test = timed.result, timed.result.case.test
    name = _attribute(f"line {test.origin.line}: {test.expect} {result.packet_words}")
    place = f'classname={_attribute(test.origin.path)} file={_attribute(test.origin.path)} line="{test.origin.line}"'
    head = f'    <testcase name={name} {place} time="{timed.seconds:.6f}"'
    if result.standing is Standing.PASSED:
        yield f"{head}/>"
        return
    element = "failure"
    if result.standing is Standing.UNDECIDED:
        element = "skipped"
    yield f"{head}>"
    text = escape(printable(test.because))
    yield f"      <{element} message={_attribute(result.sentence)}>{text}</{element}>"
    yield "    </testcase>"


def _attribute(text: str) -> str:
    return quoteattr(printable(text))
