"""Short runs of the fuzz targets, so that they keep working; long ones with packaging/test --long."""

from __future__ import annotations

import pytest

from tests.property import fuzz_denials
from tests.property.fuzz_ruleset import breaks, fuzz, smallest
from tests.scale import examples


@pytest.mark.parametrize("run", [1, 2])
def test_fuzzing_rule_files_breaks_no_promise(seed: int, run: int) -> None:
    """Broken rule files are read, composed and rendered as promised, and most kinds of findings occur."""
    figures = fuzz(examples(2500), seed + run)
    assert len(figures.codes) > 10


def test_an_input_that_breaks_a_promise_is_made_small() -> None:
    """What is printed in the end is little more than what matters."""
    assert smallest(b"-A INPUT -j ACCEPT\n-A bad -j DROP\n", lambda data: b"bad" in data) == b"bad"
    assert not breaks(b"-A INPUT -j ACCEPT\n")


def test_fuzzing_denials_breaks_no_promise(seed: int) -> None:
    """Broken kernel lines and packets are read and reported as promised, and many are denials all the same."""
    figures = fuzz_denials.fuzz(examples(9000), seed)
    assert figures.denials > figures.plain > 0
