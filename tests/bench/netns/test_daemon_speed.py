"""How soon a daemon acts: on a dropped file, on drift, on a question; and how soon a notice of the kernel arrives."""

from __future__ import annotations

import select
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

from fwguardd.kernel.generations import GenerationNotices
from fwguardd.kernel.iptables import Backend
from fwguardd.kernel.namespaces import NamespaceMethod, NamespacePool, ScratchNamespace
from fwguardd.kernel.other_tables import other_tables
from tests.waiting import LONGEST, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.bench.conftest import Recorder

    Start = Callable[..., Any]
    Rounds = Callable[[int], int]

SETTLE = 0.05
nft_only = pytest.mark.parametrize("backend", ["nft"], indirect=True)


def _files() -> dict[str, str]:
    """Ten files with a hundred rules between them."""
    files = {"00-base.rules": "-P INPUT DROP\n-A INPUT -i lo -j ACCEPT\n"}
    for number in range(1, 11):
        ports = range(number * 100, number * 100 + 10)
        text = "".join(f"-A INPUT -s 10.{number}.{port % 250}.0/24 -p tcp --dport {port} -j ACCEPT\n" for port in ports)
        files[f"{number}0-part.rules"] = text
    return files


def _saved(backend: str) -> str:
    return subprocess.run([f"iptables-{backend}-save"], capture_output=True, text=True, check=True).stdout


def _wait_for_port(backend: str, port: int) -> None:
    wait_until(lambda: f"--dport {port} " in _saved(backend), "the rule", pause=0.0005)


def test_a_dropped_file(start_daemon: Start, backend: str, record: Recorder, rounds: Rounds) -> None:
    """From the rename into the directory, less the settle time, to the first iptables-save that shows the rule; beside
    it what one bare iptables-restore of the whole text takes."""
    daemon = start_daemon(_files(), f"settle: {int(SETTLE * 1000)}ms\n")
    daemon.event("rules.applied")
    ours: list[float] = []
    bare: list[float] = []
    for number in range(rounds(15)):
        daemon.end_pass()
        port = 20000 + number
        beside = daemon.rules / ".new"
        beside.write_text(f"-A INPUT -p tcp --dport {port} -j ACCEPT\n")
        begun = time.perf_counter()
        beside.rename(daemon.rules / "95-new.rules")
        _wait_for_port(backend, port)
        ours.append(time.perf_counter() - begun - SETTLE)
        daemon.event("rules.applied")
        text = _saved(backend)
        begun = time.perf_counter()
        subprocess.run([f"iptables-{backend}-restore"], input=text, text=True, check=True)
        bare.append(time.perf_counter() - begun)
    record(f"a dropped file is in force ({backend})", "ms", (1000 * seconds for seconds in ours))
    record(f"a bare restore of the same text ({backend})", "ms", (1000 * seconds for seconds in bare))


CHAINS = 34
HUNDRED = "-P INPUT DROP\n" + "".join(
    f":C{chain} -\n-A INPUT -p tcp -s 10.0.0.{chain} -j C{chain}\n"
    + "".join(f"-A C{chain} -p tcp --dport {1000 + rule} -j ACCEPT\n" for rule in range(2))
    for chain in range(CHAINS)
)
"""102 rules in each family, in so many chains that a hundred changes are no fight over one of them."""


@nft_only
def test_drift(start_daemon: Start, record: Recorder, rounds: Rounds) -> None:
    """From the start of the program that changes something to the event, and to the end of the repair."""
    daemon = start_daemon({"10.rules": HUNDRED}, "drift_interval: 1h\n")
    daemon.event("rules.applied")
    detected: list[float] = []
    repaired: list[float] = []
    for number in range(rounds(100)):
        chain = f"C{number % CHAINS}"
        what = (f"-F {chain}", f"-A {chain} -j DROP", f"-D {chain} 1")[number // CHAINS % 3]
        time.sleep(0.06)  # Two looks are 50 ms apart at least: each change waits for none of the change before.
        begun = time.monotonic()
        subprocess.run(["iptables-nft", *what.split()], check=True)
        daemon.event("drift.detected")
        detected.append(daemon.arrived - begun)
        daemon.event("drift.repaired")
        repaired.append(daemon.arrived - begun)
    record("drift is reported", "ms", (1000 * seconds for seconds in detected))
    record("drift is repaired", "ms", (1000 * seconds for seconds in repaired))


@nft_only
def test_a_notice_of_the_kernel(backend: str, record: Recorder, rounds: Rounds) -> None:
    """From the start of the program that changes the rules to the notice in our hands."""
    taken: list[float] = []
    with GenerationNotices() as notices:
        for _ in range(rounds(50)):
            begun = time.perf_counter()
            with subprocess.Popen([f"iptables-{backend}", "-A", "INPUT", "-j", "ACCEPT"]):
                assert select.select([notices], [], [], LONGEST)[0]
                taken.append(time.perf_counter() - begun)
            notices.read_available()
    record("a notice of the kernel", "ms", (1000 * seconds for seconds in taken))


@nft_only
@pytest.mark.parametrize("count", [0, 20])
def test_a_look_at_other_tables(backend: str, count: int, record: Recorder, rounds: Rounds) -> None:
    """The look at tables that are not ours, which follows every pass."""
    for number in range(count):
        table = f"table inet t{number} {{ chain c {{ type filter hook input priority 0; policy drop; }}; }}"
        subprocess.run(["nft", table], check=True)
    taken: list[float] = []
    for _ in range(rounds(50)):
        begun = time.perf_counter()
        found = other_tables(Backend(backend))
        taken.append(time.perf_counter() - begun)
        assert len(found) == count
    record(f"a look at {count} other tables", "ms", (1000 * seconds for seconds in taken))


SENDER = """
import select, socket, sys
sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
number = 0
while not select.select([sys.stdin], [], [], 0)[0]:
    for number in range(number, number + 1000):
        sender.sendto(b"", ("127.0.0.1", 1000 + number % 5000))
    number += 1
"""
COPIES = (
    '-P INPUT DROP\n-A INPUT -p udp --dport 1000:6000 -j NFLOG --nflog-prefix "iptables denied: " --nflog-group 5\n'
)


@nft_only
def test_an_answer_during_a_flood(start_daemon: Start, record: Recorder, rounds: Rounds) -> None:
    """How soon the control socket answers while packets are denied as fast as they can be sent."""
    daemon = start_daemon({"10-nflog.rules": COPIES}, "source: nflog\ndrift_interval: 1h\n")
    daemon.event("rules.applied")
    taken: list[float] = []
    with subprocess.Popen([sys.executable, "-I", "-S", "-c", SENDER], stdin=subprocess.PIPE) as sender:
        for _ in range(rounds(100)):
            begun = time.perf_counter()
            daemon.ask("status")
            taken.append(time.perf_counter() - begun)
            time.sleep(0.02)
        assert sender.stdin is not None
        sender.stdin.close()
    record("an answer of the control socket during a flood", "ms", (1000 * seconds for seconds in taken))


def test_a_scratch_namespace(backend: str, record: Recorder, rounds: Rounds) -> None:
    """From asking for a scratch namespace to its first answer: a new one, and one that the pool had ready."""
    cold: list[float] = []
    ready: list[float] = []
    pool = NamespacePool(lambda: NamespaceMethod.PRIVILEGED)
    for _ in range(rounds(10)):
        begun = time.perf_counter()
        scratch = ScratchNamespace(NamespaceMethod.PRIVILEGED)
        scratch.send(backend, 4, [{"save": True}])
        scratch.receive()
        cold.append(time.perf_counter() - begun)
        scratch.close()
        pool.refill()
        time.sleep(0.4)  # The spare worker starts meanwhile, as between two passes.
        begun = time.perf_counter()
        with pool.acquire() as lent:
            lent.send(backend, 4, [{"save": True}])
            lent.receive()
            ready.append(time.perf_counter() - begun)
    pool.close()
    record(f"first answer of a new namespace ({backend})", "ms", (1000 * seconds for seconds in cold))
    record(f"first answer of a ready namespace ({backend})", "ms", (1000 * seconds for seconds in ready))
