"""What it takes to tell which packets two long rulesets treat otherwise that differ in one rule."""

from __future__ import annotations

import resource
import time
from typing import TYPE_CHECKING, Final

import pytest

from fwguardd.kernel.z3_solver import Solver
from fwguardd.proof.described_classes import described
from fwguardd.proof.differences import differences
from fwguardd.proof.host_view import surroundings
from fwguardd.proof.model import Model
from fwguardd.proof.reading import RuleModeller
from tests.bench.conftest import SIZES
from tests.bench.test_invariant_speed import random_ruleset
from tests.proofs import HOST, ruleset

if TYPE_CHECKING:
    from collections.abc import Callable

    from fwguardd.proof.described_classes import DescribedClass
    from fwguardd.ruleset.model import Ruleset
    from tests.bench.conftest import Recorder

RULES: Final = {
    "a port is opened": "-A INPUT -p tcp -m tcp --dport 8443 -j ACCEPT",
    "a rule that changes nothing": "-A INPUT -i lo -p tcp -j ACCEPT",
}


def with_rule(rules: Ruleset, rule: str) -> Ruleset:
    """The ruleset with one rule more, in the middle of INPUT."""
    chain = rules.tables["filter"].chains["INPUT"]
    lines = [f"-A INPUT {each.text}" for each in chain.rules]
    lines.insert(len(lines) // 2, rule)
    return ruleset(":INPUT DROP", ":FORWARD DROP", ":OUTPUT ACCEPT", *lines)


def compared(before: Ruleset, after: Ruleset) -> list[DescribedClass]:
    """The classes, from the rules as text to the words."""
    known = surroundings(before.family, [before, after], HOST)
    reader = RuleModeller(known)
    models = Model.of(before, known, reader), Model.of(after, known, reader)
    with Solver(time.monotonic() + 600) as solver:
        return described(differences(*models, solver), *models)


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("count", SIZES)
def test_a_rule_more(count: int, name: str, record: Recorder, rounds: Callable[[int], int]) -> None:
    """Two rulesets that differ in one rule are compared, from the rules as text to the words."""
    before = random_ruleset(count)
    after = with_rule(before, RULES[name])
    seconds: list[float] = []
    processor: list[float] = []
    for _ in range(rounds(3)):
        begun, used = time.perf_counter(), time.process_time() + _of_children()
        classes = compared(before, after)
        seconds.append(time.perf_counter() - begun)
        processor.append(time.process_time() + _of_children() - used)
        assert not classes or name != "a rule that changes nothing"
    record(f"{name} among {count:,} rules", "s", seconds)
    record(f"{name} among {count:,} rules, processor", "s", processor)
    for who, whose in ((resource.RUSAGE_SELF, "Python"), (resource.RUSAGE_CHILDREN, "z3")):
        record(f"memory of {whose} so far, {count:,} rules", "MB", [resource.getrusage(who).ru_maxrss / 1024])


def _of_children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
