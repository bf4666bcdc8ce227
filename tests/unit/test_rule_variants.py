"""Variants of a refused rule, which a rehearsal tries to find out why it is refused."""

from __future__ import annotations

import pytest

from fwguardd.ruleset.compose import compose
from fwguardd.ruleset.model import Family
from fwguardd.ruleset.parser import read_rules
from fwguardd.ruleset.rule_variants import (
    BuiltInChain,
    extensions_of,
    listed_words,
    only_this_rule,
    parts_of,
    shown_places,
    with_protocol,
    without_part,
)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("-p tcp --dport 1 -m esp --espspi 1 -j DROP", ["", "esp", "DROP"]),
        ('-m comment --comment "-j LOG" -s 10.0.0.1 -j LOG --log-prefix "a -m b "', ["comment", "", "LOG"]),
        ("! -i eth0 -g WEB", ["", "", "WEB"]),
        ('-m comment --comment "open', []),
        ("", []),
    ],
)
def test_a_rule_is_cut_at_its_extensions(text: str, parts: list[str]) -> None:
    """Options stay with their extension, and quoted words are never cut."""
    assert [part.name for part in parts_of(text)] == parts


def test_a_part_is_left_out_with_its_options() -> None:
    """The target is tried first, then the matches; a verdict is not an extension."""
    text = "-p tcp -m esp --espspi 1 -j TPROXY --on-port 5"
    assert [without_part(text, part) for part in extensions_of(text)] == [
        "-p tcp -m esp --espspi 1",
        "-p tcp -j TPROXY --on-port 5",
    ]
    assert list(extensions_of("-p tcp -j DROP")) == []


def test_a_protocol_takes_the_place_of_another() -> None:
    """A rule has one protocol."""
    assert with_protocol("-j DROP", "tcp") == "-p tcp -j DROP"
    assert with_protocol("-s 10.0.0.1 -p udp --dport 1", "tcp") == "-s 10.0.0.1 -p tcp --dport 1"


def test_a_rule_is_tried_alone_with_the_jumps_that_lead_to_it() -> None:
    """The kernel refuses some rules because of the chains from which packets get to them."""
    text = b"-N A\n-N B\n-N C\n-A INPUT -j A\n-A INPUT -j C\n-A A -g B\n-A A -j DROP\n-A B -j LOG\n-A C -j DROP\n"
    table = compose([read_rules("x", text)]).candidate.rulesets[Family.IPV4].tables["filter"]
    alone = only_this_rule(Family.IPV6, table, "B", "-j MARK")
    texts = {chain.name: [rule.text for rule in chain.rules] for _, chain in alone.chains()}
    assert (alone.family, texts) == (
        Family.IPV6,
        {"INPUT": ["-j A"], "FORWARD": [], "OUTPUT": [], "A": ["-g B"], "B": ["-j MARK"], "C": []},
    )


def test_places_and_words_make_a_sentence() -> None:
    """Chains are listed by table."""
    places = [BuiltInChain("raw", "OUTPUT"), BuiltInChain("nat", "INPUT"), BuiltInChain("nat", "OUTPUT")]
    assert shown_places(places) == "OUTPUT of table raw; INPUT and OUTPUT of table nat"
    assert listed_words(["a", "b", "c"], "or") == "a, b or c"
