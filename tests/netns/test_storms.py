"""Whatever waits, or asks without end: rules that another program removes meanwhile are put back.

A log that nobody reads, or whose reader has gone; members of a group that ask for large
revisions; a change that removes thousands of rules.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
from typing import TYPE_CHECKING, Any

import pytest

from fwguardd.control.client import DaemonUnreachableError, RequestRefusedError, ask
from tests.netns.crashing import A
from tests.netns.opened import SETTINGS, flush, wait_for
from tests.scale import scaled
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.netns.crashing import Saved

    Start = Callable[..., Any]

pytestmark = pytest.mark.either_backend

SMALLEST_PIPE = 4096
FLUSHES = 5
"""Each emits more than a kilobyte, and the smallest pipe takes four."""

ASKING = 24
MANY = scaled(gate=2000, long=10_000)
LARGE = {"10-large.rules": "-P INPUT DROP\n" + "".join(
    f"-A INPUT -s 10.{number // 250}.{number % 250}.0/24 -j ACCEPT\n-A INPUT -s 2001:db8:{number:x}::/48 -j ACCEPT\n"
    for number in range(MANY)
)}  # fmt: skip


def _started(daemon: Any, saved: Saved) -> dict[str, list[str]]:
    """Wait for the first pass of a daemon whose events are not read; what is loaded then."""

    def in_force() -> bool:
        with contextlib.suppress(DaemonUnreachableError):
            return daemon.ask("status")["in_force"] is not None
        return False

    wait_until(in_force, "the first pass", pause=0.1)
    return saved()


@pytest.mark.parametrize("closed", [False, True], ids=["unread", "closed"])
def test_a_log_that_takes_nothing(
    start_daemon: Start,
    saved: Saved,
    backend: str,
    tmp_path: Path,
    closed: bool,  # noqa: FBT001
) -> None:
    """A pipe that is full or closed neither stops nor ends the daemon."""
    fifo = tmp_path / "events"
    os.mkfifo(fifo)
    reading = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    daemon = start_daemon(A, SETTINGS, enter=("sh", "-c", f'exec "$@" >{fifo}', "sh"))
    fcntl.fcntl(reading, fcntl.F_SETPIPE_SZ, SMALLEST_PIPE)
    wanted = _started(daemon, saved)
    if closed:
        os.close(reading)
    for _ in range(FLUSHES):
        flush(backend)
        wait_for(saved, wanted)
        daemon.ask("resume")  # So many repairs of one chain would be a fight.
    assert daemon.ask("status")["in_force"]["revision"] == 1
    assert daemon.stop() == 0
    if not closed:
        os.close(reading)


def test_many_ask_for_large_revisions(start_daemon: Start, saved: Saved, backend: str, tmp_path: Path) -> None:
    """Clients that ask for a large revision without pause are answered or refused, and the guard does not wait."""
    daemon = start_daemon(LARGE, SETTINGS)
    daemon.event("rules.applied", revision=1)
    wanted, control, ended = saved(), tmp_path / "run" / "control.sock", threading.Event()

    def ask_without_pause() -> None:
        while not ended.is_set():
            with contextlib.suppress(RequestRefusedError, DaemonUnreachableError):
                ask(control, "show", {"revision": 1})

    asking = [threading.Thread(target=ask_without_pause) for _ in range(ASKING)]
    for thread in asking:
        thread.start()
    try:
        flush(backend)
        daemon.event("drift.repaired")
        wait_for(saved, wanted)
    finally:
        ended.set()
        for thread in asking:
            thread.join()


def test_thousands_of_rules_are_removed(start_daemon: Start, saved: Saved, backend: str) -> None:
    """The change ends, and what was flushed meanwhile is put back."""
    daemon = start_daemon(LARGE, SETTINGS)
    daemon.event("rules.applied", revision=1)
    few = LARGE["10-large.rules"].splitlines(keepends=True)[:: MANY // 4]
    daemon.drop("10-large.rules", "-P INPUT DROP\n" + "".join(line for line in few if line.startswith("-A")))
    daemon.event("rules.applied", revision=2)
    wanted = saved()
    assert sum(line.startswith("-A") for line in wanted["ipv4"]) < 10
    flush(backend)
    daemon.event("drift.repaired")
    assert saved() == wanted
