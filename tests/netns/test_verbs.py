"""The control socket's verbs through fwguardctl, on a real daemon and a real kernel."""

from __future__ import annotations

import contextlib
import json
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fwguardd.control.client import RequestRefusedError, ask
from fwguardd.store.revisions import RevisionStore
from tests.netns.notify_socket import NotifySocket
from tests.waiting import LONGEST, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    Start = Callable[..., Any]
    Saved = Callable[[], dict[str, list[str]]]

pytestmark = pytest.mark.either_backend

ROOT = Path(__file__).resolve().parents[2]
FIRST = "-P INPUT DROP\n-A INPUT -i lo -j ACCEPT\n-A INPUT -p tcp --dport 22 -j ACCEPT\n"
MORE = "-A INPUT -p tcp --dport 8080 -j ACCEPT\n"
OPEN_8080 = "-A INPUT -p tcp -m tcp --dport 8080 -j ACCEPT"
SLOW = "settle: 30s\nsettle_max: 60s\n"
"""Settings under which nothing happens by itself before a verb asks for it."""


def ctl(tmp_path: Path, *argv: str, code: int = 0) -> dict[str, Any]:
    """Run fwguardctl with --json; its document. The exit code is asserted.

    An event comes before the end of its pass, and status says what the last pass that has ended found: so the end of
    the pass is waited for first.
    """
    socket = str(tmp_path / "run" / "control.sock")
    if argv[0] in ("status", "history"):
        with contextlib.suppress(RequestRefusedError):  # There are rules that iptables cannot show.
            ask(Path(socket), "drift")
    ended = subprocess.run(
        [sys.executable, "-m", "fwguardd.ctl.main", "--socket", socket, *argv, "--json"],
        cwd=ROOT, capture_output=True, text=True, timeout=LONGEST, check=False,
    )  # fmt: skip
    assert ended.returncode == code, (ended.stdout, ended.stderr)
    document: dict[str, Any] = json.loads(ended.stdout)
    return document


def test_reload_returns_the_result(start_daemon: Start, saved: Saved, tmp_path: Path) -> None:
    """Reload waits for the pass: 0 and the new revision, or 1 with findings and the old one still in force."""
    daemon = start_daemon({"10-first.rules": FIRST}, SLOW)
    daemon.event("rules.applied")
    daemon.drop("20-more.rules", MORE)
    done = ctl(tmp_path, "reload")
    assert (done["outcome"], done["revision"], done["rules"]) == ("applied", 2, {"ipv4": 3, "ipv6": 3})
    assert OPEN_8080 in saved()["ipv6"]
    daemon.drop("30-bad.rules", "-A INPUT -j NOWHERE\n")
    refused = ctl(tmp_path, "reload", code=1)
    assert (refused["outcome"], refused["revision"]) == ("refused", 2)
    errors = [finding for finding in refused["findings"] if finding["severity"] == "error"]
    assert [(error["code"], error["line"]) for error in errors] == [("undeclared-chain", 1)]
    assert OPEN_8080 in saved()["ipv4"]
    (daemon.rules / "30-bad.rules").unlink()
    assert ctl(tmp_path, "reload")["outcome"] == "unchanged"


def test_an_unconfirmed_revision_is_rolled_back_and_held(start_daemon: Start, saved: Saved, tmp_path: Path) -> None:
    """An unconfirmed revision is rolled back in time; its files are held until a reload."""
    daemon = start_daemon({"10-first.rules": FIRST}, f"{SLOW}drift_interval: 200ms\n")
    daemon.event("rules.applied")
    before = saved()
    daemon.drop("20-more.rules", MORE)
    pending = ctl(tmp_path, "reload", "--confirm", "1s")["pending"]
    assert (pending["revision"], pending["back_to"]) == (2, 1)
    daemon.event("rules.applied", revision=2)
    daemon.event("rules.unconfirmed")
    daemon.event("rules.applied")
    assert saved() == before
    daemon.repair()
    assert saved() == before
    status = ctl(tmp_path, "status")
    assert status["held"]["reason"] == "revision 2 was not confirmed"
    assert status["pending"] is None
    assert ctl(tmp_path, "reload")["outcome"] == "applied"
    assert OPEN_8080 in saved()["ipv4"]


def test_undone_files_stay_undone_until_a_reload(start_daemon: Start, saved: Saved, tmp_path: Path) -> None:
    """After a rollback no change of files brings the undone rules back, not after a restart either: a comment, an
    unrelated file, a refused reload. A reload applies them, and so files are held no more once they are those in
    force again."""
    daemon = start_daemon({"10-first.rules": FIRST})
    daemon.event("rules.applied")
    before = saved()
    daemon.drop("20-more.rules", MORE)
    daemon.event("rules.applied", revision=2)
    ctl(tmp_path, "rollback")
    daemon.drop("20-more.rules", f"# a comment\n{MORE}")
    assert daemon.event("rules.held")["reason"] == "rolled back to revision 1"
    daemon.drop("30-unrelated.rules", "-A OUTPUT -d 192.0.2.9/32 -j DROP\n")
    daemon.event("rules.held")
    daemon.drop("40-bad.rules", "-A INPUT -j NOWHERE\n")
    daemon.event("rules.rejected")
    assert ctl(tmp_path, "reload", code=1)["outcome"] == "refused"
    (daemon.rules / "40-bad.rules").unlink()
    assert daemon.stop() == 0
    (daemon.rules / "30-unrelated.rules").unlink()
    again = start_daemon()
    again.event("rules.held")
    assert saved() == before
    assert ctl(tmp_path, "status")["held"]["reason"] == "rolled back to revision 1"
    (again.rules / "20-more.rules").unlink()
    again.repair()
    assert ctl(tmp_path, "status")["held"] is None
    again.drop("20-more.rules", MORE)
    again.event("rules.applied", cause="change")
    assert OPEN_8080 in saved()["ipv4"]


def test_rollback_goes_back_to_rules_and_further(start_daemon: Start, saved: Saved, tmp_path: Path) -> None:
    """Rollback never goes to an open revision by itself, nor to the rules that are in force; a second one goes one
    further back, and never forward. A number goes to any revision, also to an open one."""
    daemon = start_daemon({"10-first.rules": FIRST}, SLOW)
    daemon.event("rules.applied")
    first = saved()
    daemon.drop("20-more.rules", MORE)
    ctl(tmp_path, "reload")
    second = saved()
    daemon.drop("30-bad.rules", "-I INPUT -p tcp --dport 22 -j DROP\n")
    ctl(tmp_path, "reload")
    assert ctl(tmp_path, "open")["revision"] == 4
    assert ctl(tmp_path, "reload")["revision"] == 5
    assert ctl(tmp_path, "rollback")["revision"] == 6
    assert saved() == second
    ctl(tmp_path, "rollback")
    assert saved() == first
    assert "no earlier revision with rules" in ctl(tmp_path, "rollback", code=5)["reason"]
    causes = [entry["cause"] for entry in ctl(tmp_path, "history")["revisions"]]
    assert causes[:2] == ["rollback to revision 1", "rollback to revision 2"]
    assert saved() == first
    ctl(tmp_path, "rollback", "4")
    assert ctl(tmp_path, "status", code=1)["in_force"]["kind"] == "open"
    ctl(tmp_path, "rollback")
    assert ":INPUT DROP" in saved()["ipv4"]


def test_what_is_confirmed_stays(start_daemon: Start, saved: Saved, tmp_path: Path) -> None:
    """Confirm keeps the revision: the next boot loads it, nothing is pending any more, not for the next daemon
    either, and so nothing is undone. To confirm nothing is an error. The impact of the change is an event."""
    daemon = start_daemon({"10-first.rules": FIRST}, SLOW)
    daemon.event("rules.applied")
    daemon.drop("20-more.rules", MORE)
    ctl(tmp_path, "reload", "--confirm", "10m")
    daemon.event("rules.impact", cut=0, closed=0, undecided=0)
    boot = tmp_path / "state" / "boot"
    assert "8080" not in (boot / "ipv4.rules").read_text()
    assert ctl(tmp_path, "confirm")["pending"] is None
    assert "8080" in (boot / "ipv4.rules").read_text()
    assert ctl(tmp_path, "status")["pending"] is None
    assert ctl(tmp_path, "confirm", code=5)["reason"] == "no revision waits to be confirmed"
    daemon.stop()
    start_daemon().event("rules.unchanged", revision=2)
    assert RevisionStore(tmp_path / "state").pending() is None
    assert OPEN_8080 in saved()["ipv4"]


def test_the_deadline_survives_kill_and_restart(start_daemon: Start, saved: Saved, tmp_path: Path) -> None:
    """A revision that was not confirmed is rolled back also after a SIGKILL, by the next daemon."""
    daemon = start_daemon({"10-first.rules": FIRST}, SLOW)
    daemon.event("rules.applied")
    before = saved()
    daemon.drop("20-more.rules", MORE)
    ctl(tmp_path, "reload", "--confirm", "8s")
    daemon.process.kill()
    daemon.process.wait()
    assert OPEN_8080 in saved()["ipv4"]
    again = start_daemon()
    again.event("rules.unconfirmed")
    again.event("rules.applied")
    assert saved() == before


def test_the_first_ruleset_can_be_rolled_back_too(
    start_daemon: Start, saved: Saved, tmp_path: Path, backend: str
) -> None:
    """If the first ruleset is not confirmed, the kernel holds again what it held before fwguardd."""
    subprocess.run([f"iptables-{backend}", "-A", "INPUT", "-s", "192.0.2.7/32", "-j", "DROP"], check=True)
    daemon = start_daemon({"10-bad.rules": "-A INPUT -j NOWHERE\n"}, SLOW)
    daemon.event("rules.rejected")
    daemon.drop("10-bad.rules", FIRST)
    ctl(tmp_path, "reload", "--confirm", "1s")
    daemon.event("rules.applied", revision=2)
    daemon.event("rules.unconfirmed")
    daemon.event("rules.applied")
    assert ":INPUT ACCEPT" in saved()["ipv4"]
    assert "-A INPUT -s 192.0.2.7/32 -j DROP" in saved()["ipv4"]


def test_rollback_and_history(start_daemon: Start, saved: Saved, tmp_path: Path) -> None:
    """Rollback puts the revision before in force, as a revision of its own; history and show print all of them."""
    daemon = start_daemon({"10-first.rules": FIRST})
    daemon.event("rules.applied")
    before = saved()
    daemon.drop("20-more.rules", MORE)
    daemon.event("rules.applied", revision=2)
    done = ctl(tmp_path, "rollback")
    assert (done["outcome"], done["revision"]) == ("applied", 3)
    assert saved() == before
    ctl(tmp_path, "rollback", "2")
    assert OPEN_8080 in saved()["ipv4"]
    revisions = ctl(tmp_path, "history")["revisions"]
    assert [(entry["revision"], entry["cause"], entry["in_force"]) for entry in revisions] == [
        (4, "rollback to revision 2", True),
        (3, "rollback to revision 1", False),
        (2, "change", False),
        (1, "start", False),
    ]
    assert revisions[0]["by"].startswith("uid 0, pid ")
    assert revisions[0]["rules"] == {"ipv4": 3, "ipv6": 3}
    shown = ctl(tmp_path, "show", "1")
    assert [Path(file["path"]).name for file in shown["files"]] == ["10-first.rules"]
    assert "-A INPUT -p tcp -m tcp --dport 22 -j ACCEPT" in shown["texts"]["ipv4"]
    assert "is not kept" in ctl(tmp_path, "rollback", "99", code=5)["reason"]


def test_open_accepts_everything_until_a_reload(start_daemon: Start, saved: Saved, tmp_path: Path) -> None:
    """Open accepts everything at once, is not rolled back as drift, nor by a change, and ends with a reload."""
    notifications = NotifySocket(tmp_path / "notify")
    daemon = start_daemon({"10-first.rules": FIRST}, "drift_interval: 200ms\n", NOTIFY_SOCKET=str(notifications.path))
    daemon.event("rules.applied")
    before = saved()
    assert ctl(tmp_path, "open")["outcome"] == "applied"
    for lines in saved().values():
        assert ":INPUT ACCEPT" in lines
        assert not [line for line in lines if line.startswith("-A")]
    daemon.drop("20-more.rules", MORE)
    notifications.arrived("STATUS=")
    for _ in range(5):
        notifications.wait_for("STATUS=open")  # Sent at the end of each pass.
    notifications.close()
    assert ":INPUT ACCEPT" in saved()["ipv4"]
    assert ctl(tmp_path, "status", code=1)["in_force"]["kind"] == "open"
    (daemon.rules / "20-more.rules").unlink()
    ctl(tmp_path, "reload")
    assert saved() == before


def test_open_survives_a_restart(start_daemon: Start, saved: Saved, tmp_path: Path) -> None:
    """A daemon that is restarted while everything is open leaves it open, and says so with priority err. The history of
    the reload that closes it has the files that differ from those before the opening, and no others."""
    daemon = start_daemon({"10-first.rules": FIRST})
    daemon.event("rules.applied")
    ctl(tmp_path, "open")
    daemon.stop()
    again = start_daemon()
    event = again.event("rules.unchanged")
    assert (event["priority"], event["state"]) == (3, "open")
    assert "the firewall is open: everything is accepted" in event["message"]
    assert ctl(tmp_path, "status", code=1)["state"] == "open"
    assert ":INPUT ACCEPT" in saved()["ipv4"]
    again.drop("20-more.rules", MORE)
    assert ctl(tmp_path, "reload")["outcome"] == "applied"
    changes = ctl(tmp_path, "history")["revisions"][0]["changes"]
    assert [(Path(change["file"]).name, change["change"]) for change in changes] == [("20-more.rules", "added")]


def test_drift_and_pause(start_daemon: Start, saved: Saved, tmp_path: Path, backend: str) -> None:
    """Drift compares now; pause leaves drift alone for a while; resume repairs it."""
    daemon = start_daemon({"10-first.rules": FIRST}, "drift_interval: 200ms\n")
    daemon.event("rules.applied")
    before = saved()
    assert ctl(tmp_path, "drift")["count"] == 0
    assert ctl(tmp_path, "pause", "1m")["paused_seconds"] > 50
    subprocess.run([f"iptables-{backend}", "-D", "INPUT", "-i", "lo", "-j", "ACCEPT"], check=True)
    daemon.event("drift.detected")
    found = ctl(tmp_path, "drift", code=1)
    assert found["differences"] == [f"- ipv4 filter -A INPUT -i lo -j ACCEPT ({daemon.rules}/10-first.rules:2)"]
    assert saved() != before
    ctl(tmp_path, "resume")
    daemon.event("drift.repaired")
    assert saved() == before


def test_the_last_revision_guards_a_start_on_bad_files(start_daemon: Start, saved: Saved, backend: str) -> None:
    """A daemon that starts on bad files puts the last revision in force, reports that, and watches the files."""
    daemon = start_daemon({"10-first.rules": FIRST})
    daemon.event("rules.applied")
    before = saved()
    daemon.stop()
    for program in ("iptables", "ip6tables"):
        subprocess.run([f"{program}-{backend}", "-F"], check=True)
        subprocess.run([f"{program}-{backend}", "-P", "INPUT", "ACCEPT"], check=True)
    (daemon.rules / "10-first.rules").write_text("-A INPUT -j NOWHERE\n")
    again = start_daemon()
    again.event("drift.repaired")
    assert "Revision 1 stays in force" in again.event("rules.rejected")["message"]
    assert saved() == before
    again.drop("10-first.rules", FIRST + MORE)
    again.event("rules.applied")


@pytest.mark.parametrize("verb", ["rollback", "show"])
def test_a_revision_that_is_damaged_after_the_start_is_reported(start_daemon: Start, tmp_path: Path, verb: str) -> None:
    """The verb that finds it fails and names it, one event reports it, and status and history list it from then on."""
    daemon = start_daemon({"10-first.rules": FIRST})
    daemon.event("rules.applied")
    daemon.drop("20-more.rules", MORE)
    daemon.event("rules.applied", revision=2)
    assert ctl(tmp_path, "status")["damaged"] == []
    path = tmp_path / "state" / "revisions" / "000001.json"
    path.write_bytes(path.read_bytes()[:-20])
    socket = str(tmp_path / "run" / "control.sock")
    argv = [sys.executable, "-m", "fwguardd.ctl.main", "--socket", socket, verb, "1"]
    ended = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=LONGEST, check=False)
    assert ended.returncode == 5
    assert "revision 1 " in ended.stdout + ended.stderr
    assert "is incomplete" in ended.stdout + ended.stderr
    reported = daemon.event("state.damaged")["message"]
    assert f"{path} is incomplete" in reported
    assert not path.exists()
    assert ctl(tmp_path, "status")["damaged"] == [reported]
    history = ctl(tmp_path, "history")
    assert [revision["revision"] for revision in history["revisions"]] == [2]
    assert history["damaged"] == [reported]
    ctl(tmp_path, "reload")
    assert daemon.stop() == 0
    daemon.event("daemon.stopping")
    assert [event["event"] for event in daemon.seen].count("state.damaged") == 1


def test_a_damaged_store_does_not_prevent_a_start(start_daemon: Start, saved: Saved, tmp_path: Path) -> None:
    """An incomplete revision is moved aside and reported, and the daemon enforces the rules all the same."""
    daemon = start_daemon({"10-first.rules": FIRST})
    daemon.event("rules.applied")
    daemon.stop()
    path = next((tmp_path / "state" / "revisions").iterdir())
    path.write_bytes(path.read_bytes()[:-20])
    again = start_daemon()
    assert path.name in again.event("state.damaged")["message"]
    again.event("rules.unchanged")
    assert ":INPUT DROP" in saved()["ipv4"]


def test_without_a_daemon_the_exit_code_says_so(tmp_path: Path) -> None:
    """3: the daemon cannot be reached."""
    ended = subprocess.run(
        [sys.executable, "-m", "fwguardd.ctl.main", "--socket", str(tmp_path / "none"), "status"],
        cwd=ROOT, capture_output=True, text=True, timeout=LONGEST, check=False,
    )  # fmt: skip
    assert ended.returncode == 3


@pytest.mark.parametrize("removed", ["control.sock", ""])
def test_a_removed_control_socket_comes_back(start_daemon: Start, tmp_path: Path, removed: str) -> None:
    """A socket whose file is removed cannot be reached, not even for `open`. It is made again with the next comparison,
    and so is its directory."""
    daemon = start_daemon({"10-first.rules": FIRST}, "drift_interval: 200ms\n")
    daemon.event("rules.applied")
    daemon.end_pass()
    run = tmp_path / "run"
    if removed:
        (run / removed).unlink()
    else:
        shutil.rmtree(run)
    wait_until((run / "control.sock").exists, "the control socket")
    assert ctl(tmp_path, "status")["state"] == "in-force"
    assert stat.S_IMODE((run / "control.sock").stat().st_mode) & 0o007 == 0
    assert ctl(tmp_path, "open")["outcome"] == "applied"
    assert daemon.stop() == 0
    assert not (run / "control.sock").exists()


def test_other_users_may_not_connect(start_daemon: Start, tmp_path: Path) -> None:
    """4: only root may connect to the control socket."""
    daemon = start_daemon({"10-first.rules": FIRST})
    daemon.event("rules.applied")
    ended = subprocess.run(
        [sys.executable, "-m", "fwguardd.ctl.main", "--socket", str(tmp_path / "run" / "control.sock"), "status"],
        cwd=ROOT, capture_output=True, text=True, timeout=LONGEST, check=False, user=65534,
    )  # fmt: skip
    assert ended.returncode in {3, 4}, ended.stderr


@pytest.mark.parametrize(
    ("verb", "word"), [("status", "in-force: revision 1"), ("history", " start"), ("drift", "no drift")]
)
def test_the_answer_without_json_is_text(start_daemon: Start, tmp_path: Path, verb: str, word: str) -> None:
    """Without --json the answer is text for people."""
    daemon = start_daemon({"10-first.rules": FIRST})
    daemon.event("rules.applied")
    daemon.end_pass()
    ended = subprocess.run(
        [sys.executable, "-m", "fwguardd.ctl.main", "--socket", str(tmp_path / "run" / "control.sock"), verb],
        cwd=ROOT, capture_output=True, text=True, timeout=LONGEST, check=True,
    )  # fmt: skip
    assert word in ended.stdout


def test_open_works_without_a_daemon(start_daemon: Start, saved: Saved, tmp_path: Path, backend: str) -> None:
    """Where no daemon answers, fwguardctl opens the firewall; a daemon that is started later leaves it open."""
    daemon = start_daemon({"10-first.rules": FIRST})
    daemon.event("rules.applied")
    daemon.stop()
    config = tmp_path / "alone.yaml"
    config.write_text(
        f"rules_dir: {daemon.rules}\nstate_dir: {tmp_path}/state\nruntime_dir: {tmp_path}/run\nbackend: {backend}\n"
    )
    argv = [sys.executable, "-m", "fwguardd.ctl.main", "open", "--config", str(config)]
    ended = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=LONGEST, check=True)
    assert "open: everything is accepted" in ended.stdout
    assert ":INPUT ACCEPT" in saved()["ipv6"]
    start_daemon().event("rules.unchanged")
    assert ctl(tmp_path, "status", code=1)["in_force"]["kind"] == "open"


def test_the_boot_report_is_emitted(start_daemon: Start, tmp_path: Path) -> None:
    """The daemon emits an event that says what the boot loader did."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "boot").write_text("outcome=emergency\nreason=the boot files are torn\n")
    daemon = start_daemon({"10-first.rules": FIRST})
    assert "the emergency set was put in force: the boot files are torn" in daemon.event("boot.report")["message"]


def test_an_opening_for_a_time_closes_by_itself(start_daemon: Start, saved: Saved, tmp_path: Path) -> None:
    """What was in force before comes back, also if the daemon is killed meanwhile; the boot loader never opens; it
    cannot be confirmed; and a reload ends it early."""
    daemon = start_daemon({"10-first.rules": FIRST})
    daemon.event("rules.applied")
    before = saved()
    opened = ctl(tmp_path, "open", "--for", "10m")
    assert (opened["pending"]["opening"], opened["pending"]["back_to"], opened["state"]) == (True, 1, "open")
    assert ":INPUT ACCEPT" in saved()["ipv4"]
    assert "dport 22" in (tmp_path / "state" / "boot" / "ipv4.rules").read_text()
    assert "cannot be confirmed" in ctl(tmp_path, "confirm", code=5)["reason"]
    assert ctl(tmp_path, "reload")["pending"] is None
    assert saved() == before
    ctl(tmp_path, "open", "--for", "8s")
    daemon.process.kill()
    daemon.process.wait()
    again = start_daemon()
    again.event("rules.closed")
    again.event("rules.applied")
    assert saved() == before
    status = ctl(tmp_path, "status")
    assert (status["pending"], status["held"], status["files"]) == (None, None, "applied")
    again.drop("20-more.rules", MORE)
    again.event("rules.applied", cause="change")
    assert OPEN_8080 in saved()["ipv4"]


def test_settings_that_are_refused(start_daemon: Start, saved: Saved, tmp_path: Path) -> None:
    """A reload with settings that cannot be used fails, changes nothing and says why; status shows it until a reload
    succeeds. With apply: manual changed files are held until a reload; history has the files and their owner."""
    daemon = start_daemon({"10-first.rules": FIRST}, SLOW)
    daemon.event("rules.applied")
    before, good = saved(), daemon.config.read_text()
    daemon.drop("20-more.rules", MORE)
    daemon.config.write_text(f"{good}on_drfit: report\n")
    refused = ctl(tmp_path, "reload", code=1)
    assert refused["outcome"] == "refused"
    assert "unknown setting 'on_drfit'" in refused["reason"]
    assert saved() == before
    settings = ctl(tmp_path, "status")["settings"]
    assert (settings["state"], settings["message"]) == ("refused", refused["reason"])
    daemon.config.write_text(good.replace(SLOW, "") + "apply: manual\n")
    assert ctl(tmp_path, "reload")["outcome"] == "applied"
    assert ctl(tmp_path, "status")["settings"] == {"state": "applied", "since": None, "message": None}
    newest = ctl(tmp_path, "history")["revisions"][0]
    path = str(daemon.rules / "20-more.rules")
    assert newest["changes"] == [{"file": path, "change": "added", "owner": "root"}]
    daemon.drop("30-held.rules", "-A OUTPUT -d 192.0.2.9/32 -j DROP\n")
    assert daemon.event("rules.held")["reason"] == "apply: manual"
    status = ctl(tmp_path, "status")
    assert (status["files"], status["in_force"]["revision"]) == ("held", 2)
    assert "192.0.2.9" in str(ctl(tmp_path, "reload") and saved())


def test_changes_that_have_to_be_confirmed(start_daemon: Start, saved: Saved, tmp_path: Path) -> None:
    """With confirm_changes each change in the directory is undone and held unless it is confirmed, and a further one
    does not put that off; what is confirmed stays."""
    daemon = start_daemon({"10-first.rules": FIRST}, "confirm_changes: 10s\n")
    daemon.event("rules.pending")
    ctl(tmp_path, "confirm")
    before = saved()
    daemon.drop("20-more.rules", MORE)
    until = daemon.event("rules.pending")["message"]
    daemon.drop("30-more.rules", MORE.replace("8080", "8081"))
    assert daemon.event("rules.pending")["message"].split(" unless")[0].split(" at ")[1] in until
    daemon.event("rules.unconfirmed")
    daemon.event("rules.applied")
    assert saved() == before
    assert ctl(tmp_path, "status")["files"] == "held"
