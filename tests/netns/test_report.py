"""fwguardctl report, with a real daemon and the real rules of a network namespace."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.netns.test_whole_directory import ctl

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

RULES = """\
-P INPUT DROP
-A INPUT -i lo -j ACCEPT
-A INPUT -p tcp --dport 8080 -j ACCEPT
-A INPUT -p tcp --dport 21 -j ACCEPT
"""

pytestmark = [pytest.mark.parametrize("backend", ["nft"]), pytest.mark.usefixtures("peer")]
"""The peer makes a network from which packets can come."""


def test_a_report_asks_the_daemon_and_the_kernel(
    start_daemon: Callable[..., Any], listen: Callable[[int], None], tmp_path: Path
) -> None:
    """The state, the revision with its files, a set with its age, the rules that have matched nothing, and the sockets
    with who reaches them, by packets through the rules in force; a port that is open for no program is named. That the
    journal cannot be read keeps nothing of it away."""
    daemon = start_daemon({"a.rules": RULES, "office.set": "192.0.2.0/24\n"})
    daemon.event("rules.applied")
    listen(8080)
    (tmp_path / "empty").mkdir()
    words = ("report", "--journal-dir", str(tmp_path / "empty"))
    daemon.end_pass()
    found = json.loads(ctl(daemon, *words, "--json"))
    assert (found["state"], set(found["unknown"])) == ("in-force", {"journal"})
    (revision,) = found["revisions"]
    assert {change["file"] for change in revision["changes"]} >= {f"{daemon.rules}/a.rules"}
    written = (daemon.rules / "office.set").stat().st_mtime_ns / 1e9
    assert found["sets"] == [{"name": "office", "entries": 1, "written": written, "every": None}]
    assert any("--dport 21" in rule["rule"] and rule["place"].endswith("a.rules:4") for rule in found["unused_rules"])
    (socket,) = (one for one in found["exposure"]["sockets"] if one["port"] == 8080)
    assert (socket["closed"], socket["line"]) == (False, 3)
    (opened,) = found["exposure"]["open_without_listener"]
    assert opened["ports"] == ["21/tcp"]
    text = ctl(daemon, *words)
    assert "in-force: revision 1, 6 rules, compared at" in text
    assert "a.rules:4 opens 21/tcp for" in " ".join(text.split())
