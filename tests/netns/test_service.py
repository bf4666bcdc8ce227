"""What systemd and a shell see of the daemon: notifications, exit codes, messages."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fwguardd.control.client import ask
from tests.netns.notify_socket import NotifySocket
from tests.waiting import LONGEST

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.either_backend

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def notifications(tmp_path: Path) -> Iterator[NotifySocket]:
    """Systemd's end of the notification protocol."""
    made = NotifySocket(tmp_path / "notify")
    yield made
    made.close()


def test_systemd_is_notified_of_each_step(start_daemon: Callable[..., Any], notifications: NotifySocket) -> None:
    """READY once the first pass is over, WATCHDOG again and again, RELOADING and READY around a reload, STOPPING at the
    end, and a STATUS that says what is in force or refused."""
    daemon = start_daemon(NOTIFY_SOCKET=str(notifications.path), WATCHDOG_USEC="400000")
    notifications.wait_for("EXTEND_TIMEOUT_USEC=")
    assert "STATUS=in-force: revision 1, 52 rules" in notifications.wait_for("READY=1")
    notifications.wait_for("WATCHDOG=1")
    notifications.wait_for("WATCHDOG=1")
    daemon.process.send_signal(signal.SIGHUP)
    assert "MONOTONIC_USEC=" in notifications.wait_for("RELOADING=1")
    notifications.wait_for("READY=1")
    daemon.drop("50-bad.rules", "-A INPUT -j NOWHERE\n")
    status = notifications.wait_for("STATUS=in-force: revision 1")
    assert "files refused: " in status
    assert "50-bad.rules:1: error: " in status
    daemon.process.send_signal(signal.SIGTERM)
    notifications.wait_for("STOPPING=1")


def test_a_systemd_that_does_not_read_stops_nothing(
    start_daemon: Callable[..., Any],
    saved: Callable[[], dict[str, list[str]]],
    notifications: NotifySocket,
    tmp_path: Path,
    backend: str,
) -> None:
    """While the notification socket is full, drift is repaired and requests are answered; when it is read again, the
    newest state arrives."""
    daemon = start_daemon(settings="drift_interval: 200ms\n", NOTIFY_SOCKET=str(notifications.path))
    notifications.wait_for("READY=1")
    before = saved()
    while not notifications.is_full():
        pass
    subprocess.run([f"iptables-{backend}", "-F", "INPUT"], check=True)
    daemon.event("drift.repaired")
    assert saved() == before
    daemon.drop("50-bad.rules", "-A INPUT -j NOWHERE\n")
    daemon.event("rules.rejected")
    daemon.end_pass()
    assert ask(tmp_path / "run" / "control.sock", "status")["last_refusal"]
    while "50-bad.rules:1: error: " not in notifications.wait_for("STATUS=in-force: revision 1"):
        pass


STUCK_IN_A_RELOAD = """
import sys, time
from fwguardd import daemon, progress, worker

def reload(*_, **__):
    time.sleep(3600)

progress.Progress.__init__.__defaults__ = (2.0,)
worker.Worker.reload = reload
sys.exit(daemon.main(sys.argv[4:]))
"""
"""A daemon whose worker thread never ends a reload, and that notices it after 2 s."""


@pytest.mark.parametrize("backend", ["nft"])
def test_a_stuck_worker_thread_stops_the_watchdog(
    start_daemon: Callable[..., Any], notifications: NotifySocket, tmp_path: Path
) -> None:
    """Once the worker thread is stuck, systemd gets no sign of life, though the event loop still answers the requests
    that only read; the step is named in STATUS and in an event."""
    enter = [sys.executable, "-c", STUCK_IN_A_RELOAD]
    daemon = start_daemon(enter=enter, NOTIFY_SOCKET=str(notifications.path), WATCHDOG_USEC="20000")
    notifications.wait_for("READY=1")
    notifications.wait_for("WATCHDOG=1")
    daemon.process.send_signal(signal.SIGHUP)
    notifications.wait_for("STATUS=the worker thread is stuck in this step: reload")
    assert "stuck in this step: reload; systemd restarts fwguardd" in daemon.event("daemon.fault")["message"]
    control = tmp_path / "run" / "control.sock"
    for _ in range(20):
        assert ask(control, "status")["in_force"]
        assert [revision["revision"] for revision in ask(control, "history")["revisions"]] == [1]
        assert "--dport 22 " in ask(control, "show", {"revision": 1})["texts"]["ipv6"]
    assert not notifications.arrived("WATCHDOG=1")


def _run(*argv: str, user: int | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *argv], cwd=ROOT, capture_output=True, text=True, timeout=LONGEST, user=user, check=False
    )


def test_bad_settings_end_with_78(tmp_path: Path) -> None:
    """The daemon does not start with wrong settings: EX_CONFIG, and the message names file, line and value."""
    config = tmp_path / "fwguardd.yaml"
    config.write_text("on_drift: repair\ndrift_interval: 10 minutes\n")
    ended = _run("fwguardd", "--config", str(config))
    assert ended.returncode == 78
    assert f"{config}:2: error: drift_interval: '10 minutes' is " in ended.stderr
    assert "write it as 200ms, 30s, 5m or 1h" in ended.stderr
    assert ended.stderr.endswith(" The firewall is unchanged.\n")


def test_without_privilege_it_ends_with_77(tmp_path: Path) -> None:
    """A user other than root learns which capability is missing: EX_NOPERM."""
    tmp_path.chmod(0o777)
    ended = _run("fwguardd", "--runtime-dir", str(tmp_path / "run"), user=65534)
    assert ended.returncode == 77
    assert "CAP_NET_ADMIN" in ended.stderr


def test_a_settings_file_that_was_named_must_exist(tmp_path: Path) -> None:
    """A settings file that was named and does not exist ends the daemon with 78, wrong usage with 2."""
    assert _run("fwguardd", "--config", str(tmp_path / "none.yaml")).returncode == 78
    assert _run("fwguardd", "--backend", "ebpf").returncode == 2
