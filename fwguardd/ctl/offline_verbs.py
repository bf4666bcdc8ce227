"""What the verbs share that read rule files and change nothing: check, diff and render.

They do not need the daemon. check and render work for every user; diff reads the rules in the kernel, which needs root.
"""

from __future__ import annotations

import itertools
import os
from dataclasses import replace
from difflib import SequenceMatcher
from typing import TYPE_CHECKING, Any

from fwguardd.ctl.diagnose_host import SYSCTLS, check_forwarding
from fwguardd.ctl.terminal import Painter, as_json
from fwguardd.enforce.look import look_at
from fwguardd.enforce.rule_files import Snapshot, read_rule_file, take_snapshot
from fwguardd.enforce.set_reading import read_sets, set_files_in
from fwguardd.enforce.validate import Invalid, Valid, Validation, Validator
from fwguardd.escaping import printable
from fwguardd.kernel.host import forwards
from fwguardd.kernel.iptables import LiveKernel, Tool, find_tool
from fwguardd.kernel.namespaces import NamespacePool
from fwguardd.kernel.rehearsal import Rehearsals
from fwguardd.kernel.ssh_sessions import ssh_sessions
from fwguardd.proving import watched_of
from fwguardd.ruleset.canonical import owned_tables
from fwguardd.ruleset.model import (
    BUILTIN_CHAINS,
    FAMILIES,
    NOT_STATED,
    Chain,
    Family,
    Finding,
    Findings,
    RuleFile,
    Ruleset,
    Table,
    texts_of,
)
from fwguardd.ruleset.set_names import is_set_file, names_of_sets
from fwguardd.ruleset.ssh_sessions import closed_sessions
from fwguardd.settings import BACKEND_CHOICES, OnUndecided, settings_of
from fwguardd.values import dataclass
from fwguardd.wording import counted

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from fwguardd.enforce.look import Look
    from fwguardd.enforce.prover import ProtectedPeers
    from fwguardd.kernel.iptables import Backend
    from fwguardd.packets.host import Host
    from fwguardd.ruleset.canonical import Owned
    from fwguardd.ruleset.lint import LintContext
    from fwguardd.ruleset.model import Origin, Rule
    from fwguardd.settings import Settings


DONE, ANSWER_IS_NO = 0, 1

CONTEXT_LINES = 2
"""Unchanged rules shown around a change."""


@dataclass(frozen=True, slots=True)
class OfflineInput:
    """What to read, and how to print the result: ``paths`` is one directory, or rule files.

    ``rules_dir`` is the daemon's own directory, from the settings. Paths outside of it are drafts. ``undecided_fails``
    says whether a policy test that packets cannot decide is an error. ``watched`` is who must not be locked out; None
    without a lockout guard. ``owned`` are the tables that the daemon owns now: those that no file names any more are
    emptied by a reload.
    """

    paths: tuple[Path, ...]
    rules_dir: Path
    backend: Backend | None
    json: bool
    context: LintContext
    undecided_fails: bool = False
    watched: Callable[[Host], ProtectedPeers] | None = None
    owned: Owned = frozenset()

    @property
    def is_draft(self) -> bool:
        """Whether the files are not those of the daemon."""
        return _is_draft(self.paths[0], self.rules_dir)


def input_of(options: argparse.Namespace) -> OfflineInput:
    """What the command line names. Raises SettingsError."""
    settings = chosen_settings(options)
    paths = tuple(getattr(options, "paths", ())) or (options.rules_dir or settings.rules_dir,)
    return source_of(settings, paths, settings.rules_dir, json=options.json)


def source_of(settings: Settings, paths: tuple[Path, ...], rules_dir: Path, *, json: bool) -> OfflineInput:
    """Files that are read as these settings say; ``rules_dir`` is the directory of the daemon."""
    undecided_fails = settings.undecided is OnUndecided.FAIL
    context, watched = settings.lint_context(), watched_of(settings)
    return OfflineInput(paths, rules_dir, settings.backend, json, context, undecided_fails, watched)


def chosen_settings(options: argparse.Namespace) -> Settings:
    """The settings, with the backend that the command line names. Raises SettingsError."""
    settings = settings_of(options.config)
    if options.backend:
        return replace(settings, backend=BACKEND_CHOICES[options.backend])
    return settings


@dataclass(frozen=True, slots=True)
class DiffLine:
    """A line of the diff: "-" is in the kernel and would be removed, "+" would be added, " " stays.

    ``origin`` is where a line that stays or would be added is written.
    """

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


def validated(source: OfflineInput) -> tuple[Validation, Tool]:
    """The result of the validation that a reload runs too. Raises NamespaceError, ToolMissingError."""
    return validated_snapshot(snapshot_of(source.paths, source.rules_dir), source)


def validated_snapshot(snapshot: Snapshot, source: OfflineInput) -> tuple[Validation, Tool]:
    """The same for files that were read already."""
    tool = find_tool(source.backend)
    pool = NamespacePool()
    try:
        pool.refill()
        rehearse = Rehearsals(tool.backend.value, pool).rehearse
        return Validator(rehearse, source.context, sets_come=True).validate(snapshot), tool
    finally:
        pool.close()


def forwarding_findings(rulesets: Mapping[Family, Ruleset]) -> tuple[Finding, ...]:
    """Warnings about rules that need forwarding, if this host does not forward."""
    switches = {family: forwards(sysctl) for family, sysctl in SYSCTLS.items()}
    return tuple(check_forwarding(rulesets, switches))


def snapshot_of(paths: Sequence[Path], rules_dir: Path) -> Snapshot:
    """One directory as the daemon reads it, or single files as if there were no others.

    Files in ``rules_dir`` have to pass the daemon's check of owner and mode. Drafts may belong to any user.
    """
    first = paths[0]
    if len(paths) == 1 and _is_directory(first):
        draft = _is_draft(first, rules_dir)
        return with_sets(take_snapshot(first, draft=draft), set_files_in(first) or (), draft=draft)
    return _snapshot_of_files(paths, rules_dir)


def with_sets(snapshot: Snapshot, paths: Iterable[Path], *, draft: bool) -> Snapshot:
    """The snapshot with the set files, and what is wrong with them."""
    files, findings = read_sets(paths, draft=draft)
    return replace(snapshot, findings=Findings((*snapshot.findings, *findings)), set_files=tuple(files))


def _snapshot_of_files(paths: Sequence[Path], rules_dir: Path) -> Snapshot:
    files: list[RuleFile] = []
    findings: list[Finding] = []
    for path in paths:
        if is_set_file(path.name):
            findings += read_sets([path], draft=_is_draft(path, rules_dir))[1]
            continue
        outcome = read_rule_file(path, draft=_is_draft(path, rules_dir))
        if isinstance(outcome, RuleFile):
            files.append(outcome)
        else:
            findings.append(outcome)
    # Rules may name the sets of files beside them.
    names = [path.name for path in set_files_in(paths[0].parent) or ()]
    return Snapshot(paths[0].parent, tuple(files), Findings(findings), "", sets=names_of_sets(names))


def _is_directory(path: Path) -> bool:
    """Whether a path is a directory, or was meant as one: a missing path with a suffix was meant as a file."""
    # Not the methods of Path: they raise where a path cannot be looked at.
    return os.path.isdir(path) or not (os.path.lexists(path) or path.suffix)  # noqa: PTH112


def _is_draft(path: Path, rules_dir: Path) -> bool:
    """Whether a path is neither the daemon's rules directory nor in it."""
    return os.path.realpath(rules_dir) not in (os.path.realpath(path), os.path.realpath(path.parent))


def what_a_reload_does(errors: Iterable[Finding]) -> str:
    """What a reload does with errors like these: those of a set file concern its set alone."""
    if all(map(_is_of_a_set, errors)):
        return "A reload applies the rules, and leaves the sets of these files as they are."
    return "A reload would be refused, and the firewall would stay as it is."


def _is_of_a_set(error: Finding) -> bool:
    return error.origin is not None and is_set_file(error.origin.path)


def print_findings(result: Validation, tool: Tool, paint: Painter) -> None:
    """Findings as compilers print them, and a last line that sums up."""
    for finding in result.findings:
        print(paint.finding(finding))
    errors, warnings = len(result.findings.errors), len(result.findings.warnings)
    totals = f"{counted(errors, 'error')}, {counted(warnings, 'warning')}"
    if isinstance(result, Invalid):
        print(paint.fit(f"{totals}. {what_a_reload_does(result.findings.errors)}"))
        return
    rules = ", ".join(f"{number} {family}" for family, number in _rule_counts(result).items())
    print(paint.fit(f"{paint.good('ok')}: {rules} rules, rehearsed with {tool}; {totals}"))


def _rule_counts(result: Valid) -> dict[str, int]:
    return {family.value: ruleset.rule_count for family, ruleset in result.rehearsed.rulesets.items()}


@dataclass(frozen=True, slots=True)
class Preview:
    """What a reload would change: the chains, and warnings about live ssh sessions."""

    hunks: tuple[Hunk, ...]
    warnings: tuple[Finding, ...]

    def show(self, paint: Painter) -> None:
        """Print it, the warnings last, where they are seen."""
        print_hunks(self.hunks, paint)
        for warning in self.warnings:
            print(paint.finding(warning))


def preview(result: Valid, tool: Tool, source: OfflineInput, *, guarded: bool) -> Preview:
    """The differences between the rules in the kernel and the rehearsed ones; ``guarded`` says that the lockout guard
    has been run. Raises KernelError."""
    wanted = with_released(result.rehearsed.rulesets, source.owned)
    look = look_at(LiveKernel(tool.backend), wanted, source.context.preserve)
    warnings: tuple[Finding, ...] = ()
    if not guarded:
        warnings = closed_by_reading(look, wanted)
    return Preview(tuple(hunks_between(look.own, wanted)), warnings)


def with_released(wanted: Mapping[Family, Ruleset], owned: Owned) -> Mapping[Family, Ruleset]:
    """The rulesets as they are loaded: with the owned tables that they do not name, which a reload empties."""
    after = dict(wanted)
    for family, table in sorted(owned - owned_tables(wanted)):
        if family in after:
            empty = Table(table, {chain: Chain(chain, NOT_STATED) for chain in BUILTIN_CHAINS[table]})
            after[family] = Ruleset(family, {**after[family].tables, table: empty})
    return after


def owned_in(status: Mapping[str, Any]) -> Owned:
    """The tables that the daemon owns, from its ``status``; one of an earlier version does not say it."""
    known = {f"{family.value} {table}": (family, table) for family in FAMILIES for table in BUILTIN_CHAINS}
    return frozenset(known[name] for name in status.get("tables", ()) if name in known)


def closed_by_reading(look: Look, wanted: Mapping[Family, Ruleset]) -> tuple[Finding, ...]:
    """Warnings about live ssh sessions that a reload would close, by reading the rules."""
    return closed_sessions(look.own, wanted, ssh_sessions())


def hunks_between(live: Mapping[Family, Ruleset], wanted: Mapping[Family, Ruleset]) -> Iterator[Hunk]:
    """The chains that differ, in the order of the wanted rulesets, then those that would be removed."""
    for family, ruleset in wanted.items():
        for table in ruleset.tables.values():
            live_table = live[family].tables.get(table.name, Table(table.name, {}))
            yield from _table_hunks(family, live_table, table)


def _table_hunks(family: Family, live: Table, wanted: Table) -> Iterator[Hunk]:
    for name in dict.fromkeys((*wanted.chains, *live.chains)):
        lines = tuple(_chain_lines(name, live, wanted))
        if lines:
            yield Hunk(family, wanted.name, name, lines)


def _policy_lines(before: Chain, after: Chain) -> Iterator[DiffLine]:
    if after.policy not in (before.policy, NOT_STATED):
        yield DiffLine("-", f"-P {before.name} {before.policy}")
        yield DiffLine("+", f"-P {after.name} {after.policy}", after.origin)


def _chain_lines(name: str, live: Table, wanted: Table) -> Iterator[DiffLine]:
    """What would change in a chain that is in the kernel, in the files, or in both; nothing if they are equal."""
    empty = _empty_chain(wanted.name, name)
    before, after = live.chains.get(name, empty), wanted.chains.get(name, empty)
    if _lacks_chain(live, after):
        yield DiffLine("+", f"-N {name}", after.origin)
    if _lacks_chain(wanted, before):
        yield DiffLine("-", f"-N {name}")
    yield from _policy_lines(before, after)
    yield from _rule_lines(name, before.rules, after.rules)


def _lacks_chain(table: Table, chain: Chain) -> bool:
    """Whether a chain that is not a built-in one is not in the table."""
    return chain.name not in table.chains and chain.policy is None


def _empty_chain(table: str, name: str) -> Chain:
    """The chain as the kernel has it before anything is loaded."""
    if name in BUILTIN_CHAINS[table]:
        return Chain(name, "ACCEPT")
    return Chain(name, None)


def _rule_lines(chain: str, before: tuple[Rule, ...], after: tuple[Rule, ...]) -> Iterator[DiffLine]:
    matcher = SequenceMatcher(None, texts_of(before), texts_of(after), autojunk=False)
    for tag, first, end, new_first, new_end in itertools.chain.from_iterable(
        matcher.get_grouped_opcodes(CONTEXT_LINES)
    ):
        if tag == "equal":
            yield from _lines_with_origin(" ", chain, after[new_first:new_end])
            continue
        for rule in before[first:end]:
            yield DiffLine("-", f"-A {chain} {rule.text}")
        yield from _lines_with_origin("+", chain, after[new_first:new_end])


def _lines_with_origin(sign: str, chain: str, rules: Iterable[Rule]) -> Iterator[DiffLine]:
    for rule in rules:
        yield DiffLine(sign, f"-A {chain} {rule.text}", rule.origin)


def diff_document(findings: Sequence[Finding], hunks: Sequence[Hunk], *, ok: bool) -> dict[str, Any]:
    """The result of a diff as JSON."""
    return {"ok": ok, "findings": as_json(findings), "changes": [_hunk_document(hunk) for hunk in hunks]}


def _hunk_document(hunk: Hunk) -> dict[str, Any]:
    lines: list[dict[str, Any]] = []
    for line in hunk.lines:
        path = number = None
        if line.origin is not None:
            path, number = line.origin.path, line.origin.line
        lines.append({"sign": line.sign, "text": line.text, "file": path, "line": number})
    return {"family": hunk.family.value, "table": hunk.table, "chain": hunk.chain, "lines": lines}


def print_hunks(hunks: tuple[Hunk, ...], paint: Painter) -> None:
    """The chains that would change, and how many."""
    if not hunks:
        print(paint.good("No differences: a reload would change nothing."))
        return
    print(paint.fit(f"{counted(len(hunks), 'chain')} would change: {print_lines_of(hunks, paint)}."))


def print_lines_of(hunks: Iterable[Hunk], paint: Painter) -> str:
    """Print the lines of each chain; how many were added and removed, in words."""
    counts = {"+": 0, "-": 0, " ": 0}
    for hunk in hunks:
        print(paint.bold(f"@@ {hunk.family.value} {hunk.table} {hunk.chain} @@"))
        for line in hunk.lines:
            counts[line.sign] += 1
            print(_painted(line, paint))
    return f"{counts['+']} added, {counts['-']} removed"


def _painted(line: DiffLine, paint: Painter) -> str:
    text = paint.change(line.sign, f"{line.sign} {printable(line.text)}")
    if line.origin is None or line.sign == " ":
        return text
    return paint.with_tail(text, paint.dim(f"# {printable(str(line.origin))}"))
