"""The verbs that prove something about rule files, on files that the kernel rehearses."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from fwguardd.ctl.main import main

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.either_backend

RULES = """# ssh
-P INPUT DROP
-A INPUT -i lo -j ACCEPT
-A INPUT -p tcp -s 10.0.0.0/8 --dport 22 -j ACCEPT
-A INPUT -p tcp --dport 22 -j ACCEPT   # from anywhere
-A INPUT -p tcp --dport 20:30 -j DROP  # fwguard: allow needless-rule
"""


def test_minimise_prints_a_difference_and_writes_when_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without --write the file stays; with it, the needless lines are gone, all others are as before, and a second run
    finds nothing."""
    file = tmp_path / "a.rules"
    file.write_text(RULES)
    file.chmod(0o640)
    assert main(["minimise", str(tmp_path)]) == 0
    assert "\n--A INPUT -p tcp -s 10.0.0.0/8 --dport 22 -j ACCEPT\n" in capsys.readouterr().out
    assert file.read_text() == RULES
    assert main(["minimise", "--write", str(tmp_path)]) == 0
    lines = RULES.splitlines(keepends=True)
    assert file.read_text() == "".join([*lines[:3], lines[4]])
    assert file.stat().st_mode & 0o777 == 0o640
    capsys.readouterr()
    assert main(["minimise", "--json", str(file)]) == 0
    assert json.loads(capsys.readouterr().out)["removed"] == []
    assert [path.name for path in tmp_path.iterdir()] == ["a.rules"]


def test_check_with_proofs_warns_unless_a_line_silences_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What is proved is a warning with the line as written, and a comment silences it."""
    (tmp_path / "a.rules").write_text(RULES)
    assert main(["check", "--proof", "--json", str(tmp_path)]) == 0
    found = [each for each in json.loads(capsys.readouterr().out)["findings"] if each["code"] == "needless-rule"]
    assert [(each["line"], each["text"]) for each in found] == [(4, RULES.splitlines()[3])]


def test_minimise_of_wrong_files_says_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Files with errors are not touched; the errors are printed."""
    (tmp_path / "a.rules").write_text("-A INPUT -p tcp --dport 70000 -j ACCEPT\n")
    assert main(["minimise", "--write", str(tmp_path)]) == 1
    assert "a.rules:1: error:" in capsys.readouterr().out
