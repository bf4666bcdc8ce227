"""The verbs that replace the rules directory as a whole, on a real daemon and a real kernel."""

from __future__ import annotations

import io
import json
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fwguardd.ctl.main import main

if TYPE_CHECKING:
    from collections.abc import Callable

    Start = Callable[..., Any]
    Saved = Callable[[], dict[str, list[str]]]

pytestmark = pytest.mark.either_backend

ROOT = Path(__file__).resolve().parents[2]
FIRST = "-P INPUT DROP\n-A INPUT -i lo -j ACCEPT\n-A INPUT -p tcp --dport 22 -j ACCEPT\n"
MORE = "-A INPUT -p tcp --dport 8080 -j ACCEPT\n"
OPEN_8080 = "-A INPUT -p tcp -m tcp --dport 8080 -j ACCEPT"
EDITORS = {
    "wrong-then-right": '[ -e SEEN ] && exec cp RIGHT "$1"\n>SEEN\necho -A X >>"$1"',
    "meanwhile": 'echo "# more" >>"$1"\necho "# other" >RULES/90-other.rules',
}


def ctl(daemon: Any, *argv: str, code: int = 0, typed: str = "", **environment: str) -> str:
    """Run fwguardctl for a daemon, in this process; all that it prints, errors last. The exit code is asserted."""
    socket = daemon.config.parent / "run" / "control.sock"
    verb, *rest = argv
    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True) for _ in range(2))
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "stdin", io.StringIO(typed))
        for name, value in environment.items():
            patch.setenv(name, value)
        ended = _exit_code([verb, "--socket", str(socket), "--config", str(daemon.config), *rest])
    text = ""
    for stream in (out, err):
        stream.seek(0)
        text += stream.read()
    assert ended == code, text
    return text


def _exit_code(argv: list[str]) -> object:
    try:
        return main(argv)
    except SystemExit as end:  # Words that argparse does not know.
        return end.code


def names(directory: Path) -> list[str]:
    """The names in a directory, in order."""
    return sorted(path.name for path in directory.iterdir())


def test_deploy_and_restored_files(start_daemon: Start, saved: Saved, tmp_path: Path) -> None:
    """Deploy applies a whole directory or nothing, twice the same is unchanged, and says what waits to be confirmed, a
    dry run changes nothing, refused files change nothing; what is not confirmed is undone and held; rollback
    --restore-files makes the files those of the revision in force, and no file is lost."""
    daemon = start_daemon({"10-first.rules": FIRST, "90-old.rules": "-A OUTPUT -d 192.0.2.9/32 -j DROP\n"})
    daemon.event("rules.applied")
    before, rules = saved(), daemon.rules
    (rules / ".git").mkdir()
    draft = tmp_path / "draft"
    draft.mkdir()
    (draft / "10-first.rules").write_text(FIRST)
    (draft / "20-more.rules").write_text(MORE)
    assert "8080" in ctl(daemon, "deploy", str(draft), "--dry-run")
    assert (saved(), names(rules)) == (before, [".git", "10-first.rules", "90-old.rules"])
    done = json.loads(ctl(daemon, "deploy", str(draft), "--confirm", "10m", "--json"))
    assert (done["outcome"], done["revision"], done["changed"]) == ("applied", 2, True)
    assert names(rules) == [".git", "10-first.rules", "20-more.rules"]
    assert (rules.stat().st_mode & 0o777, (rules / "20-more.rules").stat().st_mode & 0o777) == (0o755, 0o644)
    assert OPEN_8080 in saved()["ipv6"]
    assert "90-old.rules" in names(Path(done["before"]))
    differences = ctl(daemon, "diff", "1")
    assert "+ -A INPUT -p tcp -m tcp --dport 8080 -j ACCEPT" in differences
    assert "- -A OUTPUT -d 192.0.2.9/32 -j DROP" in differences
    assert f"+ {rules}/20-more.rules\n- {rules}/90-old.rules\nfrom revision 1 to revision 2: 2 added, 1 removed" in (
        differences
    )
    back = json.loads(ctl(daemon, "diff", "2", "1", "--json"))
    assert [entry["change"] for entry in back["files"]] == ["removed", "added"]
    assert "from revision 2 to the rule files: 0 added, 0 removed" in ctl(daemon, "diff", "2", "files")
    assert "revision 77 is not kept" in ctl(daemon, "diff", "1", "77", code=5)
    unchanged = json.loads(ctl(daemon, "deploy", str(draft), "--json"))
    assert (unchanged["outcome"], unchanged["pending"]["revision"]) == ("unchanged", 2)
    assert "revision 2 waits to be confirmed: fwguardctl " in ctl(daemon, "deploy", str(draft))
    ctl(daemon, "confirm")
    (draft / "30-bad.rules").write_text("-A INPUT -j NOWHERE\n")
    assert "undeclared-chain" in ctl(daemon, "deploy", str(draft), code=1)
    assert "30-bad.rules" not in names(rules)
    (draft / "30-bad.rules").unlink()
    (draft / "notes").symlink_to("/etc/shadow")
    assert "symbolic link" in ctl(daemon, "deploy", str(draft), code=5)
    restored = ctl(daemon, "rollback", "--restore-files")
    assert restored.startswith("applied (3 changes): in-force: revision 3")
    assert "removed:  20-more.rules" in restored
    assert "restored: 90-old.rules" in restored
    assert (saved(), names(rules)) == (before, [".git", "10-first.rules", "90-old.rules"])
    status = json.loads(ctl(daemon, "status", "--json"))
    assert (status["state"], status["files"], status["held"]) == ("in-force", "applied", None)
    (draft / "notes").unlink()
    pending = json.loads(ctl(daemon, "deploy", str(draft), "--confirm", "1s", "--json"))["pending"]
    assert pending["revision"] == 4
    daemon.event("rules.unconfirmed")
    daemon.event("rules.applied")
    assert saved() == before
    daemon.end_pass()
    assert json.loads(ctl(daemon, "status", "--json"))["files"] == "held"


def test_edit(start_daemon: Start, saved: Saved, tmp_path: Path) -> None:
    """The editor works on a copy: wrong rules can be edited again, a change has to be confirmed, the end of the input
    and a change of the directory meanwhile leave all as it was."""
    daemon = start_daemon({"10-first.rules": FIRST})
    daemon.event("rules.applied")
    before, path = saved(), daemon.rules / "10-first.rules"
    seen, right = tmp_path / "seen", tmp_path / "right"
    right.write_text(FIRST + MORE)
    for name, script in EDITORS.items():
        text = script.replace("SEEN", str(seen)).replace("RIGHT", str(right)).replace("RULES", str(daemon.rules))
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    wrong, meanwhile = (str(tmp_path / name) for name in EDITORS)
    assert "is unchanged" in ctl(daemon, "edit", path.name, code=1, EDITOR=wrong, SUDO_EDITOR="", VISUAL="")
    assert (saved(), path.read_text()) == (before, FIRST)
    seen.unlink()
    assert "unless it is confirmed" in ctl(daemon, "edit", path.name, typed="a\ne\na\n", SUDO_EDITOR=wrong)
    assert OPEN_8080 in saved()["ipv4"]
    ctl(daemon, "confirm")
    assert path.read_text() == FIRST + MORE
    refused = ctl(daemon, "edit", path.name, code=5, typed="a\n", SUDO_EDITOR=meanwhile)
    assert "was changed meanwhile" in refused
    assert "# more" not in path.read_text()
    assert "not the name of a rule file" in ctl(daemon, "edit", "../x.rules", code=5, SUDO_EDITOR=wrong)
