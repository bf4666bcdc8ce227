"""Changes and their authors, with the real kernel: short-lived programs are named, and nothing wakes a thread in vain.

The kernel sends process events only to the initial network namespace, so their socket is opened by the thread that
stays there; they report processes of all namespaces. The notices are those of the test's own namespace.
"""

from __future__ import annotations

import os
import queue
import subprocess
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fwguardd.kernel import process_watch
from fwguardd.kernel.attribution import Author, read_author
from fwguardd.kernel.cgroups import ProcessKind, kind_of
from fwguardd.kernel.changes import Change, ChangeReader
from fwguardd.kernel.generations import Generation, GenerationNotices
from fwguardd.kernel.process_events import ProcessEvents, ProcessEventsUnavailableError, try_process_events
from fwguardd.kernel.process_watch import ProcessWatch
from tests.netns.namespaces import OUTSIDE
from tests.waiting import LONGEST, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

COMMITS = 20
ADD = "iptables-nft -A INPUT -s 192.0.2.1/32 -j ACCEPT"


def open_outside() -> ProcessEvents:
    """Process events, which must be available to a test that runs as root in the initial namespaces."""
    return OUTSIDE.submit(ProcessEvents).result()


@pytest.fixture
def watch() -> Iterator[ProcessWatch]:
    """A watch of all processes of this machine."""
    with ProcessWatch(open_outside) as opened:
        yield opened


class Taken:
    """What a reader delivers, as one queue."""

    def __init__(self) -> None:
        self.changes: queue.SimpleQueue[Change] = queue.SimpleQueue()

    def deliver(self, changes: Sequence[Change]) -> None:
        """Called from the reader's thread."""
        for change in changes:
            self.changes.put(change)

    def failed(self, error: Exception) -> None:
        """Never in these tests."""
        raise AssertionError(error)

    def next(self) -> Change:
        """The next change."""
        return self.changes.get(timeout=LONGEST)


def own_kind() -> ProcessKind:
    """The kind of this process, and so of its children."""
    return kind_of(Path("/proc/self/cgroup").read_text(encoding="utf-8"))


def test_the_author_of_each_commit_is_known(watch: ProcessWatch) -> None:
    """20 commits by a shell that ends at once: each has its process, and each says whether that was a service."""
    taken = Taken()
    with (
        GenerationNotices() as notices,
        ChangeReader(notices, watch, taken.deliver, taken.failed, lambda _pid: False),
    ):
        for _ in range(COMMITS):
            subprocess.run(["sh", "-c", f"{ADD}; :"], check=True)
        changes = [taken.next() for _ in range(COMMITS)]
    authors = [change.author for change in changes if change.author is not None]
    assert len(authors) == COMMITS
    for change, author in zip(changes, authors, strict=True):
        assert isinstance(change.notice, Generation)
        assert (author.pid, author.process) == (change.notice.pid, "iptables-nft")
        assert author.command in (None, ADD)
        assert author.parent in (None, "sh")
    assert [author.kind for author in authors] == [own_kind()] * COMMITS
    print(f"of {COMMITS} authors {sum(author.command is not None for author in authors)} had a command")


def test_a_process_that_has_ended_is_known_by_its_parent(watch: ProcessWatch) -> None:
    """Nothing was read of it, but the kernel has reported which process made it."""
    process = subprocess.Popen(["true"])
    process.wait()
    author = watch.completed(Author(process.pid, "true"), process.pid)
    assert (author.pid, author.process, author.command, author.uid) == (process.pid, "true", None, None)
    assert (author.parent_pid, author.kind) == (os.getpid(), own_kind())


def test_a_process_whose_parent_has_ended_too_has_a_kind_only(watch: ProcessWatch) -> None:
    """Of an ancestor further up only the kind is taken: it is not the parent."""
    shell = subprocess.run(["sh", "-c", "true & echo $!; wait"], check=True, capture_output=True, text=True)
    pid = int(shell.stdout)
    author = watch.completed(Author(pid, "true"), pid)
    assert author == Author(pid, "true", kind=own_kind())


def test_a_program_that_changes_rules_is_read_when_it_starts(watch: ProcessWatch) -> None:
    """One that waits for its input has been read, with all that was known then, before it commits."""
    process = subprocess.Popen(["iptables-nft-restore", "--noflush"], stdin=subprocess.PIPE)
    seen: list[Author] = []

    def is_read() -> bool:
        seen[:] = [watch.completed(Author(process.pid, "iptables-nft-re"), process.pid)]
        return seen[0].command is not None

    wait_until(is_read, "the process")
    process.communicate()
    assert seen[0].command == "iptables-nft-restore --noflush"
    assert (seen[0].parent_pid, seen[0].uid, seen[0].kind) == (os.getpid(), os.getuid(), own_kind())


def test_a_running_process_that_is_another_one_is_not_mixed_up(watch: ProcessWatch) -> None:
    """What /proc contains now counts where it started at another time than what is remembered."""
    running = read_author(os.getpid())
    assert watch.completed(running, os.getpid()) == running


def test_without_process_events_proc_has_to_do() -> None:
    """Elsewhere than in the initial network namespace there are none: changes arrive all the same, with what /proc
    contains at the notice."""
    with pytest.raises(ProcessEventsUnavailableError, match="only in the initial network namespace"):
        ProcessEvents()
    taken = Taken()
    with (
        GenerationNotices() as notices,
        ProcessWatch(try_process_events) as none,
        ChangeReader(notices, none, taken.deliver, taken.failed, lambda _pid: False),
    ):
        assert not none.working
        subprocess.run(ADD.split(), check=True)
        author = taken.next().author
    assert author is not None
    assert author.process == "iptables-nft"


def test_the_thread_that_compares_does_not_wait_for_the_reader(watch: ProcessWatch) -> None:
    """Where the reader's thread has not run yet, the authors by now include the process that has just ended. Each
    change is given once, and those of our own processes are not."""
    taken, own = Taken(), set[int]()
    with GenerationNotices() as notices:
        reader = ChangeReader(notices, watch, taken.deliver, taken.failed, own.__contains__)
        with subprocess.Popen(ADD.split()) as process:
            own.add(process.pid)
        with subprocess.Popen(ADD.split()) as other:
            pass
        assert [author.pid for author in reader.authors_by_now(LONGEST).processes] == [other.pid]
        assert not reader.authors()
    assert [taken.next().author is None for _ in range(2)] == [True, False]


def test_our_own_processes_are_not_read(watch: ProcessWatch) -> None:
    """Their changes are delivered without an author."""
    taken = Taken()
    with (
        GenerationNotices() as notices,
        ChangeReader(notices, watch, taken.deliver, taken.failed, lambda _pid: True),
    ):
        subprocess.run(ADD.split(), check=True)
        assert taken.next().author is None


def test_too_many_events_suspend_them_for_a_while(watch: ProcessWatch, monkeypatch: pytest.MonkeyPatch) -> None:
    """Above the bound nothing is read or remembered; after the suspension events are read again."""
    monkeypatch.setattr(process_watch, "MOST_EVENTS", 0)
    monkeypatch.setattr(process_watch, "SUSPENDED_FOR", 0.2)
    process = subprocess.Popen(["true"])
    process.wait()
    assert watch.completed(Author(process.pid, "true"), process.pid) == Author(process.pid, "true")
    monkeypatch.undo()
    wait_until(lambda: watch.working, "events after the suspension")
    process = subprocess.Popen(["true"])
    process.wait()
    assert watch.completed(Author(process.pid, "true"), process.pid).parent_pid == os.getpid()


def test_nothing_wakes_a_reader_while_nothing_happens() -> None:
    """The thread of the notices has not run at all after a while without a notice."""
    taken = Taken()
    with (
        GenerationNotices() as notices,
        ProcessWatch(lambda: None) as none,
        ChangeReader(notices, none, taken.deliver, taken.failed, lambda _pid: False),
    ):
        threads = {thread.name: thread.native_id for thread in threading.enumerate()}
        assert "process-watch" not in threads
        status = Path(f"/proc/self/task/{threads['change-reader']}/status")

        def does_not_run() -> bool:
            before = _switches(status)
            time.sleep(0.3)
            return _switches(status) == before

        wait_until(does_not_run, "a while in which the thread does not run")


def _switches(status: Path) -> list[str]:
    """How often a thread has stopped running."""
    return [line for line in status.read_text().splitlines() if "ctxt_switches" in line]
