"""A soak: edits, flushes, denials, verbs, and faults now and then, again and again: the daemon uses no more for it."""

from __future__ import annotations

import contextlib
import json
import random
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import pytest

from fwguardd.control.client import RequestRefusedError, ask
from tests.netns.crashing import children
from tests.netns.opened import flush, wait_for
from tests.scale import scaled
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.netns.crashing import Saved

    Start = Callable[..., Any]

pytestmark = pytest.mark.either_backend

ROUNDS = scaled(gate=6, long=200)
"""Rounds at least."""

SECONDS = scaled(gate=0.0, long=3600.0)
"""Seconds at least."""

KEPT: Final = 5
SETTINGS: Final = f"settle: 50ms\ndrift_interval: 1s\nsource: nflog\nkeep_revisions: {KEPT}\ndenials_window: 1s\n"
LOGGED: Final = '-j NFLOG --nflog-group 5 --nflog-prefix "iptables denied: "'
RULES: Final = {
    "10-base.rules": f"-P INPUT DROP\n-A INPUT -i lo -p udp --dport 9 {LOGGED}\n-A INPUT -i lo -j ACCEPT\n",
    "20-nat.rules": "*nat\n-A PREROUTING -p tcp --dport 80 -j REDIRECT --to-ports 8080\n",
}

GROWTH: Final = 1.1
"""How much more memory the second half of the rounds may use than the first: the allocator keeps some."""

OF_A_PASS: Final = 2
"""Descriptors, threads or processes that a pass may have for itself at the moment of each look."""

SPARE: Final = 4096
"""KiB beside that."""


class Usage(NamedTuple):
    """What a daemon uses: memory in KiB, descriptors, threads, and processes that it has started."""

    memory: int
    descriptors: int
    threads: int
    children: int

    @classmethod
    def of(cls, pid: int) -> Usage:
        """What a process uses now."""
        fields = {}
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            name, _, value = line.partition(":")
            fields[name] = value.split()
        descriptors = sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())
        return cls(int(fields["VmRSS"][0]), descriptors, int(fields["Threads"][0]), len(children(pid)))


def _each(choose: Callable[[tuple[int, ...]], int], used: list[Usage]) -> Usage:
    """The lowest or the highest of each figure."""
    return Usage(*map(choose, zip(*used, strict=True)))


class Soak:
    """One daemon, and what is done to it in a round."""

    def __init__(self, daemon: Any, saved: Saved, backend: str, chance: random.Random) -> None:
        self._daemon, self._saved, self._backend, self._chance = daemon, saved, backend, chance
        self._control = daemon.config.parent / "run" / "control.sock"
        self._state = daemon.config.parent / "state"

    def round(self, number: int) -> Usage:
        """Everything once; what the daemon uses after it."""
        self._edit(number)
        self._flush()
        self._deny(number)
        self._ask(number)
        for fault in self._chance.sample([self._refused_files, self._damaged_file, self._bad_clients], 1):
            fault(number)
        self._ask_for("drift")
        return Usage.of(self._daemon.process.pid)

    def _edit(self, number: int) -> None:
        source = f"10.{number // 250 % 250}.{number % 250}.1"
        self._daemon.drop("50-edited.rules", f"-A INPUT -s {source} -j ACCEPT\n")
        rule = f"-A INPUT -s {source}/32 -j ACCEPT"
        wait_until(lambda: rule in self._saved()["ipv4"], "the edited rule", pause=0.1)
        self._ask_for("drift")

    def _flush(self) -> None:
        """Somebody opens the firewall. Repairs of the round before do not count as a fight."""
        self._ask_for("resume")
        wanted = self._saved()
        flush(self._backend)
        wait_for(self._saved, wanted)

    def _deny(self, number: int) -> None:
        """Packets from ports that were not seen before: each is a flow."""
        before = self._ask_for("status")["denials"]["denied"]
        for port in range(10):
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sending:
                sending.bind(("127.0.0.1", 10_000 + (number * 10 + port) % 50_000))
                sending.sendto(b"denied", ("127.0.0.1", 9))
        wait_until(lambda: self._ask_for("status")["denials"]["denied"] > before, "the denials", pause=0.1)

    def _ask(self, number: int) -> None:
        """Every verb."""
        self._ask_for("status")
        revision = self._ask_for("history")["revisions"][0]["revision"]
        self._ask_for("show", {"revision": revision})
        self._ask_for("pause", {"seconds": 60})
        self._ask_for("resume")
        self._daemon.drop("60-confirmed.rules", f"-A INPUT -s 172.16.{number % 250}.1 -j ACCEPT\n")
        assert self._ask_for("reload", {"confirm_seconds": 60})["pending"] is not None
        self._ask_for("confirm")
        assert self._ask_for("rollback")["outcome"] == "applied"
        if number % 5 == 0:
            assert self._ask_for("open")["outcome"] == "applied"
        assert self._ask_for("reload")["outcome"] == "applied"

    def _ask_for(self, verb: str, arguments: dict[str, Any] | None = None) -> dict[str, Any]:
        return dict(ask(self._control, verb, arguments or {}))

    def _refused_files(self, _number: int) -> None:
        self._daemon.drop("70-bad.rules", "-A INPUT -j NOWHERE\n")
        self._daemon.event("rules.rejected")
        (self._daemon.rules / "70-bad.rules").unlink()
        self._daemon.event("rules.taken-back")

    def _damaged_file(self, _number: int) -> None:
        """The oldest revision cannot be read any more, and is asked for."""
        oldest = min((self._state / "revisions").glob("*.json"))
        oldest.write_bytes(oldest.read_bytes()[:-20])
        with contextlib.suppress(RequestRefusedError):
            self._ask_for("show", {"revision": int(oldest.stem)})

    def _bad_clients(self, number: int) -> None:
        """Clients that send what is no request, or go away before they have sent one."""
        for request in (b"", b"{", json.dumps({"verb": number}).encode() + b"\n", bytes(2000)):
            with contextlib.suppress(ConnectionError), socket.socket(socket.AF_UNIX) as client:
                client.connect(str(self._control))
                client.sendall(request)


@pytest.mark.long
def test_nothing_grows(start_daemon: Start, saved: Saved, backend: str, seed: int) -> None:
    """Memory, descriptors, threads and processes are in the second half of the rounds what they were before."""
    daemon = start_daemon(RULES, SETTINGS)
    daemon.event("rules.applied", revision=1)
    soak = Soak(daemon, saved, backend, random.Random(seed))
    used: list[Usage] = []
    end = time.monotonic() + SECONDS
    while len(used) < ROUNDS or time.monotonic() < end:
        used.append(soak.round(len(used)))
    # What leaks raises the lowest figure too.
    early, late = _each(max, used[: len(used) // 2]), _each(min, used[len(used) // 2 :])
    highest = _each(max, used)
    print(f"{backend}: {len(used)} rounds, at most {highest}")
    print(f"  first half, at most: {early}\n  second half, at least: {late}")
    assert highest.memory <= early.memory * GROWTH + SPARE
    assert all(now <= before + OF_A_PASS for now, before in zip(late[1:], early[1:], strict=True))
    assert daemon.stop() == 0
