"""A disk that is frozen: what is in force is guarded all the same."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.netns.crashing import A
from tests.netns.frozen_disk import FreezableDisk
from tests.netns.opened import SETTINGS, flush, wait_for
from tests.waiting import LONGEST, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.netns.crashing import Saved

    Start = Callable[..., Any]

pytestmark = pytest.mark.either_backend

RULE = "-A INPUT -s 192.0.2.1/32 -j DROP"


@pytest.fixture
def freezable(start_daemon: Start) -> Iterator[tuple[Any, FreezableDisk]]:
    """A daemon on A, and its disk."""
    daemon = start_daemon(A, SETTINGS, enter=FreezableDisk.enter)
    disk = FreezableDisk(daemon.process.pid)
    yield daemon, disk
    disk.close()


def test_a_frozen_disk(freezable: tuple[Any, FreezableDisk], saved: Saved, backend: str) -> None:
    """What is in force is guarded while nothing can be recorded, and a change is recorded once the disk is back."""
    daemon, disk = freezable
    daemon.event("rules.applied", revision=1)
    daemon.end_pass()
    disk.freeze()
    daemon.drop("50-more.rules", f"{RULE}\n")
    # A flush before the end of the pass would undo the change, which then waits for the disk.
    wait_until(lambda: daemon.ask("status")["in_force"]["revision"] == 2, "the change", pause=0.05)
    assert RULE in saved()["ipv4"]
    assert disk.waited.wait(LONGEST)
    wanted = saved()
    flush(backend)
    wait_for(saved, wanted)
    disk.thaw()
    wait_until(lambda: daemon.ask("history")["revisions"][0]["revision"] == 2, "the record", pause=0.1)
    assert RULE in saved()["ipv4"]
