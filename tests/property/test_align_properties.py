"""Alignment: whatever the two lists are, what it pairs is equal, in order, and as much as can be where texts differ."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from fwguardd.ruleset.diff import align


@given(st.lists(st.sampled_from("abcdef"), max_size=12), st.lists(st.sampled_from("abcdef"), max_size=12))
def test_pairs_are_equal_and_ascend(here: list[str], there: list[str]) -> None:
    """Each pair holds one text, no place is used twice, and no two pairs cross."""
    pairs = align(here, there)
    assert all(here[place] == there[other] for place, other in pairs)
    assert all(one[0] < two[0] and one[1] < two[1] for one, two in pairwise(pairs))


@given(st.permutations("abcdefgh"), st.sets(st.sampled_from("abcdefgh")), st.sets(st.sampled_from("abcdefgh")))
def test_as_many_stay_as_can(order: list[str], gone: set[str], new: set[str]) -> None:
    """Where each side has each text once, the pairs are as many as the longest common subsequence has."""
    here = [text for text in "abcdefgh" if text not in new]
    there = [text for text in order if text not in gone]
    assert len(align(here, there)) == _longest(here, there)


def _longest(here: list[str], there: list[str]) -> int:
    lengths = [[0] * (len(there) + 1) for _ in range(len(here) + 1)]
    for one, text in enumerate(here):
        for two, other in enumerate(there):
            best = max(lengths[one][two + 1], lengths[one + 1][two])
            lengths[one + 1][two + 1] = lengths[one][two] + 1 if text == other else best
    return lengths[-1][-1]
