"""The bench of rulesets of several sizes runs, with its smallest ruleset and no other programs."""

from __future__ import annotations

import json
from xml.etree import ElementTree as ET

from tests.bench.sizes.figures import BARE, LOADED, OURS
from tests.bench.sizes.peers import PEERS
from tests.bench.sizes.plot import plot
from tests.bench.sizes.rules import Rules, rule_files, save_text
from tests.bench.sizes.run import EDIT, NEW, PANELS, SAME, Amount, measure
from tests.bench.sizes.table import markdown, table


def test_a_run_with_ten_rules() -> None:
    """Everything is measured at least once, and the table, the picture and the JSON text show it."""
    figures = measure(Amount({10: 1}, peers=(), idle=0.0, shipped=False), lambda _: None)
    assert not figures.left_out
    measured = {what for _, what, program in figures.found if program == OURS}
    assert {NEW, EDIT, SAME, "restart, exec to READY", "foreign change, until it is repaired"} <= measured
    assert figures.found[10, LOADED, BARE].median > 0
    assert all(what in table(figures) and what in markdown(figures) for what in measured)
    assert len(json.loads(figures.document())["figures"]) == len(figures.found)
    assert ET.fromstring(plot(figures, PANELS)).tag.endswith("svg")


def test_every_program_gets_the_same_rules() -> None:
    """An edit changes one rule, in a file of its own for fwguardd; a new ruleset has no rule of the former one."""
    rules = Rules(100)
    before, edited, renewed = (set(each.accepted()) for each in (rules, rules.edited(), rules.renewed()))
    assert len(before) == 100 and len(before - edited) == 1 and not before & renewed
    files = {name for name, text in rule_files(rules).items() if rule_files(rules.edited())[name] != text}
    assert files == {"55-middle.rules"}
    for peer in PEERS:
        text = "".join(peer.files(rules).values())
        assert all(address in text and str(port) in text for address, port in before), peer.name
    assert save_text(rules).count("--dport") == 100
