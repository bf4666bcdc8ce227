"""The verbs that replace the rules directory as a whole: deploy, edit, and ``rollback --restore-files``.

The daemon is asked to hold the files first, then the new directory takes the place of the old one in one step, and then
the daemon is asked to reload: so it applies the whole directory, never a part of it, and never without the confirmation
that was asked for. If the reload fails, the old directory is put back.
"""

from __future__ import annotations

import errno
import json
import os
import stat
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from fwguardd.control.client import ask
from fwguardd.ctl import answers
from fwguardd.ctl.judged_files import judged_snapshot
from fwguardd.ctl.offline_verbs import ANSWER_IS_NO, DONE, OfflineInput, preview, print_findings, with_sets
from fwguardd.ctl.reload_request import ask_for_reload
from fwguardd.ctl.rules_swap import StagedRules, SwapError
from fwguardd.ctl.terminal import Painter, as_json
from fwguardd.enforce.rule_files import ENDINGS, Snapshot, take_snapshot
from fwguardd.enforce.set_reading import set_files_in
from fwguardd.enforce.validate import Invalid
from fwguardd.ruleset.model import RuleFile
from fwguardd.ruleset.set_names import is_set_file
from fwguardd.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from fwguardd.control.protocol import Value
    from fwguardd.ctl.judged_files import Judged
    from fwguardd.enforce.validate import Valid
    from fwguardd.kernel.iptables import Tool

FAILED = 5
_NO_LINK = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Destination:
    """Where the files go, and how: the daemon's directory and socket, the seconds within which the change has to be
    confirmed, None for a change that stays, the command that confirms it, and whether the lockout guard is
    overridden."""

    source: OfflineInput
    rules_dir: Path
    socket: Path
    confirm_seconds: float | None
    confirm_command: str
    force: bool = False

    @property
    def reload_arguments(self) -> dict[str, Value]:
        """The arguments of the reload that applies a change."""
        arguments: dict[str, Value] = {}
        if self.confirm_seconds is not None:
            arguments["confirm_seconds"] = self.confirm_seconds
        if self.force:
            arguments["force"] = True
        return arguments


def files_in(directory: Path) -> dict[str, bytes]:
    """The regular files of a directory, by their names, but for hidden ones. Raises SwapError.

    A symbolic link is an error, not followed: whose it is may not be permitted to read what it leads to.
    """
    try:
        return dict(_read_files(directory))
    except OSError as error:
        reason = str(error.strerror)
        if error.errno == errno.ELOOP:
            reason = "it is a symbolic link; put a copy of the file in its place"
        raise SwapError(f"{error.filename or directory} cannot be read: {reason}") from error


def _read_files(directory: Path) -> Iterator[tuple[str, bytes]]:
    for path in sorted(directory.iterdir()):
        if _is_left_out(path):
            continue
        with os.fdopen(os.open(path, _NO_LINK), "rb") as file:
            if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                yield path.name, file.read()


def _is_left_out(path: Path) -> bool:
    """Whether it is a hidden file or a directory."""
    return path.name.startswith(".") or stat.S_ISDIR(path.lstat().st_mode)


def _rule_files_in_use(target: Destination) -> dict[str, bytes]:
    """The rule files of the rules directory, by their names."""
    return {file.path.rpartition("/")[2]: file.data for file in take_snapshot(target.rules_dir).files}


def _that_count(files: Mapping[str, bytes]) -> dict[str, bytes]:
    """Those of them that hold rules, policy tests or the entries of a set."""
    return {name: data for name, data in files.items() if name.endswith(ENDINGS) or is_set_file(name)}


def _in_rules_dir(target: Destination) -> dict[str, bytes]:
    """The same of the rules directory, byte for byte. Raises SwapError."""
    paths = [target.rules_dir / name for name in _rule_files_in_use(target)]
    return content_of(paths) | content_of(set_files_in(target.rules_dir) or ())


def content_of(paths: Iterable[Path]) -> dict[str, bytes]:
    """The bytes of files, by their names. Raises SwapError."""
    try:
        return {path.name: path.read_bytes() for path in paths}
    except OSError as error:
        raise SwapError(f"{error.filename} cannot be read: {error.strerror}") from error


def as_if_in(rules_dir: Path, snapshot: Snapshot) -> Snapshot:
    """A snapshot of another directory, with the names that the files would have in the rules directory."""
    files = tuple(RuleFile(_moved(file.path, rules_dir), file.data) for file in snapshot.files)
    return replace(snapshot, directory=rules_dir, files=files)


def _moved(path: str, rules_dir: Path) -> str:
    return str(rules_dir / path.rpartition("/")[2])


def _print_invalid(result: Invalid, tool: Tool, target: Destination) -> None:
    if target.source.json:
        print(json.dumps({"outcome": "refused", "changed": False, "findings": as_json(result.findings)}))
    else:
        print_findings(result, tool, Painter())


def deploy(directory: Path, target: Destination, *, dry_run: bool) -> int:
    """Replace the rules directory by a copy of another one. Raises SwapError and what the client raises."""
    files = files_in(directory)
    draft = with_sets(take_snapshot(directory, draft=True), set_files_in(directory) or (), draft=True)
    snapshot = as_if_in(target.rules_dir, draft)
    judged = judged_snapshot(snapshot, target.source, force=target.force)
    result, tool = judged.result, judged.tool
    if isinstance(result, Invalid):
        _print_invalid(result, tool, target)
        return ANSWER_IS_NO
    same = _that_count(files) == _in_rules_dir(target)
    if dry_run:
        return _show(result, judged, target, same=same)
    status = ask(target.socket, "status")
    if same and status.get("files") == "applied":
        _print_unchanged(target, status.get("pending"))
        return DONE
    if not target.source.json:
        _print_warnings(result, judged, target)
    with StagedRules(target.rules_dir) as staged:
        staged.copy_hidden()
        staged.write(files)
        return swap_in(staged, target)


def _print_warnings(result: Valid, judged: Judged, target: Destination) -> None:
    print_findings(result, judged.tool, Painter())
    for warning in preview(result, judged.tool, target.source, guarded=judged.guard.has_run).warnings:
        print(Painter().finding(warning))


def _show(result: Valid, judged: Judged, target: Destination, *, same: bool) -> int:
    """What a deployment would change. Raises KernelError."""
    changes = preview(result, judged.tool, target.source, guarded=judged.guard.has_run)
    if target.source.json:
        findings = as_json((*result.findings, *changes.warnings))
        print(json.dumps({"outcome": "valid", "changed": not same, "findings": findings}))
        return DONE
    print_findings(result, judged.tool, Painter())
    changes.show(Painter())
    return DONE


def _print_unchanged(target: Destination, pending: Mapping[str, Any] | None) -> None:
    """Say that nothing was done. ``pending`` is what still waits to be confirmed, if an earlier change does."""
    if target.source.json:
        print(json.dumps({"outcome": "unchanged", "changed": False, "findings": [], "pending": pending}))
        return
    print(Painter().fit(f"unchanged: {target.rules_dir} has these files already, and they are applied"))
    if pending is not None:
        print(Painter().fit(f"revision {pending['revision']} waits to be confirmed: {target.confirm_command}"))


_EXIT_CODES = {"applied": DONE, "unchanged": DONE, "refused": ANSWER_IS_NO}


def _exchange(staged: StagedRules, target: Destination) -> Path:
    """Exchange the directories while the daemon holds; the path of the old one. Raises SwapError."""
    ask(target.socket, "hold")
    try:
        return staged.exchange()
    except SwapError:
        ask(target.socket, "reload")
        raise


def swap_in(staged: StagedRules, target: Destination, rolled_back: Mapping[str, Any] | None = None) -> int:
    """Exchange the directories and reload; the exit code. ``rolled_back`` is the result of a rollback to the revision
    of these files, after which the reload finds its rules in force. Raises SwapError and what the client raises."""
    old = _exchange(staged, target)
    result = dict(ask_for_reload(target.socket, target.reload_arguments))
    if rolled_back is not None and result["outcome"] == "unchanged":
        result |= {"outcome": rolled_back["outcome"], "changes": rolled_back["changes"]}
    applied = result["outcome"] in {"applied", "unchanged"}
    if not applied:
        staged.take_back(old)
        ask(target.socket, "reload")
    _print_result(result, target, old, applied=applied)
    return _EXIT_CODES.get(result["outcome"], FAILED)


def _print_result(result: dict[str, Any], target: Destination, old: Path, *, applied: bool) -> None:
    if target.source.json:
        print(json.dumps({**result, "changed": applied, "before": str(old)}))
        return
    print("\n".join(answers.change(result, answers.AnswerPainter(), target.confirm_command)))  # type: ignore[arg-type]
    if applied:
        print(f"the files from before are in {old}")
    else:
        print(f"{target.rules_dir} is as it was", file=sys.stderr)


def restore(number: int | None, target: Destination) -> int:
    """Roll back to a revision, and write its files into the rules directory; the exit code.

    None is the revision before. Raises SwapError and what the client raises.
    """
    arguments: dict[str, int | float | None] = {}
    if number is not None:
        arguments["revision"] = number
    result = dict(ask(target.socket, "rollback", arguments))
    if result["outcome"] in {"applied", "unchanged"}:
        return _restore_files(int(result["revision"]), target, result)
    if target.source.json:
        print(json.dumps(result))
    else:
        print("\n".join(answers.change(result, answers.AnswerPainter(), target.confirm_command)))  # type: ignore[arg-type]
    return FAILED


def _files_of_revision(number: int, target: Destination) -> dict[str, bytes]:
    """The rule files that the daemon has kept, by their names. Raises SwapError."""
    shown = ask(target.socket, "show", {"revision": number})
    files: dict[str, bytes] = {}
    for file in shown["files"]:
        if "\ufffd" in file["text"]:
            raise SwapError(f"{file['path']} of revision {number} is not UTF-8, so no file was restored")
        files[str(file["path"]).rpartition("/")[2]] = file["text"].encode("utf-8", "surrogateescape")
    return files


def _restore_files(number: int, target: Destination, rolled_back: Mapping[str, Any]) -> int:
    """Write the files of a revision into the rules directory; the exit code."""
    files = _files_of_revision(number, target)
    if not files:
        raise SwapError(f"revision {number} was not made of rule files, so {target.rules_dir} is unchanged and held")
    current = _rule_files_in_use(target)
    with StagedRules(target.rules_dir) as staged:
        staged.copy_others()
        staged.write(files)
        code = swap_in(staged, target, rolled_back)
    if code == DONE and not target.source.json:
        _print_lines(_restored(current, files))
    return code


def _print_lines(lines: Iterable[str]) -> None:
    for line in lines:
        print(line)


def _restored(current: Mapping[str, bytes], files: Mapping[str, bytes]) -> list[str]:
    """A line for each file that was restored or removed."""
    lines = [f"restored: {answers.escaped(name)}" for name in files if current.get(name) != files[name]]
    lines += [f"removed:  {answers.escaped(name)}" for name in current if name not in files]
    return lines
