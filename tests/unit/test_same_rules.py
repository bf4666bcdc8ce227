"""What is the same in two sequences: identity counts, not equality."""

from __future__ import annotations

import random

from fwguardd.ruleset.same_rules import same_ends


def test_the_ends_are_the_longest_that_are_the_same_objects() -> None:
    """Head and tail do not overlap, whatever was taken out, put in or replaced by an equal object."""
    chance = random.Random(5)
    for _ in range(300):
        here: list[list[int]] = [[] for _ in range(chance.randrange(6))]
        there = list(here)
        place = chance.randrange(len(there) + 1)
        there[place : place + chance.randrange(3)] = [[] for _ in range(chance.randrange(3))]
        head, tail = same_ends(here, there)
        assert head + tail <= min(len(here), len(there))
        middle = here[head : len(here) - tail], there[head : len(there) - tail]
        assert all(one is other for one, other in zip(here[:head], there[:head], strict=True))
        assert all(
            one is other for one, other in zip(here[len(here) - tail :], there[len(there) - tail :], strict=True)
        )
        assert not (all(middle) and (middle[0][0] is middle[1][0] or middle[0][-1] is middle[1][-1]))
