"""The verbs that write entries of rule files: allow, deny, block, and remove, which takes them out again."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from fwguardd.control.client import ask
from fwguardd.ctl.entry_reports import EntryChange, EntryReport, report_for
from fwguardd.ctl.judged_files import judged_snapshot
from fwguardd.ctl.offline_verbs import ANSWER_IS_NO, DONE, forwarding_findings, preview
from fwguardd.ctl.one_file import FileEdit, apply_change, check_that_files_are_applied, content_of, locked, with_change
from fwguardd.ctl.rules_swap import SwapError
from fwguardd.ctl.service_table import names_of
from fwguardd.ctl.wanted_entry import (
    FILES,
    EntryError,
    OppositeEntryError,
    Wanted,
    as_written,
    entry_for,
    to_remove,
    wanted_of,
)
from fwguardd.enforce.rule_files import take_snapshot
from fwguardd.enforce.validate import Invalid
from fwguardd.ruleset.entries import Entry, entries_in, entry_in, with_entry, without_ended_entries, without_entry
from fwguardd.ruleset.peers import AddressError
from fwguardd.ruleset.services import ServiceError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from fwguardd.ctl.whole_directory import Destination
    from fwguardd.enforce.rule_files import Snapshot
    from fwguardd.enforce.validate import Valid
    from fwguardd.ruleset.model import Finding

_OPPOSITE = {"allow": "deny", "deny": "allow"}
_EXIT_CODES = {"applied": DONE, "unchanged": DONE, "refused": ANSWER_IS_NO}
_FAILED = 5


def run(options: argparse.Namespace, target: Destination) -> int:
    """Run one of the verbs; the exit code. Raises EntryError, SwapError, and what the client raises."""
    try:
        with locked(target.rules_dir):
            return _run(options, target)
    except (AddressError, ServiceError) as error:
        raise EntryError(str(error)) from error


def _run(options: argparse.Namespace, target: Destination) -> int:
    directory = RulesDirectory(target, dry_run=options.dry_run)
    if options.verb == "remove":
        return directory.remove(options)
    return directory.write(wanted_of(options))


class RulesDirectory:
    """The rules directory, which entries are written into and taken out of. It is locked."""

    def __init__(self, target: Destination, *, dry_run: bool) -> None:
        self._target, self._dry_run = target, dry_run
        self._now = time.time()
        self._report: EntryReport = report_for(target)
        self._snapshot = take_snapshot(target.rules_dir)

    def write(self, wanted: Wanted) -> int:
        """Write an entry, and apply it; the exit code."""
        self._check_no_opposite(wanted)
        path = self._path_of(wanted.verb)
        before = content_of(path)
        text = self._without_ended(path, before)
        others = _others(self._snapshot, path)
        wanted = as_written(wanted, text or "")
        known = entry_in(text or "", wanted.command)
        entry = entry_for(wanted, others, self._target.source.context, known, self._now)
        where = _place_of(entry, known, path, others)
        if where:
            self._report.unchanged(entry, where)
            return DONE
        return self._apply(EntryChange(entry, FileEdit(path, before, with_entry(text, entry).encode())))

    def _path_of(self, verb: str) -> Path:
        return self._target.rules_dir / FILES[verb]

    def _without_ended(self, path: Path, data: bytes | None) -> str | None:
        """The text of a file without the entries that have ended; None if that leaves nothing."""
        if data is None:
            return None
        return without_ended_entries(_decoded(data, path), self._now)

    def _check_no_opposite(self, wanted: Wanted) -> None:
        """Raises OppositeEntryError."""
        verb = _OPPOSITE.get(wanted.verb)
        if verb is None:
            return
        path = self._path_of(verb)
        text = _text_of(path)
        command = as_written(replace(wanted, verb=verb), text).command
        known = entry_in(text, command)
        if known is not None and not known.has_ended(self._now):
            there = f'{path}:{known.line} says "{command}"'
            raise OppositeEntryError(f"{there}; to take that out: fwguardctl remove {command}")

    def remove(self, options: argparse.Namespace) -> int:
        """Take an entry out, and apply that; the exit code."""
        verbs, what, server = _what_to_remove(options.entry)
        for verb in verbs:
            wanted = to_remove(verb, what, options.peers, outward=options.outward, server=server)
            change = _removal(self._path_of(verb), wanted)
            if change is not None:
                return self._apply(change)
        self._report.absent(self._target.rules_dir, self._entries_about(what))
        return DONE

    def _entries_about(self, what: str) -> list[str]:
        """The commands of the entries that name a service or an address."""
        entries: list[Entry] = []
        for verb in FILES:
            entries += entries_in(_text_of(self._path_of(verb)))
        names = names_of(what)
        return [entry.command for entry in entries if any(name in entry.what for name in names)]

    def _apply(self, change: EntryChange) -> int:
        """Check a change, show its impact, and apply it; the exit code."""
        target, report = self._target, self._report
        changed = with_change(self._snapshot, change.file, self._now)
        judged = judged_snapshot(changed, target.source, force=target.force)
        result, tool = judged.result, judged.tool
        if isinstance(result, Invalid):
            report.refused(change, result, tool)
            return ANSWER_IS_NO
        changes = preview(result, tool, target.source, guarded=judged.guard.has_run)
        warnings = (*judged.guard.findings, *_without_forwarding(change, result), *changes.warnings)
        changes = replace(changes, warnings=warnings)
        report.preview(change, changes)
        if self._dry_run:
            report.dry_run(change, result, changes)
            return DONE
        check_that_files_are_applied(dict(ask(target.socket, "status")))
        return self._finish(change, apply_change(change.file, target))

    def _finish(self, change: EntryChange, result: dict[str, Any]) -> int:
        code = _exit_code(result)
        if code == DONE:
            self._report.applied(change, result)
        else:
            self._report.failed(change, result)
        return code


def _without_forwarding(change: EntryChange, result: Valid) -> tuple[Finding, ...]:
    """A warning about a port forward on a host whose kernel does not forward."""
    if change.entry.verb != "forward" or change.removed:
        return ()
    return forwarding_findings(result.rehearsed.rulesets)


def _exit_code(result: Mapping[str, Any]) -> int:
    return _EXIT_CODES.get(result["outcome"], _FAILED)


def _others(snapshot: Snapshot, path: Path) -> Snapshot:
    """The snapshot without the file that the entry is in: its rules do not decide how the entry is written."""
    files = tuple(file for file in snapshot.files if not file.path.endswith(f"/{path.name}"))
    return replace(snapshot, files=files)


def _decoded(data: bytes, path: Path) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise SwapError(f"{path} is not UTF-8; correct it, or give it another name") from None


def _text_of(path: Path) -> str:
    return _decoded(content_of(path) or b"", path)


def _place_of(entry: Entry, known: Entry | None, path: Path, others: Snapshot) -> str:
    """The place that says what the entry says; "" if it has to be written."""
    if known is None:
        return _written_elsewhere(entry, others)
    if replace(known, line=0) == replace(entry, line=0):
        return f"{path.name}:{known.line}"
    return ""


def _written_elsewhere(entry: Entry, snapshot: Snapshot) -> str:
    """The first line of other files that says the same, if they say all of the entry; "" if they do not."""
    if entry.until is not None or entry.verb == "block":
        return ""
    places = _places_of_lines(snapshot)
    found = [places.get(rule, "") for rule in entry.rules]
    if all(found):
        return found[0]
    return ""


def _places_of_lines(snapshot: Snapshot) -> Mapping[str, str]:
    """The name of the file and the number of each line."""
    places: dict[str, str] = {}
    for file in snapshot.files:
        name = file.path.rpartition("/")[2]
        for number, line in enumerate(file.data.decode("utf-8", "replace").splitlines(), 1):
            places.setdefault(line.strip(), f"{name}:{number}")
    return places


def _removal(path: Path, wanted: Wanted) -> EntryChange | None:
    """The change that takes an entry out; None if it is not there."""
    before = content_of(path)
    text = _decoded(before or b"", path)
    command = as_written(wanted, text).command
    known = entry_in(text, command)
    if known is None:
        return None
    return EntryChange(known, FileEdit(path, before, _encoded(without_entry(text, command))), removed=True)


def _encoded(text: str | None) -> bytes | None:
    if text is None:
        return None
    return text.encode()


def _what_to_remove(words: Sequence[str]) -> tuple[Sequence[str], str, str]:
    """The verbs that the entry may have, what it is about, and where it forwards to. Raises EntryError."""
    match words:
        case [what]:
            return tuple(FILES), what, ""
        case [verb, what] if verb in FILES:
            return (verb,), what, ""
        case ["forward", what, "to", server]:
            return ("forward",), what, server
    form = "fwguardctl remove [allow|deny|block] SERVICE or ADDRESS, and --from or --to as it was given"
    raise EntryError(f"write: {form}; or: fwguardctl remove forward 8443/tcp to 192.0.2.5:443")
