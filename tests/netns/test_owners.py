"""Whose rule it is: what the files say is the user's, and what other programs add stays theirs."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.netns.conftest import Daemon

    Start = Callable[..., Daemon]
    Saved = Callable[[], dict[str, list[str]]]

CLOSED = "-P INPUT DROP\n-A INPUT -i lo -j ACCEPT\n"
"""The rule files of hosts that say nothing about FORWARD."""


def run(command: str, text: str = "") -> None:
    """Another program changes the rules."""
    subprocess.run(command.split(), input=text, text=True, check=True)


def test_a_policy_that_no_file_states_stays_as_it_is(start_daemon: Start, saved: Saved, backend: str) -> None:
    """Before the first load and after it: Docker closes FORWARD, and neither a load nor a repair opens it. It is no
    drift. A policy that the files stated, and state no longer, is released."""
    run(f"iptables-{backend} -w 60 -P OUTPUT DROP")
    daemon = start_daemon({"10.rules": CLOSED})
    daemon.event("rules.applied")
    assert ":OUTPUT DROP" in saved()["ipv4"]
    run(f"iptables-{backend} -w 60 -P OUTPUT ACCEPT")
    run(f"iptables-{backend} -w 60 -P FORWARD DROP")
    assert daemon.ask("drift")["count"] == 0
    daemon.repair()
    daemon.drop("20.rules", "-P FORWARD DROP\n-A FORWARD -i lo -j ACCEPT\n")
    daemon.event("rules.applied")
    assert ":FORWARD DROP" in saved()["ipv6"]
    (daemon.rules / "20.rules").unlink()
    daemon.event("rules.applied")
    assert [line for line in saved()["ipv4"] if line.startswith(":")] == [
        ":INPUT DROP",
        ":FORWARD ACCEPT",
        ":OUTPUT ACCEPT",
    ]
    assert not daemon.events_until_its_end("rules.failed")
