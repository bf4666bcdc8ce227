"""The verb check: read, compose, lint and rehearse rule files, and print what was found for people or programs.

With ``--static`` nothing is rehearsed, for containers that permit no namespaces and have no iptables.
"""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fwguardd.ctl.finding_formats import github_annotations, sarif
from fwguardd.ctl.judged_files import GuardRun, Judged, judged
from fwguardd.ctl.offline_verbs import (
    ANSWER_IS_NO,
    DONE,
    OfflineInput,
    forwarding_findings,
    input_of,
    print_findings,
    snapshot_of,
    validated,
    what_a_reload_does,
)
from fwguardd.ctl.terminal import Painter, as_json
from fwguardd.ctl.verb_options import add_rules, describe
from fwguardd.enforce.validate import Invalid, Valid, compose_files, unsilenced_in
from fwguardd.kernel.iptables import ToolMissingError
from fwguardd.kernel.namespaces import NamespaceError
from fwguardd.ruleset.model import FAMILIES, Findings
from fwguardd.values import dataclass
from fwguardd.wording import counted

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping

    from fwguardd.ctl.policy_run import PolicyRun
    from fwguardd.enforce.validate import Validation
    from fwguardd.kernel.iptables import Tool
    from fwguardd.ruleset.model import Family, Ruleset

FORMATS = ("text", "json", "github", "sarif")

PROOF_SECONDS = 120.0
"""The longest that the solver is asked."""

MOST_LISTED = 1_000
"""Findings that a document lists; it counts all."""

_NOT_REHEARSED = "::notice title=static::not rehearsed: errors that only iptables or the kernel finds are not reported"
_INSTEAD = "to check the files without a rehearsal, run: fwguardctl check --static"


@dataclass(frozen=True, slots=True)
class _Checked:
    """What a check found. ``tool`` is the iptables that it was rehearsed with; None without a rehearsal. ``tests`` are
    the results of policy tests; None where there are none, or no packets could be sent. ``guard`` is what the lockout
    guard has done."""

    ok: bool
    findings: Findings
    rules: Mapping[str, int]
    tool: Tool | None
    tests: PolicyRun | None
    guard: GuardRun


def add_arguments(parser: argparse.ArgumentParser, _verb: str) -> None:
    """Add the help, the options and the operands."""
    description = (
        "Check the rule files and load them in a temporary network namespace. Nothing on the host changes. A PATH "
        "outside of the daemon's rules directory may belong to any user. Exit code: 0 no errors; 1 errors."
    )
    examples = (
        ("fwguardctl check", "the rule files of the daemon"),
        ("fwguardctl check ./rules --static --format github", "in CI, without namespaces and iptables"),
    )
    describe(parser, description, examples)
    add_rules(parser)
    exclusive = parser.add_mutually_exclusive_group()
    exclusive.add_argument(
        "--static", action="store_true", help="do not rehearse: no iptables and no network namespace is needed"
    )
    exclusive.add_argument(
        "--proof", action="store_true", help="also prove which rules no packet meets or needs, with z3"
    )
    parser.add_argument("--format", choices=FORMATS, default="text", help="output format (default: %(default)s)")
    parser.add_argument("paths", nargs="*", type=Path, metavar="PATH", help="a directory, or rule files")


def run(options: argparse.Namespace) -> int:
    """Check what the command line names; the exit code. Raises ReportedError."""
    output = options.format
    if options.json:
        output = "json"
    return check(input_of(options), output, static=options.static, with_proofs=options.proof)


def check(source: OfflineInput, output: str, *, static: bool, with_proofs: bool = False) -> int:
    """Check the files and print the findings in a format of `FORMATS`. Raises NamespaceError, ToolMissingError."""
    if output == "text" and not static:
        return _check_as_text(source, with_proofs=with_proofs)
    checked = _checked(source, static=static, with_proofs=with_proofs)
    _print_as(output, checked)
    if static and output == "github":
        print(_NOT_REHEARSED)
    return _exit_code(ok=checked.ok)


def _check_as_text(source: OfflineInput, *, with_proofs: bool) -> int:
    judgement = _judged(source, with_proofs=with_proofs)
    print_findings(judgement.result, judgement.tool, Painter())
    if judgement.tests is not None:
        print(Painter().fit(f"policy tests: {judgement.tests.totals}"))
    ok = isinstance(judgement.result, Valid)
    if ok and judgement.guard.sentence:
        print(Painter().fit(judgement.guard.sentence))
    return _exit_code(ok=ok)


def _print_as(output: str, checked: _Checked) -> None:
    if output == "text":
        _print_static(checked)
    elif output == "json":
        print(json.dumps(_document(checked)))
    elif output == "sarif":
        print(json.dumps(sarif(checked.findings[:MOST_LISTED])))
    else:
        for line in github_annotations(checked.findings[:MOST_LISTED]):
            print(line)


def _exit_code(*, ok: bool) -> int:
    if ok:
        return DONE
    return ANSWER_IS_NO


def _judged(source: OfflineInput, *, with_proofs: bool) -> Judged:
    """The result of all steps. Raises NamespaceError and ToolMissingError, which name --static."""
    try:
        result, tool = validated(source)
        if with_proofs and isinstance(result, Valid):
            result = _with_proofs(result, source)
        return judged(_with_host(result, source), tool, source)
    except NamespaceError as error:
        raise NamespaceError(f"{error}; {_INSTEAD}") from error
    except ToolMissingError as error:
        raise ToolMissingError(f"{error}; {_INSTEAD}") from error


def _with_proofs(result: Valid, source: OfflineInput) -> Valid:
    """The result, with what the model of all packets proves about the rules. Raises SolverMissingError."""
    from fwguardd.kernel.z3_solver import Solver  # noqa: PLC0415 - most checks do without the model.
    from fwguardd.proof.rule_findings import RuleProofs  # noqa: PLC0415

    with Solver(time.monotonic() + PROOF_SECONDS) as solver:
        proofs = RuleProofs(result.rehearsed.rulesets, result.sets, result.findings, solver)
        found = unsilenced_in(snapshot_of(source.paths, source.rules_dir).files, proofs.findings())
    return replace(result, findings=Findings((*result.findings, *found)))


def _with_host(result: Validation, source: OfflineInput) -> Validation:
    """The result, with what the daemon's own rules need of this host: drafts may be for another one."""
    if isinstance(result, Invalid) or source.paths != (source.rules_dir,):
        return result
    return replace(result, findings=Findings((*result.findings, *forwarding_findings(result.rehearsed.rulesets))))


def _checked(source: OfflineInput, *, static: bool, with_proofs: bool) -> _Checked:
    if static:
        return _checked_without_kernel(source)
    judgement = _judged(source, with_proofs=with_proofs)
    result, rules = judgement.result, _counts({})
    if isinstance(result, Valid):
        rules = _counts(result.rehearsed.rulesets)
    return _Checked(isinstance(result, Valid), result.findings, rules, judgement.tool, judgement.tests, judgement.guard)


def _checked_without_kernel(source: OfflineInput) -> _Checked:
    snapshot = snapshot_of(source.paths, source.rules_dir)
    composition = compose_files(snapshot.files, source.context, snapshot.findings, snapshot.sets, look_for_errors=True)
    ok = not composition.findings.errors
    rules = _counts({})
    if ok:
        rules = _counts(composition.candidate.rulesets)
    guard = GuardRun(not_run="since --static sends no packets", is_off=source.watched is None)
    return _Checked(ok, composition.findings, rules, tool=None, tests=None, guard=guard)


def _counts(rulesets: Mapping[Family, Ruleset]) -> dict[str, int]:
    """The number of rules of each family."""
    counts = dict.fromkeys((family.value for family in FAMILIES), 0)
    for family, ruleset in rulesets.items():
        counts[family.value] = ruleset.rule_count
    return counts


def _print_static(checked: _Checked) -> None:
    """Findings as compilers print them, and a last line that says what was not checked."""
    paint = Painter()
    for finding in checked.findings:
        print(paint.finding(finding))
    errors, warnings = len(checked.findings.errors), len(checked.findings.warnings)
    totals = f"{counted(errors, 'error')}, {counted(warnings, 'warning')}"
    if not checked.ok:
        print(paint.fit(f"{totals}. {what_a_reload_does(checked.findings.errors)}"))
        return
    rules = ", ".join(f"{number} {family}" for family, number in checked.rules.items())
    missing = "errors that only iptables, the kernel or packets find are missing"
    print(paint.fit(f"{paint.good('ok')}: {rules} rules, not rehearsed ({missing}); {totals}"))


def _document(checked: _Checked) -> dict[str, Any]:
    backend = version = None
    if checked.tool is not None:
        backend, version = checked.tool.backend.value, checked.tool.version
    return {
        "ok": checked.ok,
        "errors": len(checked.findings.errors),
        "warnings": len(checked.findings.warnings),
        "rules": checked.rules,
        "backend": backend,
        "iptables": version,
        "findings": as_json(checked.findings[:MOST_LISTED]),
        "tests": checked.tests and checked.tests.counts,
        "lockout_guard": checked.guard.document,
    }
