"""Counts of work, which are the same on a busy machine as on a quiet one: for rules such as "no work is quadratic"."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType


_TICKS = os.sysconf("SC_CLK_TCK")


def steps(work: Callable[[], object]) -> int:
    """The lines of Python that a function executes in this thread, each turn of a loop counted (sys.settrace)."""
    count = 0

    def trace(_frame: FrameType, event: str, _argument: Any) -> Any:
        nonlocal count
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)
    return count


def voluntary_switches(pid: int) -> int:
    """How often the threads of a process have gone to sleep so far (proc_pid_status(5), voluntary_ctxt_switches)."""
    found = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        status = (task / "status").read_text(encoding="ascii")
        found += int(status.partition("\nvoluntary_ctxt_switches:")[2].split()[0])
    return found


def processor_seconds(pid: int) -> float:
    """The time of the processor that a process has used so far, in user and kernel mode (proc_pid_stat(5))."""
    words = _stat(pid)
    return (int(words[11]) + int(words[12])) / _TICKS


def faults_of_ended_children(pid: int) -> int:
    """Page faults of the children that a process has waited for: more with each program that it ran (proc_pid_stat(5),
    cminflt)."""
    return int(_stat(pid)[8])


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the third on."""
    return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
