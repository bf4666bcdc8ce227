"""fwguardctl report as a command, and the example that sends it by mail."""

from __future__ import annotations

import email.policy
import json
import os
import subprocess
import sys
import time
from email import message_from_bytes
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fwguardd import events
from tests.system.journals import exported, write_journal
from tests.waiting import LONGEST

if TYPE_CHECKING:
    from fwguardd.events import EventKind

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "packaging" / "examples" / "report"
NOBODY = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"]
"""Runs a program without capabilities, so that it does not read the rules of this machine."""


def _event(kind: EventKind, ago: float, **fields: Any) -> bytes:
    head = {"event": kind.name, "message": f"an event {kind.name}", "priority": kind.priority}
    return exported({**head, **fields}, int((time.time() - ago) * 1_000_000))


def _journal(folder: Path) -> Path:
    """A denial, a summary and a refusal of the last day, and a denial of nine days ago."""
    of_packet = {"name": "denied", "in": "eth0", "src": "203.0.113.9", "proto": "tcp", "dpt": 23}
    found = [
        _event(events.DENIED, 9 * 86400, **of_packet),
        _event(events.DENIED, 7200, **of_packet),
        _event(events.DENIED_SUMMARY, 7000, count=41, **of_packet),
        _event(events.REJECTED, 3600, finding=["<b>a.rules:1</b>: error"], state="in-force"),
    ]
    return write_journal(folder, found)


def _report(*words: str | Path, code: int = 0) -> subprocess.CompletedProcess[str]:
    """Run the command without a daemon."""
    command = [*NOBODY, sys.executable, "-m", "fwguardd.ctl.main", "report", "--socket", "/nonexistent", *words]
    environment = {"TZ": "UTC", "PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"}
    ran = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, env=environment)
    assert ran.returncode == code, ran
    return ran


def test_a_report_without_the_daemon(tmp_path: Path) -> None:
    """What the journal has is counted, from the beginning of the period on; what only the daemon and root know is said
    not to be known. The page is one file; the JSON has the same numbers."""
    journal = _journal(tmp_path / "journal")
    text = _report("--journal-dir", journal).stdout
    assert "unknown: What the kernel holds is not known. The last event that says it is of" in text
    assert "Denied packets  42  from 1 source" in text
    assert "Not examined: only root may read the rules" in text
    assert "fwguardd is not running" in text
    assert max(map(len, text.splitlines())) <= 80
    page = tmp_path / "report.html"
    assert _report("--journal-dir", journal, "--html", page).stdout.startswith(f"{page}: ")
    assert "&lt;b&gt;a.rules:1&lt;/b&gt;: error" in page.read_text()
    found = json.loads(_report("--journal-dir", journal, "--json", "--since", "20d").stdout)
    assert (found["state"], found["denials"]["packets"], found["status"], found["exposure"]) == (
        "unknown",
        43,
        None,
        None,
    )
    assert set(found["unknown"]) == {"status", "revisions", "rules", "sets", "exposure"}
    assert found["journal_begins"] is not None


def test_a_report_of_nothing(tmp_path: Path) -> None:
    """A journal without events of fwguardd is a report without events; where there is no journal either, the report
    says so and the exit code is 5. A file that cannot be written is an error of one line, and wrong words are wrong
    usage."""
    other = exported({"message": "of another program", "priority": 6}, int(time.time() * 1_000_000))
    journal = write_journal(tmp_path / "journal", [other])
    assert "No packet was denied, or none was logged." in _report("--journal-dir", journal).stdout
    (tmp_path / "empty").mkdir()
    assert "Events and denials are not known" in _report("--journal-dir", tmp_path / "empty", code=5).stdout
    failed = _report("--journal-dir", journal, "--html", "/nonexistent/report.html", code=5)
    assert failed.stderr.count("\n") == 1
    assert "/nonexistent/report.html: No such file or directory; the report is not written" in failed.stderr
    assert "'soon' is not a time" in _report("--since", "soon", code=2).stderr


def _program(path: Path, text: str) -> Path:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def test_the_example_sends_text_and_page(tmp_path: Path) -> None:
    """The mail has the state in its subject, the report as text, and the page as an attachment."""
    sent = tmp_path / "sent"
    sendmail = _program(tmp_path / "sendmail", f"cat >{sent}")
    command = f"exec {' '.join(NOBODY)} {sys.executable} -m fwguardd.ctl.main"
    words = f"--socket /nonexistent --journal-dir {_journal(tmp_path / 'journal')}"
    _program(
        tmp_path / "fwguardctl", f'cd {ROOT}; [ "$1" != --no-pager ] || shift; shift; {command} report {words} "$@"'
    )
    environment = {
        "PATH": f"{tmp_path}:{os.environ['PATH']}", "REPORT_TO": "admin@example.org", "SENDMAIL": str(sendmail),
    }  # fmt: skip
    subprocess.run(["sh", EXAMPLE / "fwguardd-report-mail"], env=environment, check=True, timeout=LONGEST)
    mail = message_from_bytes(sent.read_bytes(), policy=email.policy.default)
    assert (mail["To"], str(mail["Subject"]).rpartition(" ")[2]) == ("admin@example.org", "unknown")
    text, page = mail.iter_parts()
    assert text.get_content().startswith("Firewall report of ")
    assert (page.get_filename(), page.get_content()[:15]) == ("firewall-report.html", "<!DOCTYPE html>")


def test_the_units_of_the_example(tmp_path: Path) -> None:
    """systemd-analyze verify reports nothing about the service and the timer."""
    program = _program(tmp_path / "fwguardd-report-mail", "exit 0")
    for name in ("fwguardd-report.service", "fwguardd-report.timer"):
        text = (EXAMPLE / name).read_text()
        (tmp_path / name).write_text(text.replace("/usr/local/lib/fwguardd/fwguardd-report-mail", str(program)))
    units = [tmp_path / "fwguardd-report.timer", tmp_path / "fwguardd-report.service"]
    verified = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *units], capture_output=True, text=True, check=False, timeout=LONGEST
    )
    assert (verified.returncode, verified.stdout, verified.stderr) == (0, "", "")
