"""Somebody else changes the rules: it is noticed, told, and undone if that is wanted."""

from __future__ import annotations

import statistics
import subprocess
import time
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    Saved = Callable[[], dict[str, list[str]]]

FAST = "drift_interval: 200ms\n"
CHANGES = {
    "one chain flushed": ("-F INPUT", "- ipv4 filter -A INPUT -i lo -j ACCEPT"),
    "policy changed": ("-P INPUT ACCEPT", "! ipv4 filter -P INPUT ACCEPT instead of DROP"),
    "rule put first": ("-I INPUT -s 192.0.2.66/32 -j ACCEPT", "+ ipv4 filter -A INPUT -s 192.0.2.66/32 -j ACCEPT"),
    "rule deleted": ("-D INPUT -i lo -j ACCEPT", "- ipv4 filter -A INPUT -i lo -j ACCEPT"),
    "chain added": ("-N SNEAKY", "+ ipv4 filter -N SNEAKY"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_drift_is_told_and_repaired(start_daemon: Callable[..., Any], saved: Saved, backend: str, change: str) -> None:
    """A foreign change is told as a rule, with the line that the missing rule came from, and repaired to the letter."""
    command, shown = CHANGES[change]
    daemon = start_daemon(settings=FAST)
    daemon.event("rules.applied")
    before = saved()
    subprocess.run([f"iptables-{backend}", *command.split()], check=True)
    event = daemon.event("drift.detected")
    assert any(line.startswith(shown) for line in event["difference"])
    if shown.startswith("-"):
        assert f"({daemon.rules}/00-base.rules:11)" in event["difference"][0]
    daemon.event("drift.repaired")
    assert saved() == before


def test_drift_that_is_only_reported_is_told_once(start_daemon: Callable[..., Any], saved: Saved, backend: str) -> None:
    """With on_drift: report the kernel is left alone, and the same drift is not told at every look."""
    daemon = start_daemon(settings=f"{FAST}on_drift: report\n")
    daemon.event("rules.applied")
    subprocess.run([f"ip6tables-{backend}", "-F", "OUTPUT"], check=True)
    drifted = saved()
    event = daemon.event("drift.detected")
    assert all(line.startswith("- ipv6 filter -A OUTPUT") for line in event["difference"])
    time.sleep(0.8)
    daemon.stop()
    daemon.event("daemon.stopping")
    assert [seen["event"] for seen in daemon.seen].count("drift.detected") == 1
    assert saved() == drifted


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


@pytest.mark.parametrize("backend", ["nft"], indirect=True)
def test_a_change_is_noticed_at_once_on_nft(start_daemon: Callable[..., Any], saved: Saved) -> None:
    """On nf_tables the kernel tells of each commit: drift is told and repaired long before any timer, and the event
    names the process that did it."""
    daemon = start_daemon(settings="drift_interval: 1h\n")
    daemon.event("rules.applied")
    time.sleep(7.5)  # The looks after a write, at 1, 2 and 4 seconds, are over: no timer is near.
    before = saved()
    told: list[float] = []
    repaired: list[float] = []
    for _ in range(9):
        begun = time.monotonic()
        subprocess.run(["sh", "-c", "iptables-nft -D INPUT -i lo -j ACCEPT; sleep 0.1"], check=True)
        event = daemon.event("drift.detected", seconds=2.0)
        told.append(daemon.arrived - begun)
        daemon.event("drift.repaired", seconds=2.0)
        repaired.append(daemon.arrived - begun)
        assert saved() == before
        assert "iptables" in event["culprit"]
        time.sleep(0.2)
    alone = _command_seconds()
    figures = [round(statistics.median(times) * 1000) for times in (told, repaired)]
    print(f"told after {figures[0]} ms, repaired after {figures[1]} ms; the change alone takes {alone * 1000:.0f} ms")
    assert statistics.median(told) < 0.05 + alone
    assert statistics.median(repaired) < 0.15 + alone


def _command_seconds() -> float:
    """How long the change itself takes, from the start of its shell."""
    begun = time.monotonic()
    subprocess.run(["sh", "-c", "iptables-nft -N MEASURE"], check=True)
    return time.monotonic() - begun


@pytest.mark.parametrize("backend", ["nft"], indirect=True)
def test_own_writes_are_no_drift(start_daemon: Callable[..., Any]) -> None:
    """What fwguardd writes itself wakes no comparison."""
    daemon = start_daemon(settings="drift_interval: 1h\n")
    daemon.event("rules.applied")
    daemon.drop("60-more.rules", "-A INPUT -p tcp --dport 81 -j ACCEPT\n")
    daemon.event("rules.applied")
    daemon.stop()
    daemon.event("daemon.stopping")
    assert not [event for event in daemon.seen if event["event"].startswith("drift")]


@pytest.mark.parametrize("backend", ["nft"], indirect=True)
def test_a_fight_is_given_up_and_told(start_daemon: Callable[..., Any]) -> None:
    """Somebody who undoes each repair is not fought for ever: after ten repairs there is one event with the culprit."""
    daemon = start_daemon(settings="drift_interval: 1h\n")
    daemon.event("rules.applied")
    for _ in range(10):
        subprocess.run(["iptables-nft", "-I", "INPUT", "-s", "192.0.2.66/32", "-j", "ACCEPT"], check=True)
        daemon.event("drift.repaired", seconds=3.0)
    assert "keeps changing what fwguardd repairs" in daemon.event("drift.fight", seconds=3.0)["message"]
    subprocess.run(["iptables-nft", "-I", "INPUT", "-s", "192.0.2.66/32", "-j", "ACCEPT"], check=True)
    assert "it is left alone" in daemon.event("drift.detected", seconds=3.0)["message"]
