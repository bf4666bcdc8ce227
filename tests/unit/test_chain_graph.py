"""Loops of chains, found before iptables says only that COMMIT failed."""

from __future__ import annotations

import pytest

from fwguardd.ruleset.chain_graph import loop_closed_by
from fwguardd.ruleset.model import Chain, Rule, Table


def table(**jumps: str) -> Table:
    """Chains by name, each with jumps to the chains named."""
    return Table(
        "filter",
        {name: Chain(name, None, tuple(Rule(f"-j {to}") for to in targets.split())) for name, targets in jumps.items()},
    )


@pytest.mark.parametrize(
    ("jumps", "chain", "target", "loop"),
    [
        ({"a": "a"}, "a", "a", ("a", "a")),
        ({"a": "b", "b": "a"}, "a", "b", ("a", "b", "a")),
        ({"a": "b", "b": "c x", "c": "a", "x": ""}, "b", "c", ("b", "c", "a", "b")),
        ({"a": "b", "b": "c", "c": ""}, "a", "b", ()),
        ({"a": "b c", "b": "c", "c": "b"}, "a", "b", ()),
        ({"a": "LOG ACCEPT", "b": "a"}, "a", "LOG", ()),
    ],
)
def test_the_chains_of_a_loop_are_named_in_order(
    jumps: dict[str, str], chain: str, target: str, loop: tuple[str, ...]
) -> None:
    """From the chain with the rule back to it; a loop that it is no part of is somebody else's."""
    assert loop_closed_by(table(**jumps), chain, f"-p tcp -j {target}") == loop


def test_a_goto_closes_a_loop_too() -> None:
    """-g is a jump without a way back."""
    assert loop_closed_by(table(a="b", b="a"), "a", "-g b") == ("a", "b", "a")


def test_many_ways_to_the_same_chain_are_walked_once() -> None:
    """The search ends though the number of paths doubles with each chain."""
    jumps = {f"c{n}": f"c{n + 1} c{n + 1}" for n in range(60)} | {"c60": "c0"}
    assert len(loop_closed_by(table(**jumps), "c0", "-j c1")) == 62
