"""The processes of rehearsals are there while files change, and at no other time."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    Start = Callable[..., Any]


def _children(daemon: Any) -> list[str]:
    tasks = Path(f"/proc/{daemon.process.pid}/task").glob("*/children")
    return [pid for task in tasks for pid in task.read_text().split()]


@pytest.mark.parametrize("backend", ["nft"], indirect=True)
def test_they_start_with_a_change_and_end_with_its_pass(start_daemon: Start) -> None:
    """A daemon that holds a known revision has no child. A changed file starts two, before it has settled, and the
    reload that applies it ends them."""
    first = start_daemon({"10-base.rules": "-A INPUT -i lo -j ACCEPT\n"})
    first.event("rules.applied")
    first.stop()
    daemon = start_daemon(settings="settle: 60s\nsettle_max: 60s\n")
    daemon.event("rules.unchanged")
    daemon.end_pass()
    assert _children(daemon) == []
    daemon.drop("20-more.rules", "-A INPUT -p tcp --dport 22 -j ACCEPT\n")
    wait_until(lambda: len(_children(daemon)) == 2, "two namespaces for the rehearsal")
    assert daemon.ask("reload")["outcome"] == "applied"
    wait_until(lambda: _children(daemon) == [], "the end of the namespaces")
