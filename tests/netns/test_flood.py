"""A flood on the real kernel: each packet that a rule logged is accounted for, and the daemon continues its work."""

from __future__ import annotations

import re
import secrets
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

from fwguardd.denials.losses import KERNEL
from tests.netns.conftest import newest_number, output
from tests.scale import scaled
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

PACKETS = scaled(gate=100_000, long=2_000_000)
"""At least so many are sent, and as many more as it takes until the sender's input is closed."""


def sender_of(packets: int) -> str:
    """A program that sends at least so many packets, and more until its input is closed: as fast as it can, to five
    thousand ports, five times as many flows as the daemon counts one by one."""
    return f"""
import select, socket, sys
sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
number = 0
while number < {packets} or not select.select([sys.stdin], [], [], 0)[0]:
    for number in range(number, number + 1000):
        sender.sendto(b"", ("127.0.0.1", 1000 + number % 5000))
    number += 1
"""


@pytest.fixture
def backend() -> str:
    """The kernel log is the same for both backends."""
    return "nft"


def logged_packets() -> int:
    """The packet counter of the one rule that logs."""
    match = re.search(r"^\[(\d+):\d+\] -A INPUT .*-j LOG ", output("iptables-nft-save -c"), re.MULTILINE)
    assert match is not None
    return int(match[1])


class Answers:
    """Asks the control socket again and again, and counts the answers."""

    def __init__(self, daemon: Any) -> None:
        self._daemon = daemon
        self.count = 0

    def ask(self) -> dict[str, Any]:
        """The daemon's counts of denials."""
        counts: dict[str, Any] = self._daemon.ask("status")["denials"]
        self.count += 1
        return counts

    def ask_while_running(self, sender: subprocess.Popen[bytes]) -> int:
        """Ask until the sender has ended; how many answers came before that."""
        before = self.count
        while sender.poll() is None:
            self.ask()
            time.sleep(0.02)
        return self.count - before

    def read_to_the_end(self, number: int) -> dict[str, Any]:
        """The counts once the daemon has read this record of the kernel log."""
        wait_until(lambda: int(self.ask()["position"]) >= number, "the last record")
        return self.ask()


@pytest.mark.long
def test_a_flood_of_denied_packets_is_accounted_for(
    start_daemon: Callable[..., Any], kernel_log_of_namespaces: Callable[[], None]
) -> None:
    """Lines emitted as events, lines in summaries and lost records are the packets that the rule counted: exactly, if
    no other program wrote to the kernel log, and otherwise up to what others wrote. Meanwhile the daemon answers and
    repairs."""
    prefix = f"{secrets.token_hex(4)} "
    rule = f'-A INPUT -p udp -m udp --dport 1000:6000 -j LOG --log-prefix "{prefix}" --log-level 7'
    settings = f'prefixes: [{{name: flood, prefix: "{prefix}", meaning: denied}}]\ndenials_window: 3s\n'
    daemon = start_daemon({"10-log.rules": f"-P INPUT DROP\n-A INPUT -p tcp -j ACCEPT\n{rule}\n"}, settings)
    daemon.event("rules.applied")
    answers = Answers(daemon)
    kernel_log_of_namespaces()
    before = answers.ask()
    number_before = int(before["position"])  # Records behind it that others wrote may be lost too.
    with subprocess.Popen([sys.executable, "-I", "-S", "-c", sender_of(PACKETS)], stdin=subprocess.PIPE) as sender:
        wait_until(lambda: answers.ask()["lines"] > before["lines"], "the flood")
        daemon.repair()
        assert sender.poll() is None, "the drift was repaired while the flood went on"
        assert answers.ask()["lines"] > before["lines"]
        assert sender.stdin is not None
        sender.stdin.close()
        answers.ask_while_running(sender)
    packets = logged_packets()
    records = newest_number() - number_before
    after = answers.read_to_the_end(number_before + records)
    daemon.stop()
    emitted, summarised, lost = daemon.denials_emitted()
    # What the kernel says it suppressed are messages of any program, and no records.
    lost -= sum(each["count"] for each in daemon.all_events() if each.get("source") == KERNEL)
    assert packets >= PACKETS
    assert emitted + summarised == after["lines"] - before["lines"]
    assert 0 <= emitted + summarised + lost - packets <= records - packets
