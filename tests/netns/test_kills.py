"""Kill -9 before any system call of a step: the next start finds its way, and ends with one ruleset in both families.

`tests/netns/test_crash.py` visits each boundary of a pass. Here the instants are system calls, of the process or of a
program that it runs, and the steps are all that the worker thread does.
"""

from __future__ import annotations

import random
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from tests.netns.fault_bench import STEPS, FaultBench
from tests.netns.system_calls import kill_at
from tests.scale import scaled

KILLS = scaled(gate=1, long=60)
"""Kills for each step and backend, and each of the two ways."""

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.netns.fault_bench import Trial


@pytest.mark.long
def test_killed_before_a_system_call(fault_bench: FaultBench, seed: int) -> None:
    """Whether iptables lives on or dies too: after the restart every table is that of one ruleset, and what is reported
    is so. What was to be confirmed is undone once its time is over; where nothing was promised yet, nothing of it was
    in force either."""
    bench, chance = fault_bench, random.Random(f"{seed} {fault_bench.bench.backend}")
    broken: list[str] = []
    for name in bench.its_share(STEPS, seed):
        step = STEPS[name]
        calls = bench.without_fault(step)[1].calls
        ends: Counter[str] = Counter()
        numbers = chance.sample(range(len(calls)), min(2 * KILLS, len(calls)))
        for place, number in enumerate(numbers):
            fault = kill_at(calls, number, with_programs=bool(place % 2))
            trial, _ = bench.trial(step, fault)
            found = list(bench.broken_promises(step, trial))
            if name == "reload --confirm":
                found += _not_undone(bench, trial)
            ends[bench.name_of(trial.found["settled"])] += 1
            broken += [f"{name}, {fault}: {what}" for what in found]
        print(f"{bench.bench.backend.value} {name}: {ends.total()} kills, then in force: {dict(ends)}")
    assert not broken, "\n".join(broken)


def _not_undone(bench: FaultBench, trial: Trial) -> Iterator[str]:
    """What is wrong once the time for a confirmation is over: what was promised has to be undone."""
    if not trial.promised:
        if "killed" in trial.found and bench.name_of(trial.found["killed"]) != "A":
            yield "a change was in force before the promise to undo it was on the disk"
        return
    bench.end_of_time()
    name = bench.name_of(bench.start().found["settled"])
    if name != "A":
        yield f"{name} is in force after the time for the confirmation"
