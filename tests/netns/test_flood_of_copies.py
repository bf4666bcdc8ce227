"""A flood of copied packets on the real kernel: exact sums, a daemon that answers, and silence when it is over."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.counting import voluntary_switches
from tests.netns.conftest import output
from tests.netns.test_flood import Answers, sender_of
from tests.scale import scaled
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

PACKETS = scaled(gate=30_000, long=1_000_000)

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


def wake_ups_of_a_second(pid: int) -> int:
    """Wake-ups in the second from now on."""
    before = voluntary_switches(pid)
    time.sleep(1.0)
    return voluntary_switches(pid) - before


@pytest.mark.long
@pytest.mark.parametrize("backend", ["nft"])
def test_each_copied_packet_is_accounted_for(start_daemon: Callable[..., Any], window: str) -> None:
    """Packets emitted as events, packets in summaries and lost ones are exactly the packets that the rule counted;
    meanwhile the control socket answers, and afterwards the daemon sleeps until something happens."""
    settings = f"source: nflog\ndrift_interval: 1h\ndenials_window: {window}\nscan_ports: 0\n"
    daemon = start_daemon({"10-nflog.rules": RULES}, settings)
    daemon.event("rules.applied")
    answers = Answers(daemon)
    with subprocess.Popen([sys.executable, "-I", "-S", "-c", sender_of(PACKETS)], stdin=subprocess.PIPE) as sender:
        wait_until(lambda: answers.ask()["lines"] > 0, "the flood")
        assert sender.poll() is None, "the control socket answered while the flood went on"
        assert sender.stdin is not None
        sender.stdin.close()
        answers.ask_while_running(sender)

    def all_read() -> bool:
        # One more: what was lost at the end is known in full once a packet comes after it.
        output(f"{sys.executable} -I -S -c {sending_one()}")
        counts = answers.ask()
        return bool(counts["lines"] + counts["lost"] == copied_packets())

    wait_until(all_read, "the last packet")
    counts = answers.ask()
    wait_until(lambda: answers.ask()["waiting"] == 0, "the last summary")
    # Between the looks that follow a load, which come at growing distances, nothing wakes it.
    wait_until(lambda: wake_ups_of_a_second(daemon.process.pid) == 0, "a second without a wake-up")
    daemon.stop()
    emitted, summarised, lost = daemon.denials_emitted()
    assert emitted + summarised + lost >= PACKETS
    assert emitted + summarised + lost == counts["lines"] + counts["lost"]


def sending_one() -> str:
    """A program that sends one packet to a port of its own, in one word."""
    return "__import__('socket').socket(2,2).sendto(b'',('127.0.0.1',6001))"
