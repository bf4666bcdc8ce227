"""Which ipsets rules name."""

from __future__ import annotations

import pytest

from fwguardd.ruleset.compose import compose
from fwguardd.ruleset.model import Candidate, Chain, Family, Origin, Rule, Ruleset, Table
from fwguardd.ruleset.parser import read_rules
from fwguardd.ruleset.references import named_sets


def _named(text: str) -> list[str]:
    chain = Chain("INPUT", "ACCEPT", (Rule(text),))
    return list(
        named_sets(Candidate({Family.IPV4: Ruleset(Family.IPV4, {"filter": Table("filter", {"INPUT": chain})})}))
    )


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("-m set --match-set a src -j DROP", ["a"]),
        ("-p tcp -m set ! --match-set a src,dst --return-nomatch -m set --match-set b dst,dst,src", ["a", "b"]),
        ("-j SET --add-set a src --exist --timeout 60", ["a"]),
        ("-j SET --del-set a src,dst", ["a"]),
        ("-j SET --map-set a src --map-mark", ["a"]),
        ("-m set --set a src", ["a"]),
        ("-m set --match-s a src", ["a"]),
        ("-m set --match-set=a src", ["a"]),
        ('-m set --match-set "a \\"b" src', ['a "b']),
        ("-m set --match-set src dst", ["src"]),
        (f"-m set --match-set {'n' * 31} src", ["n" * 31]),
        (f"-m set --match-set {'n' * 32} src", []),
        ("-m set --match-set a", []),
        ("-m set --match-set a source", []),
        ("-m set --match-set -a src", []),
        ('-m comment --comment "set a src" -j LOG', []),
        ("-m comment --comment src -j MARK --set-mark 1", []),
        ("-m recent --set --name a --rsource", []),
        ('-m set --match-set a "src', []),
        ("", []),
    ],
)
def test_the_sets_of_a_rule(text: str, names: list[str]) -> None:
    """Whatever takes a set takes directions behind its name; nothing else does, and prose names none."""
    assert _named(text) == names


def test_a_set_is_reported_where_it_is_named_first() -> None:
    """That is where its author looks for what is said about it, whatever the order of tables and families."""
    lines = (
        "-6 -A INPUT -m set --match-set a src",
        "-t raw -A OUTPUT -m set --match-set a src -m set --match-set b dst",
    )
    candidate = compose([read_rules("x", "\n".join(lines).encode())]).candidate
    assert named_sets(candidate) == {"a": Origin("x", 1), "b": Origin("x", 2)}
