"""The heap of a daemon: what stays for long is not searched for cycles in each step, and no cycle stays for ever."""

from __future__ import annotations

import contextlib
import gc
import weakref
from typing import TYPE_CHECKING

import pytest

from fwguardd.interpreter import STEP_ALLOCATIONS, WHOLE_SEARCHES, SettledObjects, few_searches_for_garbage

if TYPE_CHECKING:
    from collections.abc import Iterator


class Cycle:
    """An object that refers to itself."""

    def __init__(self) -> None:
        self.itself = self


@pytest.fixture(autouse=True)
def _frozen() -> Iterator[None]:
    """What the tests before have left does not count."""
    gc.collect()
    gc.freeze()
    gc.disable()
    yield
    gc.enable()


def test_what_stays_is_not_searched_again() -> None:
    """What is there when nothing waits is left out of later searches, but for what has gone by then."""
    settled, kept = SettledObjects(), [[number] for number in range(1000)]
    gone = weakref.ref(Cycle())
    settled.settle()
    assert gone() is None
    assert not {id(each) for each in kept} & {id(each) for each in gc.get_objects()}


def test_a_cycle_among_what_stays_is_found_in_the_end() -> None:
    """One that loses its last reference later is found by the search of all objects."""
    settled, cycle = SettledObjects(), Cycle()
    gone = weakref.ref(cycle)
    settled.settle()
    del cycle
    gc.collect()
    assert gone() is not None
    for _ in range(WHOLE_SEARCHES):
        settled.settle()
    assert gone() is None


def test_a_step_is_hardly_searched() -> None:
    """While a step runs that makes many objects, young ones are searched rarely; after it, or its end with an error, as
    before."""
    before = gc.get_threshold()
    with contextlib.suppress(ValueError), few_searches_for_garbage():
        assert gc.get_threshold() == (STEP_ALLOCATIONS, *before[1:])
        raise ValueError("a defect")
    assert gc.get_threshold() == before
