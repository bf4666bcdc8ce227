"""Whether what a look has shown is still what the kernel holds."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fwguardd.kernel.last_looks import LastLooks, Moment
from fwguardd.ruleset.model import FAMILIES, Chain, Family, Rule, Ruleset, Table
from fwguardd.ruleset.save_format import Saved

THEN = Moment(7, ((1, 2, 3, 4),))
SHOWN = {
    family: Saved(Ruleset(family, {"filter": Table("filter", {"INPUT": Chain("INPUT", "DROP", (Rule("-j A"),))})}))
    for family in FAMILIES
}


def looks(began: Moment | None = THEN, ended: Moment | None = THEN, dormant: frozenset[str] = frozenset()) -> LastLooks:
    """One look at both families, that of IPv4 with these dormant tables."""
    made = LastLooks()
    made.keep(SHOWN | {Family.IPV4: replace(SHOWN[Family.IPV4], dormant=dormant)}, began, ended)
    return made


def test_a_look_counts_at_its_own_moment_only() -> None:
    """Any commit, and any other program, makes a new look necessary."""
    assert looks().at(FAMILIES, THEN) == SHOWN
    for now in (None, replace(THEN, generation=8), replace(THEN, generation=6), replace(THEN, programs=())):
        assert looks().at(FAMILIES, now) is None


@pytest.mark.parametrize(("began", "ended"), [(None, THEN), (THEN, None), (None, None), (THEN, Moment(8, ()))])
def test_a_look_that_a_commit_fell_into_is_not_kept(began: Moment | None, ended: Moment | None) -> None:
    """It may show a part of what was before and a part of what is after."""
    for now in (began, ended):
        assert looks(began, ended).at(FAMILIES, now) is None


def test_dormant_tables_are_always_read() -> None:
    """A table can be woken in ways that are no change of its rules; a family with one is read each time."""
    found = looks(dormant=frozenset({"filter"}))
    assert found.at(FAMILIES, THEN) is None
    assert found.at([Family.IPV6], THEN) == {Family.IPV6: SHOWN[Family.IPV6]}


def test_a_family_that_was_not_looked_at_is_not_known() -> None:
    """A look at one family says nothing about the other."""
    made = LastLooks()
    made.keep({Family.IPV4: SHOWN[Family.IPV4]}, THEN, THEN)
    assert made.at(FAMILIES, THEN) is None
    assert made.at([Family.IPV4], THEN) == {Family.IPV4: SHOWN[Family.IPV4]}


def test_less_than_before_is_doubtful_unless_it_was_written() -> None:
    """The first look, and one that shows less, is taken twice; not where a load meant to leave less."""
    less = Saved(Ruleset(Family.IPV4, {}))
    made = looks()
    assert LastLooks().is_doubtful(less)
    assert made.is_doubtful(less)
    assert not made.is_doubtful(SHOWN[Family.IPV4])
    made.written.add(Family.IPV4)
    assert not made.is_doubtful(less)
    assert Family.IPV4 not in made.shown
