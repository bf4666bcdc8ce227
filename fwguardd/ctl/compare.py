"""fwguardctl diff: what a reload would change in the kernel, chain by chain, as a unified diff with origins."""

from __future__ import annotations

import json
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import TYPE_CHECKING, Any

from fwguardd.ctl.look import ANSWER_IS_NO, DONE, Look, judged, print_findings
from fwguardd.ctl.paint import Paint, as_json
from fwguardd.enforce.read_directory import Rejected
from fwguardd.kernel.iptables import LiveKernel
from fwguardd.outlets.console import printable
from fwguardd.ruleset.model import Chain, Family
from fwguardd.ruleset.preserve import own_part

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from fwguardd.ruleset.model import Origin, Rule, Ruleset

CONTEXT_LINES = 2
"""Unchanged rules shown around a change."""


@dataclass(frozen=True, slots=True)
class Line:
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
    lines: tuple[Line, ...]


def diff(look: Look) -> int:
    """Print what a reload would change. Exit code 1: the files are refused, so it would change nothing.

    Raises KernelError, ScratchError.
    """
    verdict, tool = judged(look)
    paint = Paint()
    if isinstance(verdict, Rejected):
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
    lines: list[Line] = []
    if empty.policy is None and (live is None or wanted is None):
        lines.append(Line("-" if wanted is None else "+", f"-N {empty.name}", after.origin))
    if before.policy != after.policy:
        lines += [
            Line("-", f"-P {empty.name} {before.policy}"),
            Line("+", f"-P {empty.name} {after.policy}", after.origin),
        ]
    lines += _rule_lines(empty.name, before.rules, after.rules)
    if lines:
        yield Hunk(family, table, empty.name, tuple(lines))


def _rule_lines(chain: str, before: tuple[Rule, ...], after: tuple[Rule, ...]) -> Iterator[Line]:
    matcher = SequenceMatcher(None, [rule.text for rule in before], [rule.text for rule in after], autojunk=False)
    for group in matcher.get_grouped_opcodes(CONTEXT_LINES):
        for tag, first, end, new_first, new_end in group:
            if tag == "equal":
                yield from (Line(" ", f"-A {chain} {rule.text}", rule.origin) for rule in after[new_first:new_end])
            else:
                yield from (Line("-", f"-A {chain} {rule.text}") for rule in before[first:end])
                yield from (Line("+", f"-A {chain} {rule.text}", rule.origin) for rule in after[new_first:new_end])


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


def _print(hunks: tuple[Hunk, ...], paint: Paint) -> None:
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
