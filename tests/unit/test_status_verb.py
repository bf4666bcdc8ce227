"""``fwguardctl status --check``: one line and an exit code for monitoring."""

from __future__ import annotations

from typing import Any

import pytest

from fwguardd.ctl.command_line import main
from fwguardd.ctl.status_verb import Level, check_line
from tests.unit.canned import STATUS

FACTS = STATUS["state_facts"]


@pytest.mark.parametrize(
    ("changed", "level", "line"),
    [
        ({}, Level.OK, f"OK: in-force: {FACTS}"),
        ({"state": "open", "state_facts": "by root"}, Level.CRITICAL, "CRITICAL: open: by root"),
        (
            {"state": "drifted", "state_facts": "2 differences"},
            Level.CRITICAL,
            "CRITICAL: drifted: 2 differences",
        ),
        ({"state": "unverified", "state_facts": "x"}, Level.UNKNOWN, "UNKNOWN: unverified: x"),
        (
            {"state_facts": "revision 41", "files": "refused", "files_why": "1 error"},
            Level.WARNING,
            "WARNING: in-force: revision 41; the rule files are refused: 1 error",
        ),
        (
            {"state_facts": "", "settings": {"state": "refused", "since": 1.0, "message": "line 3: x"}},
            Level.WARNING,
            "WARNING: in-force; the settings are refused: line 3: x",
        ),
        ({"set_problems": ["bad.set:3: x"]}, Level.WARNING, f"WARNING: in-force: {FACTS}; bad.set:3: x"),
        (
            {"state": "emergency", "state_facts": "since boot", "files": "held", "files_why": ""},
            Level.CRITICAL,
            "CRITICAL: emergency: since boot; the rule files are held",
        ),
    ],
)
def test_the_level_follows_from_the_state_and_the_files(changed: dict[str, Any], level: Level, line: str) -> None:
    """Only a revision in force with applied files is ok; a warning never hides a critical state."""
    assert check_line({**STATUS, **changed}) == (level, line)


def test_a_daemon_that_does_not_answer_is_unknown(capsys: pytest.CaptureFixture[str]) -> None:
    """Monitoring reads standard output: the line says why the state is not known."""
    assert main(["status", "--check", "--socket", "/nonexistent/control.sock"]) == Level.UNKNOWN
    assert capsys.readouterr().out.startswith("UNKNOWN: ")
