"""A flood on the real kernel: each packet that a rule logged is accounted for, and the daemon goes on with its work."""

from __future__ import annotations

import os
import re
import secrets
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fwguardd.control.client import ask
from tests.netns.conftest import newest_number, output, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

PACKETS = 1_000_000
SENDER = f"""
import socket
sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for number in range({PACKETS}):
    sender.sendto(b"", ("127.0.0.1", 1000 + number % 5000))
"""
"""As fast as it can, to five thousand ports: five times as many flows as the daemon counts one by one."""


@pytest.fixture
def backend() -> str:
    """The kernel log is the same for both halves of the kernel."""
    return "nft"


def processor_seconds(pid: int) -> float:
    """What a process has used so far, in user and kernel mode (proc_pid_stat(5))."""
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


def logged_packets() -> int:
    """The packet counter of the one rule that logs."""
    match = re.search(r"^\[(\d+):\d+\] -A INPUT .*-j LOG ", output("iptables-nft-save -c"), re.MULTILINE)
    assert match is not None
    return int(match[1])


class Answers:
    """How long the control socket takes to answer, again and again."""

    def __init__(self, daemon: Any) -> None:
        self._control = Path(daemon.config).parent / "run" / "control.sock"
        self.took: list[float] = []

    def ask(self) -> dict[str, Any]:
        """The daemon's counts."""
        begun = time.monotonic()
        counts: dict[str, Any] = ask(self._control, "status")["denials"]
        self.took.append(time.monotonic() - begun)
        return counts

    def read_to_the_end(self, number: int) -> dict[str, Any]:
        """The counts once the daemon has read this record of the kernel log."""
        wait_until(lambda: int(self.ask()["position"]) >= number, "the last record", seconds=30)
        return self.ask()


def test_a_million_denied_packets_are_accounted_for(
    start_daemon: Callable[..., Any],
    kernel_log_of_namespaces: Callable[[], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Lines told as events, lines in summaries and lost records are the packets that the rule counted: exactly, if
    nobody else wrote to the kernel log, and else but for what others wrote. Meanwhile the daemon answers and repairs.
    """
    prefix = f"{secrets.token_hex(4)} "
    rule = f'-A INPUT -p udp -m udp --dport 1000:6000 -j LOG --log-prefix "{prefix}" --log-level 7'
    settings = f'prefixes: [{{name: flood, prefix: "{prefix}", meaning: denied}}]\ndenials_window: 3s\n'
    daemon = start_daemon({"10-log.rules": f"-P INPUT DROP\n-A INPUT -p tcp -j ACCEPT\n{rule}\n"}, settings)
    daemon.event("rules.applied")
    answers = Answers(daemon)
    kernel_log_of_namespaces()
    before, number_before = answers.ask(), newest_number()
    begun = time.monotonic()
    with subprocess.Popen([sys.executable, "-I", "-S", "-c", SENDER]) as sender:
        time.sleep(0.5)
        output("iptables-nft -A OUTPUT -s 203.0.113.1 -j DROP")
        daemon.event("drift.repaired", seconds=5.0)
        repaired = sender.poll() is None
        while sender.poll() is None:
            answers.ask()
            time.sleep(0.02)
    seconds = time.monotonic() - begun
    records = newest_number() - number_before
    after = answers.read_to_the_end(number_before + records)
    packets, used = logged_packets(), processor_seconds(daemon.process.pid)
    daemon.stop()
    told, summarised, lost = daemon.denials_told()
    took = sorted(answers.took)
    with capsys.disabled():
        print(
            f"\n{packets} packets in {seconds:.1f} s, {packets / seconds:,.0f}/s: {told} told + {summarised} in "
            f"summaries + {lost} lost; {records - packets} records of others; control socket: median "
            f"{took[len(took) // 2] * 1000:.0f} ms, 95% {took[len(took) * 95 // 100] * 1000:.0f} ms, most "
            f"{took[-1] * 1000:.0f} ms; the daemon used {used:.1f} s, {after['lines'] / used:,.0f} lines/s of it",
            end="",
        )
    assert packets == PACKETS
    # The sender and the daemon are two that want a processor all the time; with more, everybody waits for his turn.
    crowd = max(1.0, os.getloadavg()[0] / 3)
    assert took[len(took) // 2] < 0.1 * crowd, "the control socket answers within 100 ms"
    assert repaired, "the drift was repaired while the flood went on"
    assert told + summarised == after["lines"] - before["lines"]
    assert 0 <= told + summarised + lost - packets <= records - packets
