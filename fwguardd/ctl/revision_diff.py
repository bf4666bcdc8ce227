"""``fwguardctl diff REV [REV]``: how two revisions differ, or a revision and what the rule files make."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

from fwguardd.control.client import ask
from fwguardd.ctl.directory_verbs import guarded, target_of
from fwguardd.ctl.rules_swap import SwapError
from fwguardd.enforce.file_changes import changes_between, digests_of
from fwguardd.ruleset.model import BUILTIN_CHAINS, FAMILIES, Chain, Family, RuleFile, Ruleset, Table
from fwguardd.ruleset.save_format import read_saved
from fwguardd.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from fwguardd.ctl.whole_directory import Destination
    from fwguardd.store.model import FileChange

FILES = "files"
"""Stands for the rule files, in place of a revision."""

_SIGNS = {"added": "+", "changed": "~", "removed": "-"}


@dataclass(frozen=True, slots=True)
class _Side:
    """What is compared: its name, its rulesets, and its rule files."""

    name: str
    rulesets: Mapping[Family, Ruleset]
    files: tuple[RuleFile, ...]


def _is_revision(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 16 and int(text) > 0


def operand(text: str) -> int | str:
    """A revision's number, or the word for the rule files. Raises ArgumentTypeError."""
    if text == FILES:
        return text
    if not _is_revision(text):
        raise argparse.ArgumentTypeError(f'{text[:40]!r} is neither a revision nor "{FILES}"')
    return int(text)


def run(options: argparse.Namespace) -> int:
    """Compare and print; the exit code. Raises SettingsError, KernelError and NamespaceError."""

    def work() -> int:
        target = target_of(options)
        before, after = _operands(options.revisions, target)
        sides = _side(before, target), _side(after, target)
        if options.packets:
            return _print_packets(*sides, options)
        return _print(*sides, as_document=options.json)

    return guarded(work)


def _operands(given: list[int | str], target: Destination) -> tuple[int | str, int | str]:
    """What is compared; with one operand, it is compared with the revision in force. Raises SwapError."""
    if len(given) > 2 or given[0] == FILES:
        raise SwapError(f'diff takes a revision, and then another one or "{FILES}"')
    if len(given) == 2:
        return given[0], given[1]
    in_force = ask(target.socket, "status")["in_force"]
    if in_force is None:
        raise SwapError("no revision is in force")
    return given[0], int(in_force["revision"])


def _side(which: int | str, target: Destination) -> _Side:
    if isinstance(which, int):
        return _revision(ask(target.socket, "show", {"revision": which}))
    return _of_files(target)


def _revision(shown: Mapping[str, Any]) -> _Side:
    rulesets: dict[Family, Ruleset] = {}
    for family, text in shown["texts"].items():
        rulesets[Family(family)] = _read(Family(family), text)
    files = tuple(RuleFile(file["path"], file["text"].encode("utf-8", "replace")) for file in shown["files"])
    return _Side(f"revision {shown['revision']}", rulesets, files)


def _read(family: Family, text: str) -> Ruleset:
    """The ruleset of a text for iptables-restore, which has no counters before its rules."""
    lines = []
    for line in text.splitlines():
        if line.startswith("-A "):
            line = f"[0:0] {line}"  # noqa: PLW2901
        lines.append(line)
    return read_saved(family, "\n".join([*lines, ""])).shown


def _of_files(target: Destination) -> _Side:
    from fwguardd.ctl.offline_verbs import validated_snapshot  # noqa: PLC0415 - only this form needs a rehearsal.
    from fwguardd.enforce.rule_files import take_snapshot  # noqa: PLC0415
    from fwguardd.enforce.validate import Invalid  # noqa: PLC0415

    snapshot = take_snapshot(target.rules_dir)
    result, _tool = validated_snapshot(snapshot, target.source)
    if isinstance(result, Invalid):
        raise SwapError(f"the rule files are refused: {result.findings.errors[0]}")
    return _Side("the rule files", result.rehearsed.rulesets, snapshot.files)


def _print(before: _Side, after: _Side, *, as_document: bool) -> int:
    from fwguardd.ctl.offline_verbs import diff_document, hunks_between, print_lines_of  # noqa: PLC0415
    from fwguardd.ctl.terminal import Painter  # noqa: PLC0415

    first, second = _with_the_same_tables(before.rulesets, after.rulesets)
    hunks = tuple(hunks_between(first, second))
    changes = changes_between(digests_of(before.files), digests_of(after.files))
    if as_document:
        files = [{"file": change.name, "change": change.kind.value} for change in changes]
        print(json.dumps({**diff_document((), hunks, ok=True), "files": files}))
        return 0
    lines = print_lines_of(hunks, Painter())
    for change in changes:
        print(_file_line(change))
    print(f"from {before.name} to {after.name}: {lines}")
    return 0


def _print_packets(before: _Side, after: _Side, options: argparse.Namespace) -> int:
    """Print which packets the two treat otherwise. Raises ReportedError."""
    from fwguardd.ctl import packet_diff  # noqa: PLC0415 - as above.
    from fwguardd.ctl.offline_verbs import chosen_settings  # noqa: PLC0415
    from fwguardd.enforce.set_reading import read_sets, set_files_in  # noqa: PLC0415
    from fwguardd.kernel.iptables import find_tool  # noqa: PLC0415

    settings = chosen_settings(options)
    sets, _findings = read_sets(set_files_in(options.rules_dir or settings.rules_dir) or (), draft=True)
    first, second = _with_the_same_tables(before.rulesets, after.rulesets)
    compared = packet_diff.Compared(first, second, tuple(sets), f"from {before.name} to {after.name}: ")
    packet_diff.show(compared, find_tool(settings.backend), as_document=options.json)
    return 0


def _file_line(change: FileChange) -> str:
    return f"{_SIGNS[change.kind.value]} {change.name}"


def _with_the_same_tables(
    before: Mapping[Family, Ruleset], after: Mapping[Family, Ruleset]
) -> tuple[Mapping[Family, Ruleset], Mapping[Family, Ruleset]]:
    """Both with all tables of either. A table that one does not have accepts everything, and is empty."""
    first: dict[Family, Ruleset] = {}
    second: dict[Family, Ruleset] = {}
    for family in FAMILIES:
        one, other = before.get(family, Ruleset(family, {})), after.get(family, Ruleset(family, {}))
        names = dict.fromkeys((*other.tables, *one.tables))
        first[family] = _with_tables(one, names)
        second[family] = _with_tables(other, names)
    return first, second


def _with_tables(ruleset: Ruleset, names: Iterable[str]) -> Ruleset:
    tables = {name: ruleset.tables.get(name) or _empty(name) for name in names}
    return Ruleset(ruleset.family, tables)


def _empty(table: str) -> Table:
    return Table(table, {name: Chain(name, "ACCEPT") for name in BUILTIN_CHAINS[table]})
