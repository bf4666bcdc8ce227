"""The examples for a SIEM, run by the programs that they configure, as far as the distribution has them."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from tests.netns.namespaces import fresh_namespace
from tests.system.journals import exported, write_journal
from tests.waiting import LONGEST

if TYPE_CHECKING:
    from typing import Any

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "packaging" / "examples" / "siem"
WHEN = 1_795_851_994_536_816
_IN_MOUNTS = """
mount -t tmpfs none /var/log && mkdir -p /var/log/journal && mount --bind "$1" /var/log/journal || exit 1
[ ! -d /run/log/journal ] || mount -t tmpfs none /run/log/journal
exec rsyslogd -n -f "$2" -i "$3"
"""
"""Run rsyslog with a journal of the test as that of the machine."""


def _event(name: str, **fields: object) -> bytes:
    return exported({"message": f"an event {name}", "event": name, "priority": 4, **fields}, WHEN)


def _received(server: socket.socket) -> dict[str, Any]:
    """The first line that a client sends."""
    server.settimeout(LONGEST)
    connection, _ = server.accept()
    with connection, connection.makefile("r") as lines:
        connection.settimeout(LONGEST)
        return dict(json.loads(lines.readline()))


def test_rsyslog_forwards_the_events_of_the_journal(tmp_path: Path) -> None:
    """With the example, rsyslog sends each event of fwguardd as a JSON object with all its fields, and nothing else: no
    entry of another program, nor one of another user that looks like an event."""
    (tmp_path / "journal").mkdir()
    other = exported({"message": "of another program", "priority": 6}, WHEN)
    forged = exported({"message": "forged", "event": "rules.applied", "priority": 5}, WHEN, uid=1000)
    machine = Path("/etc/machine-id").read_text().strip()
    write_journal(tmp_path / "journal" / machine, [other, forged, _event("drift.detected", culprit="nft (pid 812)")])
    config = (EXAMPLES / "rsyslog.conf").read_text().replace("siem.example.org", "127.0.0.1")
    (tmp_path / "rsyslog.conf").write_text(f'global(workDirectory="{tmp_path}")\n{config}')
    names = [str(tmp_path / name) for name in ("journal", "rsyslog.conf", "pid")]
    with fresh_namespace(), socket.create_server(("127.0.0.1", 5170)) as server:
        rsyslog = subprocess.Popen(["unshare", "--mount", "sh", "-c", _IN_MOUNTS, "sh", *names])
        try:
            found = _received(server)
        finally:
            rsyslog.terminate()
            rsyslog.wait(LONGEST)
    assert (found["FWGUARD_EVENT"], found["FWGUARD_CULPRIT"]) == ("drift.detected", "nft (pid 812)")
    assert found["MESSAGE"] == "an event drift.detected"


def test_a_remote_journal_is_read_in_the_schema(tmp_path: Path) -> None:
    """What systemd-journal-remote has received is printed in the Elastic Common Schema, as the example says."""
    journal = write_journal(tmp_path / "remote", [_event("drift.detected", culprit_pid=812), _event("rules.applied")])
    ended = subprocess.run(
        [sys.executable, "-m", "fwguardd.ctl.main", "watch", "--ecs", "--no-follow", "--journal-dir", journal],
        cwd=ROOT, stdout=subprocess.PIPE, text=True, timeout=LONGEST, check=True,
    )  # fmt: skip
    drift, applied = (json.loads(line) for line in ended.stdout.splitlines())
    assert (drift["event"]["dataset"], drift["process"]) == ("fwguardd.drift.detected", {"pid": 812})
    assert (applied["event"]["outcome"], applied["observer"]["hostname"]) == ("success", "gate")


def test_the_examples_of_other_programs_are_well_formed() -> None:
    """Vector and Elastic Agent, which the distribution does not have: YAML, about the events of fwguardd."""
    vector = yaml.safe_load((EXAMPLES / "vector.yaml").read_text())
    assert vector["sources"]["fwguardd"]["command"][0] == "fwguardctl"
    agent = yaml.safe_load((EXAMPLES / "elastic-agent.yml").read_text())
    assert agent["inputs"][0]["streams"][0]["include_matches"]["match"] == ["_SYSTEMD_UNIT=fwguardd.service"]
