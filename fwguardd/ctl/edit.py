"""``fwguardctl edit``: an editor on a copy of the rules directory, which is checked and then applied (visudo(8))."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from typing import TYPE_CHECKING

from fwguardd.ctl.change_impact import print_impact
from fwguardd.ctl.judged_files import judged_snapshot
from fwguardd.ctl.offline_verbs import ANSWER_IS_NO, DONE, preview, print_findings
from fwguardd.ctl.rules_swap import StagedRules, SwapError
from fwguardd.ctl.terminal import Painter
from fwguardd.ctl.whole_directory import Destination, as_if_in, content_of, swap_in
from fwguardd.enforce.rule_files import ENDINGS, take_snapshot
from fwguardd.enforce.set_reading import set_files_in
from fwguardd.enforce.validate import Valid

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from fwguardd.enforce.rule_files import Snapshot

EDITORS = ("SUDO_EDITOR", "VISUAL", "EDITOR")
"""Variables of the environment that name an editor, in the order of sudoedit(8)."""


def editor() -> list[str]:
    """The command of the user's editor; ``editor`` where none is named (editor(1), Debian Policy 11.4)."""
    for name in EDITORS:
        command = shlex.split(os.environ.get(name, ""))
        if command:
            return command
    return ["editor"]


def edit(name: str | None, target: Destination) -> int:
    """Let the user change a copy, until it is applied or dropped. Raises SwapError and what the client raises."""
    before = take_snapshot(target.rules_dir)
    with StagedRules(target.rules_dir) as staged:
        staged.copy_all()
        paths = _paths(staged.path, name)
        while True:
            _run_editor(paths)
            after = take_snapshot(staged.path, draft=True)
            valid = _show_result(after, target)
            answer = _ask(valid=valid)
            if answer == "q":
                print(f"{target.rules_dir} is unchanged")
                return DONE if valid else ANSWER_IS_NO
            if answer == "a":
                break
        _check_unchanged(before, staged, target)
        # Another program may have refreshed a set meanwhile.
        staged.write(content_of(set_files_in(target.rules_dir) or ()))
        return swap_in(staged, target)


def _check_unchanged(before: Snapshot, staged: StagedRules, target: Destination) -> None:
    """Keep the edited copy, and raise SwapError, if another process has changed the rules directory."""
    if take_snapshot(target.rules_dir).digest != before.digest:
        staged.keep()
        message = f"{target.rules_dir} was changed meanwhile by another process, so nothing was applied"
        raise SwapError(f"{message}; the edited copy is {staged.path}")


def _show_result(edited: Snapshot, target: Destination) -> bool:
    """Print the findings and what would change; whether the edited files are valid."""
    judged = judged_snapshot(as_if_in(target.rules_dir, edited), target.source, force=target.force)
    result, tool = judged.result, judged.tool
    print_findings(result, tool, Painter())
    if not isinstance(result, Valid):
        return False
    changes = preview(result, tool, target.source, guarded=judged.guard.has_run)
    changes.show(Painter())
    if changes.hunks:
        print_impact(result, tool, target.source)
    return True


def _paths(directory: Path, name: str | None) -> list[Path]:
    """The files to edit: the named one, or all rule files. Raises SwapError."""
    if name is not None:
        return [_named_path(directory, name)]
    found = [path for path in sorted(directory.iterdir()) if _is_editable(path)]
    if not found:
        raise SwapError("there is no rule file to edit; name a new one: fwguardctl edit 10-input.rules")
    return found


def _named_path(directory: Path, name: str) -> Path:
    if not _is_rule_file_name(name):
        raise SwapError(f'{name!r} is not the name of a rule file: give a name without "/" that ends in ".rules"')
    path = directory / name
    if path.is_symlink():
        raise SwapError(f"{name} is a symbolic link to {path.readlink()}; edit that file")
    return path


def _is_rule_file_name(name: str) -> bool:
    return "/" not in name and name.endswith(ENDINGS) and not name.startswith(".")


def _is_editable(path: Path) -> bool:
    return path.name.endswith(ENDINGS) and path.is_file() and not path.is_symlink() and not path.name.startswith(".")


def _run_editor(paths: Sequence[Path]) -> None:
    """Raises SwapError where the editor cannot be run."""
    command = [*editor(), *map(str, paths)]
    try:
        ended = subprocess.run(command, check=False)
    except OSError as error:
        advice = f"set {EDITORS[-1]} to the editor that you use"
        raise SwapError(f"the editor {command[0]} cannot be run: {error.strerror}; {advice}") from error
    if ended.returncode != 0:
        raise SwapError(f"the editor {command[0]} ended with exit code {ended.returncode}; nothing was changed")


_QUESTIONS = {
    True: ("What now? (e)dit again, (a)pply, (q)uit without a change: ", {"e", "a", "q"}),
    False: ("What now? (e)dit again, (q)uit without a change: ", {"e", "q"}),
}
"""The question, and the answers to it, by whether the edited files are valid."""


def _ask(*, valid: bool) -> str:
    """What the user wants: e, a or q. The end of the input means q."""
    question, offered = _QUESTIONS[valid]
    while True:
        print(question, end="", flush=True)
        line = sys.stdin.readline()
        answer = line.strip().lower()[:1]
        if not line:
            print()
            return "q"
        if answer in offered:
            return answer
