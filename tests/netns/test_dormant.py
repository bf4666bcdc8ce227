"""A dormant table: it keeps its chains and rules, iptables-save prints them, and no packet traverses it."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from tests.netns.conftest import output
from tests.netns.test_verbs import FIRST
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.netns.conftest import Peer

    Start = Callable[..., Any]
    Saved = Callable[[], dict[str, list[str]]]

pytestmark = pytest.mark.parametrize("backend", ["nft"], indirect=True)

ADDRESSES = {"ip": "198.51.100.1", "ip6": "2001:db8::1"}
CLOSED = 9999
"""A port that no rule accepts."""


def make_dormant(family: str, table: str = "filter") -> None:
    """As an administrator does who wants to switch a table off for a moment."""
    subprocess.run(["nft", f"add table {family} {table} {{ flags dormant; }}"], check=True)
    assert "flags dormant" in output(f"nft list table {family} {table}")


@pytest.mark.parametrize("family", ["ip", "ip6"])
def test_a_dormant_table_is_drift(
    start_daemon: Start, saved: Saved, peer: Peer, listen: Callable[[int], None], family: str
) -> None:
    """iptables-save prints the same as before, and yet everything is accepted: that is reported, and the table is
    active again, with the rules and counters that it had."""
    listen(CLOSED)
    daemon = start_daemon({"10-first.rules": FIRST}, "on_drift: report\n")
    daemon.event("rules.applied")
    before = saved()
    make_dormant(family)
    message = daemon.event("drift.detected")["message"]
    assert "filter -P INPUT ACCEPT (the table is dormant) instead of DROP" in message
    assert peer.connects(ADDRESSES[family], CLOSED)
    wait_until(lambda: daemon.ask("status")["state"] == "drifted", "the end of the pass", pause=0.05)
    daemon.stop()
    again = start_daemon()
    again.event("drift.repaired")
    assert "dormant" not in output("nft list ruleset")
    assert saved() == before
    assert not peer.connects(ADDRESSES[family], CLOSED, seconds=1.0)


def test_a_dormant_table_without_a_policy_of_ours_is_active_again(start_daemon: Start, saved: Saved) -> None:
    """A table for which the files state rules only: its policies stay as they are."""
    nat = "*nat\n-A POSTROUTING -o wan1 -j MASQUERADE\n"
    daemon = start_daemon({"10-first.rules": FIRST, "20-nat.rules": nat})
    daemon.event("rules.applied")
    before = saved()
    make_dormant("ip", "nat")
    daemon.event("drift.repaired")
    assert "dormant" not in output("nft list ruleset")
    assert saved() == before


def test_rules_that_went_with_the_activity_come_back_with_it(start_daemon: Start, saved: Saved) -> None:
    """A dormant table that was also changed gets its rules, and is active."""
    daemon = start_daemon({"10-first.rules": FIRST})
    daemon.event("rules.applied")
    before = saved()
    subprocess.run(["nft", "flush chain ip filter INPUT; add table ip filter { flags dormant; }"], check=True)
    daemon.event("drift.repaired")
    assert "dormant" not in output("nft list ruleset")
    assert saved() == before


def test_chains_without_a_hook_are_replaced(start_daemon: Start, saved: Saved) -> None:
    """A chain that nft(8) makes without a hook, under the name of a built-in one, filters nothing, and iptables-restore
    refuses to load anything into its table. It is replaced. Where a rule jumps to such a chain that is not possible,
    the message says which command helps, the other family is repaired, and the rest after that command."""
    daemon = start_daemon({"10-first.rules": FIRST})
    daemon.event("rules.applied")
    before = saved()
    new_tables = "delete table {0} filter; add table {0} filter; add chain {0} filter INPUT;"
    both = "".join(f"{new_tables.format(family)} add rule {family} filter INPUT counter;" for family in ADDRESSES)
    subprocess.run(["nft", both], check=True)
    daemon.event("drift.repaired")
    assert saved() == before
    jump = "add chain ip filter mine; add rule ip filter mine jump INPUT"
    subprocess.run(["nft", f"{new_tables.format('ip')} {jump}"], check=True)
    reason = daemon.event("rules.failed")["reason"]
    assert 'remove the table with "nft delete table ip filter"' in reason, reason
    subprocess.run(["nft", "flush chain ip6 filter INPUT"], check=True)
    wait_until(lambda: saved()["ipv6"] == before["ipv6"], "the repair of IPv6")
    wait_until(lambda: daemon.ask("status")["state"] == "drifted", "the end of the pass", pause=0.1)
    subprocess.run(["nft", "delete table ip filter"], check=True)
    wait_until(lambda: saved() == before, "the repair of IPv4")
