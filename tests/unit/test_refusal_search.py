"""The search for the rules that a kernel refuses, with a kernel that refuses given rules."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from fwguardd.kernel.refusal_search import MOST_LOADS, all_refused, first_refused, places_of
from fwguardd.ruleset.model import Chain, Family, Rule, Ruleset, Table

if TYPE_CHECKING:
    from collections.abc import Callable

MANY = Ruleset(
    Family.IPV4,
    {"filter": Table("filter", {"INPUT": Chain("INPUT", "DROP", tuple(Rule(str(n)) for n in range(1000)))})},
)


def kernel(refused: set[int], loads: list[int]) -> Callable[[Ruleset], bool]:
    """A kernel that refuses a ruleset with one of these rules; ``loads`` gets the size of each load."""

    def refuses(ruleset: Ruleset) -> bool:
        loads.append(ruleset.rule_count)
        return any(int(rule.text) in refused for _, chain in ruleset.chains() for rule in chain.rules)

    return refuses


@pytest.mark.parametrize("refused", [{0}, {999}, {5, 6}, {*range(300, 340)}, {*range(0, 1000, 77)}])
def test_all_refused_rules_are_found(refused: set[int]) -> None:
    """Exactly those, scattered or in a block, with far fewer loads than rules."""
    loads: list[int] = []
    assert all_refused(MANY, kernel(refused, loads)) == refused
    assert first_refused(MANY, kernel(refused, [])) == min(refused)
    assert [int(place.text) for place in places_of(MANY, refused)] == sorted(refused)
    assert len(loads) < MOST_LOADS


def test_rules_that_name_one_missing_set_are_found_together() -> None:
    """However many there are, wherever they stand."""
    texts = [f"-p tcp --dport {n}" + " --match-set gone src" * (n % 3 == 0) for n in range(999)]
    chain = Chain("INPUT", "DROP", tuple(Rule(text) for text in texts))
    ruleset, loads = Ruleset(Family.IPV4, {"filter": Table("filter", {"INPUT": chain})}), list[int]()

    def refuses(part: Ruleset) -> bool:
        loads.append(part.rule_count)
        return any("gone" in rule.text for _, chain in part.chains() for rule in chain.rules)

    assert all_refused(ruleset, refuses) == set(range(0, 999, 3))
    assert len(loads) == MOST_LOADS


def test_the_work_is_bounded() -> None:
    """Of more refused rules than the limit allows to find, all are left out, and most of the others are kept."""
    refused, loads = set(range(0, 1000, 20)), list[int]()
    found = all_refused(MANY, kernel(refused, loads))
    assert refused <= found
    assert len(found) < 800
    assert len(loads) == MOST_LOADS
