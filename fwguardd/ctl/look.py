"""The verbs that look at rule files and change nothing: check and render. Neither needs the daemon, nor root."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fwguardd.ctl.paint import Paint, as_json
from fwguardd.enforce.read_directory import Accepted, Judge, Rejected, Verdict, compose_files, errors_and_warnings
from fwguardd.enforce.rule_files import Snapshot, read_rule_file, take_snapshot
from fwguardd.kernel.iptables import Tool, find_tool
from fwguardd.kernel.rehearsal import Rehearsals
from fwguardd.kernel.scratch import ScratchPool
from fwguardd.ruleset.model import FAMILIES, Family, Finding, RuleFile, errors_in
from fwguardd.ruleset.render import render

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from fwguardd.kernel.iptables import Backend
    from fwguardd.ruleset.lint import Context

DONE, ANSWER_IS_NO = 0, 1


@dataclass(frozen=True, slots=True)
class Look:
    """What to look at, and how to print it."""

    paths: tuple[Path, ...]
    backend: Backend | None
    json: bool
    context: Context


def judged(look: Look) -> tuple[Verdict, Tool]:
    """The verdict of the daemon's own road on the files. Raises ScratchError, ToolMissingError."""
    tool = find_tool(look.backend)
    pool = ScratchPool()
    pool.tend()
    try:
        return Judge(Rehearsals(tool.backend.value, pool).rehearse, look.context).judge(snapshot_of(look.paths)), tool
    finally:
        pool.close()


def check(look: Look) -> int:
    """Read, compose, lint and rehearse; print the findings. Raises ScratchError, ToolMissingError."""
    verdict, tool = judged(look)
    if look.json:
        print(json.dumps(_check_document(verdict, tool)))
    else:
        print_findings(verdict, tool, Paint())
    return DONE if isinstance(verdict, Accepted) else ANSWER_IS_NO


def _check_document(verdict: Verdict, tool: Tool) -> dict[str, object]:
    findings = verdict.warnings if isinstance(verdict, Accepted) else verdict.findings
    rules = {family.value: 0 for family in FAMILIES}
    if isinstance(verdict, Accepted):
        rules |= {family.value: ruleset.rule_count for family, ruleset in verdict.rehearsed.rulesets.items()}
    errors, warnings = errors_and_warnings(findings)
    return {
        "ok": isinstance(verdict, Accepted),
        "errors": errors,
        "warnings": warnings,
        "rules": rules,
        "backend": tool.backend.value,
        "iptables": tool.version,
        "findings": as_json(findings),
    }


def print_findings(verdict: Verdict, tool: Tool, paint: Paint) -> None:
    """Findings as compilers print them, and a last line that sums up."""
    findings = verdict.warnings if isinstance(verdict, Accepted) else verdict.findings
    for finding in findings:
        print(paint.finding(finding))
    errors, warnings = errors_and_warnings(findings)
    told = f"{errors} error{'s' * (errors != 1)}, {warnings} warning{'s' * (warnings != 1)}"
    if isinstance(verdict, Rejected):
        print(f"{told}. A reload would change nothing.")
        return
    counts = ", ".join(f"{ruleset.rule_count} {family.value}" for family, ruleset in verdict.rehearsed.rulesets.items())
    print(f"{paint.good('ok')}: {counts} rules, rehearsed with {tool}; {told}")


def render_rules(look: Look, families: Sequence[Family]) -> int:
    """Print the composed ruleset as iptables-restore text, or the findings that stand in its way."""
    snapshot = snapshot_of(look.paths)
    composition = compose_files(snapshot.files, look.context, snapshot.findings)
    if errors_in(composition.findings):
        paint = Paint()
        for finding in composition.findings:
            print(json.dumps(as_json([finding])[0]) if look.json else paint.finding(finding))
        return ANSWER_IS_NO
    texts = {family: render(composition.candidate.rulesets[family]).text for family in families}
    if look.json:
        print(json.dumps({family.value: text for family, text in texts.items()}))
        return DONE
    for family, text in texts.items():
        if len(texts) > 1:
            print(f"# {family.value}")
        print(text, end="")
    return DONE


def snapshot_of(paths: Sequence[Path]) -> Snapshot:
    """One directory as the daemon reads it, or single files as if they were all there is."""
    if len(paths) == 1 and paths[0].is_dir():
        return take_snapshot(paths[0])
    if len(paths) == 1 and not paths[0].exists():
        return take_snapshot(paths[0]) if not paths[0].suffix else _files(paths)
    return _files(paths)


def _files(paths: Sequence[Path]) -> Snapshot:
    read = [read_rule_file(path) for path in paths]
    files = tuple(item for item in read if isinstance(item, RuleFile))
    findings = tuple(item for item in read if isinstance(item, Finding))
    return Snapshot(paths[0].parent, files, findings, "")
