"""A flood of copied packets on the real kernel: exact sums, a daemon that answers, and silence when it is over."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.netns.conftest import output, wait_until
from tests.netns.test_flood import Answers, processor_seconds

if TYPE_CHECKING:
    from collections.abc import Callable

PACKETS = 100_000
SENDER = f"""
import socket
sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for number in range({PACKETS}):
    sender.sendto(b"", ("127.0.0.1", 1000 + number % 5000))
"""
RULES = (
    "-P INPUT DROP\n-A INPUT -p tcp -j ACCEPT\n"
    '-A INPUT -p udp -m udp --dport 1000:6001 -j NFLOG --nflog-prefix "iptables denied: " --nflog-group 5\n'
)


@pytest.fixture(params=["0s", "3s"], ids=["every packet", "summaries"])
def window(request: pytest.FixtureRequest) -> str:
    """Whether each packet is an event of its own."""
    return str(request.param)


def copied_packets() -> int:
    """The packet counter of the one rule that copies."""
    match = re.search(r"^\[(\d+):\d+\] -A INPUT .*-j NFLOG ", output("iptables-nft-save -c"), re.MULTILINE)
    assert match is not None
    return int(match[1])


def wake_ups(pid: int) -> int:
    """How often all threads of a process went to sleep and were woken (proc(5))."""
    found = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        status = (task / "status").read_text(encoding="ascii")
        found += int(status.partition("\nvoluntary_ctxt_switches:")[2].split()[0])
    return found


def wake_ups_of_a_second(pid: int) -> int:
    """Wake-ups in the second from now on."""
    before = wake_ups(pid)
    time.sleep(1.0)
    return wake_ups(pid) - before


@pytest.mark.parametrize("backend", ["nft"])
def test_each_copied_packet_is_accounted_for(
    start_daemon: Callable[..., Any], window: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Packets told as events, packets in summaries and lost ones are exactly the packets that the rule counted;
    meanwhile the control socket answers, and afterwards the daemon sleeps until something happens."""
    settings = f"source: nflog\ndrift_interval: 1h\ndenials_window: {window}\nscan_ports: 0\n"
    daemon = start_daemon({"10-nflog.rules": RULES}, settings)
    daemon.event("rules.applied")
    answers = Answers(daemon)
    used, begun = processor_seconds(daemon.process.pid), time.monotonic()
    with subprocess.Popen([sys.executable, "-I", "-S", "-c", SENDER]) as sender:
        while sender.poll() is None:
            answers.ask()
            time.sleep(0.02)
    seconds = time.monotonic() - begun

    def all_read() -> bool:
        # One more: what was lost at the end is known in full once a packet comes after it.
        output(f"{sys.executable} -I -S -c {sending_one()}")
        counts = answers.ask()
        return bool(counts["lines"] + counts["lost"] == copied_packets())

    wait_until(all_read, "the last packet", seconds=60)
    used = processor_seconds(daemon.process.pid) - used
    counts = answers.ask()
    wait_until(lambda: answers.ask()["waiting"] == 0, "the last summary", seconds=30)
    # Between the looks that follow a load, which come at growing distances, nothing wakes it.
    wait_until(lambda: wake_ups_of_a_second(daemon.process.pid) == 0, "a second of silence", seconds=60)
    daemon.stop()
    told, summarised, lost = daemon.denials_told()
    took = sorted(answers.took)
    with capsys.disabled():
        print(
            f"\n{PACKETS} packets in {seconds:.1f} s, {PACKETS / seconds:,.0f}/s: {told} told + {summarised} in "
            f"summaries + {lost} lost; the daemon used {used:.1f} s, {counts['lines'] / used:,.0f} packets/s of it; "
            f"control socket: 95% {took[len(took) * 95 // 100] * 1000:.0f} ms, most {took[-1] * 1000:.0f} ms",
            end="",
        )
    assert told + summarised + lost >= PACKETS
    assert told + summarised + lost == counts["lines"] + counts["lost"]


def sending_one() -> str:
    """A program that sends one packet to a port of its own, in one word."""
    return "__import__('socket').socket(2,2).sendto(b'',('127.0.0.1',6001))"
