"""The processes of rehearsals are ready where files change, and not after a start."""

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
def test_they_start_with_a_change(start_daemon: Start) -> None:
    """A daemon has no child after a start, also after one that has rehearsed. A changed file starts two, before it has
    settled; the reload that applies it ends them, and two others wait for the next change."""
    first = start_daemon({"10-base.rules": "-A INPUT -i lo -j ACCEPT\n"})
    first.event("rules.applied")
    first.end_pass()
    wait_until(lambda: _children(first) == [], "the end of the namespaces")
    first.stop()
    daemon = start_daemon(settings="settle: 60s\nsettle_max: 60s\n")
    daemon.event("rules.unchanged")
    daemon.end_pass()
    assert _children(daemon) == []
    daemon.drop("20-more.rules", "-A INPUT -p tcp --dport 22 -j ACCEPT\n")
    wait_until(lambda: len(_children(daemon)) == 2, "two namespaces for the rehearsal")
    used = set(_children(daemon))
    assert daemon.ask("reload")["outcome"] == "applied"
    wait_until(lambda: len(_children(daemon)) == 2 and not used & {*_children(daemon)}, "two others")
