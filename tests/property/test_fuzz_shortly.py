"""Short runs of the fuzz targets, so that they never rot."""

from __future__ import annotations

import pytest

from tests.property import fuzz_denials
from tests.property.fuzz_ruleset import breaks, fuzz, smallest


@pytest.mark.parametrize("seed", [1, 2])
def test_fuzzing_for_two_seconds_breaks_no_promise(seed: int) -> None:
    """Broken rule files are read, composed and rendered as promised, and most kinds of findings are met."""
    figures = fuzz(2.0, seed)
    assert figures.inputs > 50
    assert len(figures.codes) > 10


def test_an_input_that_breaks_a_promise_is_made_small() -> None:
    """What is printed in the end is little more than what matters."""
    assert smallest(b"-A INPUT -j ACCEPT\n-A bad -j DROP\n", lambda data: b"bad" in data) == b"bad"
    assert not breaks(b"-A INPUT -j ACCEPT\n")


def test_fuzzing_denials_for_two_seconds_breaks_no_promise() -> None:
    """Broken kernel lines and packets are read and told as promised, and many are denials all the same."""
    figures = fuzz_denials.fuzz(2.0, 1)
    assert figures.inputs > 50
    assert figures.denials > figures.glances > 0
