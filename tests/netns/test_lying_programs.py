"""Programs of iptables that hang, print garbage, print too little, print what was, do nothing, or do half of a load.

A wrapper stands before each program, and lies at one of its runs, or from then on. Whatever it says, no table becomes
emptier than it was. Once the wrapper is honest again both families soon hold one ruleset, and what is reported is so.
"""

from __future__ import annotations

import random
from functools import partial
from typing import TYPE_CHECKING, Final

import pytest

from fwguardd.kernel import iptables, processes
from tests.netns.fault_bench import STEPS
from tests.netns.fault_table import Table
from tests.netns.system_calls import BEGIN
from tests.scale import scaled

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.netns.fault_bench import FaultBench, Step

LIES = scaled(gate=2, long=1000)
"""Lies in each step, of those that there are, once, and as many from then on."""

PROGRAM_SECONDS: Final = 2.0
"""Seconds after which a program counts as one that hangs."""

STALE: Final = "prints what was"
"""A lie that nothing contradicts while the program goes on with it: it is found out once the program is honest."""

SAVE_LIES: Final = {
    "hangs": "exec sleep 3600",
    "prints garbage": "head -c 4096 /dev/urandom",
    "prints nothing": "exit 0",
    "lacks the last line": '"$real" "$@" | sed "\\$d" | sed "\\$d"',
    "lacks its second half": '"$real" "$@" >"$out"; head -c $(($(wc -c <"$out") / 2)) "$out"',
    "lacks a table": '"$real" "$@" | sed "/^\\*filter/,/^COMMIT/d"',
    STALE: 'cat "$stale"',
    "prints all and fails": '"$real" "$@"; exit 1',
    "is killed": "kill -9 $$",
    "cannot write": '"$real" "$@" >/dev/full',
}
RESTORE_LIES: Final = {
    "hangs before the load": "exec sleep 3600",
    "hangs after the load": '"$real" "$@"; exec sleep 3600',
    "does nothing": "cat >/dev/null",
    "refuses": 'echo "line 3 failed" >&2; exit 1',
    "is killed before the load": "kill -9 $$",
    "is killed after the load": '"$real" "$@"; kill -9 $$',
    "loads the first table": 'sed "/^COMMIT/q" | "$real" "$@"',
    "loads the first table and is killed": 'sed "/^COMMIT/q" | "$real" "$@"; kill -9 $$',
    "loads all and fails": '"$real" "$@"; echo garbage >&2; exit 1',
}

WRAPPER: Final = """#!/bin/sh
name=${{0##*/}} real=/usr/sbin/${{0##*/}} out={folder}/out.$$ stale={folder}/stale.$name
echo >>{folder}/runs.$name
if [ -e {folder}/lie.$name ]; then
    read -r first last <{folder}/lie.$name
    run=$(wc -l <{folder}/runs.$name)
    [ "$run" -lt "$first" ] || [ "$run" -gt "$last" ] || {{ . {folder}/lie.sh; exit; }}
fi
exec "$real" "$@"
"""


class Liars:
    """Wrappers around the four programs of a backend."""

    def __init__(self, folder: Path, backend: str) -> None:
        self._folder = folder
        self.programs = [
            f"{family}-{backend}-{verb}" for family in ("iptables", "ip6tables") for verb in ("save", "restore")
        ]
        for name in self.programs:
            (folder / name).write_text(WRAPPER.format(folder=folder))
            (folder / name).chmod(0o755)
        self.honest()
        self.path = f"{folder}:{processes.PATH}"

    def honest(self) -> None:
        """From now on the programs do what they say, and are counted anew."""
        for name in self.programs:
            (self._folder / f"lie.{name}").unlink(missing_ok=True)
            (self._folder / f"runs.{name}").write_text("")

    def runs(self) -> dict[str, int]:
        """How often each was run."""
        return {name: len((self._folder / f"runs.{name}").read_text()) for name in self.programs}

    def lie(self, name: str, run: int, lie: str, *, for_good: bool, stale: str) -> None:
        """Let a program lie at a run, from 1, or from then on."""
        last = 1_000_000 if for_good else run
        (self._folder / f"stale.{name}").write_text(stale)
        (self._folder / "lie.sh").write_text(lie)
        (self._folder / f"lie.{name}").write_text(f"{run} {last}\n")


@pytest.mark.long
def test_programs_lie(fault_bench: FaultBench, tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever run lies, once or from then on, and however."""
    bench, chance, table = fault_bench, random.Random(f"{seed} {fault_bench.bench.backend}"), Table()
    liars = Liars(tmp_path, bench.bench.backend.value)
    monkeypatch.setattr(processes, "PATH", liars.path)
    for name in ("LOOK_SECONDS", "PROGRAM_SECONDS"):
        monkeypatch.setattr(iptables, name, PROGRAM_SECONDS)
    broken: list[str] = []
    for name in bench.its_share(STEPS, seed):
        step = STEPS[name]
        lies = _all_lies(bench, step, liars)
        for place, (program, run, lie) in enumerate(chance.sample(lies, min(2 * LIES, len(lies)))):
            for_good = bool(place % 2)
            kinds = RESTORE_LIES if program.endswith("restore") else SAVE_LIES
            stale = bench.text(step.kernel, program)
            begin = partial(liars.lie, program, run, kinds[lie], for_good=for_good, stale=stale)

            def note(moment: str, begin: Callable[[], None] = begin) -> None:
                liars.honest()
                if moment == BEGIN:
                    begin()

            trial = bench.trial_here(step, note)
            found = list(bench.broken_promises(step, trial))
            if for_good and lie == STALE:
                found = [what for what in found if not what.startswith("step:")]
            table.add(f"{name}{', from then on' if for_good else ''}", trial.outcome, held=not found)
            broken += [f"{name}, run {run} of {program} {lie}: {what}" for what in found]
    print(f"{bench.bench.backend.value}\n{table}")
    assert not broken, "\n".join(broken)


def _all_lies(bench: FaultBench, step: Step, liars: Liars) -> list[tuple[str, int, str]]:
    """Each lie at each run of each program in a step."""
    counts: list[dict[str, int]] = []

    def note(moment: str) -> None:
        counts.append(liars.runs())
        if moment == BEGIN:
            liars.honest()

    trial = bench.trial_here(step, note)
    assert list(bench.broken_promises(step, trial)) == []
    assert bench.name_of(trial.found["step"]) == step.target
    return [
        (program, run, lie)
        for program, number in counts[1].items()
        for run in range(1, number + 1)
        for lie in (RESTORE_LIES if program.endswith("restore") else SAVE_LIES)
    ]
