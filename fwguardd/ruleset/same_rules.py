"""What is the same in two sequences of objects, at both ends. Most of a chain stays where one rule changes.

This module is pure.
"""

from __future__ import annotations

from operator import indexOf, is_
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


def same_ends(here: Sequence[object], there: Sequence[object]) -> tuple[int, int]:
    """How many objects at the head, and behind these at the tail, are the same ones: not equal, but identical."""
    shorter = min(len(here), len(there))
    head = _same(here, there, shorter)
    return head, min(_same(reversed(here), reversed(there), shorter), shorter - head)


def _same(here: Iterable[object], there: Iterable[object], most: int) -> int:
    try:
        return indexOf(map(is_, here, there), False)  # noqa: FBT003 - it takes no names.
    except ValueError:
        return most
