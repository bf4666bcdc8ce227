"""Canonical rulesets: what each constructor makes, and which code may call it."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fwguardd.ruleset.canonical import Canonical, Emptying, EmptyingReason, Owned, Provenance
from fwguardd.ruleset.model import BUILTIN_CHAINS, FAMILIES, NOT_STATED, Chain, Family, Rule, Ruleset, Table
from fwguardd.ruleset.preserve import Preserve
from tests.unit.syntax import nodes

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGE = Path(__file__).resolve().parents[2] / "fwguardd"

CALLERS = {
    "Canonical.rehearsed": {
        "kernel/rehearsal.py",
        "enforce/known_lines.py _put_together",
        "enforce/known_lines.py _by_forms",
    },
    "Canonical.from_revision": {"enforce/record.py in_force_of"},
    "Canonical.from_kernel": {
        "enforce/before_load.py keep_before_load",
        "enforce/found.py found_in_kernel",
        "enforce/transaction.py _undo",
    },
    "Canonical.emptied": {
        "enforce/opening.py open_firewall",
        "enforce/transaction.py _with_released",
        "enforce/former_backend.py _empty",
    },
    "Emptying.for_open": {"enforce/opening.py open_firewall"},
    "Emptying.for_release": {"enforce/state.py release"},
    "State.release": {
        "enforce/former_backend.py _empty",
        "enforce/apply.py apply_files",
        "enforce/touched.py release_touched",
        "enforce/repair.py repair",
        "enforce/rollback.py put_recorded",
    },
}
"""Which functions may call each constructor; a file alone means any function of it."""


@cache
def _calls() -> tuple[tuple[str, str], ...]:
    """Each call of a name or an attribute in the package, and the function that it stands in, as "FILE FUNCTION"."""
    return tuple(_find_calls())


def _find_calls() -> Iterator[tuple[str, str]]:
    for path in PACKAGE.rglob("*.py"):
        for function in nodes(path):
            if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef)):
                for node in ast.walk(function):
                    if isinstance(node, ast.Call):
                        yield ast.unparse(node.func), f"{path.relative_to(PACKAGE)} {function.name}"


@pytest.mark.parametrize("constructor", CALLERS)
def test_a_constructor_is_called_where_it_is_meant_to_be(constructor: str) -> None:
    """A canonical ruleset comes from one of four sources, and only `open` and a release empty a table."""
    name, _, method = constructor.partition(".")
    called = set()
    for function, place in _calls():
        if function == constructor or (name == "State" and function.endswith(f".{method}") and "store" not in function):
            called.add(place)
    meant = CALLERS[constructor]
    assert {place for place in called if place not in meant and place.split()[0] not in meant} == set()
    assert called


def test_nothing_else_makes_a_canonical_ruleset_or_an_emptying() -> None:
    """The classes are called by their own named constructors only, and no other module replaces their contents."""
    for path in PACKAGE.rglob("*.py"):
        if path.name == "canonical.py":
            continue
        for node in nodes(path):
            if isinstance(node, ast.Call):
                function = ast.unparse(node.func)
                assert function not in ("Canonical", "Emptying"), f"{path}:{node.lineno}"
                assert function != "replace" or not {"rulesets", "provenance"} & {key.arg for key in node.keywords}


def _filter(*rules: str, policy: str = "DROP") -> Ruleset:
    chain = Chain("INPUT", policy, tuple(Rule(text) for text in rules))
    return Ruleset(Family.IPV4, {"filter": Table("filter", {"INPUT": chain})})


def test_equality_is_that_of_the_rulesets() -> None:
    """A revision from the disk equals the rehearsal that it was recorded from."""
    rulesets = {Family.IPV4: _filter("-i lo -j ACCEPT")}
    rehearsed, recorded = Canonical.rehearsed(rulesets), Canonical.from_revision(dict(rulesets))
    assert rehearsed == recorded
    assert (rehearsed.provenance, recorded.provenance) == (Provenance.REHEARSAL, Provenance.REVISION)
    assert rehearsed != Canonical.rehearsed({Family.IPV4: _filter()})


def test_an_emptied_table_accepts_everything() -> None:
    """Every built-in chain is there, with the policy ACCEPT and no rule; families that are not named are left out."""
    tables = Owned({(Family.IPV6, "nat"), (Family.IPV6, "filter")})
    emptied = Canonical.emptied(Emptying.for_open(tables))
    assert emptied.owned == tables
    assert emptied.provenance is Provenance.EMPTIED
    for table, chain in emptied.rulesets[Family.IPV6].chains():
        assert chain.name in BUILTIN_CHAINS[table.name]
        assert (chain.policy, chain.rules) == ("ACCEPT", ())


def test_a_release_names_the_tables_that_are_not_wanted_any_more() -> None:
    """Tables that stay ours are not emptied, and tables that become ours neither."""
    before = Owned((family, name) for family in FAMILIES for name in ("filter", "nat"))
    after = Owned((family, name) for family in FAMILIES for name in ("filter", "raw"))
    release = Emptying.for_release(before, after, frozenset())
    assert release.reason is EmptyingReason.RELEASE
    assert release.tables == {(family, "nat") for family in FAMILIES}


def test_a_policy_is_released_only_where_drop_was_stated() -> None:
    """Another program may have set the policies that nothing stated: they stay as they are."""
    before = Canonical.rehearsed({Family.IPV4: _filter()})
    release = Emptying.for_release(before.owned, Owned(), before.closed_policies)
    emptied = Canonical.emptied(release).rulesets[Family.IPV4].tables["filter"]
    policies = {chain.name: chain.policy for chain in emptied.chains.values()}
    assert policies == {"INPUT": "ACCEPT", "FORWARD": NOT_STATED, "OUTPUT": NOT_STATED}


def test_what_the_kernel_held_is_limited_to_the_wanted_tables() -> None:
    """A table that the kernel did not have accepted everything; one that is not wanted is left out."""
    own = {Family.IPV4: _filter("-i lo -j ACCEPT")}
    wanted = {Family.IPV4: Ruleset(Family.IPV4, {name: Table(name, {}) for name in ("filter", "raw")})}
    found = Canonical.from_kernel(own, wanted)
    assert found.provenance is Provenance.KERNEL
    tables = found.rulesets[Family.IPV4].tables
    assert tables["filter"] == own[Family.IPV4].tables["filter"]
    assert {chain.policy for chain in tables["raw"].chains.values()} == {"ACCEPT"}
    assert not Canonical.from_kernel(own, {Family.IPV4: Ruleset(Family.IPV4, {})}).owned


def test_chains_and_rules_of_others_are_left_out() -> None:
    """The provenance stays what it was."""
    preserve = Preserve.from_patterns(["DOCKER"])
    rehearsed = Canonical.rehearsed({Family.IPV4: _filter("-j DOCKER", "-i lo -j ACCEPT")})
    own = rehearsed.without_copies(preserve)
    assert own == Canonical.rehearsed({Family.IPV4: _filter("-i lo -j ACCEPT")})
    assert own.provenance is Provenance.REHEARSAL
