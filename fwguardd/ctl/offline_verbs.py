"""The verbs that look at rule files and change nothing: check and render. Neither needs the daemon, nor root.

fwguardctl diff: what a reload would change in the kernel, chain by chain, as a unified diff with origins.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import TYPE_CHECKING, Any

from fwguardd.ctl.terminal import Painter, as_json
from fwguardd.enforce.rule_files import Snapshot, read_rule_file, take_snapshot
from fwguardd.enforce.validate import Invalid, Valid, Validator, Verdict, compose_files, errors_and_warnings
from fwguardd.kernel.iptables import LiveKernel, Tool, find_tool
from fwguardd.kernel.namespaces import NamespacePool
from fwguardd.kernel.rehearsal import Rehearsals
from fwguardd.ruleset.model import FAMILIES, Chain, Family, Finding, RuleFile, errors_in
from fwguardd.ruleset.preserve import own_part
from fwguardd.ruleset.save_format import render
from fwguardd.sinks.console import printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from fwguardd.kernel.iptables import Backend
    from fwguardd.ruleset.lint import LintContext
    from fwguardd.ruleset.model import Origin, Rule, Ruleset


DONE, ANSWER_IS_NO = 0, 1


@dataclass(frozen=True, slots=True)
class OfflineInput:
    """What to look at, and how to print it."""

    paths: tuple[Path, ...]
    backend: Backend | None
    json: bool
    context: LintContext


def validated(look: OfflineInput) -> tuple[Verdict, Tool]:
    """The verdict of the daemon's own road on the files. Raises ScratchError, ToolMissingError."""
    tool = find_tool(look.backend)
    pool = NamespacePool()
    pool.tend()
    try:
        return Validator(Rehearsals(tool.backend.value, pool).rehearse, look.context).validate(
            snapshot_of(look.paths)
        ), tool
    finally:
        pool.close()


def check(look: OfflineInput) -> int:
    """Read, compose, lint and rehearse; print the findings. Raises ScratchError, ToolMissingError."""
    verdict, tool = validated(look)
    if look.json:
        print(json.dumps(_check_document(verdict, tool)))
    else:
        print_findings(verdict, tool, Painter())
    return DONE if isinstance(verdict, Valid) else ANSWER_IS_NO


def _check_document(verdict: Verdict, tool: Tool) -> dict[str, object]:
    findings = verdict.warnings if isinstance(verdict, Valid) else verdict.findings
    rules = {family.value: 0 for family in FAMILIES}
    if isinstance(verdict, Valid):
        rules |= {family.value: ruleset.rule_count for family, ruleset in verdict.rehearsed.rulesets.items()}
    errors, warnings = errors_and_warnings(findings)
    return {
        "ok": isinstance(verdict, Valid),
        "errors": errors,
        "warnings": warnings,
        "rules": rules,
        "backend": tool.backend.value,
        "iptables": tool.version,
        "findings": as_json(findings),
    }


def print_findings(verdict: Verdict, tool: Tool, paint: Painter) -> None:
    """Findings as compilers print them, and a last line that sums up."""
    findings = verdict.warnings if isinstance(verdict, Valid) else verdict.findings
    for finding in findings:
        print(paint.finding(finding))
    errors, warnings = errors_and_warnings(findings)
    told = f"{errors} error{'s' * (errors != 1)}, {warnings} warning{'s' * (warnings != 1)}"
    if isinstance(verdict, Invalid):
        print(f"{told}. A reload would change nothing.")
        return
    counts = ", ".join(f"{ruleset.rule_count} {family.value}" for family, ruleset in verdict.rehearsed.rulesets.items())
    print(f"{paint.good('ok')}: {counts} rules, rehearsed with {tool}; {told}")


def render_rules(look: OfflineInput, families: Sequence[Family]) -> int:
    """Print the composed ruleset as iptables-restore text, or the findings that stand in its way."""
    snapshot = snapshot_of(look.paths)
    composition = compose_files(snapshot.files, look.context, snapshot.findings)
    if errors_in(composition.findings):
        paint = Painter()
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


CONTEXT_LINES = 2
"""Unchanged rules shown around a change."""


@dataclass(frozen=True, slots=True)
class DiffLine:
    """A line of the diff: "-" is in the kernel and would go, "+" would come, " " stays. ``origin`` is of what comes."""

    sign: str
    text: str
    origin: Origin | None = None


@dataclass(frozen=True, slots=True)
class Hunk:
    """What would change in one chain."""

    family: Family
    table: str
    chain: str
    lines: tuple[DiffLine, ...]


def diff(look: OfflineInput) -> int:
    """Print what a reload would change. Exit code 1: the files are refused, so it would change nothing.

    Raises KernelError, ScratchError.
    """
    verdict, tool = validated(look)
    paint = Painter()
    if isinstance(verdict, Invalid):
        if look.json:
            print(json.dumps({"ok": False, "findings": as_json(verdict.findings), "changes": []}))
        else:
            print_findings(verdict, tool, paint)
        return ANSWER_IS_NO
    wanted = verdict.rehearsed.rulesets
    saved = LiveKernel(tool.backend).save(wanted)
    live = {family: own_part(ruleset, look.context.preserve, wanted[family]) for family, ruleset in saved.items()}
    hunks = tuple(hunks_between(live, wanted))
    if look.json:
        print(json.dumps({"ok": True, "findings": as_json(verdict.warnings), "changes": [_document(h) for h in hunks]}))
    else:
        _print(hunks, paint)
    return DONE


def hunks_between(live: Mapping[Family, Ruleset], wanted: Mapping[Family, Ruleset]) -> Iterator[Hunk]:
    """The chains that differ, in the order of the wanted rulesets, then those that would go."""
    for family, ruleset in wanted.items():
        for table in ruleset.tables.values():
            there = live[family].tables.get(table.name)
            chains = there.chains if there is not None else {}
            for chain in table.chains.values():
                empty = Chain(chain.name, "ACCEPT" if chain.policy is not None else None)
                yield from _hunk(family, table.name, chains.get(chain.name), chain, empty)
            for name, chain in chains.items():
                if name not in table.chains:
                    yield from _hunk(family, table.name, chain, None, Chain(name, None))


def _hunk(family: Family, table: str, live: Chain | None, wanted: Chain | None, empty: Chain) -> Iterator[Hunk]:
    before, after = live or empty, wanted or empty
    lines: list[DiffLine] = []
    if empty.policy is None and (live is None or wanted is None):
        lines.append(DiffLine("-" if wanted is None else "+", f"-N {empty.name}", after.origin))
    if before.policy != after.policy:
        lines += [
            DiffLine("-", f"-P {empty.name} {before.policy}"),
            DiffLine("+", f"-P {empty.name} {after.policy}", after.origin),
        ]
    lines += _rule_lines(empty.name, before.rules, after.rules)
    if lines:
        yield Hunk(family, table, empty.name, tuple(lines))


def _rule_lines(chain: str, before: tuple[Rule, ...], after: tuple[Rule, ...]) -> Iterator[DiffLine]:
    matcher = SequenceMatcher(None, [rule.text for rule in before], [rule.text for rule in after], autojunk=False)
    for group in matcher.get_grouped_opcodes(CONTEXT_LINES):
        for tag, first, end, new_first, new_end in group:
            if tag == "equal":
                yield from (DiffLine(" ", f"-A {chain} {rule.text}", rule.origin) for rule in after[new_first:new_end])
            else:
                yield from (DiffLine("-", f"-A {chain} {rule.text}") for rule in before[first:end])
                yield from (DiffLine("+", f"-A {chain} {rule.text}", rule.origin) for rule in after[new_first:new_end])


def _document(hunk: Hunk) -> dict[str, Any]:
    return {
        "family": hunk.family.value,
        "table": hunk.table,
        "chain": hunk.chain,
        "lines": [
            {
                "sign": line.sign,
                "text": line.text,
                "file": line.origin.path if line.origin else None,
                "line": line.origin.line if line.origin else None,
            }
            for line in hunk.lines
        ],
    }


def _print(hunks: tuple[Hunk, ...], paint: Painter) -> None:
    if not hunks:
        print(paint.good("The kernel holds what the files say: a reload would change nothing."))
        return
    for hunk in hunks:
        print(paint.bold(f"@@ {hunk.family.value} {hunk.table} {hunk.chain} @@"))
        for line in hunk.lines:
            origin = f"  {paint.dim(f'# {printable(str(line.origin))}')}" if line.origin and line.sign != " " else ""
            print(f"{paint.change(line.sign, f'{line.sign} {printable(line.text)}')}{origin}")
    added = sum(line.sign == "+" for hunk in hunks for line in hunk.lines)
    removed = sum(line.sign == "-" for hunk in hunks for line in hunk.lines)
    print(f"{len(hunks)} chain{'s' * (len(hunks) != 1)} would change: {added} added, {removed} removed.")
