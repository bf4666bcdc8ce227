"""Every system call of a step fails, once and from then on: no table is emptier for it, and what is reported is so.

In the long form every call of the process fails in turn, and every call of each program that it runs: a program that
runs several times in a step makes the same calls each time, so each of them fails in one of these runs. That takes
hours; FWGUARD_TEST_PART=3/8 runs one of eight parts.

The steps are those of the daemon's worker thread: a pass, a reload that has to be confirmed, an expiry, a rollback, a
repair, an opening, and starts. After each fault every table is that of the ruleset before or of the ruleset wanted.
Once the fault has ended both families soon hold one of the two, and the state that is reported is what iptables-save
shows.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Final

import pytest

from tests.netns.fault_bench import STEPS, FaultBench
from tests.netns.fault_table import Table
from tests.netns.system_calls import fault_at
from tests.scale import SCALE, part_of, scaled

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.netns.system_calls import Faulty


EACH_STEP: Final = [[name] for name in STEPS]
GROUPS: Final = EACH_STEP if SCALE == "long" else [list(STEPS)]
"""The steps of each test: with packaging/test --long each is a test of its own."""

OWN_CALLS = scaled(gate=2, long=10_000)
"""Calls of the process that fail, at random, in each step, in each of the two ways; in the long form all of them."""

PROGRAM_CALLS = scaled(gate=1, long=10_000)
"""The same for calls of the programs that it runs. In the long form each fails in one of the two ways."""


def _chosen(whole: Faulty, chance: random.Random) -> Iterator[tuple[int, bool]]:
    """The places of the calls that fail, and whether that is from then on."""
    own = [place for place, call in enumerate(whole.calls) if not call.in_program]
    theirs = [chance.choice(places) for places in _same_calls(whole).values()]
    own = sorted(chance.sample(own, min(OWN_CALLS, len(own))))
    for for_good in (False, True):
        for place in own:
            yield place, for_good
    for place in sorted(chance.sample(theirs, min(PROGRAM_CALLS, len(theirs)))):
        yield place, chance.random() < 0.5


def _same_calls(whole: Faulty) -> dict[tuple[object, ...], list[int]]:
    """The places of calls of programs, by the program, the name of the call, and how many of it the run made before."""
    found: dict[tuple[object, ...], list[int]] = {}
    made: dict[tuple[object, ...], int] = {}
    for place, (call, run) in enumerate(zip(whole.calls, whole.runs, strict=True)):
        if call.in_program:
            before = made.get((run, call), 0)
            made[run, call] = before + 1
            found.setdefault((run[1], call, before), []).append(place)
    return found


@pytest.mark.long
@pytest.mark.parametrize("names", GROUPS, ids=", ".join)
def test_system_calls_fail(fault_bench: FaultBench, seed: int, names: list[str]) -> None:
    """Whichever call fails, once or from then on, with whatever comes of it: nothing is opened, and both families end
    with one ruleset."""
    bench, table = fault_bench, Table()
    broken: list[str] = []
    try:
        for name in bench.its_share(names, seed):
            for what in _broken_in(name, bench, table, random.Random(f"{seed} {bench.bench.backend} {name}")):
                print(what, flush=True)
                broken.append(what)
    finally:
        print(f"{bench.bench.backend.value}\n{table}")
    assert not broken, "\n".join(broken)


def _broken_in(name: str, bench: FaultBench, table: Table, chance: random.Random) -> Iterator[str]:
    step = STEPS[name]
    usual, whole = bench.without_fault(step)
    for place, for_good in part_of(list(_chosen(whole, chance))):
        call, fault = whole.calls[place], fault_at(whole.calls, place, for_good=for_good)
        trial, faulty = bench.trial(step, fault)
        found = list(bench.broken_promises(step, trial))
        kind = f"{name}{' (programs)' if call.in_program else ''}{', from then on' if for_good else ''}"
        told = trial.outcome != usual.outcome or not trial.events <= usual.events
        table.add(kind, trial.outcome, held=not found, told=told, met=bool(faulty.failed))
        yield from (f"{name}, {fault} ({', '.join(map(str, faulty.failed))}): {what}" for what in found)
    own = sum(1 for call in whole.calls if not call.in_program)
    distinct = len(_same_calls(whole))
    table.calls[name] = f"{own} calls of the process, {len(whole.calls) - own} of programs, {distinct} of them distinct"
