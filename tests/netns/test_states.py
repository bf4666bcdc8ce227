"""The state that fwguardctl status names equals what the kernel holds, at each step of what people have met."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fwguardd.control.client import ask
from fwguardd.ruleset.model import MOST_FINDINGS
from tests.netns.conftest import output
from tests.waiting import LONGEST, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.netns.conftest import Peer

    Start = Callable[..., Any]
    Saved = Callable[[], dict[str, list[str]]]

ROOT = Path(__file__).resolve().parents[2]
FAST = "drift_interval: 200ms\n"
WITH_SET = """-P INPUT DROP
-A INPUT -i lo -j ACCEPT
-4 -A INPUT -m set --match-set allow src -j ACCEPT
-A INPUT -p tcp --dport 22 -j ACCEPT
"""


def _status(folder: Path) -> tuple[str, str, int]:
    """The state and the files that status --json shows, and the exit code of status."""
    control = folder / "run" / "control.sock"
    result = ask(control, "status")
    ended = subprocess.run(
        [sys.executable, "-m", "fwguardd.ctl.main", "--socket", str(control), "status"],
        cwd=ROOT, capture_output=True, text=True, timeout=LONGEST, check=False,
    )  # fmt: skip
    return result["state"], result["files"], ended.returncode


def _wait_for(folder: Path, state: str, files: str) -> None:
    def is_reached() -> bool:
        result = ask(folder / "run" / "control.sock", "status")
        return (result["state"], result["files"]) == (state, files)

    wait_until(is_reached, f"the state {state}, files {files}", pause=0.05)


def _open_by_hand(backend: str, families: tuple[str, ...] = ("iptables", "ip6tables")) -> None:
    for family in families:
        for arguments in (("-F", "INPUT"), ("-P", "INPUT", "ACCEPT")):
            subprocess.run([f"{family}-{backend}", "-w", "60", *arguments], check=True)


def _without_set(loaded: dict[str, list[str]], name: str = "") -> dict[str, list[str]]:
    return {family: [line for line in lines if f"match-set {name}" not in line] for family, lines in loaded.items()}


def test_all_but_a_rule_without_its_set_is_repaired(
    start_daemon: Start, saved: Saved, backend: str, tmp_path: Path
) -> None:
    """The case status-lies: the rest is repaired at once, the state is drifted and names what is missing, and the rules
    come back with their set; also where there are more of them than a check lists."""
    output("ipset create allow hash:net")
    rule = "-4 -A INPUT -p tcp --dport {} -m set --match-set allow src -j ACCEPT\n"
    many = "".join(rule.format(8000 + number) for number in range(MOST_FINDINGS + 4))
    daemon = start_daemon({"10.rules": WITH_SET, "20.rules": f"{many}-A INPUT -j DROP\n"}, FAST)
    daemon.event("rules.applied")
    daemon.end_pass()
    before = saved()
    assert _status(tmp_path) == ("in-force", "applied", 0)
    ask(tmp_path / "run" / "control.sock", "pause", {"seconds": 600.0})
    _open_by_hand(backend, ("iptables",))
    output("ipset destroy allow")
    daemon.ask("resume")
    failed = daemon.event("rules.failed")
    assert (failed["priority"], failed["state"]) == (3, "drifted")
    assert 'there is no ipset "allow"' in failed["message"]
    daemon.end_pass()
    assert saved() == _without_set(before)
    assert _status(tmp_path) == ("drifted", "applied", 1)
    result = daemon.ask("status")
    assert result["drift"]["count"] == MOST_FINDINGS + 5
    assert "the repair fails: " in result["sentence"]
    assert f"(and {MOST_FINDINGS + 4} more rules)" in result["sentence"]
    assert 'there is no ipset "allow"' in result["sentence"]
    output("ipset create allow hash:net")
    daemon.event("drift.repaired", state="in-force")
    assert saved() == before
    _wait_for(tmp_path, "in-force", "applied")
    messages = [event["message"] for event in daemon.events_until_its_end("rules.failed")]
    assert len(messages) == len(set(messages))


def test_a_rule_comes_back_with_its_set_while_another_set_is_missing(
    start_daemon: Start, saved: Saved, backend: str, tmp_path: Path
) -> None:
    """Of two rules whose sets were destroyed, the one whose set is back is repaired, and the other is named."""
    rule = "-4 -A INPUT -m set --match-set {} src -j ACCEPT\n"
    for name in ("allow", "backup"):
        output(f"ipset create {name} hash:net")
    daemon = start_daemon({"10.rules": WITH_SET + rule.format("backup")}, FAST)
    daemon.event("rules.applied")
    daemon.end_pass()
    before = saved()
    ask(tmp_path / "run" / "control.sock", "pause", {"seconds": 600.0})
    _open_by_hand(backend, ("iptables",))
    for name in ("allow", "backup"):
        output(f"ipset destroy {name}")
    daemon.ask("resume")
    daemon.event("rules.failed", state="drifted")
    output("ipset create backup hash:net")
    wait_until(lambda: saved() == _without_set(before, "allow"), "the rule whose set is back", pause=0.05)
    daemon.end_pass()
    assert _status(tmp_path) == ("drifted", "applied", 1)
    assert 'there is no ipset "allow"' in daemon.ask("status")["sentence"]
    output("ipset create allow hash:net")
    daemon.event("drift.repaired", state="in-force")
    assert saved() == before


@pytest.mark.either_backend
def test_a_set_that_comes_late_is_waited_for(start_daemon: Start, saved: Saved, tmp_path: Path) -> None:
    """The case set-comes-late: the files wait, which is reported once, and are applied by themselves when the set is
    there."""
    daemon = start_daemon({"10.rules": WITH_SET})
    rejected = daemon.event("rules.rejected")
    assert (rejected["code"], rejected["files"], rejected["state"]) == ("unknown-set", "waiting", "unmanaged")
    daemon.end_pass()
    assert _status(tmp_path) == ("unmanaged", "waiting", 1)
    assert ":INPUT DROP" not in saved()["ipv4"]
    output("ipset create allow hash:net")
    assert daemon.event("rules.applied")["state"] == "in-force"
    daemon.end_pass()
    assert _status(tmp_path) == ("in-force", "applied", 0)
    assert len(daemon.events_until_its_end("rules.rejected")) == 1


@pytest.mark.either_backend
def test_files_with_a_mistake_do_not_wait(start_daemon: Start, tmp_path: Path) -> None:
    """An error of the author is refused, also beside a set that is missing: retrying does not help."""
    daemon = start_daemon({"10.rules": f"{WITH_SET}-A INPUT -j NOWHERE\n"})
    assert daemon.event("rules.rejected")["files"] == "refused"
    daemon.end_pass()
    assert _status(tmp_path) == ("unmanaged", "refused", 1)


def _doctor(folder: Path) -> str:
    """What doctor says about the state."""
    config = folder / "doctor.yaml"
    config.write_text(f"runtime_dir: {folder / 'run'}\n")
    ended = subprocess.run(
        [sys.executable, "-m", "fwguardd.ctl.main", "doctor", "--config", str(config), "--json"],
        cwd=ROOT, capture_output=True, text=True, timeout=LONGEST, check=False,
    )  # fmt: skip
    findings = json.loads(ended.stdout)["findings"]
    return "".join(finding["message"] for finding in findings if finding["code"] == "not-in-force")


def _boot(folder: Path) -> str:
    """Run the boot loader, as at boot; the first line of its report."""
    subprocess.run(
        [
            str(ROOT / "packaging" / "fwguardd-boot"), "--state-dir", str(folder / "state"),
            "--runtime-dir", str(folder / "run"), "--emergency-dir", str(ROOT / "packaging" / "emergency"),
        ],
        check=False, capture_output=True,
    )  # fmt: skip
    return (folder / "run" / "boot").read_text().splitlines()[0]


def test_an_emergency_boot_is_not_overlooked(start_daemon: Start, saved: Saved, backend: str, tmp_path: Path) -> None:
    """The case emergency-boot: the state is emergency, with priority err, and stays so until the set is there; a later
    start does not report the emergency again."""
    output("ipset create allow hash:net")
    daemon = start_daemon({"10.rules": WITH_SET}, FAST)
    daemon.event("rules.applied")
    daemon.stop()
    before = saved()
    _open_by_hand(backend)
    output("ipset destroy allow")
    assert _boot(tmp_path) == "outcome=emergency"
    emergency = saved()
    daemon = start_daemon(settings=FAST)
    report = daemon.event("boot.report")
    assert (report["priority"], report["state"]) == (3, "emergency")
    failed = daemon.event("rules.failed")
    assert (failed["priority"], failed["state"]) == (3, "emergency")
    daemon.end_pass()
    assert saved() == emergency
    assert _status(tmp_path) == ("emergency", "applied", 1)
    assert "emergency: " in _doctor(tmp_path)
    output("ipset create allow hash:net")
    daemon.event("drift.repaired", state="in-force")
    assert saved() == before
    _wait_for(tmp_path, "in-force", "applied")
    daemon.stop()
    again = start_daemon(settings=FAST)
    assert again.event("boot.report")["priority"] == 5
    again.event("rules.unchanged")
    again.end_pass()
    assert _status(tmp_path) == ("in-force", "applied", 0)


def test_an_emergency_set_that_is_gone_is_not_claimed(start_daemon: Start, saved: Saved, tmp_path: Path) -> None:
    """Where another program has opened the emergency set, what can be loaded of the revision is loaded."""
    output("ipset create allow hash:net")
    daemon = start_daemon({"10.rules": WITH_SET}, FAST)
    daemon.event("rules.applied")
    daemon.stop()
    before = saved()
    _open_by_hand(daemon.backend)
    output("ipset destroy allow")
    (tmp_path / "run" / "boot").write_text("outcome=emergency\nreason=a test\n")
    daemon = start_daemon(settings=FAST)
    assert "the emergency set" not in daemon.event("drift.detected")["message"]
    assert daemon.event("rules.failed")["state"] == "drifted"
    daemon.end_pass()
    assert saved() == _without_set(before)
    assert _status(tmp_path) == ("drifted", "applied", 1)


STOPS_BEFORE_THE_LOAD = """
import os, sys, time
from fwguardd import daemon
from fwguardd.enforce import reconcile

apply_files = reconcile.apply_files

def after_a_moment(*arguments):
    if os.path.exists(os.environ["HOLD"]):
        open(os.environ["HOLD"] + ".reached", "w").close()
    while os.path.exists(os.environ["HOLD"]):
        time.sleep(0.01)
    return apply_files(*arguments)

reconcile.apply_files = after_a_moment
sys.exit(daemon.main(sys.argv[4:]))
"""
"""A daemon that waits between the validation of files and their load, while a file exists."""


def test_drift_inside_a_pass_is_reported_before_the_files(
    start_daemon: Start, saved: Saved, backend: str, tmp_path: Path
) -> None:
    """The case drift-inside-a-pass: a rule that is deleted while changed files are validated is drift, with its author
    on nft, and the change follows."""
    hold, rule = tmp_path / "hold", "-A INPUT -p tcp -m tcp --dport 22 -j ACCEPT"
    enter = [sys.executable, "-c", STOPS_BEFORE_THE_LOAD]
    daemon = start_daemon({"10.rules": "-P INPUT DROP\n-A INPUT -p tcp --dport 22 -j ACCEPT\n"}, enter=enter, HOLD=hold)
    daemon.event("rules.applied")
    daemon.end_pass()
    hold.touch()
    daemon.drop("20.rules", "-A INPUT -p udp --dport 53 -j ACCEPT\n")
    wait_until(Path(f"{hold}.reached").exists, "the load", pause=0.01)
    subprocess.run([f"iptables-{backend}", "-w", "60", "-D", *rule.split()[1:]], check=True)
    hold.unlink()
    drift = daemon.event("drift.detected")
    assert [line.partition(" (")[0] for line in drift["difference"]] == [f"- ipv4 filter {rule}"]
    if backend == "nft":
        assert "iptables" in drift["culprit"]
    daemon.event("rules.applied", revision=2)
    daemon.event("drift.repaired", state="in-force")
    daemon.end_pass()
    assert rule in saved()["ipv4"]
    assert _status(tmp_path) == ("in-force", "applied", 0)


HOLDS_A_SESSION = """
import socket, sys
sessions = [socket.create_connection((address, 22)) for address in sys.argv[1:]]
print("connected", flush=True)
sys.stdin.read()
"""
"""Run on the peer: connections to port 22 that stay."""


@pytest.mark.parametrize("backend", ["nft"], indirect=True)
def test_a_change_that_closes_a_live_ssh_session_is_warned_about(
    start_daemon: Start, peer: Peer, listen: Callable[[int], None]
) -> None:
    """The peers of real connections to port 22, of both families, are named by a warning when a change would not let
    them open a new one; one that closes it for other networks is no reason for it. With the lockout guard the change
    would be refused."""
    listen(22)
    daemon = start_daemon(
        {"10.rules": "-P INPUT DROP\n-A INPUT -p ipv6-icmp -j ACCEPT\n-A INPUT -p tcp --dport 22 -j ACCEPT\n"},
        "lockout_guard: off\n",
    )
    daemon.event("rules.applied")
    with peer.started([sys.executable, "-I", "-S", "-c", HOLDS_A_SESSION, "198.51.100.1", "2001:db8::1"]) as sessions:
        assert sessions.readline() == "connected\n"
        daemon.drop("05.rules", "-4 -A INPUT -s 192.0.2.0/24 -p tcp --dport 22 -j DROP\n")
        daemon.event("rules.applied")
        assert not [event for event in daemon.seen if event.get("code") == "closes-ssh"]
        daemon.drop("05.rules", "-A INPUT -p tcp --dport 22 -j DROP\n")
        found = [daemon.event("rules.finding", code="closes-ssh")["message"] for _ in range(2)]
        daemon.event("rules.applied")
    for address in ("198.51.100.2", "2001:db8::2"):
        assert f"{address} has an ssh session to port 22, and could not open a new one" in " ".join(found)


@pytest.mark.either_backend
def test_files_that_are_those_in_force_stay_held_after_a_restart(start_daemon: Start, tmp_path: Path) -> None:
    """After a rollback to the revision whose files are in the directory, a change is not applied, also once the daemon
    was started again."""
    daemon = start_daemon({"10.rules": "-P INPUT DROP\n-A INPUT -i lo -j ACCEPT\n"})
    daemon.event("rules.applied")
    ask(tmp_path / "run" / "control.sock", "rollback", {"revision": 1})
    daemon.stop()
    daemon = start_daemon()
    daemon.event("rules.unchanged")
    daemon.drop("20.rules", "-A INPUT -p udp --dport 53 -j ACCEPT\n")
    daemon.event("rules.held")
    daemon.end_pass()
    assert _status(tmp_path) == ("in-force", "held", 0)
