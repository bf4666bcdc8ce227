"""A state directory that hangs: whoever uses the store goes on, and the disk catches up later."""

from __future__ import annotations

import errno
import threading
from functools import partial
from typing import TYPE_CHECKING

import pytest

from fwguardd.ruleset.model import Family
from fwguardd.store.background import MOST_REVISIONS, BackgroundStore
from fwguardd.store.durable import HostSystem
from fwguardd.store.model import FaultKind, HeldFiles, Kept, PendingConfirmation, StoreError, Unreadable
from fwguardd.store.revisions import RevisionStore
from tests.unit.test_revisions import revision
from tests.waiting import LONGEST, must_end, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PENDING = PendingConfirmation(2, 1, 1000.0, "boot", 2000.0, "digest")
TABLES = frozenset({(Family.IPV4, "nat")})


class Freezing(HostSystem):
    """A system on which every call that writes, or reads, waits while it is frozen."""

    def __init__(self) -> None:
        self.thawed = threading.Event()
        self.thawed.set()

    def open(self, path: Path, flags: int, mode: int) -> int:
        """As ever, or later."""
        assert self.thawed.wait(LONGEST)
        return super().open(path, flags, mode)


@pytest.fixture
def system() -> Iterator[Freezing]:
    """A system that thaws in the end."""
    made = Freezing()
    yield made
    made.thawed.set()


@pytest.fixture
def store(tmp_path: Path, system: Freezing) -> BackgroundStore:
    """A store with revision 1."""
    made = BackgroundStore(tmp_path / "state", system=system, within=LONGEST)
    made.record(revision(1))
    made._within = 0.05
    return made


def _thaw(store: BackgroundStore, system: Freezing) -> RevisionStore:
    """Let the disk catch up; what a process that starts then finds on it."""
    system.thawed.set()
    wait_until(lambda: not store.hangs, "the disk to catch up")
    return RevisionStore(store._directory)


def test_on_a_disk_that_answers_it_is_the_store(store: BackgroundStore, tmp_path: Path) -> None:
    """When a method returns, what it did is on the disk; and an error is raised where the store raises it."""
    store._within = LONGEST
    store.set_pending(PENDING)
    store.hold("digest", "reason")
    store.touch(TABLES)
    store.write_boot_files(revision(1))
    found = RevisionStore(tmp_path / "state")
    for one in (store, found):
        assert (one.pending(), one.held(), one.touched()) == (PENDING, HeldFiles("digest", "reason"), TABLES)
        assert (one.read_boot_revision(), [summary.number for summary in one.summaries()]) == (1, [1])
        assert isinstance(one.newest(), Kept)
    with pytest.raises(StoreError, match="used before"):
        store.record(revision(1, text="-j DROP"))
    assert (store.hangs, store.take_faults()) == ("", ())


def test_what_is_recorded_waits_for_the_disk_and_nobody_for_it(store: BackgroundStore, system: Freezing) -> None:
    """A revision, boot files and notes are written in their order once the disk answers. Until then they count as
    written, one fault says that they wait, and numbers go on."""
    system.thawed.clear()
    with must_end("recording on a disk that hangs"):
        for number in range(2, 6):
            assert store.next_number() == number
            store.touch(TABLES)
            store.record(revision(number))
            store.write_boot_files(revision(number))
            assert store.touched() == TABLES
            store.touch(frozenset())
            assert store.touched() == frozenset()
    (fault,) = store.take_faults()
    assert fault.kind is FaultKind.INACCESSIBLE
    assert "has not answered since" in fault.message
    assert "has not answered since" in store.faults()[-1].message
    found = _thaw(store, system)
    assert [summary.number for summary in found.summaries()] == [1, 2, 3, 4, 5]
    assert (found.read_boot_revision(), found.touched(), store.faults()[-1]) == (5, frozenset(), fault)
    assert [summary.number for summary in store.summaries()] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("before", [None, PENDING])
def test_a_promise_that_is_not_on_the_disk_is_refused(
    store: BackgroundStore, system: Freezing, before: PendingConfirmation | None
) -> None:
    """A pending confirmation is on the disk when the change is loaded, or the change is refused. The one that was
    refused is not there later either, and the one from before is."""
    if before is not None:
        store._within = LONGEST
        store.set_pending(before)
        store._within = 0.05
    system.thawed.clear()
    for _ in range(2):
        with must_end("a promise on a disk that hangs"), pytest.raises(StoreError, match="has not answered since"):
            store.set_pending(PendingConfirmation(3, 1, 5.0, "boot", 6.0, "another"))
        assert store.pending() == before
    with pytest.raises(StoreError, match="has not answered since"):
        store.hold("digest", "reason")
    found = _thaw(store, system)
    assert (found.pending(), found.held()) == (before, HeldFiles("digest", "reason"))


def test_what_cannot_be_read_now_is_unreadable(store: BackgroundStore, system: Freezing) -> None:
    """On a disk that hangs no revision counts as not kept, and what is known without the disk is still known."""
    system.thawed.clear()
    with must_end("reading on a disk that hangs"):
        readings = [store.get(1), store.newest(), store.boot_copy()]
        assert all(isinstance(reading, Unreadable) for reading in readings), readings
        assert [summary.number for summary in store.summaries()] == [1]
        assert (store.pending(), store.held()) == (None, None)
    _thaw(store, system)
    assert isinstance(store.get(1), Kept)


def test_an_error_that_comes_late_is_a_fault(
    store: BackgroundStore, system: Freezing, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody waits for the write any more when the disk refuses it: a fault says so."""
    system.thawed.clear()
    store.record(revision(2))
    store.take_faults()

    def refuse(_fd: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(system, "fsync", refuse)
    system.thawed.set()
    wait_until(lambda: not store.hangs, "the disk to catch up")
    (fault,) = store.take_faults()
    assert "revision 2 cannot be kept" in fault.message


def test_the_memory_for_what_waits_is_bounded(store: BackgroundStore, system: Freezing) -> None:
    """Of many revisions that wait, the newest are recorded, and each of the others is reported as lost."""
    system.thawed.clear()
    for number in range(2, MOST_REVISIONS + 6):
        store.record(revision(number))
    lost = [fault.message for fault in store.take_faults() if "is not recorded" in fault.message]
    found = _thaw(store, system)
    kept = [summary.number for summary in found.summaries()]
    assert kept[:2] == [1, 2]
    assert kept[-1] == MOST_REVISIONS + 5
    assert len(kept) == MOST_REVISIONS + 2
    assert len(lost) == 3


def test_a_directory_that_cannot_be_trusted_is_refused(tmp_path: Path) -> None:
    """Opening raises in the thread that opens."""
    (tmp_path / "state").mkdir()
    (tmp_path / "state").chmod(0o777)
    with pytest.raises(StoreError, match="cannot be trusted"):
        BackgroundStore(tmp_path / "state")


def test_a_store_that_cannot_be_read_after_it_was_opened_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever comes of the first look at what it holds is raised; nobody waits for a thread that has ended."""

    def fail(_store: RevisionStore) -> None:
        raise MemoryError

    monkeypatch.setattr(RevisionStore, "others", fail)
    with must_end("the opening of the store"), pytest.raises(MemoryError):
        BackgroundStore(tmp_path / "state")


def test_a_store_that_cannot_be_read_for_a_moment_goes_on(
    store: BackgroundStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One look that fails after a write is a fault, and does not end the thread."""
    store._within = LONGEST

    def fail(_store: RevisionStore) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(RevisionStore, "held", fail)
        store.record(revision(2))
    assert [fault.kind for fault in store.take_faults()] == [FaultKind.INACCESSIBLE]
    store.record(revision(3))
    assert [summary.number for summary in store.summaries()] == [1, 2, 3]
    assert not store.hangs


class Failing(HostSystem):
    """A system on which a file cannot be opened, with the errors that are given, one after the other."""

    def __init__(self, name: str, *errors: Exception) -> None:
        self._name, self._errors = name, list(errors)

    def open(self, path: Path, flags: int, mode: int) -> int:
        """As ever, or an error."""
        if path.name == self._name and self._errors:
            raise self._errors.pop(0)
        return super().open(path, flags, mode)


def test_a_defect_while_the_store_reads_is_reported(tmp_path: Path) -> None:
    """Whatever is raised when the store reads after a write what it could not read before, its thread goes on."""
    (tmp_path / "state").mkdir(mode=0o700)
    RevisionStore(tmp_path / "state").hold("digest", "reason")
    eio = OSError(errno.EIO, "Input/output error")
    system = Failing("held.json", eio, eio, RuntimeError("a defect"))
    store = BackgroundStore(tmp_path / "state", system=system, within=LONGEST)
    store.touch(TABLES)
    assert [fault.message.rpartition(": ")[2] for fault in store.take_faults()][1:] == ["a defect"]
    assert (store.touched(), store.held()) == (TABLES, HeldFiles("digest", "reason"))


def test_a_thread_that_found_no_memory_is_replaced(store: BackgroundStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the thread of the store ends for want of memory, after it has done a job, the next call starts another one:
    the job is not done twice, and what was recorded meanwhile is on the disk."""

    def fails(_job: object) -> None:
        raise MemoryError

    store._within = LONGEST
    done: list[int] = []
    with monkeypatch.context() as starved:
        starved.setattr(store, "_known_after", fails)
        store._within = 0.05
        store.later("something", partial(done.append, 1))
        wait_until(store._running.done, "the end of the thread")
    store._within = LONGEST
    store.touch(TABLES)
    wait_until(lambda: not store.hangs, "the disk to catch up")
    assert (store.touched(), done) == (TABLES, [1])
    assert RevisionStore(store._directory).touched() == TABLES
