"""A rules directory on a file system that does not answer, on a real daemon."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from tests.netns.stalled_directory import StallingDirectory
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Start = Callable[..., Any]
    Saved = Callable[[], dict[str, list[str]]]

RULES = "-P INPUT DROP\n-A INPUT -i lo -j ACCEPT\n-A INPUT -p tcp --dport 22 -j ACCEPT\n"


@pytest.mark.parametrize("backend", ["nft"])
def test_the_guard_goes_on(start_daemon: Start, saved: Saved, tmp_path: Path, backend: str) -> None:
    """While the directory does not answer, what others change is repaired, and the daemon says what it waits for; when
    the directory answers again, its files are read."""
    rules = tmp_path / "rules"
    rules.mkdir()
    directory = StallingDirectory(rules, {"a.rules": RULES, "b.set": "192.0.2.1\n"})
    try:
        daemon = start_daemon(None, "drift_interval: 300ms\n")
        daemon.event("rules.applied")
        before = saved()
        directory.stall()
        subprocess.run([f"iptables-{backend}", "-F", "INPUT"], check=True)
        daemon.event("drift.repaired")
        assert saved() == before
        wait_until(lambda: "has not answered" in daemon.ask("status")["files_why"], "the reason in status")
        subprocess.run([f"iptables-{backend}", "-P", "INPUT", "ACCEPT"], check=True)
        daemon.event("drift.repaired")
        assert saved() == before
        directory.resume()
        wait_until(lambda: daemon.ask("status")["files"] == "applied", "the files that are read again")
    finally:
        directory.close()
