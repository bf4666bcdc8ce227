"""Every system call of a step fails, once and from then on: no table is emptier for it, and what is reported is so.

In the long form each kind of call fails, of the process and of the programs that it runs (`tests.netns.call_kinds`):
its first call, one of the others at random, and all calls of the name from the first one on. That is about 14,000
faults, of a tenth of a second of a processor each; FWGUARD_TEST_PART=3/8 runs one of eight parts.

The steps are those of the daemon's worker thread: a pass, a reload that has to be confirmed, an expiry, a rollback, a
repair, an opening, and starts. After each fault every table is that of the ruleset before or of the ruleset wanted.
Once the fault has ended both families soon hold one of the two, and the state that is reported is what iptables-save
shows.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import pytest

from fwguardd.enforce.context import Broken
from tests.netns.fault_bench import STEPS, FaultBench
from tests.netns.fault_table import Table
from tests.netns.system_calls import Fault, fault_at
from tests.scale import SCALE, part_of, scaled

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.netns.system_calls import Faulty


EACH_STEP: Final = [[name] for name in STEPS]
GROUPS: Final = EACH_STEP if SCALE == "long" else [list(STEPS)]
"""The steps of each test: with packaging/test --long each is a test of its own."""

OWN_FAULTS = scaled(gate=4, long=10_000)
"""Faults of calls of the process in each step; in the long form all."""

PROGRAM_FAULTS = scaled(gate=1, long=10_000)
"""The same of calls of the programs that it runs."""


@dataclass(frozen=True, slots=True)
class Kind:
    """Calls of a step that are one kind (`tests.netns.call_kinds`), by their places in the order of all calls."""

    in_program: bool
    places: tuple[int, ...]


def _kinds(whole: Faulty) -> list[Kind]:
    """The kinds of the calls of a step, in the order of their first calls."""
    found: dict[tuple[object, ...], list[int]] = {}
    for place, (call, source) in enumerate(zip(whole.calls, whole.sources, strict=True)):
        key: tuple[object, ...] = call, source.place
        if call.in_program:
            key = call, source.program, source.on
        elif not source.place:
            key = call, place
        found.setdefault(key, []).append(place)
    return [Kind(whole.calls[places[0]].in_program, tuple(places)) for places in found.values()]


def _faults(whole: Faulty, kind: Kind, chance: random.Random) -> Iterator[Fault]:
    """The faults of a kind: its first call fails, one of the others, and all from the first one on."""
    for place in kind.places[:1] + tuple(chance.sample(kind.places[1:], min(1, len(kind.places) - 1))):
        yield _fault_at(whole, place)
    yield replace(_fault_at(whole, kind.places[0]), for_good=True)


def _fault_at(whole: Faulty, place: int) -> Fault:
    """The fault of one call. A process that is disturbed, or that found its modules compiled, may make a call more or
    less than before, so a call of the process is known by where it is made, and by how often that was before it."""
    call, where = whole.calls[place], whole.sources[place].place
    if not where:
        return fault_at(whole.calls, place)
    before = zip(whole.calls[:place], whole.sources[:place], strict=True)
    return Fault(call, sum(1 for other, source in before if other == call and source.place == where), where)


def _chosen(whole: Faulty, chance: random.Random) -> list[Fault]:
    """The faults that are injected, those of the process first."""
    chosen: list[Fault] = []
    for in_program, most in ((False, OWN_FAULTS), (True, PROGRAM_FAULTS)):
        kinds = [kind for kind in _kinds(whole) if kind.in_program == in_program]
        faults = [fault for kind in kinds for fault in _faults(whole, kind, chance)]
        chosen += chance.sample(faults, min(most, len(faults)))
    return chosen


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
    for fault in part_of(_chosen(whole, chance)):
        assert fault.call is not None
        trial, faulty = bench.trial(step, fault)
        found = list(bench.broken_promises(step, trial))
        if trial.outcome == Broken.__name__ and not fault.for_good:
            found.append(f"one fault that is over leaves nothing to retry: {trial.claims['step'].sentence}")
        line = f"{name}{' (programs)' if fault.call.in_program else ''}{', from then on' if fault.for_good else ''}"
        told = trial.outcome != usual.outcome or not trial.events <= usual.events
        table.add(line, trial.outcome, held=not found, told=told, met=bool(faulty.failed))
        yield from (f"{name}, {fault} ({', '.join(map(str, faulty.failed))}): {what}" for what in found)
    own, theirs = _counted(whole, in_program=False), _counted(whole, in_program=True)
    table.calls[name] = f"{own} of the process, {theirs} of programs"


def _counted(whole: Faulty, *, in_program: bool) -> str:
    """How many calls there are, and of how many kinds."""
    kinds = [kind for kind in _kinds(whole) if kind.in_program == in_program]
    return f"{sum(len(kind.places) for kind in kinds)} calls of {len(kinds)} kinds"
