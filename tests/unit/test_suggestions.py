"""What a person probably meant."""

from __future__ import annotations

import pytest

from fwguardd.ruleset.model import Family
from fwguardd.ruleset.suggestions import OPTIONS, how_to_declare, nearest_name, nearest_target


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        *(
            ("ACCPET", "ACCEPT"),
            ("accept", "ACCEPT"),
            ("Drop", "DROP"),
            ("ACCEPT;", "ACCEPT"),
            ("MASQURADE", "MASQUERADE"),
        ),
        *(("ALLOW", "ACCEPT"), ("deny", "DROP"), ("LOGDRP", "LOGDROP"), ("monitoring", ""), ("", "")),
    ],
)
def test_a_slip_in_a_target_is_known(word: str, meant: str) -> None:
    """Case, a slip of the finger, what is left of a shell, another firewall's word; else nothing is guessed."""
    assert nearest_target(word, ("LOGDROP",)) == meant


def test_a_slip_in_an_option_is_known() -> None:
    """And what is like none of them is left alone."""
    assert nearest_name("--dprot", OPTIONS) == "--dport"
    assert nearest_name("--nosuch", OPTIONS) == ""


def test_a_declaration_holds_wherever_it_stands() -> None:
    """It names its table, unless that is the one that lines belong to of themselves, and the family that lacks it."""
    assert how_to_declare("web", "filter") == "-N web"
    assert how_to_declare("web", "nat", Family.IPV6) == "-6 -t nat -N web"
