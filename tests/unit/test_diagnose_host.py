"""What doctor and check find outside of the rules: forwarding, the disk, the clock."""

from __future__ import annotations

import pytest

from fwguardd.ctl.diagnose_host import LEAST_FREE, check_clock, check_disk, check_forwarding, check_sets
from fwguardd.ruleset.model import Family, Origin
from fwguardd.ruleset.save_format import read_saved
from fwguardd.ruleset.set_names import kernel_sets

FOUND = ["no-forwarding"]


def _codes(rules: str, *, table: str = "filter", on: bool = False) -> list[str]:
    text = f"*{table}\n{rules}\nCOMMIT\n"
    ruleset = read_saved(Family.IPV4, text).shown
    return [finding.code for finding in check_forwarding({Family.IPV4: ruleset}, {Family.IPV4: on})]


@pytest.mark.parametrize(
    ("table", "rules", "needed"),
    [
        ("filter", ":FORWARD DROP [0:0]\n[0:0] -A FORWARD -i lan0 -o wan0 -j ACCEPT", FOUND),
        (
            "filter",
            ":FORWARD DROP [0:0]\n[0:0] -A FORWARD -m conntrack --ctstate NEW,ESTABLISHED -j ACCEPT",
            ["no-forwarding"],
        ),
        ("filter", ":FORWARD DROP [0:0]\n[0:0] -A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT", []),
        ("filter", ":FORWARD DROP [0:0]\n[0:0] -A FORWARD -j LOG\n[0:0] -A FORWARD -j DROP", []),
        ("filter", ":INPUT DROP [0:0]\n[0:0] -A INPUT -j ACCEPT", []),
        ("nat", ":POSTROUTING ACCEPT [0:0]\n[0:0] -A POSTROUTING -o wan0 -j MASQUERADE", FOUND),
        (
            "nat",
            ":PREROUTING ACCEPT [0:0]\n[0:0] -A PREROUTING -p tcp --dport 80 -j DNAT --to-destination 10.0.0.5",
            ["no-forwarding"],
        ),
        ("nat", ":OUTPUT ACCEPT [0:0]\n[0:0] -A OUTPUT -p tcp --dport 80 -j DNAT --to-destination 127.0.0.1:8080", []),
        ("nat", ":PREROUTING ACCEPT [0:0]\n[0:0] -A PREROUTING -p tcp --dport 80 -j REDIRECT --to-ports 8080", []),
    ],
)
def test_rules_of_a_router_need_forwarding(table: str, rules: str, needed: list[str]) -> None:
    """A rule that accepts or translates forwarded packets is reported where the kernel forwards none, once a family."""
    assert _codes(rules, table=table) == needed
    assert _codes(rules, table=table, on=True) == []


def test_a_full_disk_and_a_clock_that_is_behind_are_problems() -> None:
    """A disk without room for a revision; a clock before the newest revision. A missing directory is neither."""
    assert [finding.code for finding in check_disk(LEAST_FREE - 1, "/var/lib/fwguard")] == ["state-disk-full"]
    assert list(check_disk(LEAST_FREE, "/x")) == list(check_disk(None, "/x")) == []
    assert [finding.code for finding in check_clock(1.0, 2.0)] == ["clock-behind"]
    assert list(check_clock(2.0, 2.0)) == []


def test_a_set_without_a_file_is_a_problem() -> None:
    """One warning for each, at its first rule; both halves of a set file are made by it."""
    named = {name: Origin("/x/a.rules", line) for line, name in enumerate(("office", "office-v6", "other"), 1)}
    (found,) = check_sets(named, kernel_sets({"office"}))
    assert (found.code, found.origin) == ("set-without-file", Origin("/x/a.rules", 3))
    assert "other.set" in found.hint
