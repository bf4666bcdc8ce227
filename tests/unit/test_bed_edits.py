"""Edits of the chains of a bed as JSON values: the worker does what the plan says."""

from __future__ import annotations

import json

import pytest

from fwguardd.kernel.bed_edits import MOST_CHANGES, change_of, edit_document, edit_documents
from fwguardd.kernel.nft_batches import ChainChange, transaction
from fwguardd.kernel.rehearsed_rules import RehearsedRules
from fwguardd.kernel.rule_bytes import RuleBytes
from fwguardd.kernel.rule_notices import Place
from fwguardd.ruleset.chain_edits import ChainEdit, NoEditError
from fwguardd.ruleset.model import Chain, Family, Rule, Ruleset, Table
from fwguardd.ruleset.operations import Append, DeleteNumber, Insert, Plan

FIRST, SECOND, THIRD = Rule("-j x"), Rule("-j y"), Rule("-j z")


def ruleset(*rules: Rule) -> Ruleset:
    """A ruleset with one chain."""
    return Ruleset(Family.IPV4, {"filter": Table("filter", {"INPUT": Chain("INPUT", "DROP", rules)})})


LOADED = ruleset(*(Rule(f"-p tcp --dport {port}") for port in range(5)))


@pytest.fixture
def rehearsed() -> RehearsedRules:
    """What three rules are made of; of the last one it is not known."""
    made = RehearsedRules()
    parts = (b"first", b"second", b"")
    made.keep(ruleset(FIRST, SECOND, THIRD), [RuleBytes("filter", "INPUT", 1, each) for each in parts])
    return made


@pytest.mark.parametrize(
    ("final", "removed"),
    [
        ((0, 1, 2, 3, 4, FIRST), ()),
        ((FIRST, 1, 2, SECOND, 4), (0, 3)),
        ((FIRST, SECOND), (0, 1, 2, 3, 4)),
        ((4,), (0, 1, 2, 3)),
        ((FIRST, 0, 1, 2, 3, 4), ()),
        ((0, FIRST, 1, SECOND, 2, 3, 4), ()),
    ],
)
def test_an_edit_is_the_same_in_the_worker(final: tuple[int | Rule, ...], removed: tuple[int, ...]) -> None:
    """After JSON the messages to the kernel are those of the edit, for rules that stay, go and come anywhere."""
    handles, expressions = (7, 8, 9, 20, 21), [b"first", b"second"][: sum(each in (FIRST, SECOND) for each in final)]
    edit = ChainEdit("filter", "INPUT", final, removed)
    document = json.loads(json.dumps(edit_document(Family.IPV6, edit, expressions)))
    change = change_of(document, handles)
    wanted = ChainChange(Place(Family.IPV6, "filter", "INPUT"), edit, handles, expressions)
    assert change is not None
    assert transaction(5, [change]) == transaction(5, [wanted])
    assert change_of(document, handles[1:]) is None
    document[-1][1] += 1
    assert change_of(document, handles) is None


def test_plans_become_edits(rehearsed: RehearsedRules) -> None:
    """A rule that goes, and new ones that are known from the rehearsal."""
    plan = Plan(Family.IPV4, (DeleteNumber("filter", "INPUT", 2), Insert("filter", "INPUT", 2, FIRST.text)))
    assert edit_documents([plan], {Family.IPV4: LOADED}, rehearsed) == [
        (4, "filter", "INPUT", [[0, 1], b"first".hex(), [2, 5]], (5, 5))
    ]


@pytest.mark.parametrize(
    "operations", [(Append("filter", "INPUT", THIRD.text),), (DeleteNumber("filter", "INPUT", 1),) * (MOST_CHANGES + 1)]
)
def test_other_plans_are_left_to_iptables(
    rehearsed: RehearsedRules, operations: tuple[Append | DeleteNumber, ...]
) -> None:
    """A rule that is not known from the rehearsal, and more changes than the kernel can answer at once."""
    many = ruleset(*LOADED.tables["filter"].chains["INPUT"].rules * MOST_CHANGES)
    with pytest.raises(NoEditError):
        edit_documents([Plan(Family.IPV4, operations)], {Family.IPV4: many}, rehearsed)
