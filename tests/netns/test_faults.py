"""Every system call of a step fails, once and from then on: no table is emptier for it, and what is reported is so.

The steps are those of the daemon's worker thread: a pass, a reload that has to be confirmed, an expiry, a rollback, a
repair, an opening, and starts. After each fault every table is that of the ruleset before or of the ruleset wanted.
Once the fault has ended both families soon hold one of the two, and the state that is reported is what iptables-save
shows.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from tests.netns.fault_bench import STEPS, FaultBench, Table
from tests.netns.system_calls import Call, Fault
from tests.scale import scaled

if TYPE_CHECKING:
    from collections.abc import Sequence


OWN_CALLS = scaled(gate=2, long=1000)
"""Calls of the process that fail, at random, in each step, in each of the two ways."""

PROGRAM_CALLS = scaled(gate=1, long=200)
"""The same for calls of the programs that it runs."""


def _chosen(calls: Sequence[Call], chance: random.Random) -> list[int]:
    """The numbers of the calls that fail: some of the process, and some of its programs."""
    own = [number for number, call in enumerate(calls) if not call.in_program]
    theirs = [number for number, call in enumerate(calls) if call.in_program]
    return sorted(chance.sample(own, min(OWN_CALLS, len(own))) + chance.sample(theirs, min(PROGRAM_CALLS, len(theirs))))


@pytest.mark.long
def test_system_calls_fail(fault_bench: FaultBench, seed: int) -> None:
    """Whichever call fails, once or from then on, with whatever comes of it: nothing is opened, and both families end
    with one ruleset."""
    bench, chance, table = fault_bench, random.Random(f"{seed} {fault_bench.bench.backend}"), Table()
    broken: list[str] = []
    for name, step in STEPS.items():
        calls = bench.without_fault(step)
        for for_good in (False, True):
            for number in _chosen(calls, chance):
                fault = Fault(number, for_good)
                trial, faulty = bench.trial(step, fault)
                found = list(bench.broken_promises(step, trial))
                table.add(f"{name}{', from then on' if for_good else ''}", trial.outcome, held=not found)
                broken += [f"{name}, {fault} ({', '.join(map(str, faulty.failed))}): {what}" for what in found]
    print(f"{bench.bench.backend.value}\n{table}")
    assert not broken, "\n".join(broken)
