"""What a plan does to chains, as numbers of rules that go and new rules among those that stay."""

from __future__ import annotations

import pytest
from hypothesis import given, settings

from fwguardd.ruleset.after_plan import after_plan
from fwguardd.ruleset.chain_edits import NoEditError, chain_edits, with_edit
from fwguardd.ruleset.model import Chain, Counters, Family, Rule, Ruleset, Table
from fwguardd.ruleset.operations import Append, Delete, DeleteNumber, FlushChain, Insert, Operation, Plan, SetPolicy
from fwguardd.ruleset.plan import make_plan
from fwguardd.ruleset.preserve import STRICT, own_part
from tests.property.rule_strategies import live_and_wanted
from tests.scale import examples

RULES = tuple(Rule(f"-j {name}", counters=Counters(5, 6)) for name in "abcab")
CHAINS = {"INPUT": Chain("INPUT", "DROP", RULES), "E": Chain("E", None), "FORWARD": Chain("FORWARD", "ACCEPT")}
LIVE = Ruleset(Family.IPV4, {"filter": Table("filter", CHAINS)})


def made(*operations: Operation) -> tuple[tuple[int | str, ...], tuple[int, ...]]:
    """What operations do to INPUT, with new rules by their texts: the final chain, and the numbers of rules that go."""
    (edit,) = chain_edits(Plan(Family.IPV4, operations), LIVE)
    return tuple(each.text if isinstance(each, Rule) else each for each in edit.final), edit.removed


def test_operations_are_carried_out_in_order() -> None:
    """Numbers count what is there after the operation before; a text is that of the first rule that is left."""
    assert made(Append("filter", "INPUT", "-j x")) == ((0, 1, 2, 3, 4, "-j x"), ())
    assert made(Delete("filter", "INPUT", "-j a"), Delete("filter", "INPUT", "-j a")) == ((1, 2, 4), (0, 3))
    new = Insert("filter", "INPUT", 2, "-j x")
    assert made(DeleteNumber("filter", "INPUT", 2), new) == ((0, "-j x", 2, 3, 4), (1,))
    assert made(Insert("filter", "INPUT", 1, "-j x"), Insert("filter", "INPUT", 7, "-j y")) == (
        ("-j x", 0, 1, 2, 3, 4, "-j y"),
        (),
    )
    assert made(Insert("filter", "INPUT", 1, "-j x"), Delete("filter", "INPUT", "-j x")) == ((0, 1, 2, 3, 4), ())


def test_what_is_more_than_rules_that_come_and_go_is_no_edit() -> None:
    """Other operations, counters, chains that are not there, as built-in ones may be that are shown as empty, and what
    no kernel would do."""
    for operation in (
        SetPolicy("filter", "INPUT", "DROP"),
        FlushChain("filter", "INPUT"),
        Append("filter", "INPUT", "-j x", Counters(1, 1)),
        Insert("filter", "INPUT", 1, "-j x", Counters(1, 1)),
        Append("filter", "FORWARD", "-j x"),
        Append("filter", "OUTPUT", "-j x"),
        Append("nat", "OUTPUT", "-j x"),
        Insert("filter", "INPUT", 7, "-j x"),
        DeleteNumber("filter", "INPUT", 6),
        Delete("filter", "INPUT", "-j x"),
    ):
        with pytest.raises(NoEditError):
            made(operation)


def test_rules_come_into_a_chain_of_ours_that_is_empty() -> None:
    """A user-defined chain that is shown exists."""
    (edit,) = chain_edits(Plan(Family.IPV4, (Append("filter", "E", "-j x"), Insert("filter", "E", 1, "-j y"))), LIVE)
    assert (edit.final, edit.removed) == ((Rule("-j y"), Rule("-j x")), ())


@settings(max_examples=examples(60))
@given(live_and_wanted())
def test_the_result_is_that_of_the_plan(rulesets: tuple[Ruleset, Ruleset]) -> None:
    """What is edited is what the plan leads to, and rules that stay are the same objects."""
    live, wanted = rulesets
    plan = make_plan(live, own_part(live, STRICT, wanted), wanted)
    try:
        edits = chain_edits(plan, live)
    except NoEditError:
        return
    after = live
    for edit in edits:
        after = with_edit(after, edit)
    assert after == after_plan(live, plan, live)
    for edit in edits:
        assert sorted((*edit.removed, *(each for each in edit.final if isinstance(each, int)))) == list(
            range(len(live.tables[edit.table].chains[edit.chain].rules))
        )
