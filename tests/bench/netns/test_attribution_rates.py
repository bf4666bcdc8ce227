"""How often the author of a change is found on a busy machine, and what that costs where many programs are started."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from fwguardd.interpreter import SWITCH_INTERVAL
from fwguardd.kernel.cgroups import ProcessKind
from fwguardd.kernel.changes import Change, ChangeReader
from fwguardd.kernel.generations import GenerationNotices
from fwguardd.kernel.process_events import try_process_events
from fwguardd.kernel.process_watch import ProcessWatch
from tests.netns.namespaces import OUTSIDE
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fwguardd.kernel.process_events import ProcessEvents
    from tests.bench.conftest import Recorder

    Rounds = Callable[[int], int]

BUSY = 9
"""Processes that never sleep."""
ADD = "for number in $(seq {}); do sh -c 'iptables-nft -A INPUT -s 192.0.2.1 -j ACCEPT; :'; done"
"""A shell for each commit, which ends at once as the program does."""


def open_outside() -> ProcessEvents | None:
    """Process events reach only the initial network namespace."""
    return OUTSIDE.submit(try_process_events).result()


def no_events() -> ProcessEvents | None:
    """As on a host where they cannot be used."""
    return None


@contextmanager
def busy_machine(*, with_pass: bool) -> Iterator[None]:
    """Busy processes, and a thread that computes as the worker thread does during a pass."""
    loops = [subprocess.Popen(["sh", "-c", "while :; do :; done"]) for _ in range(BUSY)]
    ended = threading.Event()

    def compute() -> None:
        while not ended.is_set():
            sum(number * number for number in range(1000))

    worker = threading.Thread(target=compute)
    if with_pass:
        worker.start()
    interval = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_INTERVAL)
    try:
        yield
    finally:
        sys.setswitchinterval(interval)
        ended.set()
        if with_pass:
            worker.join()
        for loop in loops:
            loop.kill()
            loop.wait()


@pytest.mark.parametrize("with_pass", [False, True], ids=["idle", "in a pass"])
@pytest.mark.parametrize("open_events", [no_events, open_outside], ids=["proc only", "process events"])
def test_how_often_an_author_is_found(
    open_events: Callable[[], ProcessEvents | None], *, with_pass: bool, record: Recorder, rounds: Rounds
) -> None:
    """500 commits one after the other: whether it was a service, the user and the command line."""
    commits = rounds(500)
    changes: list[Change] = []
    with (
        busy_machine(with_pass=with_pass),
        GenerationNotices() as notices,
        ProcessWatch(open_events) as watch,
        ChangeReader(notices, watch, changes.extend, print, lambda _pid: False),
    ):
        subprocess.run(["sh", "-c", ADD.format(commits)], check=True)
        wait_until(lambda: len(changes) >= commits, "the notices")
    authors = [change.author for change in changes if change.author is not None]
    known = {
        "kind": sum(author.kind is not ProcessKind.UNKNOWN for author in authors),
        "user": sum(author.uid is not None for author in authors),
        "command": sum(author.command is not None for author in authors),
    }
    situation = f"{'process events' if watch.working else '/proc only'}, {'in a pass' if with_pass else 'no pass'}"
    for what, count in known.items():
        record(f"authors whose {what} is known ({situation})", "%", [100 * count / commits])


def test_what_a_watched_program_start_costs(record: Recorder, rounds: Rounds) -> None:
    """Processor time of this process for each program that is started, while they are started one after the other."""
    spent: list[float] = []
    with ProcessWatch(open_outside) as watch:
        for _ in range(rounds(10)):
            begun = time.process_time()
            starts = 500
            # The shell makes the processes, so that their making does not count.
            subprocess.run(["sh", "-c", f"for n in $(seq {starts}); do /bin/true; done"], check=True)
            spent.append(1e6 * (time.process_time() - begun) / starts)
        record(f"a program start that is watched ({os.cpu_count()} processors)", "µs", spent)
        assert watch.working
