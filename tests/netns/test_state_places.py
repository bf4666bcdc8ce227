"""Where the daemon writes, and what it does where it cannot: a host that is read-only but for two directories."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fwguardd.control.client import ask

if TYPE_CHECKING:
    from collections.abc import Callable

    Start = Callable[..., Any]
    Saved = Callable[[], dict[str, list[str]]]

pytestmark = pytest.mark.either_backend

FIRST = "-P INPUT DROP\n-A INPUT -i lo -j ACCEPT\n-A INPUT -p tcp --dport 22 -j ACCEPT\n"
MORE = "-A INPUT -p tcp --dport 8080 -j ACCEPT\n"
OPEN_8080 = "-A INPUT -p tcp -m tcp --dport 8080 -j ACCEPT"
ONLY_RELOADS = "settle: 30s\nsettle_max: 60s\ndrift_interval: 1h\n"
FAULTS = {"state.failed", "state.damaged", "daemon.fault", "control.unavailable", "rules.failed", "rules.broken"}

STATE = {
    "writable": 'mount --bind "$state" "$state"',
    "read-only": 'mount --bind "$state" "$state"; mount -o remount,bind,ro "$state"',
    "small": 'mount -t tmpfs -o size=64k,mode=700 none "$state"',
    "full": 'mount -t tmpfs -o size=64k,mode=700 none "$state"; head -c 1M /dev/zero > "$state/fill" 2>&- || :',
}

# A legacy iptables makes its lock where there is none, and does not have to write to one that is there.
CONFINED = """#!/bin/sh
exec unshare --mount --propagation private sh -ec '
state={folder}/state run={folder}/run
[ -e /run/xtables.lock ] || : > /run/xtables.lock
{mount_state}
mount --bind "$run" "$run"
findmnt --raw --noheadings --output TARGET | while read -r place; do
    case $place in "$state" | "$run") ;; *) mount -o remount,bind,ro "$place" || : ;; esac
done
exec {python} "$@"' sh "$@"
"""


@pytest.fixture
def confine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Daemons that are started from now on can write to their runtime directory, to a state directory of this kind,
    and nowhere else."""
    python = sys.executable

    def confine(state: str) -> None:
        for name in ("state", "run"):
            (tmp_path / name).mkdir(mode=0o700, exist_ok=True)
        wrapper = tmp_path / "confined"
        wrapper.write_text(CONFINED.format(folder=tmp_path, mount_state=STATE[state], python=python))
        wrapper.chmod(0o700)
        monkeypatch.setattr(sys, "executable", str(wrapper))

    return confine


def _writable(pid: int) -> set[str]:
    """Where a process can write: the mount points that are not read-only (proc(5), mountinfo), the topmost of each."""
    options: dict[str, str] = {}
    for line in Path(f"/proc/{pid}/mountinfo").read_text().splitlines():
        fields = line.split()
        options[fields[4]] = fields[5]
    return {place for place, words in options.items() if "rw" in words.split(",")}


def _faults(daemon: Any) -> list[dict[str, Any]]:
    """Stop the daemon; every fault that it reported."""
    assert daemon.stop() == 0
    daemon.event("daemon.stopping")
    return [event for event in daemon.seen if event["event"] in FAULTS]


def _is_open(saved: Saved) -> bool:
    return all(not [line for line in lines if line.startswith("-A") or " DROP" in line] for lines in saved().values())


def test_nothing_is_written_anywhere_else(
    start_daemon: Start, saved: Saved, tmp_path: Path, confine: Callable[[str], None]
) -> None:
    """On a host that is read-only but for the state and the runtime directory everything works: a start, a change, a
    refused change, a reload that nobody confirms, a rollback, an opening, a restart."""
    confine("writable")
    control = tmp_path / "run" / "control.sock"
    daemon = start_daemon({"10-first.rules": FIRST})
    daemon.event("rules.applied", revision=1)
    assert _writable(daemon.process.pid) == {str(tmp_path / "state"), str(tmp_path / "run")}
    first = saved()
    daemon.drop("20-more.rules", MORE)
    daemon.event("rules.applied", revision=2)
    second = saved()
    daemon.drop("30-bad.rules", "-A INPUT -j NOWHERE\n")
    daemon.event("rules.rejected")
    (daemon.rules / "30-bad.rules").unlink()
    daemon.event("rules.taken-back")
    daemon.drop("20-more.rules", MORE.replace("8080", "8081"))
    assert ask(control, "reload", {"confirm_seconds": 1})["pending"]["back_to"] == 2
    daemon.event("rules.unconfirmed")
    daemon.event("rules.applied")
    assert saved() == second
    assert ask(control, "rollback", {"revision": 1})["outcome"] == "applied"
    assert saved() == first
    assert ask(control, "open")["outcome"] == "applied"
    assert _is_open(saved)
    assert ask(control, "reload")["outcome"] == "applied"
    kept = [shown["revision"] for shown in ask(control, "history")["revisions"]]
    assert kept == list(range(kept[0], 0, -1))
    last = saved()
    assert _faults(daemon) == []
    again = start_daemon()
    again.event("rules.unchanged", revision=kept[0])
    assert saved() == last
    assert _faults(again) == []


@pytest.mark.parametrize(
    ("state", "fault"), [("read-only", "Read-only file system"), ("full", "No space left on device")]
)
def test_a_state_directory_that_cannot_be_written_stops_nothing(
    start_daemon: Start, saved: Saved, tmp_path: Path, confine: Callable[[str], None], state: str, fault: str
) -> None:
    """Rules are put in force all the same, by a start, a change and an opening; what could not be kept is reported with
    its place and the fault; and a reload that has to be confirmed is refused, because a promise that is not on the disk
    is none: nothing changes."""
    confine(state)
    folder, control = str(tmp_path / "state"), tmp_path / "run" / "control.sock"
    daemon = start_daemon({"10-first.rules": FIRST}, ONLY_RELOADS)
    daemon.event("rules.applied", revision=1)
    assert folder not in _writable(daemon.process.pid) or state == "full"
    before = saved()
    assert ":INPUT DROP" in before["ipv6"]
    daemon.drop("20-more.rules", MORE)
    refused = ask(control, "reload", {"confirm_seconds": 1})
    assert (refused["outcome"], refused["revision"], refused["pending"]) == ("failed", 1, None)
    for part in ("nothing was changed", folder, fault, "Revision 1 stays in force"):
        assert part in refused["reason"]
    assert saved() == before
    assert ask(control, "reload")["outcome"] == "applied"
    assert all(OPEN_8080 in lines for lines in saved().values())
    assert ask(control, "open")["outcome"] == "applied"
    assert _is_open(saved)
    faults = _faults(daemon)
    shown = [event["message"] for event in faults if event["event"] == "state.failed"]
    assert len(shown) >= 3
    assert all(folder in message and fault in message for message in shown), shown
    assert {event["event"] for event in faults} <= {"state.failed", "state.damaged", "rules.failed"}
    assert [event["message"] for event in faults if event["event"] == "rules.failed"] == [refused["reason"]]


def test_a_disk_that_fills_up_loses_nothing_that_was_kept(
    start_daemon: Start, saved: Saved, tmp_path: Path, confine: Callable[[str], None]
) -> None:
    """While the disk is full a change is in force and reported as not kept, the boot files hold the last revision that
    was, whole, and that can be gone back to; once there is room again the next change is kept."""
    confine("small")
    control = tmp_path / "run" / "control.sock"
    daemon = start_daemon({"10-first.rules": FIRST}, ONLY_RELOADS)
    daemon.event("rules.applied", revision=1)
    daemon.end_pass()
    first = saved()
    state = Path(f"/proc/{daemon.process.pid}/root{tmp_path}/state")
    boot = {path.name: path.read_text() for path in (state / "boot").iterdir()}
    _fill(state / "fill")
    daemon.drop("20-more.rules", MORE)
    assert ask(control, "reload")["outcome"] == "applied"
    assert OPEN_8080 in saved()["ipv4"]
    shown = daemon.event("state.failed")["message"]
    assert "revision 2 cannot be kept" in shown
    assert f"{tmp_path}/state/revisions" in shown
    assert "No space left on device" in shown
    assert {path.name: path.read_text() for path in (state / "boot").iterdir()} == boot
    assert ask(control, "rollback", {"revision": 1})["outcome"] == "applied"
    assert saved() == first
    (state / "fill").unlink()
    daemon.drop("20-more.rules", MORE.replace("8080", "8081"))
    assert ask(control, "reload")["outcome"] == "applied"
    kept = [shown["revision"] for shown in ask(control, "history")["revisions"]]
    assert kept in ([4, 1], [4, 3, 1]), "a look after the write may have come first, and kept revision 3"
    assert "8081" in (state / "boot" / "ipv4.rules").read_text()
    assert {path.suffix for path in (state / "revisions").iterdir()} == {".json"}


def _fill(path: Path) -> None:
    """Write to a file until there is no room for one more byte."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        for size in (4096, 1):
            with pytest.raises(OSError, match="No space left on device"):
                _write_for_ever(fd, bytes(size))
    finally:
        os.close(fd)


def _write_for_ever(fd: int, data: bytes) -> None:
    while True:
        os.write(fd, data)
