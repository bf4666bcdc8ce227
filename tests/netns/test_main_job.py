"""The main job on the real kernel: a file dropped into the rules directory is in force."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from tests.netns.conftest import Daemon, output
from tests.waiting import LONGEST

if TYPE_CHECKING:
    from collections.abc import Callable

    Start = Callable[..., Any]
    Saved = Callable[[], dict[str, list[str]]]

GOOD = "-P INPUT DROP\n-A INPUT -i lo -j ACCEPT\n-A INPUT -p tcp --dport 22 -j ACCEPT\n"

BAD = {
    "bad nat beside good filter": ("*nat\n-A PREROUTING -p tcp --dport 70000 -j ACCEPT\n", "bad-port", 2),
    "undeclared chain": ("-A INPUT -j WEB\n", "undeclared-chain", 1),
    "rule for an undeclared chain": ("-A WEB -j ACCEPT\n", "undeclared-chain", 1),
    "chain loop": (":A -\n:B -\n-A INPUT -j A\n-A A -j B\n-A B -j A\n", "chain-loop", 5),
    "MASQUERADE in PREROUTING": ("*nat\n-A PREROUTING -j MASQUERADE\n", "refused-by-kernel", 2),
    "port 70000": ("-A INPUT -p tcp --dport 70000 -j ACCEPT\n", "bad-port", 1),
    "unterminated quote": ('-A INPUT -m comment --comment "x -j ACCEPT\n', "unterminated-quote", 1),
}


def test_the_shipped_rules_are_put_in_force(start_daemon: Start, saved: Saved) -> None:
    """Started on the shipped rules, the daemon closes the host for both families and keeps ssh open."""
    start_daemon().event("rules.applied")
    for family, lines in saved().items():
        assert ":INPUT DROP" in lines
        assert ":FORWARD DROP" in lines
        assert ":OUTPUT DROP" in lines
        assert "-A INPUT -p tcp -m tcp --dport 22 -m conntrack --ctstate NEW -j ACCEPT" in lines, family


def test_a_dropped_file_is_in_force(start_daemon: Start, saved: Saved) -> None:
    """A file renamed into the directory is loaded in both families; removed, its rules are gone again."""
    daemon = start_daemon()
    daemon.event("rules.applied")
    daemon.drop("60-mine.rules", "-A INPUT -p tcp --dport 8080 -j ACCEPT\n")
    daemon.event("rules.applied")
    assert all("-A INPUT -p tcp -m tcp --dport 8080 -j ACCEPT" in lines for lines in saved().values())
    (daemon.rules / "60-mine.rules").unlink()
    daemon.event("rules.applied")
    assert not any("--dport 8080" in line for lines in saved().values() for line in lines)


def test_bad_rules_change_nothing(start_daemon: Start, saved: Saved) -> None:
    """Rules that are good in parts and bad in one change nothing in either family, and the author's line is named."""
    daemon = start_daemon({"10-good.rules": GOOD})
    daemon.event("rules.applied")
    daemon.drop("20-more.rules", "-A INPUT -p tcp --dport 80 -j ACCEPT\n" * 2)
    daemon.event("rules.applied")
    before = saved()
    for case, (text, code, line) in BAD.items():
        daemon.drop("50-bad.rules", text)
        event = daemon.event("rules.rejected")
        assert event["code"] == code, case
        assert f"{daemon.rules}/50-bad.rules:{line}: error: " in event["message"], case
        assert "Revision 2 stays in force" in event["message"], case
        assert saved() == before, case


@pytest.mark.either_backend
def test_an_empty_directory_is_no_empty_firewall(start_daemon: Start, saved: Saved) -> None:
    """Taking the last rule file away changes nothing and is reported as an error."""
    daemon = start_daemon({"10-good.rules": GOOD})
    daemon.event("rules.applied")
    before = saved()
    (daemon.rules / "10-good.rules").unlink()
    assert daemon.event("rules.rejected")["code"] == "no-rules"
    assert saved() == before


def test_bad_rules_at_the_start_leave_the_kernel_alone(start_daemon: Start, saved: Saved) -> None:
    """A daemon that starts on bad rules loads nothing, says so, and takes the mended file as soon as it is there."""
    before = saved()
    daemon = start_daemon({"10-bad.rules": "-A INPUT -j NOWHERE\n"})
    assert "the kernel is as it was" in daemon.event("rules.rejected")["message"]
    assert saved() == before
    daemon.drop("10-bad.rules", GOOD)
    daemon.event("rules.applied")
    assert ":INPUT DROP" in saved()["ipv4"]


@pytest.mark.either_backend
def test_the_taken_back_mistake_is_no_change(start_daemon: Start, saved: Saved) -> None:
    """A refused file that is removed again leaves the same revision in force, and nothing is written."""
    daemon = start_daemon({"10-good.rules": GOOD})
    daemon.event("rules.applied", revision=1)
    before = saved()
    daemon.drop("50-bad.rules", "-A INPUT -j NOWHERE\n")
    daemon.event("rules.rejected", revision=1)
    (daemon.rules / "50-bad.rules").unlink()
    daemon.event("rules.taken-back", revision=1)
    daemon.drop("60-more.rules", "-A INPUT -p tcp --dport 80 -j ACCEPT\n")
    daemon.event("rules.applied", revision=2)
    assert len(saved()["ipv4"]) == len(before["ipv4"]) + 1


@pytest.mark.either_backend
def test_reload_by_sighup_validates_again(start_daemon: Start) -> None:
    """SIGHUP runs a pass at once, also over files that have not changed."""
    daemon = start_daemon({"10-good.rules": GOOD})
    daemon.event("rules.applied")
    daemon.process.send_signal(signal.SIGHUP)
    daemon.event("rules.unchanged", revision=1, cause="reload")


@pytest.mark.either_backend
def test_reload_with_bad_settings_keeps_the_old_ones(start_daemon: Start) -> None:
    """Bad settings at a reload are reported with their line, and the daemon goes on with those from before."""
    daemon = start_daemon({"10-good.rules": GOOD})
    daemon.event("rules.applied")
    daemon.config.write_text("settle: 50ms\nsettel: 1s\n")
    daemon.process.send_signal(signal.SIGHUP)
    message = daemon.event("settings.rejected")["message"]
    assert "fwguardd.yaml:2: error: unknown setting 'settel'; did you mean 'settle'?" in message
    daemon.drop("60-more.rules", "-A INPUT -p tcp --dport 80 -j ACCEPT\n")
    daemon.event("rules.applied", revision=2)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.either_backend
def test_stop_leaves_the_rules(start_daemon: Start, saved: Saved, number: signal.Signals) -> None:
    """SIGTERM and SIGINT end the daemon with 0; the rules stay as they are."""
    daemon = start_daemon()
    daemon.event("rules.applied")
    before = saved()
    daemon.process.send_signal(number)
    assert daemon.process.wait(LONGEST) == 0
    daemon.event("daemon.stopping")
    assert saved() == before
    assert ":INPUT DROP" in before["ipv4"]


def test_a_restart_writes_nothing(start_daemon: Start) -> None:
    """A daemon that finds its rules in force already adopts them: no write, no lost counters."""
    daemon = start_daemon({"10-good.rules": GOOD})
    daemon.event("rules.applied")
    daemon.stop()
    start_daemon().event("rules.unchanged")


@pytest.mark.either_backend
def test_a_second_daemon_refuses_to_start(start_daemon: Start) -> None:
    """One runtime directory, one daemon: the second ends with 1, names the first, and touches nothing. So does one that
    finds no lock, because somebody has removed both directories: rules belong to the network namespace."""
    first = start_daemon({"10-good.rules": GOOD})
    first.event("rules.applied")
    second = start_daemon()
    assert second.process.wait(LONGEST) == 1
    assert second.process.stderr is not None
    assert f"another fwguardd (process {first.process.pid})" in second.process.stderr.read()
    for name in ("state", "run"):
        shutil.rmtree(first.config.parent / name)
    third = start_daemon()
    assert third.process.wait(LONGEST) == 1
    assert third.process.stderr is not None
    owner = f"another fwguardd (process {first.process.pid}) is running in this network namespace"
    assert owner in third.process.stderr.read()


def test_unused_tables_are_emptied_when_no_file_names_them(start_daemon: Start, saved: Saved) -> None:
    """A table that no file names any more is emptied, with policy ACCEPT, once."""
    daemon = start_daemon({"10-good.rules": GOOD, "20-nat.rules": "*nat\n-A POSTROUTING -o eth0 -j MASQUERADE\n"})
    daemon.event("rules.applied")
    assert "-A POSTROUTING -o eth0 -j MASQUERADE" in saved()["ipv4"]
    (daemon.rules / "20-nat.rules").unlink()
    daemon.event("rules.applied")
    assert "-A POSTROUTING -o eth0 -j MASQUERADE" not in saved()["ipv4"]
    assert ":POSTROUTING ACCEPT" in saved()["ipv4"]


def test_chains_of_others_stay(start_daemon: Start, saved: Saved, backend: str) -> None:
    """Preserved chains, their rules and the jumps to them survive a reload in place, and are no drift."""
    ban = "-A f2b-sshd -s 203.0.113.7/32 -j REJECT"
    for command in ("-N f2b-sshd", ban, "-I INPUT -p tcp -m tcp --dport 22 -j f2b-sshd"):
        subprocess.run([f"iptables-{backend}", *command.split()], check=True)
    daemon = start_daemon({"10-good.rules": GOOD}, "drift_interval: 200ms\n")
    daemon.event("rules.applied")
    daemon.drop("20-more.rules", "-A INPUT -p tcp --dport 80 -j ACCEPT\n")
    daemon.event("rules.applied")
    daemon.repair()
    lines = saved()["ipv4"]
    assert next(line for line in lines if line.startswith("-A INPUT")).endswith("-j f2b-sshd")
    assert [line for line in lines if line.startswith("-A f2b-sshd")] == [f"{ban} --reject-with icmp-port-unreachable"]
    (drift,) = daemon.events_until_its_end("drift.detected")
    assert len(drift["difference"]) == 1, "only the test's own change is drift"


def test_rules_act_on_packets(start_daemon: Start, peer: Any, listen: Callable[[int], None]) -> None:
    """What a file opens is open to a peer over IPv4 and IPv6, and what it does not is closed."""
    for port in (22, 2323, 8080):
        listen(port)
    daemon = start_daemon()
    daemon.event("rules.applied")
    for address in ("198.51.100.1", "2001:db8::1"):
        assert peer.connects(address, 22)
        assert not peer.connects(address, 2323, seconds=0.3)
        assert not peer.connects(address, 8080, seconds=0.3)
    daemon.drop("60-mine.rules", "-A INPUT -p tcp --dport 8080 -m conntrack --ctstate NEW -j ACCEPT\n")
    daemon.event("rules.applied")
    for address in ("198.51.100.1", "2001:db8::1"):
        assert peer.connects(address, 8080)


def test_a_connection_that_is_older_than_the_rules_goes_on(start_daemon: Start, peer: Any) -> None:
    """With the first rules that ask for states, the kernel begins to track connections. What this host then sends over
    an older one arrives, although the peer sends nothing: it waits for the answer of a command, as ssh does."""
    address = ("198.51.100.1", 22)
    received = f"socket.create_connection({address}, {LONGEST}).recv(9).decode()"
    argv = [sys.executable, "-I", "-S", "-c", f"import socket; print({received}, flush=True)"]
    with socket.create_server(address) as server, peer.started(argv) as lines:
        connection, _ = server.accept()
        with connection:
            start_daemon().event("rules.applied")
            connection.sendall(b"an answer")
            assert lines.readline() == "an answer\n"


def test_the_other_backend_is_left(start_daemon: Start, saved: Saved, backend: str) -> None:
    """A host changes its iptables: the rules are loaded into the tables of the new one, which the boot files name too,
    and taken out of those of the old one, but for those of other programs."""
    daemon = start_daemon({"10-good.rules": GOOD})
    daemon.event("rules.applied")
    ban = "-A f2b-sshd -s 203.0.113.7/32 -j REJECT --reject-with icmp-port-unreachable"
    for command in ("-N f2b-sshd", ban, "-I INPUT -p tcp -m tcp --dport 22 -j f2b-sshd"):
        subprocess.run([f"iptables-{backend}", *command.split()], check=True)
    daemon.stop()
    other = {"nft": "legacy", "legacy": "nft"}[backend]
    again = Daemon(daemon.config.parent, other, "", {})
    try:
        again.event("rules.applied", revision=2)
        assert (
            f"were removed from the tables of iptables-{backend}" in again.event("rules.elsewhere", table=[])["message"]
        )
        again.end_pass()
        rules = [line for line in saved()["ipv4"] if line.startswith("-A")]
        assert rules == ["-A INPUT -p tcp -m tcp --dport 22 -j f2b-sshd", ban]
        assert ":INPUT ACCEPT" in saved()["ipv6"]
        assert "--dport" in output(f"ip6tables-{other}-save")
        assert f"backend={other}\n" in (daemon.config.parent / "state" / "boot" / "manifest").read_text()
    finally:
        again.close()
