"""fwguardctl counters on a real daemon: real packets are counted, and nothing that was counted is lost."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.waiting import LONGEST

if TYPE_CHECKING:
    from collections.abc import Callable

    Start = Callable[..., Any]

ROOT = Path(__file__).resolve().parents[2]
RULES = "-P INPUT ACCEPT\n-A INPUT -i lo -p udp --dport 9 -j ACCEPT\n-A INPUT -p tcp --dport 22 -j ACCEPT\n"
SLOW = "settle: 30s\nsettle_max: 60s\n"


def _counters(tmp_path: Path, *words: str) -> dict[str, int]:
    """The packets of each line."""
    control = str(tmp_path / "run" / "control.sock")
    ended = subprocess.run(
        [sys.executable, "-m", "fwguardd.ctl.main", "--socket", control, "counters", "--json", *words],
        cwd=ROOT, stdout=subprocess.PIPE, text=True, timeout=LONGEST, check=True,
    )  # fmt: skip
    return {line["place"].rpartition("/")[2]: line["packets"] for line in json.loads(ended.stdout)["lines"]}


def _send(count: int) -> None:
    """Packets over the loopback device, in both families; they have been counted when they have arrived."""
    for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
        with socket.socket(family, socket.SOCK_DGRAM) as sender, socket.socket(family, socket.SOCK_DGRAM) as receiver:
            receiver.bind((address, 9))
            receiver.settimeout(LONGEST)
            for _ in range(count):
                sender.sendto(b"x", (address, 9))
                receiver.recv(1)


def test_counts_survive_resets_reloads_and_restarts(start_daemon: Start, tmp_path: Path, backend: str) -> None:
    """Both families are added up by file and line; neither iptables -Z, nor a reload with another rule before it, nor a
    restart of the daemon loses a packet; and the line that matched nothing is the unused one."""
    daemon = start_daemon({"10.rules": RULES}, SLOW)
    daemon.event("rules.applied")
    _send(3)
    assert _counters(tmp_path)["10.rules:2"] == 6
    for program in (f"iptables-{backend}", f"ip6tables-{backend}"):
        subprocess.run([program, "-w", "5", "-Z"], check=True, timeout=LONGEST)
    _send(2)
    assert _counters(tmp_path)["10.rules:2"] == 10
    daemon.stop()
    daemon = start_daemon({"10.rules": RULES}, SLOW)
    daemon.event("rules.unchanged")
    _send(1)
    assert _counters(tmp_path)["10.rules:2"] == 12
    assert "10.rules:3" in _counters(tmp_path, "--unused")
    assert "10.rules:2" not in _counters(tmp_path, "--unused")
