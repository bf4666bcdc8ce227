"""fwguardctl watch as a command: which events it shows, and how."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from fwguardd import events
from tests.system.journals import exported, write_journal

if TYPE_CHECKING:
    from pathlib import Path

    from fwguardd.events import EventKind

START = 1795390395_000000
COMMAND = [sys.executable, "-m", "fwguardd.ctl.main", "watch", "--no-follow"]


def _event(kind: EventKind, message: str, **fields: Any) -> dict[str, Any]:
    return {"event": kind.name, "message": message, "message_id": kind.message_id, "priority": kind.priority, **fields}


def _journal(folder: Path) -> Path:
    """Two events of root, a packet, and an entry of another user that looks like an event."""
    return write_journal(
        folder,
        [
            exported(_event(events.APPLIED, "revision 7 is in force", revision=7, difference=["+ a"]), START),
            exported(_event(events.DENIED, "denied tcp", src="203.0.113.9"), START + 1_000_000),
            exported(_event(events.DRIFT, "drift\x1b[2J", changes=1), START + 2_000_000),
            exported(_event(events.DRIFT, "of somebody else", changes=1), START + 3_000_000, uid=1000),
        ],
    )


def _watch(folder: Path, *words: str) -> str:
    environment = {"TZ": "UTC", "PATH": "/usr/bin:/bin"}
    command = [*COMMAND, "--journal-dir", str(folder), *words]
    ran = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert ran.stderr == ""
    return ran.stdout


def test_events_are_printed_with_their_day_and_details(tmp_path: Path) -> None:
    """One line an event, with escaped control characters; neither packets nor entries of other users."""
    assert _watch(_journal(tmp_path / "journal")) == (
        "2026-11-22\n"
        "23:33:15 note  revision 7 is in force [rules.applied]\n"
        "               + a\n"
        r"23:33:17 warn  drift\x1b[2J [drift.detected]"
        "\n"
    )


def test_json_has_the_keys_of_the_daemons_json_lines(tmp_path: Path) -> None:
    """One object a line; numbers and lists are such again; with --denials packets are among them."""
    lines = [json.loads(line) for line in _watch(_journal(tmp_path / "journal"), "--json", "--denials").splitlines()]
    assert [line["event"] for line in lines] == ["rules.applied", "denied", "drift.detected"]
    assert lines[0] == {
        "timestamp": "2026-11-22T23:33:15.000000Z",
        "event": "rules.applied",
        "message": "revision 7 is in force",
        "message_id": events.APPLIED.message_id,
        "priority": events.APPLIED.priority,
        "revision": 7,
        "difference": ["+ a"],
    }
