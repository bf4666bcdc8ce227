"""Drift on nf_tables: each change is one drift, guarding costs nothing while nothing changes, and a fight ends."""

from __future__ import annotations

import signal
import socket
import subprocess
import time
from typing import TYPE_CHECKING, Any

import pytest

from fwguardd.control.client import ask
from fwguardd.kernel.netlink import NETLINK_NETFILTER
from tests.counting import faults_of_ended_children, voluntary_switches
from tests.netns.conftest import Daemon
from tests.netns.crashing import children
from tests.netns.namespaces import fresh_namespace
from tests.netns.test_generations_real import new_table
from tests.scale import scaled
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.netns.conftest import Programs

    StartDaemon = Callable[..., Any]
    Saved = Callable[[], dict[str, list[str]]]

ONLY_NOTICES = "drift_interval: 1h\n"
CHAINS, IN_EACH = 34, 3
HUNDRED = "-P INPUT DROP\n" + "".join(
    f":C{chain} -\n-A INPUT -p tcp -s 10.0.0.{chain} -j C{chain}\n"
    + "".join(f"-A C{chain} -p tcp --dport {1000 + rule} -j ACCEPT\n" for rule in range(IN_EACH - 1))
    for chain in range(CHAINS)
)
"""102 rules in each family, in so many chains that changes of each are no fight over one of them."""

CHANGED = scaled(gate=12, long=CHAINS)
"""Chains that are changed, one after the other."""

ROUNDS = scaled(gate=25, long=100)
"""Rounds of another program after the repairs are suspended."""

nft_only = pytest.mark.parametrize("backend", ["nft"], indirect=True)


@pytest.mark.long
@nft_only
def test_each_change_is_one_drift_and_one_repair(start_daemon: StartDaemon, saved: Saved, tmp_path: Path) -> None:
    """Of changes one after the other each is reported once and repaired once, by its notice alone: no timer is near.

    The changes are of every chain, so that no repair is slowed down as one of a fight."""
    daemon = start_daemon({"10.rules": HUNDRED}, ONLY_NOTICES)
    daemon.event("rules.applied")
    before = saved()
    ask(tmp_path / "run" / "control.sock", "resume")
    for number in range(CHANGED):
        chain = f"C{number}"
        what = (f"-F {chain}", f"-A {chain} -j DROP", f"-D {chain} 1")[number % 3]
        subprocess.run(["iptables-nft", *what.split()], check=True)
        daemon.event("drift.detected")
        daemon.event("drift.repaired")
    assert saved() == before
    daemon.stop()
    names = [event["event"] for event in daemon.all_events()]
    assert (names.count("drift.detected"), names.count("drift.repaired")) == (CHANGED, CHANGED)


@pytest.fixture
def idle(tmp_path: Path) -> Iterator[list[Daemon]]:
    """A daemon for each backend that found what it wants in the kernel, and has nothing to do. Each has a namespace of
    its own: a second daemon in one namespace does not start."""
    daemons: list[Daemon] = []
    for backend in ("nft", "legacy"):
        folder = tmp_path / backend
        (folder / "rules").mkdir(parents=True)
        (folder / "rules" / "10.rules").write_text(HUNDRED)
        with fresh_namespace():
            first = Daemon(folder, backend, f"{ONLY_NOTICES}source: nflog\n", {})
            first.event("rules.applied")
            first.close()
            daemons.append(Daemon(folder, backend, f"{ONLY_NOTICES}source: nflog\n", {}))
            daemons[-1].event("rules.unchanged")
    yield daemons
    for daemon in daemons:
        daemon.close()


@pytest.mark.parametrize("backend", ["both"], indirect=True)
def test_nothing_wakes_up_while_nothing_changes(idle: list[Daemon], backend: str) -> None:
    """A daemon with nothing to do runs no program and does not wake up: in ten seconds of a drift interval of an
    hour there are at most two wake-ups. Denials come over NFLOG, which is the namespace's own:
    the kernel log is the whole machine's, and each line of others wakes whoever reads it.

    It is waited for, since the first pass may still prepare the next rehearsal."""
    assert backend == "both"
    pids = [daemon.process.pid for daemon in idle]

    def ten_quiet_seconds() -> bool:
        programs = [(faults_of_ended_children(pid), children(pid)) for pid in pids]
        before = [voluntary_switches(pid) for pid in pids]
        time.sleep(10.0)
        woken = [voluntary_switches(pid) - count for pid, count in zip(pids, before, strict=True)]
        return max(woken) <= 2 and [(faults_of_ended_children(pid), children(pid)) for pid in pids] == programs

    wait_until(ten_quiet_seconds, "ten seconds without a wake-up")


@pytest.mark.long
@nft_only
def test_a_fight_is_given_up(start_daemon: StartDaemon, saved: Saved, tmp_path: Path, programs: Programs) -> None:
    """A program that puts its rule back every 100 ms is opposed five times, then left alone: one error names the chain
    and the program, status says so, and while the other program goes on for many rounds, only the few looks
    that were due run a program. A reload begins anew."""
    control = tmp_path / "run" / "control.sock"
    daemon = start_daemon(None, ONLY_NOTICES, enter=programs.enter)
    daemon.event("rules.applied")
    before, rounds = saved(), tmp_path / "rounds"
    rule = "INPUT -s 192.0.2.66/32 -j ACCEPT"
    loop = f"while sleep 0.1; do iptables-nft -C {rule} 2>/dev/null || iptables-nft -I {rule}; echo >>{rounds}; done"
    with subprocess.Popen(["sh", "-c", loop]) as manager:
        try:
            fight = daemon.event("drift.fight")
            after = rounds.stat().st_size
            run = programs.run().total()
            wait_until(lambda: rounds.stat().st_size >= after + ROUNDS, "more rounds of the other program")
            run = programs.run().total() - run
            status = ask(control, "status")
        finally:
            manager.kill()
    assert (fight["priority"], fight["chain"]) == (3, "ipv4 filter INPUT")
    assert "(iptables-nft)" in fight["culprit"] and fight["culprit_process"] == "iptables-nft"
    assert [event["event"] for event in daemon.seen].count("drift.repaired") == 5
    assert run <= 12, "looks after it was given up"
    assert (status["drift"]["repair"], status["drift"]["count"]) == (False, 1)
    assert status["drift"]["fight"]["culprit"] == fight["culprit"]
    assert "are suspended until" in status["sentence"]
    assert ask(control, "reload")["outcome"] in ("applied", "unchanged")
    assert saved() == before
    daemon.stop()
    daemon.event("daemon.stopping")
    assert [event["event"] for event in daemon.seen].count("drift.fight") == 1
    assert _told_with(daemon, "it is left alone") == 1


def _told_with(daemon: Any, words: str) -> int:
    """How many drift events say this."""
    return sum(words in event["message"] for event in daemon.seen if event["event"] == "drift.detected")


@nft_only
def test_lost_notices_cause_a_look(start_daemon: StartDaemon, saved: Saved) -> None:
    """When more is committed than the socket's buffer holds, the rules are compared at once, and nobody is blamed who
    may not have done it: notices of the change itself are among the lost ones."""
    daemon = start_daemon(None, ONLY_NOTICES)
    daemon.event("rules.applied")
    before = saved()
    daemon.process.send_signal(signal.SIGSTOP)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER) as changer:
        for number in range(2000):
            changer.sendto(new_table(f"t{number}".encode()), (0, 0))
    subprocess.run(["iptables-nft", "-F", "INPUT"], check=True)
    daemon.process.send_signal(signal.SIGCONT)
    event = daemon.event("drift.detected")
    assert event["culprit"].endswith("and by others")
    daemon.event("drift.repaired")
    assert saved() == before


@nft_only
def test_own_writes_are_no_drift(start_daemon: StartDaemon) -> None:
    """What fwguardd writes itself wakes no comparison."""
    daemon = start_daemon(settings=ONLY_NOTICES)
    daemon.event("rules.applied")
    daemon.drop("60-more.rules", "-A INPUT -p tcp --dport 81 -j ACCEPT\n")
    daemon.event("rules.applied")
    daemon.stop()
    daemon.event("daemon.stopping")
    assert not [event for event in daemon.seen if event["event"].startswith("drift")]
