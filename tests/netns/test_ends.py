"""The end of an entry across a reboot, on a real daemon and a real kernel."""

from __future__ import annotations

import json
import subprocess
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.netns.test_boot_loader import LOADER
from tests.netns.test_whole_directory import ctl
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    Start = Callable[..., Any]
    Saved = Callable[[], dict[str, list[str]]]

RULES = "-P INPUT DROP\n-A INPUT -i lo -j ACCEPT\n"
SETTINGS = "drift_interval: 1h\napply: manual\nconfirm_changes: 60s\n"


@pytest.mark.parametrize("backend", ["nft"])
def test_an_entry_ends_while_the_host_is_off(start_daemon: Start, saved: Saved, backend: str) -> None:
    """An entry whose end comes before the next boot is out after the start of the daemon, also with apply: manual, and
    one that has not ended is in force. That is neither held nor to be confirmed."""
    daemon = start_daemon({"a.rules": RULES}, SETTINGS)
    daemon.event("rules.held")
    ctl(daemon, "reload")
    ctl(daemon, "allow", "8080/tcp", "--for", "1h")
    left = saved()
    until = json.loads(ctl(daemon, "allow", "8081/tcp", "--for", "3s", "--json"))["until"]
    daemon.close()
    wait_until(lambda: time.time() > until, "the end of an entry")
    for family in ("iptables", "ip6tables"):
        subprocess.run([f"{family}-{backend}-restore"], input="*filter\nCOMMIT\n", text=True, check=True)
    folder = daemon.config.parent
    subprocess.run([LOADER, "--state-dir", folder / "state", "--runtime-dir", folder / "run"], check=True)
    again = start_daemon(None, SETTINGS)
    wait_until(lambda: saved() == left, "the rules without the entry")
    again.end_pass()
    status = again.ask("status")
    assert (status["state"], status["files"], status["pending"]) == ("in-force", "applied", None)
