"""What holds for every change of a bed: after it the bed has exactly the wanted rules, as if it were made for them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import given, settings

from fwguardd.packets.bed_change import MOST_OPERATIONS, change_between
from fwguardd.ruleset.diff import compare
from fwguardd.ruleset.model import Chain, Family, Rule, Ruleset, Table
from fwguardd.ruleset.operations import Plan, render_plan
from tests.property.restore_simulator import restore
from tests.property.rule_strategies import live_and_wanted
from tests.scale import examples

if TYPE_CHECKING:
    from collections.abc import Iterator


def empty_as_made(ruleset: Ruleset) -> Iterator[tuple[str, str]]:
    """The chains of a ruleset that a fresh kernel does not have as they are here."""
    for table, chain in ruleset.chains():
        if chain.rules or chain.policy != "ACCEPT":
            yield table.name, chain.name


@settings(max_examples=examples(100))
@given(live_and_wanted())
def test_a_change_leaves_what_a_load_would_have_made(rulesets: tuple[Ruleset, Ruleset]) -> None:
    """All chains, policies and rules are those of the wanted ruleset, and nothing else is left."""
    loaded, wanted = rulesets
    plan = change_between(loaded, wanted)
    if plan is None:
        return
    for text in render_plan(plan):
        loaded = restore(loaded, text)
    assert compare(wanted, loaded) == ()
    assert set(empty_as_made(loaded)) <= {(table.name, chain.name) for table, chain in wanted.chains()}


def ruleset(policy: str | None, *texts: str, chain: str = "INPUT") -> Ruleset:
    """A ruleset with one chain of the table filter."""
    return Ruleset(Family.IPV4, {"filter": Table("filter", {chain: Chain(chain, policy, tuple(map(Rule, texts)))})})


def test_what_would_stay_is_loaded_anew() -> None:
    """A table, a built-in chain or a policy that the wanted ruleset does not state; and a large change."""
    many = [f"-p tcp --dport {port}" for port in range(MOST_OPERATIONS + 1)]
    assert change_between(ruleset("DROP"), Ruleset(Family.IPV4, {})) is None
    assert change_between(ruleset("DROP"), ruleset("DROP", chain="OUTPUT")) is None
    assert change_between(ruleset("DROP"), ruleset("not stated")) is None
    assert change_between(ruleset("DROP"), ruleset("DROP", *many)) is None
    assert change_between(ruleset("DROP"), ruleset("DROP")) == Plan(Family.IPV4, ())
