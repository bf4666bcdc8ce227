"""The way of a packet from the counters that it has moved: what each target does, and when it is certain."""

from __future__ import annotations

import pytest

from fwguardd.kernel.bed_counters import counters_in
from fwguardd.packets.bed_rules import bed_rules
from fwguardd.packets.counted import CountedWay
from fwguardd.ruleset.model import Family
from fwguardd.ruleset.save_format import read_saved

SAVED = """*filter
:INPUT DROP [0:0]
:web - [0:0]
:deep - [0:0]
[0:0] -A INPUT -i lo -j ACCEPT
[0:0] -A INPUT -p tcp -j web
[0:0] -A INPUT -p udp -g web
[0:0] -A INPUT -j REJECT
[0:0] -A web -j deep
[0:0] -A web -j RETURN
[0:0] -A web -j ACCEPT
[0:0] -A deep -j MARK --set-xmark 0x1/0xffffffff
COMMIT
"""
RULES = bed_rules(read_saved(Family.IPV4, SAVED).shown)
HOOKS = {"PREROUTING": 0, "INPUT": 1}


def way(*counted: tuple[str, int, int]) -> CountedWay:
    """The way of a packet that has moved these counters of the table filter: chain, position, packets."""
    return CountedWay(RULES, [("filter", *one) for one in counted], HOOKS)


@pytest.mark.parametrize(
    ("counted", "shown"),
    [
        ([], ["INPUT None drop"]),
        ([("INPUT", 1, 1)], ["INPUT 1 accept"]),
        ([("INPUT", 2, 1), ("INPUT", 4, 1)], ["INPUT 2 jump web", "INPUT 4 reject"]),
        (
            [("INPUT", 2, 1), ("web", 1, 1), ("deep", 1, 1), ("web", 2, 1), ("INPUT", 4, 1)],
            ["INPUT 2 jump web", "web 1 jump deep", "deep 1 continue", "web 2 return", "INPUT 4 reject"],
        ),
        ([("INPUT", 3, 1)], ["INPUT 3 goto web", "INPUT None drop"]),
        ([("INPUT", 3, 1), ("web", 3, 1)], ["INPUT 3 goto web", "web 3 accept"]),
    ],
)
def test_each_rule_leads_to_the_next(counted: list[tuple[str, int, int]], shown: list[str]) -> None:
    """Jumps come back, gotos do not, RETURN ends a chain, and the policy ends what no rule has ended."""
    found = way(*counted)
    assert [f"{chain} {position} {outcome}" for _, chain, position, outcome, _ in found.steps] == shown
    assert found.is_certain


@pytest.mark.parametrize(
    "counted",
    [
        [("INPUT", 1, 2)],
        [("INPUT", 1, 1), ("INPUT", 4, 1)],
        [("web", 3, 1)],
        [("INPUT", 2, 1), ("INPUT", 3, 1), ("web", 3, 1)],
    ],
)
def test_other_counters_say_nothing_certain(counted: list[tuple[str, int, int]]) -> None:
    """Two packets, a rule behind one that ends the packet, a chain that nothing led to, a chain that was left twice."""
    assert not way(*counted).is_certain


def test_counters_are_read_with_the_places_of_rules() -> None:
    """A position is that of the rule in its chain, and chains of equal names in two tables are two."""
    text = (
        "*mangle\n:INPUT ACCEPT [9:9]\n[1:60] -A INPUT -j MARK\nCOMMIT\n*filter\n[2:3] -A INPUT -j a\n[0:0] -A INPUT\n"
    )
    assert dict(counters_in(text.splitlines())) == {
        ("mangle", "INPUT", 1): 1,
        ("filter", "INPUT", 1): 2,
        ("filter", "INPUT", 2): 0,
    }
