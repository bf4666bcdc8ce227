"""What allow, deny, block and remove print: lines for people, or one JSON document for programs."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Protocol

from fwguardd.ctl import answers
from fwguardd.ctl.offline_verbs import Preview, print_findings
from fwguardd.ctl.terminal import Painter, as_json
from fwguardd.escaping import printable
from fwguardd.ruleset.model import Findings
from fwguardd.values import dataclass
from fwguardd.wording import local_time

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from fwguardd.ctl.one_file import FileEdit
    from fwguardd.ctl.whole_directory import Destination
    from fwguardd.enforce.validate import Invalid, Valid
    from fwguardd.kernel.iptables import Tool
    from fwguardd.ruleset.entries import Entry


@dataclass(frozen=True, slots=True)
class EntryChange:
    """An entry that is written, or taken out if ``removed``, and the file."""

    entry: Entry
    file: FileEdit
    removed: bool = False


class EntryReport(Protocol):
    """Prints what becomes of an entry."""

    def refused(self, change: EntryChange, result: Invalid, tool: Tool) -> None:
        """The files would be refused, so nothing is changed."""

    def preview(self, change: EntryChange, changes: Preview) -> None:
        """What will change."""

    def dry_run(self, change: EntryChange, result: Valid, changes: Preview) -> None:
        """Nothing is changed, because that was asked for."""

    def unchanged(self, entry: Entry, where: str) -> None:
        """The entry is there already, at this place."""

    def applied(self, change: EntryChange, result: dict[str, Any]) -> None:
        """The daemon has applied the change."""

    def failed(self, change: EntryChange, result: dict[str, Any]) -> None:
        """The daemon has not applied it, and the file is as it was."""

    def absent(self, directory: Path, near: Sequence[str]) -> None:
        """There is no such entry to take out; ``near`` are the commands of those that are about the same."""


def report_for(target: Destination) -> EntryReport:
    """The report in the form that the command line asks for."""
    if target.source.json:
        return DocumentReport()
    return TextReport(target.confirm_command)


class TextReport:
    """Lines for people."""

    def __init__(self, confirm_command: str) -> None:
        self._confirm_command = confirm_command

    def refused(self, _change: EntryChange, result: Invalid, tool: Tool) -> None:
        """Print the findings."""
        print_findings(result, tool, Painter())

    def preview(self, change: EntryChange, changes: Preview) -> None:
        """Print the lines of the file, and the rules that change in the kernel."""
        paint, sign = Painter(), "-" * change.removed or "+"
        print(paint.bold(f"{printable(str(change.file.path))}:"))
        for line in change.entry.text.splitlines():
            print(paint.change(sign, f"{sign} {printable(line)}"))
        changes.show(paint)

    def dry_run(self, _change: EntryChange, _result: Valid, _changes: Preview) -> None:
        """Print that it was one."""
        print("dry run: nothing was changed")

    def unchanged(self, entry: Entry, where: str) -> None:
        """Print the place, and the end if there is one."""
        print(Painter().fit(f"unchanged: {printable(where)} says this already{_until(entry)}"))

    def applied(self, change: EntryChange, result: dict[str, Any]) -> None:
        """Print the state, and the end of the entry if there is one."""
        self._print(result)
        if change.entry.until is not None and not change.removed:
            print(f"it ends by itself at {local_time(change.entry.until)}")

    def failed(self, change: EntryChange, result: dict[str, Any]) -> None:
        """Print the reason."""
        self._print(result)
        print(f"{printable(str(change.file.path))} is as it was")

    def absent(self, directory: Path, near: Sequence[str]) -> None:
        """Print the entries that may have been meant."""
        print(Painter().fit(f"unchanged: there is no such entry in {printable(str(directory))}"))
        for command in near:
            known = printable(command)
            print(Painter().fit(f"    there is {known}; to take it out: fwguardctl remove {known}", 8))

    def _print(self, result: dict[str, Any]) -> None:
        lines = answers.change(result, answers.AnswerPainter(), self._confirm_command)  # type: ignore[arg-type]
        print("\n".join(lines))


def _until(entry: Entry) -> str:
    if entry.until is None:
        return ""
    return f", until {local_time(entry.until)}"


class DocumentReport:
    """One JSON document. ``changed`` is what configuration management asks for."""

    def refused(self, change: EntryChange, result: Invalid, _tool: Tool) -> None:
        """Print the findings."""
        _print_document("refused", change, {"findings": as_json(result.findings)}, changed=False)

    def preview(self, _change: EntryChange, _changes: Preview) -> None:
        """Nothing: the document comes at the end."""

    def dry_run(self, change: EntryChange, result: Valid, changes: Preview) -> None:
        """Print what would change."""
        findings = as_json(Findings((*result.findings, *changes.warnings)))
        _print_document("valid", change, {"findings": findings, "dry_run": True}, changed=True)

    def unchanged(self, entry: Entry, where: str) -> None:
        """Print the place."""
        document = {"outcome": "unchanged", "changed": False, "entry": entry.command, "until": entry.until}
        print(json.dumps({**document, "where": where, "findings": []}))

    def applied(self, change: EntryChange, result: dict[str, Any]) -> None:
        """Print the result of the reload."""
        _print_document("applied", change, result, changed=True)

    def failed(self, change: EntryChange, result: dict[str, Any]) -> None:
        """Print the result of the reload."""
        _print_document(str(result["outcome"]), change, result, changed=False)

    def absent(self, _directory: Path, near: Sequence[str]) -> None:
        """Print the entries that may have been meant."""
        print(json.dumps({"outcome": "unchanged", "changed": False, "entries": list(near), "findings": []}))


def _print_document(outcome: str, change: EntryChange, more: Mapping[str, Any], *, changed: bool) -> None:
    document = {
        "outcome": outcome,
        "changed": changed,
        "entry": change.entry.command,
        "until": change.entry.until,
        "file": str(change.file.path),
    }
    print(json.dumps({**more, **document}))
