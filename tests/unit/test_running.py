"""Programs that are run end in any case, whatever is raised while they are waited for."""

from __future__ import annotations

import os
import select
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fwguardd.kernel import processes
from fwguardd.kernel.processes import Command, Finished, ProgramTimeoutError, Running, run_all
from tests.waiting import LONGEST, must_end

if TYPE_CHECKING:
    from collections.abc import Callable

SLEEP = Command(["sleep", "3600"])


def _fails() -> None:
    raise MemoryError


def _descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The programs that are started, by their process ids."""
    found: list[int] = []
    spawn = os.posix_spawn

    def noted(*args: object, **named: object) -> int:
        found.append(spawn(*args, **named))  # type: ignore[arg-type]
        return found[-1]

    monkeypatch.setattr(os, "posix_spawn", noted)
    return found


def _assert_reaped(pids: list[int]) -> None:
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_a_program_is_killed_where_it_cannot_be_waited_for(started: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """A lack of memory while a program runs ends the program: it must not load rules while what it did is undone."""
    before = _descriptors()
    program = Running(SLEEP)
    monkeypatch.setattr(select, "poll", _fails)
    with must_end("the wait"), pytest.raises(MemoryError):
        program.finish(time.monotonic() + LONGEST)
    program.end()
    _assert_reaped(started)
    assert _descriptors() == before


def _second_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    spawn = processes.Running._start

    def start(self: Running, command: Command) -> int:
        if command.stdin:
            raise MemoryError
        return spawn(self, command)

    monkeypatch.setattr(processes.Running, "_start", start)


def _second_cannot_be_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(select, "poll", _fails)


@pytest.mark.parametrize("fault", [_second_fails, _second_cannot_be_waited_for])
def test_no_program_is_left_behind(
    started: list[int], monkeypatch: pytest.MonkeyPatch, fault: Callable[[pytest.MonkeyPatch], None]
) -> None:
    """Of two programs that run at the same time none goes on where the other one could not be started or waited for."""
    before = _descriptors()
    fault(monkeypatch)
    with must_end("the wait"), pytest.raises(MemoryError):
        run_all([SLEEP, Command(["sleep", "3600"], "text")], LONGEST)
    assert started
    _assert_reaped(started)
    assert _descriptors() == before


def test_a_program_that_is_not_in_time_is_killed(started: list[int]) -> None:
    """The error names the program; another one that has ended is reaped as well."""
    with pytest.raises(ProgramTimeoutError, match="sleep did not end within"):
        run_all([Command(["true"]), SLEEP], 0.2)
    _assert_reaped(started)


def test_what_programs_printed() -> None:
    """The results are in the order of the commands."""
    commands = [Command(["sh", "-c", "cat; exit 3"], "one"), Command(["sh", "-c", "echo two >&2"])]
    first, second = run_all(commands, LONGEST)
    assert (first.code, first.stdout, first.stderr) == (3, "one", "")
    assert second == Finished(commands[1].argv, 0, "", "two\n")
