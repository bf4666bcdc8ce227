"""The verb test: the packets of the policy tests through the rules, a line for each test, and a document for CI."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fwguardd.ctl.beds import add_host
from fwguardd.ctl.explain_lines import wrapped
from fwguardd.ctl.invariant_lines import invariant_document, invariant_lines
from fwguardd.ctl.junit import junit
from fwguardd.ctl.offline_verbs import ANSWER_IS_NO, DONE, input_of, print_findings, snapshot_of, validated_snapshot
from fwguardd.ctl.policy_run import run_on_files, run_on_kernel
from fwguardd.ctl.terminal import Painter, as_json
from fwguardd.ctl.verb_options import add_rules, describe
from fwguardd.enforce.rule_files import TESTS_ENDING, take_snapshot, without_tests
from fwguardd.enforce.validate import Invalid
from fwguardd.escaping import printable
from fwguardd.packets.journeys import VERDICTS
from fwguardd.packets.policy_results import PolicyOutcome
from fwguardd.wording import counted

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from fwguardd.ctl.offline_verbs import OfflineInput
    from fwguardd.ctl.policy_run import PolicyRun, TimedResult
    from fwguardd.enforce.rule_files import Snapshot
    from fwguardd.kernel.iptables import Tool
    from fwguardd.packets.policy_results import PolicyResult

_WORDS = {PolicyOutcome.PASSED: "passed", PolicyOutcome.FAILED: "FAILED", PolicyOutcome.UNDECIDED: "undecided"}


def add_arguments(parser: argparse.ArgumentParser, _verb: str) -> None:
    """Add the help, the options and the operands."""
    description = (
        "Send the packets of the policy tests (NAME.tests.yaml beside the rule files) through the rules, in a "
        "temporary network namespace that is like this host, and print what decided. Nothing leaves the namespace. "
        "Prove the invariants in these files (never, always) for all packets. "
        "Exit code: 0 all passed; 1 something failed, or the files have errors; 5 no packets could be sent."
    )
    examples = (
        ("fwguardctl test", "the rule files and tests of the daemon"),
        ("fwguardctl test --live", "the rules in the kernel"),
        ("fwguardctl test ./rules --host h.yaml --junit r.xml", "in CI, for another host"),
        ("fwguardctl test --write new.tests.yaml", "write tests of what is in force"),
    )
    describe(parser, description, examples)
    add_rules(parser)
    parser.add_argument("--live", action="store_true", help="test the rules in the kernel, not those of the files")
    add_host(parser)
    parser.add_argument("--junit", type=Path, metavar="F", help="write the results as JUnit XML to this file")
    parser.add_argument(
        "--write", type=Path, metavar="F", help="write tests of what is in force to a new file; - is standard output"
    )
    parser.add_argument(
        "paths", nargs="*", type=Path, metavar="PATH",
        help="a directory, or files; tests files alone test the rules of the daemon",
    )  # fmt: skip


def run(options: argparse.Namespace) -> int:
    """Run the tests that the command line names; the exit code. Raises ReportedError."""
    source = input_of(options)
    if options.write is not None:
        from fwguardd.ctl.test_writer import write_tests  # noqa: PLC0415 - only this option needs it.

        return write_tests(source, options.write)
    snapshot = _snapshot(source, options)
    result, tool = validated_snapshot(snapshot, source)
    if isinstance(result, Invalid):
        _print_invalid(result, tool, source)
        return ANSWER_IS_NO
    run_tests = run_on_files
    if options.live:
        run_tests = run_on_kernel
    done = run_tests(result, tool, source, options.host)
    if options.junit is not None:
        options.junit.write_text(junit(done), encoding="utf-8")
    if source.json:
        print(json.dumps(_document(done)))
    else:
        _print(done)
    return DONE if not done.findings.errors else ANSWER_IS_NO


def _snapshot(source: OfflineInput, options: argparse.Namespace) -> Snapshot:
    """The files; where only tests files are named, with the rule files of the daemon."""
    snapshot = snapshot_of(source.paths, source.rules_dir)
    if not options.paths or not all(path.name.endswith(TESTS_ENDING) for path in source.paths):
        return snapshot
    rules = take_snapshot(options.rules_dir or source.rules_dir)
    return replace(snapshot, directory=rules.directory, files=(*without_tests(rules.files), *snapshot.files))


def _print_invalid(result: Invalid, tool: Tool, source: OfflineInput) -> None:
    if source.json:
        print(json.dumps({"ok": False, "findings": as_json(result.findings), "tests": []}))
    else:
        print_findings(result, tool, Painter())


def _print(done: PolicyRun) -> None:
    paint = Painter()
    for finding in done.about_tests:
        print(paint.finding(finding))
    for part in done.left_out:
        print(paint.dim(f"not like this host: {printable(part)}"))
    for timed in done.results:
        for line in lines_of(timed, paint):
            print(line)
    for result in done.invariants:
        for line in invariant_lines(result, paint):
            print(line)
    print(done.totals)


def lines_of(timed: TimedResult, paint: Painter) -> Iterator[str]:
    """A line for a test, and for one that did not pass more lines that say why."""
    result, test = timed.result, timed.result.case.test
    word, details = _WORDS[result.standing], f"({counted(timed.packets, 'packet')}, {timed.seconds * 1000:.1f} ms)"
    place = f"{Path(test.origin.path).name}:{test.origin.line}"
    if result.standing is PolicyOutcome.PASSED:
        first, *others = wrapped(f"{word}  {place}  {_decided(result)} {details}", "")
        yield first.replace(word, paint.good(word), 1)
        yield from others
        if result.straight is not None:
            yield from wrapped(f"no connection comes of it: {result.straight.sentence}", "    ", paint.dim)
            yield f"    add: {result.straight.rule}"
        return
    yield f"{paint.bad(word)}  {printable(place)}  {details}"
    yield from wrapped(result.sentence, "    ")
    if test.because:
        yield from wrapped(f"→ {test.because}", "    ", paint.dim)


def _decided(result: PolicyResult) -> str:
    """What decided about a test that passed, as short as it can be."""
    deciding = result.deciding
    if deciding.origin is None or result.verdict is None:
        return deciding.words
    return f"{VERDICTS[result.verdict]} by {Path(deciding.origin.path).name}:{deciding.origin.line}"


def _document(done: PolicyRun) -> dict[str, Any]:
    return {
        "ok": not done.findings.errors,
        **done.counts,
        "packets": done.packets,
        "seconds": round(done.seconds, 6),
        "findings": as_json(done.findings),
        "left_out": list(done.left_out),
        "tests": [_test_document(timed) for timed in done.results],
        "invariants": list(map(invariant_document, done.invariants)),
    }


def _test_document(timed: TimedResult) -> dict[str, Any]:
    """A result as JSON: the keys are a contract; what is not known is None."""
    result, test = timed.result, timed.result.case.test
    rule_file = rule_line = None
    if result.deciding.origin is not None:
        rule_file, rule_line = result.deciding.origin.path, result.deciding.origin.line
    return {
        "file": test.origin.path,
        "line": test.origin.line,
        "expect": test.expect.value,
        "result": result.standing.value,
        "verdict": result.verdict and result.verdict.value,
        "packets": timed.packets,
        "differing": result.differing,
        "message": result.sentence,
        "rule_file": rule_file,
        "rule_line": rule_line,
        "because": test.because or None,
        "seconds": round(timed.seconds, 6),
    }
