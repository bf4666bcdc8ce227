"""Other programs change the rules: that is reported, with the process, and repaired if that is wanted."""

from __future__ import annotations

import os
import shlex
import socket
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from fwguardd.control.client import RequestRefusedError, ask
from fwguardd.kernel.attribution import read_author
from tests.netns.conftest import output
from tests.waiting import LONGEST, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Start = Callable[..., Any]
    Saved = Callable[[], dict[str, list[str]]]

FAST = "drift_interval: 200ms\n"
RULES = """-P INPUT DROP
:WEB -
-A INPUT -m mark --mark 0x0
-A INPUT -j WEB
-A INPUT -i lo -j ACCEPT
-A INPUT -p tcp --dport 22 -j ACCEPT
-A WEB -p udp
-A WEB -p tcp --dport 80 -j ACCEPT
-A OUTPUT -o lo -j ACCEPT
*nat
-A PREROUTING -p tcp --dport 81 -j REDIRECT --to-ports 8081
"""
"""Rules that count each packet and let it pass by, among others: what is lost of their counters can be seen."""

MARK, WEB, LO, SSH = (
    "INPUT -m mark --mark 0x0",
    "INPUT -j WEB",
    "INPUT -i lo -j ACCEPT",
    "INPUT -p tcp -m tcp --dport 22 -j ACCEPT",
)
NAT = "PREROUTING -p tcp -m tcp --dport 81 -j REDIRECT --to-ports 8081"
LINES = {MARK: 3, WEB: 4, LO: 5, SSH: 6, "OUTPUT -o lo -j ACCEPT": 9, NAT: 11, "INPUT": 1}


@dataclass(frozen=True)
class Change:
    """A change by another program: a command, its standard input, the differences that it makes, and the rules whose
    counters it removes itself."""

    command: str
    difference: tuple[str, ...]
    lost: tuple[str, ...] = ()
    text: str = ""


def _gone(*rules: str, family: str = "ipv4", table: str = "filter") -> tuple[str, ...]:
    return tuple(f"- {family} {table} -A {rule} (FILE:{LINES[rule]})" for rule in rules)


CHANGES = {
    "one table flushed": Change("iptables-BACKEND -t nat -F", _gone(NAT, table="nat"), (NAT,)),
    "one chain flushed": Change("iptables-BACKEND -F INPUT", _gone(MARK, WEB, LO, SSH), (MARK, WEB, LO, SSH)),
    "policy changed": Change(
        "iptables-BACKEND -P INPUT ACCEPT", ("! ipv4 filter -P INPUT ACCEPT instead of DROP (FILE:1)",)
    ),
    "rule put first": Change(
        "iptables-BACKEND -I INPUT -s 192.0.2.66/32 -j ACCEPT", ("+ ipv4 filter -A INPUT -s 192.0.2.66/32 -j ACCEPT",)
    ),
    "rule deleted": Change(f"iptables-BACKEND -D {LO}", _gone(LO), (LO,)),
    "two rules swapped": Change(
        "iptables-BACKEND-restore --noflush",
        (f"~ ipv4 filter -A {WEB} (FILE:4)",),
        (LO,),
        f"*filter\n-D {LO}\n-I INPUT 2 -i lo -j ACCEPT\nCOMMIT\n",
    ),
    "rule replaced": Change(
        "iptables-BACKEND -R INPUT 3 -i lo -j DROP", (*_gone(LO), "+ ipv4 filter -A INPUT -i lo -j DROP"), (LO,)
    ),
    "chain added": Change("iptables-BACKEND -N SNEAKY", ("+ ipv4 filter -N SNEAKY",)),
    "IPv6 only": Change("ip6tables-BACKEND -D OUTPUT -o lo -j ACCEPT", _gone("OUTPUT -o lo -j ACCEPT", family="ipv6")),
    "table restored whole": Change(
        "iptables-BACKEND-restore",
        (
            *_gone(MARK, WEB, SSH),
            "+ ipv4 filter -A INPUT -p icmp -j ACCEPT",
            "- ipv4 filter -N WEB (FILE:2)",
            "- ipv4 filter -A WEB -p udp (FILE:7)",
            "- ipv4 filter -A WEB -p tcp -m tcp --dport 80 -j ACCEPT (FILE:8)",
            *_gone("OUTPUT -o lo -j ACCEPT"),
            "+ ipv4 filter -N OWN",
        ),
        (MARK, WEB, LO, SSH, "WEB -p udp", "OUTPUT -o lo -j ACCEPT"),
        f"*filter\n:INPUT DROP\n:FORWARD ACCEPT\n:OWN -\n-A INPUT -p icmp -j ACCEPT\n-A {LO}\nCOMMIT\n",
    ),
    "changed by nft": Change("nft insert rule ip filter INPUT counter accept", ("+ ipv4 filter -A INPUT -j ACCEPT",)),
}


def test_drift_is_reported_and_repaired(start_daemon: Start, saved: Saved, backend: str, tmp_path: Path) -> None:
    """Each change is reported rule by rule, with the line that a missing rule came from and, on nft, the process that
    made it. It is repaired to the letter, and no rule loses its counters but those that the change itself removed.
    Zeroed counters are not drift."""
    daemon = start_daemon({"10.rules": RULES}, FAST)
    daemon.event("rules.applied")
    before, drifts = saved(), 0
    for name, change in CHANGES.items():
        if backend == "legacy" and change.command.startswith("nft"):
            continue
        ask(tmp_path / "run" / "control.sock", "resume")  # So many repairs of one chain would be a fight.
        _send_packets()
        counted = _counters(backend)
        pid = _run(change, backend)
        event, drifts = daemon.event("drift.detected"), drifts + 1
        reported = [line.replace(f"{daemon.rules}/10.rules", "FILE") for line in event["difference"]]
        assert sorted(reported) == sorted(change.difference), name
        if backend == "nft":
            command = change.command.replace("BACKEND", backend).split()[0]
            assert (event["culprit_pid"], event["culprit_process"]) == (pid, command[:15]), name
        daemon.event("drift.repaired")
        assert saved() == before, name
        lost = {f"ipv4 {rule}" for rule in change.lost} | ({"ipv6 OUTPUT -o lo -j ACCEPT"} if "6" in name else set())
        after = _counters(backend)
        assert {key: after[key] for key in counted if key not in lost} == {
            key: count for key, count in counted.items() if key not in lost
        }, name
    _run(Change("iptables-BACKEND -Z", ()), backend)
    daemon.ask("resume")
    daemon.repair()
    daemon.stop()
    events = daemon.all_events()
    assert not [event for event in events if event["event"] == "rules.failed"]
    assert sum(event["event"] == "drift.detected" for event in events) == drifts + 1


def _run(change: Change, backend: str) -> int:
    """Make a change; the id of the process that made it."""
    argv = change.command.replace("BACKEND", backend).split()
    if backend == "legacy":
        argv += ["-w", "60"]  # The lock is one per host: another test's rehearsal may hold it.
    process = subprocess.Popen(argv, stdin=subprocess.PIPE, text=True)
    process.communicate(change.text)
    assert process.returncode == 0, f"{argv} failed with code {process.returncode}"
    return process.pid


def _send_packets() -> None:
    """A few packets over the loopback device, in both families; they have been counted when they have arrived."""
    for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
        with socket.socket(family, socket.SOCK_DGRAM) as sender, socket.socket(family, socket.SOCK_DGRAM) as receiver:
            receiver.bind((address, 9))
            receiver.settimeout(LONGEST)
            for _ in range(3):
                sender.sendto(b"x", (address, 9))
                receiver.recv(1)


def _counters(backend: str) -> dict[str, str]:
    """The counters of each rule and policy, by family and text."""
    found: dict[str, str] = {}
    for family, program in (("ipv4", "iptables"), ("ipv6", "ip6tables")):
        for line in output(f"{program}-{backend}-save -c").splitlines():
            if line.startswith("["):
                count, _, rule = line.partition(" -A ")
                found[f"{family} {rule}"] = count
    assert any(count != "[0:0]" for count in found.values())
    return found


@pytest.mark.parametrize("backend", ["nft"], indirect=True)
def test_a_culprit_that_still_runs_is_reported_whole(start_daemon: Start) -> None:
    """Process, command line, user, unit and parent of who changed the rules are fields of the event, and in its
    sentence."""
    daemon = start_daemon({"10.rules": RULES}, "drift_interval: 1h\n")
    daemon.event("rules.applied")
    argv = ["iptables-nft-restore", "--noflush", "--wait", "7"]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        process.stdin.write("*filter\n-F INPUT\nCOMMIT\n")
        process.stdin.flush()  # It commits now, and waits for more.
        event = daemon.event("drift.detected")
        process.stdin.close()
    own = read_author(os.getpid())
    assert {key: event.get(f"culprit_{key}") for key in ("pid", "process", "command", "user", "unit")} == {
        "pid": process.pid, "process": "iptables-nft-re", "command": shlex.join(argv), "user": own.user,
        "unit": own.unit,
    }  # fmt: skip
    assert {key: event.get(f"culprit_parent{key}") for key in ("_pid", "", "_command", "_user", "_unit")} == {
        "_pid": os.getpid(), "": own.process, "_command": own.command, "_user": own.user, "_unit": own.unit,
    }  # fmt: skip
    said = (
        f'changed by process {process.pid} (iptables-nft-re) "{shlex.join(argv)}" by {own.user}, child of {os.getpid()}'
    )
    assert said in event["message"]


@pytest.mark.either_backend
def test_drift_that_is_only_reported_is_reported_once(
    start_daemon: Callable[..., Any], saved: Saved, backend: str
) -> None:
    """With on_drift: report the kernel is left alone, and the same drift is not reported at every look."""
    daemon = start_daemon(settings=f"{FAST}on_drift: report\n")
    daemon.event("rules.applied")
    subprocess.run([f"ip6tables-{backend}", "-F", "OUTPUT"], check=True)
    drifted = saved()
    event = daemon.event("drift.detected")
    assert all(line.startswith("- ipv6 filter -A OUTPUT") for line in event["difference"])
    for _ in range(3):
        assert daemon.ask("drift")["count"] == len(event["difference"])
    assert saved() == drifted
    assert len(daemon.events_until_its_end("drift.detected")) == 1


@pytest.mark.either_backend
def test_refused_files_do_not_end_the_guard(start_daemon: Callable[..., Any], saved: Saved, backend: str) -> None:
    """While the files in the directory are refused, the ruleset in force is still guarded."""
    daemon = start_daemon(settings=FAST)
    daemon.event("rules.applied")
    before = saved()
    daemon.drop("50-bad.rules", "-A INPUT -j NOWHERE\n")
    daemon.event("rules.rejected")
    subprocess.run([f"iptables-{backend}", "-F", "INPUT"], check=True)
    daemon.event("drift.repaired")
    assert saved() == before


def test_repair_keeps_the_counters_of_rules_that_stayed(
    start_daemon: Callable[..., Any], backend: str, peer: Any, listen: Callable[[int], None]
) -> None:
    """What a repair or a change does not touch keeps its packet counts, in both families."""
    listen(22)
    daemon = start_daemon(settings=FAST)
    daemon.event("rules.applied")
    for address in ("198.51.100.1", "2001:db8::1"):
        assert peer.connects(address, 22)
    counted = {program: _packets(program, backend) for program in ("iptables", "ip6tables")}
    assert all(count > 0 for count in counted.values())
    for program in counted:
        subprocess.run([f"{program}-{backend}", "-I", "INPUT", "-p", "tcp", "--dport", "1", "-j", "DROP"], check=True)
    daemon.event("drift.repaired")
    daemon.drop("05-early.rules", "-A INPUT -p tcp --dport 81 -j ACCEPT\n")
    daemon.event("rules.applied")
    assert {program: _packets(program, backend) for program in counted} == counted


def _packets(program: str, backend: str) -> int:
    saved = subprocess.run([f"{program}-{backend}-save", "-c"], capture_output=True, text=True, check=True).stdout
    line = next(line for line in saved.splitlines() if "--dport 22 " in line and "-A INPUT" in line)
    return int(line[1 : line.index(":")])


@pytest.mark.either_backend
def test_a_pause_ends_by_itself(start_daemon: Start, saved: Saved, backend: str, tmp_path: Path) -> None:
    """In a pause drift is reported and left alone, and status says until when; when it is over, drift is repaired at
    once, by no timer and no request."""
    control = tmp_path / "run" / "control.sock"
    daemon = start_daemon({"10.rules": RULES}, "drift_interval: 1h\n")
    daemon.event("rules.applied")
    before = saved()
    # On legacy the looks that follow the first write find the drift; the last of them is 7 s after it, so the pause is
    # longer, and it is the end of the pause that repairs. A busy machine needs some seconds to look at the pause.
    seconds = 10.0
    ask(control, "pause", {"seconds": seconds})
    subprocess.run([f"iptables-{backend}", "-F", "INPUT"], check=True)
    event = daemon.event("drift.detected")
    assert "it is left alone: repairs are paused until " in event["message"]
    assert saved() != before
    wait_until(lambda: ask(control, "status")["drift"]["count"] == 4, "the drift in the status")
    status = ask(control, "status")
    assert status["drift"]["repair"] is False
    assert 0 < status["drift"]["paused_seconds"] <= seconds
    assert "repairs are paused until " in status["sentence"]
    daemon.event("drift.repaired")
    assert saved() == before
    assert ask(control, "status")["drift"]["paused_seconds"] is None


@pytest.mark.either_backend
def test_resume_repairs_at_once(start_daemon: Start, saved: Saved, backend: str, tmp_path: Path) -> None:
    """The end of a pause that somebody asks for is the end of the drift."""
    control = tmp_path / "run" / "control.sock"
    daemon = start_daemon({"10.rules": RULES}, "drift_interval: 1h\n")
    daemon.event("rules.applied")
    before = saved()
    ask(control, "pause", {"seconds": 900.0})
    subprocess.run([f"iptables-{backend}", "-F", "INPUT"], check=True)
    daemon.event("drift.detected")
    assert ask(control, "resume")["paused_seconds"] is None
    daemon.event("drift.repaired")
    assert saved() == before


@pytest.mark.parametrize("backend", ["nft"], indirect=True)
def test_what_iptables_cannot_show_is_reported(start_daemon: Start, saved: Saved, tmp_path: Path) -> None:
    """Where nft puts something into an owned table that iptables cannot express, nothing is compared or repaired: that
    is reported once, with the process, and status does not claim that there is no drift. Once it is gone, other changes
    are repaired again."""
    control = tmp_path / "run" / "control.sock"
    daemon = start_daemon({"10.rules": RULES}, FAST)
    daemon.event("rules.applied")
    before = saved()
    pid = _run(Change("nft insert rule ip filter INPUT ct state new limit rate 5/second accept", ()), "nft")
    event = daemon.event("drift.hidden")
    assert (event["priority"], event["culprit_pid"], event["culprit_process"]) == (3, pid, "nft")
    assert "Table `filter' is incompatible" in event["message"]
    wait_until(lambda: ask(control, "status")["drift"]["unseen"] == "hidden", "the end of the pass", pause=0.05)
    status = ask(control, "status")
    assert "unverified: " in status["sentence"]
    subprocess.run(["ip6tables-nft", "-F", "INPUT"], check=True)
    assert "it was repaired in ipv6, the only family that" in daemon.event("drift.detected")["message"]
    assert saved()["ipv6"] == before["ipv6"]
    for _ in range(3):
        with pytest.raises(RequestRefusedError, match="cannot show all rules"):
            daemon.ask("drift")
    subprocess.run(["nft", "flush", "chain", "ip", "filter", "INPUT"], check=True)
    # A pass that could not compare, and then found the rule gone, repairs the family in place of the next one.
    wait_until(lambda: saved() == before, "the repair", pause=0.05)
    daemon.end_pass()
    assert ask(control, "status")["drift"]["unseen"] is None
    daemon.stop()
    reported = [seen["event"] for seen in daemon.all_events()]
    assert reported.count("drift.hidden") == 1
    assert "rules.failed" not in reported


@pytest.mark.parametrize("backend", ["legacy"], indirect=True)
def test_drift_that_somebody_asks_for_is_dealt_with(start_daemon: Start, saved: Saved, tmp_path: Path) -> None:
    """On legacy only looks find drift: one that a person asks for answers what differs, and it is repaired at once, not
    when the timer comes to it."""
    first = start_daemon({"10.rules": RULES}, "drift_interval: 1h\n")
    first.event("rules.applied")
    before = saved()
    first.stop()
    daemon = start_daemon(settings="drift_interval: 1h\n")
    daemon.event("rules.unchanged")
    subprocess.run(["iptables-legacy", "-F", "INPUT"], check=True)
    assert ask(tmp_path / "run" / "control.sock", "drift")["count"] == 4
    assert len(daemon.event("drift.detected")["difference"]) == 4
    daemon.event("drift.repaired")
    assert saved() == before
