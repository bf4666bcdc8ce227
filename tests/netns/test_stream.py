"""Packets that come all the time, a thousand a second over each of IPv4 and IPv6, while rulesets are exchanged."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fwguardd.control.client import ask
from tests.processes import end
from tests.scale import scaled
from tests.waiting import LONGEST, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Start = Callable[..., Any]
    End = tuple[int, socket.AddressFamily]

RELOADS = scaled(gate=24, long=5000)
ACCEPTED, DROPPED = 4000, 4001
"""Ports: packets to one are accepted by both rulesets, packets to the other dropped by both."""

RATE = 1000
ADDRESSES = {socket.AF_INET: "198.51.100.1", socket.AF_INET6: "2001:db8::1"}
ONLY_RELOADS = "settle: 30s\nsettle_max: 60s\ndrift_interval: 1h\npreserve: []\n"

SENDER = f"""
import select, socket, sys, time
INTERVAL = 1 / {RATE}
targets = [(socket.socket(family, socket.SOCK_DGRAM), (address, port))
           for port in ({ACCEPTED}, {DROPPED})
           for family, address in ((socket.AF_INET, "198.51.100.1"), (socket.AF_INET6, "2001:db8::1"))]
begun, number = time.monotonic(), 0
while not select.select([sys.stdin], [], [], max(0.0, begun + number * INTERVAL - time.monotonic()))[0]:
    for target, address in targets:
        target.sendto(number.to_bytes(4, "big"), address)
    number += 1
print(number)
"""
"""Numbered packets to both ports, each at its time on the monotonic clock: one that is late is followed by the next at
once."""

OTHERS = "".join(f"-A INPUT -s 10.0.{number}.0/24 -p tcp --dport {1000 + number} -j ACCEPT\n" for number in range(20))
ACCEPTING = {
    "00-base.rules": "-P INPUT DROP\n-A INPUT -i lo -j ACCEPT\n",
    "50-stream.rules": f"-A INPUT -p udp --dport {ACCEPTED} -j ACCEPT\n",
    "60-others.rules": OTHERS,
    "70-nat.rules": "*nat\n-A PREROUTING -p tcp --dport 81 -j REDIRECT --to-ports 8081\n",
    "80-mangle.rules": "*mangle\n-A PREROUTING -p tcp --dport 81 -j MARK --set-mark 1\n",
}
CHANGES = {
    "10-early.rules": ":EARLY -\n-A INPUT -p udp -j EARLY\n-A EARLY -s 192.0.2.1 -j DROP\n"
    "-A EARLY -s 2001:db8:1::1 -j DROP\n-A INPUT -p tcp --dport 25 -j REJECT\n",
    "60-others.rules": OTHERS.replace("--dport 10", "--dport 20"),
    "70-nat.rules": "*nat\n-A PREROUTING -p tcp --dport 82 -j REDIRECT --to-ports 8082\n",
    "80-mangle.rules": "*mangle\n:MARKS -\n-A PREROUTING -p tcp -j MARKS\n-A MARKS -j MARK --set-mark 2\n",
}
"""What the other revision has in place of these files: rules ahead of the accepting one, after it, and elsewhere."""


class Stream:
    """A sender on the peer and receivers here, for both families and both ports."""

    def __init__(self, enter: list[str]) -> None:
        ends = [(port, family) for port in (ACCEPTED, DROPPED) for family in ADDRESSES]
        self.received: dict[End, set[int]] = {end: set() for end in ends}
        self._sockets = {(port, family): _receiver(family, ADDRESSES[family], port) for port, family in ends}
        self._threads = [threading.Thread(target=self._receive, args=(end,)) for end in ends]
        for thread in self._threads:
            thread.start()
        self._before = _arrived()
        self._sender = subprocess.Popen(
            [*enter, sys.executable, "-I", "-S", "-c", SENDER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def _receive(self, end: End) -> None:
        seen = self.received[end]
        while data := self._sockets[end].recv(100):
            seen.add(int.from_bytes(data, "big"))

    def end(self) -> int:
        """Stop sending, and wait for what is under way; how many were sent to each port over each family.

        All of them reached this host, and no socket's buffer was ever full.
        """
        answer, _ = self._sender.communicate("stop\n", timeout=LONGEST)
        sent = int(answer)

        def all_arrived() -> bool:
            return all(arrived - self._before[family] >= 2 * sent for family, arrived in _arrived().items())

        wait_until(all_arrived, f"{sent} packets to each port over each family")
        for table in ("udp", "udp6"):
            lines = Path(f"/proc/thread-self/net/{table}").read_text().splitlines()[1:]
            assert all(line.split()[-1] == "0" for line in lines), "a receiver was too slow"
        return sent

    def close(self) -> None:
        """End the sender and the receivers."""
        end(self._sender)
        for (_, family), receiver in self._sockets.items():
            with socket.socket(family, socket.SOCK_DGRAM) as last:
                last.sendto(b"", receiver.getsockname())
        for thread in self._threads:
            thread.join(LONGEST)
        for receiver in self._sockets.values():
            receiver.close()


def _receiver(family: socket.AddressFamily, address: str, port: int) -> socket.socket:
    receiver = socket.socket(family, socket.SOCK_DGRAM)
    receiver.setsockopt(socket.SOL_SOCKET, 33, 16 << 20)  # SO_RCVBUFFORCE, asm-generic/socket.h
    receiver.bind((address, port))
    return receiver


def _arrived() -> dict[socket.AddressFamily, int]:
    """Packets that this namespace was given, before any rule saw them: InReceives of both families."""
    names, values = (line.split() for line in Path("/proc/thread-self/net/snmp").read_text().splitlines()[:2])
    six = re.search(r"^Ip6InReceives\s+(\d+)$", Path("/proc/thread-self/net/snmp6").read_text(), re.MULTILINE)
    assert six is not None
    return {socket.AF_INET: int(values[names.index("InReceives")]), socket.AF_INET6: int(six[1])}


@pytest.fixture
def stream(peer: Any) -> Iterator[Callable[[], Stream]]:
    """Starts the stream; the two hosts know each other's hardware address, whatever the rules say."""
    shown = subprocess.run(["ip", "-o", "link", "show", "guard0"], check=True, capture_output=True, text=True).stdout
    match = re.search(r"link/ether (\S+)", shown)
    assert match is not None, shown
    for host in ADDRESSES.values():
        peer.run(f"ip neighbour replace {host} lladdr {match[1]} dev peer0 nud permanent")
    started: list[Stream] = []

    def start() -> Stream:
        started.append(Stream(["nsenter", f"--net=/proc/{peer._holder.pid}/ns/net"]))
        return started[-1]

    yield start
    for each in started:
        each.close()


def _wait_for(stream: Stream, port: int, packets: int) -> None:
    ends = [(port, family) for family in ADDRESSES]
    wait_until(lambda: all(len(stream.received[end]) >= packets for end in ends), f"{packets} packets to port {port}")


def _exchange(daemon: Any, first: dict[str, str], changes: dict[str, str]) -> None:
    """Many reloads, from one revision to the other and back; each of them is really put in force."""
    control = Path(daemon.config).parent / "run" / "control.sock"
    for number in range(RELOADS):
        there = number % 2 == 0
        for name, text in changes.items():
            if there:
                daemon.drop(name, text)
            elif name in first:
                daemon.drop(name, first[name])
            else:
                (daemon.rules / name).unlink()
        done = ask(control, "reload")
        assert (done["outcome"], done["revision"]) == ("applied", number + 2), done["reason"]
    for number in range(RELOADS):
        daemon.event("rules.applied", revision=number + 2, cause="reload")


@pytest.mark.long
def test_no_packet_is_lost_and_none_slips_through(start_daemon: Start, stream: Callable[[], Stream]) -> None:
    """Reloads between two rulesets lose no packet of a stream that both accept, and let none pass of one
    that both drop; a third ruleset, that accepts it, does."""
    daemon = start_daemon(ACCEPTING, ONLY_RELOADS)
    daemon.event("rules.applied")
    running = stream()
    _wait_for(running, ACCEPTED, 10)
    _exchange(daemon, ACCEPTING, CHANGES)
    assert not any(running.received[DROPPED, family] for family in ADDRESSES)
    both = ACCEPTING["50-stream.rules"] + f"-A INPUT -p udp --dport {DROPPED} -j ACCEPT\n"
    daemon.drop("50-stream.rules", both)
    ask(Path(daemon.config).parent / "run" / "control.sock", "reload")
    _wait_for(running, DROPPED, 10)
    sent = running.end()
    assert sent > 1000
    for family in ADDRESSES:
        seen = running.received[ACCEPTED, family]
        assert len(seen) == sent, f"{family.name} lost {sorted(set(range(sent)) - seen)[:20]}"
        late = running.received[DROPPED, family]
        assert 0 < len(late) < sent
        assert min(late) > sent / 2
