"""The verbs that write entries of rule files, on a real daemon and a real kernel."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.netns.on_terminal import on_terminal, too_wide
from tests.netns.test_whole_directory import ctl, names
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    Start = Callable[..., Any]
    Saved = Callable[[], dict[str, list[str]]]

BASE = "-P INPUT DROP\n-A INPUT -i lo -j ACCEPT\n-A INPUT -m conntrack --ctstate ESTABLISHED -j ACCEPT\n"
SSH = "-A INPUT -p tcp --dport 22 -m conntrack --ctstate NEW -j ACCEPT\n"
OFFICE = "10.0.0.0/8,2001:db8::/32"
POSTGRESQL = "-p tcp -m tcp --dport 5432 -m conntrack --ctstate NEW -j ACCEPT"


def _document(daemon: Any, *argv: str, code: int = 0) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(ctl(daemon, *argv, "--json", code=code))
    return document


@pytest.mark.parametrize("backend", ["nft"])
def test_entries(start_daemon: Start, saved: Saved) -> None:
    """An entry is one for both families, applied with the other files, and written once; what is refused leaves the
    file as it was; what is taken out leaves what was there. An end comes by itself, also with apply: manual. The
    last rule of a table leaves the table empty, which is no difference. What is
    printed fits a terminal of 80 columns."""
    start: dict[str, str] = {"00-base.rules": BASE, "10-ssh.rules": SSH, "99-drop.rules": "-A INPUT -j DROP\n"}
    daemon = start_daemon(start, "apply: manual\nconfirm_changes: 60s\n")
    daemon.event("rules.held")
    ctl(daemon, "reload")
    before, files = saved(), names(daemon.rules)
    assert "dry run: nothing was changed" in ctl(daemon, "allow", "postgresql", "--from", OFFICE, "--dry-run")
    assert (saved(), names(daemon.rules)) == (before, files)
    done = _document(daemon, "allow", "postgresql", "--from", OFFICE, "--comment", "the office")
    assert (done["outcome"], done["changed"], done["until"]) == ("applied", True, None)
    now = saved()
    assert now["ipv4"].index(f"-A INPUT -s 10.0.0.0/8 {POSTGRESQL}") < now["ipv4"].index("-A INPUT -j DROP")
    assert now["ipv6"].index(f"-A INPUT -s 2001:db8::/32 {POSTGRESQL}") < now["ipv6"].index("-A INPUT -j DROP")
    for again in (("postgresql", "--from", "2001:db8::/32", "--from", "10.0.0.0/8"), ("ssh",)):
        assert _document(daemon, "allow", *again)["outcome"] == "unchanged"
    assert 'says "allow postgresql' in ctl(daemon, "deny", "postgresql", "--from", OFFICE, code=1)
    refused = _document(daemon, "block", "no-such-set", code=1)
    assert {finding["code"] for finding in refused["findings"] if finding["severity"] == "error"} == {"unknown-set"}
    assert "did you mean postgresql?" in ctl(daemon, "allow", "postgresq", code=2)
    assert (saved(), names(daemon.rules)) == (now, sorted([*files, "60-allow.rules"]))
    assert f"there is allow postgresql --from {OFFICE}" in ctl(daemon, "remove", "postgresql")
    ends = _document(daemon, "block", "203.0.113.9", "--for", "3s")
    blocked = saved()["ipv4"]
    assert blocked.index("-A INPUT -s 203.0.113.9/32 -j DROP") < blocked.index("-A INPUT -i lo -j ACCEPT")
    daemon.event("rules.applied", revision=ends["revision"] + 1)  # Of whichever pass comes first after the end.
    assert saved() == now
    assert ctl(daemon, "remove", "5432/tcp", "--from", OFFICE).count("- -A INPUT") == 4
    assert ctl(daemon, "remove", "block", "203.0.113.9")
    assert (saved(), names(daemon.rules)) == (before, files)
    forward = ("forward", "8443/tcp", "to", "[2001:db8::5]:443")
    ctl(daemon, *forward)
    translated = "-A FORWARD -d 2001:db8::5/128 -p tcp -m tcp --dport 443 -m conntrack --ctstate DNAT -j ACCEPT"
    assert translated in saved()["ipv6"]
    assert "- -A PREROUTING -p tcp -m tcp --dport 8443" in ctl(daemon, "remove", *forward)
    assert "No differences" in ctl(daemon, "diff", "--rules-dir", str(daemon.rules))
    assert ("8443" in str(saved()), names(daemon.rules)) == (False, files)
    socket = ("--socket", str(daemon.config.parent / "run" / "control.sock"))
    printed = on_terminal("allow", *socket, "smtp", "--from", OFFICE)
    for words in (("deny", "pop3s"), ("remove", "pop3s"), ("status",), ("history",)):
        printed += on_terminal(words[0], *socket, *words[1:])
    assert too_wide(printed + on_terminal("check", "--static", str(daemon.rules))) == []
    ctl(daemon, "remove", "smtp", "--from", OFFICE)
    # A notice of the last change may come after the pass that applied it.
    wait_until(lambda: _document(daemon, "status")["files"] != "settling", "the files to settle")
    status = _document(daemon, "status")
    assert (status["state"], status["files"], status["pending"]) == ("in-force", "applied", None)
