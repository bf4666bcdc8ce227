"""What systemd and a shell see of the daemon: notifications, exit codes, messages."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.waiting import LONGEST

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).resolve().parents[2]


class Supervisor:
    """The other end of $NOTIFY_SOCKET."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))

    def receive(self, wanted: str) -> str:
        """Wait for a notification that holds a line which starts like this; the whole of it."""
        deadline = time.monotonic() + LONGEST
        while True:
            self._socket.settimeout(max(0.01, deadline - time.monotonic()))
            message = self._socket.recv(4096).decode()
            if any(line.startswith(wanted) for line in message.splitlines()):
                return message

    def close(self) -> None:
        """Stop listening."""
        self._socket.close()


@pytest.fixture
def supervisor(tmp_path: Path) -> Iterator[Supervisor]:
    """A stand-in for systemd's end of the notification protocol."""
    made = Supervisor(tmp_path / "notify")
    yield made
    made.close()


def test_systemd_gets_each_step(start_daemon: Callable[..., Any], supervisor: Supervisor, tmp_path: Path) -> None:
    """READY once the first pass is over, WATCHDOG again and again, RELOADING and READY around a reload, STOPPING at the
    end, and a STATUS that says what is in force or refused."""
    notify = str(tmp_path / "notify")
    daemon = start_daemon(NOTIFY_SOCKET=notify, WATCHDOG_USEC="400000")
    assert "STATUS=revision 1 in force, 50 rules" in supervisor.receive("READY=1")
    supervisor.receive("WATCHDOG=1")
    supervisor.receive("WATCHDOG=1")
    daemon.process.send_signal(signal.SIGHUP)
    assert "MONOTONIC_USEC=" in supervisor.receive("RELOADING=1")
    supervisor.receive("READY=1")
    daemon.drop("50-bad.rules", "-A INPUT -j NOWHERE\n")
    status = supervisor.receive("STATUS=revision 1")
    assert "the files in the rules directory are refused" in status
    assert "50-bad.rules:1: error: " in status
    daemon.process.send_signal(signal.SIGTERM)
    supervisor.receive("STOPPING=1")


def _run(*argv: str, user: int | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *argv], cwd=ROOT, capture_output=True, text=True, timeout=LONGEST, user=user, check=False
    )


def test_bad_settings_end_with_78(tmp_path: Path) -> None:
    """The daemon does not start on settings that it does not understand: EX_CONFIG, file, line, and the right word."""
    config = tmp_path / "fwguardd.yaml"
    config.write_text("on_drift: repair\ndrift_interval: 10 minutes\n")
    ended = _run("fwguardd", "--config", str(config))
    assert ended.returncode == 78
    assert f"{config}:2: error: '10 minutes' is no duration; write it as 200ms, 30s, 5m or 1h" in ended.stderr
    assert "the firewall is as it was" in ended.stderr


def test_without_privilege_it_ends_with_77(tmp_path: Path) -> None:
    """An ordinary user is told which capability is missing: EX_NOPERM."""
    tmp_path.chmod(0o777)
    ended = _run("fwguardd", "--runtime-dir", str(tmp_path / "run"), user=65534)
    assert ended.returncode == 77
    assert "CAP_NET_ADMIN" in ended.stderr


def test_no_iptables_ends_with_1(tmp_path: Path) -> None:
    """A settings file that does not exist, though it was named, is told; so is wrong usage, with 2."""
    assert _run("fwguardd", "--config", str(tmp_path / "none.yaml")).returncode == 78
    assert _run("fwguardd", "--backend", "ebpf").returncode == 2
