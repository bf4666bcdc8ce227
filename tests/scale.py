"""How much work the tests do: little for packaging/test --quick, much for --long. Read here and nowhere else."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Sequence

VARIABLE: Final = "FWGUARD_TEST_SCALE"
"""The environment variable that packaging/test sets to one of `SCALES`; the default is "gate"."""

SCALES: Final = ("quick", "gate", "long")

SCALE: Final = os.environ.get(VARIABLE, "gate")
if SCALE not in SCALES:
    raise ValueError(f"{VARIABLE}: expected one of {', '.join(SCALES)}, found {SCALE!r}")


PART_VARIABLE: Final = "FWGUARD_TEST_PART"
"""The environment variable that has the longest of the long forms run in parts: "3/8" is the third of eight."""

PART, PARTS = (int(number) for number in os.environ.get(PART_VARIABLE, "1/1").split("/"))

BACKENDS: Final = ("nft", "legacy")

EITHER: Final = "either"
"""The parameter of a test that runs on one of the backends, which the seed chooses."""

Size = TypeVar("Size", int, float)
Item = TypeVar("Item")


def scaled(gate: Size, long: Size) -> Size:
    """A number of repetitions, packets or seconds: ``gate`` as a rule, ``long`` with packaging/test --long."""
    if SCALE == "long":
        return long
    return gate


def examples(gate: int) -> int:
    """A number of hypothesis examples: as given; a tenth of it for --quick; 50 times it for --long."""
    if SCALE == "quick":
        return max(1, gate // 10)
    return scaled(gate, 50 * gate)


def thinned(items: Sequence[Item]) -> Sequence[Item]:
    """The cases that a test goes through: all of them, or every tenth for --quick."""
    if SCALE == "quick":
        return items[::10]
    return items


def part_of(items: Sequence[Item]) -> Sequence[Item]:
    """The items of the part that is run, spread over all of them."""
    return items[PART - 1 :: PARTS]


def sampled(items: Sequence[Item], seed: int, every: int) -> Sequence[Item]:
    """Of very many cases one in ``every``, from one that the seed chooses, so that runs meet all of them in time; fewer
    for --quick, and all for --long."""
    step = scaled(every, 1)
    if SCALE == "quick":
        step = max(every, 10)
    return items[seed % step :: step]


def backends_of_either() -> Sequence[str]:
    """The backends of a test whose rule does not depend on the backend: one that the seed chooses, so that runs meet
    both in time; both for --long."""
    if SCALE == "long":
        return BACKENDS
    return (EITHER,)
