"""Real rulesets made shorter by a fifth or more, and proved to treat every packet as before.

``shorter/N-name.txt`` has the rules before and after, as iptables-save prints them. To write what is left again:
.venv/bin/python -m tests.golden.update
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fwguardd.kernel.z3_solver import Solver
from fwguardd.proof.shorter import Shortening, rules_by_line, text_without
from tests.golden.test_changes import rulesets_of, sections
from tests.waiting import LONGEST

if TYPE_CHECKING:
    from fwguardd.proof.answers import Asker

SETS = sorted((Path(__file__).parent / "shorter").glob("*.txt"))


def shortening(text: str, solver: Asker) -> Shortening:
    """The search, done."""
    found = Shortening(rulesets_of("a.rules", text), (), solver)
    found.run()
    assert found.left_out == ""
    return found


def write_shorter() -> None:
    """Write what is left of each set."""
    with Solver(time.monotonic() + 600) as solver:
        for path in SETS:
            before = sections(path)["before"]
            after = text_without(before, shortening(before, solver).removed)
            path.write_text(f"== before\n{before}== after\n{after}")


@pytest.mark.parametrize("path", SETS, ids=lambda path: path.stem)
def test_a_ruleset_becomes_shorter_and_stays_equal(path: Path) -> None:
    """At least a fifth of the lines with rules can go, and what is left is proved equal to the whole at once."""
    parts = sections(path)
    with Solver(time.monotonic() + LONGEST) as solver:
        found = shortening(parts["before"], solver)
        assert text_without(parts["before"], found.removed) == parts["after"]
        lines = rules_by_line(rulesets_of("a.rules", parts["before"]))
        assert 5 * len(found.removed) >= len(lines)
        whole = Shortening(rulesets_of("a.rules", parts["before"]), (), solver)
        assert whole.is_equal(rulesets_of("b.rules", parts["after"]))
