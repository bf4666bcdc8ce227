"""Where reading of denials continues after a stop, a kill, a reboot: on the real kernel log, with a real daemon.

The log is one per machine and others write to it too: each test has a prefix that no other run has.
"""

from __future__ import annotations

import json
import secrets
import socket
import subprocess
import time
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fwguardd.control.client import DaemonUnreachableError, ask
from fwguardd.denials.losses import KERNEL
from tests.netns.conftest import newest_number
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def backend() -> str:
    """The kernel log is the same for both halves of the kernel."""
    return "nft"


class Client:
    """A rule that logs under a prefix of its own, and the packets that it logs, each to a port of its own."""

    def __init__(self, start_daemon: Callable[..., Any], switch_on: Callable[[], None]) -> None:
        self.prefix = f"{secrets.token_hex(4)} "
        self.sent: list[int] = []
        self._start_daemon, self._switch_on = start_daemon, switch_on

    @property
    def rule(self) -> str:
        """What is logged: UDP to this host."""
        return f'-p udp -m udp --dport 1000:60000 -j LOG --log-prefix "{self.prefix}"'

    def start(self, more: str = "") -> Any:
        """A daemon that watches the prefix, and has said that it reads."""
        settings = f'prefixes: [{{name: connect, prefix: "{self.prefix}", meaning: denied}}]\n{more}'
        daemon = self._start_daemon({"10-log.rules": f"-A INPUT {self.rule}\n"}, settings)
        daemon.reading = daemon.event("denials.reading")
        wait_until(lambda: guards(daemon), "rules in force")
        return daemon

    def send(self, *ports: int) -> None:
        """Send a packet to each of these ports."""
        self._switch_on()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            for port in ports:
                sender.sendto(b"", ("127.0.0.1", port))
        self.sent += ports


@pytest.fixture
def client(start_daemon: Callable[..., Any], kernel_log_of_namespaces: Callable[[], None]) -> Client:
    """A client of a daemon that is not started yet."""
    return Client(start_daemon, kernel_log_of_namespaces)


def guards(daemon: Any) -> bool:
    """Whether the daemon answers, and has put rules in force."""
    try:
        return ask(Path(daemon.config).parent / "run" / "control.sock", "status")["in_force"] is not None
    except DaemonUnreachableError:
        return False


def shown(seen: list[dict[str, Any]]) -> list[int]:
    """The ports that single events tell of."""
    return [event["dpt"] for event in seen if event["event"] == "denied"]


def status(daemon: Any) -> dict[str, Any]:
    """The daemon's counts."""
    counts: dict[str, Any] = ask(Path(daemon.config).parent / "run" / "control.sock", "status")["denials"]
    return counts


def checkpoint(daemon: Any) -> Path:
    """Where it is kept."""
    return Path(daemon.config).parent / "run" / "denials.json"


def test_a_restart_neither_repeats_nor_skips(client: Client) -> None:
    """What is denied before, between and after two daemons is reported once, by one of them."""
    first = client.start()
    client.send(1001, 1002, 1003)
    first.event("denied", dpt=1003)
    first.stop()
    client.send(2001, 2002)
    second = client.start()
    assert "from where reading ended" in second.reading["message"]
    client.send(3001)
    second.event("denied", dpt=3001)
    second.stop()
    assert shown(first.all_events()) == [1001, 1002, 1003]
    assert shown(second.all_events()) == [2001, 2002, 3001]


def test_a_packet_between_two_daemons_has_its_own_time(client: Client) -> None:
    """An event about a packet that was logged while no daemon ran has the time of the packet, not of the reading."""
    client.start().stop()
    before = time.time()
    client.send(2001)
    after = time.time()
    time.sleep(3.0)
    second = client.start()
    event = second.event("denied", dpt=2001)
    second.stop()
    assert event["timestamp"] == event["time"]
    assert before - 1.0 < datetime.fromisoformat(event["time"]).timestamp() < after + 1.0


def test_a_stop_reports_what_is_counted(client: Client) -> None:
    """A daemon that stops reports its counts first; the next one does not report them again."""
    first = client.start("denials_first: 2\n")
    client.send(*[1001] * 10)
    wait_until(lambda: status(first)["lines"] == 10, "ten lines")
    first.stop()
    second = client.start("denials_first: 2\n")
    second.stop()
    seen = first.all_events()
    assert shown(seen) == [1001, 1001]
    assert [event["count"] for event in seen if event["event"] == "denied.summary"] == [8]
    assert not [event for event in second.all_events() if event["event"].startswith("denied")]


def test_a_kill_loses_no_count(client: Client) -> None:
    """Killed with lines that were only counted: the next daemon continues the counts, and the sum is exact."""
    first = client.start("denials_first: 2\n")
    client.send(*[1001] * 10)
    wait_until(lambda: status(first)["lines"] == 10, "ten lines")
    wait_until(
        lambda: [row[2] for row in json.loads(checkpoint(first).read_bytes())["waiting"]] == [8], "the checkpoint"
    )
    first.process.kill()
    client.send(*[1001] * 3)
    second = client.start("denials_first: 2\n")
    client.send(1001)
    wait_until(lambda: status(second)["lines"] == 12, "eight old lines and four new ones")
    second.stop()
    assert shown(first.all_events()) == [1001, 1001]
    seen = second.all_events()
    assert shown(seen) == []
    assert [event["count"] for event in seen if event["event"] == "denied.summary"] == [12]


def test_a_kill_at_any_moment_skips_nothing(client: Client) -> None:
    """Killed while it reports, again and again: each line is reported at least once, and a line that is reported twice
    has the same number."""
    events: list[dict[str, Any]] = []
    for life in range(3):
        daemon = client.start("denials_window: 0s\n")
        for step in range(6):
            client.send(*range(1000 + 1000 * life + 100 * step, 1000 + 1000 * life + 100 * step + 20))
            time.sleep(0.01)
        daemon.process.kill()
        events += daemon.all_events()
    last = client.start("denials_window: 0s\n")
    client.send(9999)
    last.event("denied", dpt=9999)
    last.stop()
    events += last.all_events()
    assert sorted(set(shown(events))) == client.sent
    numbers = {(event["kmsg_seq"], event["dpt"]) for event in events if event["event"] == "denied"}
    assert len(numbers) == len(client.sent)


def test_what_was_overwritten_meanwhile_is_counted(client: Client) -> None:
    """When more is denied between two daemons than the kernel's log holds, the reported and the lost records are all of
    it, and more only by what others wrote."""
    first = client.start("denials_window: 0s\n")
    client.send(1001)
    first.event("denied", dpt=1001)
    first.stop()
    # Not the newest record now: what others wrote since then may be lost, too.
    before = int(json.loads(checkpoint(first).read_bytes())["position"])
    client.send(*[1002] * 5000)
    newest = newest_number()
    second = client.start("denials_window: 0s\n")
    wait_until(lambda: int(status(second)["position"]) >= newest, "the newest record")
    second.stop()
    records = int(json.loads(checkpoint(second).read_bytes())["position"]) - before
    seen = second.all_events()
    # What the kernel says it suppressed are messages of any program, and no records.
    losses = [event for event in seen if event["event"] == "denials.lost" and event.get("source") != KERNEL]
    lost = sum(event["count"] for event in losses)
    assert lost > 0
    assert 5000 <= len(shown(seen)) + lost <= records


def test_the_first_start_begins_at_the_end(client: Client) -> None:
    """Lines from before the first start are skipped, and the message has their number."""
    subprocess.run(f"iptables-nft -A INPUT {client.rule}", shell=True, check=True)
    client.send(1001, 1002)
    subprocess.run(["iptables-nft", "-F"], check=True)
    client.sent.clear()
    daemon = client.start()
    assert "2 older lines with a watched prefix skipped" in daemon.reading["message"]
    client.send(3001)
    daemon.event("denied", dpt=3001)
    assert shown(daemon.seen) == [3001]


def test_a_reboot_starts_at_the_first_line_of_the_boot(client: Client) -> None:
    """A checkpoint of another boot is not valid in this one: all lines of this boot that are still there are
    reported."""
    first = client.start()
    client.send(1001, 1002)
    first.event("denied", dpt=1002)
    first.stop()
    other = {**json.loads(checkpoint(first).read_bytes()), "boot_id": "another", "position": "1"}
    checkpoint(first).write_text(json.dumps(other))
    second = client.start()
    assert "from the oldest line of this boot that is still there" in second.reading["message"]
    second.stop()
    assert shown(second.all_events()) == [1001, 1002]


def test_a_reboot_that_empties_run_starts_at_the_first_line(client: Client) -> None:
    """A host that fwguardd has guarded before, and without a checkpoint: it was rebooted, and all lines of this boot
    are reported."""
    first = client.start()
    first.stop()
    checkpoint(first).unlink()
    client.send(1001, 1002)
    second = client.start()
    assert "from the oldest line of this boot that is still there" in second.reading["message"]
    second.stop()
    assert shown(second.all_events()) == [1001, 1002]


def test_a_damaged_checkpoint_is_ignored(client: Client) -> None:
    """With a checkpoint that cannot be read the daemon starts from the end of the kernel log, and says so."""
    first = client.start()
    first.stop()
    checkpoint(first).write_text("{")
    client.send(1001)
    second = client.start()
    assert "1 older line" in second.reading["message"]
    second.stop()
    assert shown(second.all_events()) == []
