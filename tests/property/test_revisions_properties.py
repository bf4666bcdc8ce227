"""The store of revisions under crashes, power cuts, refusals and rot, and what goes in and comes out of it."""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import signal
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fwguardd.kernel.iptables import Backend
from fwguardd.ruleset.model import FAMILIES, Chain, Family, Origin, Rule, RuleFile, Ruleset, Table
from fwguardd.store.boot_files import boot_texts
from fwguardd.store.durable import HostSystem
from fwguardd.store.model import Kept, Reading, Unreadable, UnreadableNote
from fwguardd.store.revisions import (
    Expired,
    HeldFiles,
    PendingConfirmation,
    Revision,
    RevisionKind,
    RevisionStore,
    StoreError,
    Waiting,
    evaluate_pending,
)
from tests.property.unreliable_disk import MemoryDisk, StoppedError, Tapped, failing_at, stopping_at
from tests.scale import examples, sampled, scaled, thinned

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from fwguardd.store.durable import System

STATE = Path("/state")

ANY_TEXT = st.one_of(
    st.text(max_size=12),
    st.text(st.characters(exclude_categories=()), max_size=8),
    st.binary(max_size=8).map(os.fsdecode),
    st.sampled_from(["", "\ud800\udc00", "\x00", "\n", '"', "/etc/fwguard.d/10-a.rules"]),
)
"""Any text that Python can hold, with what stands for bytes that are no UTF-8 among it."""
ORIGINS = st.none() | st.builds(Origin, ANY_TEXT, st.integers(0, 1 << 40))
RULES = st.builds(Rule, ANY_TEXT, ORIGINS)
POLICIES = st.sampled_from([None, "ACCEPT", "DROP"])
CHAINS = st.builds(Chain, ANY_TEXT, POLICIES, st.lists(RULES, max_size=4).map(tuple), ORIGINS)
CHAIN_MAPS = st.lists(CHAINS, max_size=3).map(lambda chains: {chain.name: chain for chain in chains})
TABLES = st.lists(st.tuples(ANY_TEXT, CHAIN_MAPS), max_size=3).map(
    lambda tables: {name: Table(name, chains) for name, chains in tables}
)
RULESETS = st.dictionaries(st.sampled_from(FAMILIES), TABLES).map(
    lambda tables: {family: Ruleset(family, named) for family, named in tables.items()}
)
DATA = st.binary(max_size=40) | st.text(max_size=20).map(str.encode)
FILES = st.lists(st.builds(RuleFile, ANY_TEXT, DATA), max_size=3).map(tuple)
SECONDS = st.floats(allow_nan=False, allow_infinity=False)
NUMBERS = st.integers(1, 1 << 40)
REVISIONS = st.builds(
    Revision,
    number=NUMBERS,
    when=SECONDS,
    cause=ANY_TEXT,
    by=ANY_TEXT,
    backend=st.sampled_from(Backend),
    tool_version=ANY_TEXT,
    kernel=ANY_TEXT,
    digest=ANY_TEXT,
    files=FILES,
    rulesets=RULESETS,
    kind=st.sampled_from(RevisionKind),
)
PENDINGS = st.builds(PendingConfirmation, NUMBERS, st.none() | NUMBERS, SECONDS, ANY_TEXT, SECONDS, ANY_TEXT)


@settings(max_examples=examples(100))
@given(REVISIONS)
def test_a_revision_comes_back_as_it_was(revision: Revision) -> None:
    """What is recorded is what is read, by the same store and by the next one, with the origins of rules and chains,
    which take no part in a comparison, and with tables and chains in their order.
    """
    disk = MemoryDisk()
    RevisionStore(STATE, system=disk).record(revision)
    store = RevisionStore(STATE, system=disk.after_kill())
    kept = store.get(revision.number)
    assert isinstance(kept, Kept)
    read = kept.revision
    assert repr(read) == repr(revision)
    assert asdict(read) == asdict(revision)
    assert store.summaries() == (revision.summary,)
    assert store.newest() == kept
    assert store.next_number() == revision.number + 1
    assert store.take_faults() == ()


@given(PENDINGS, ANY_TEXT, ANY_TEXT)
def test_notes_come_back_as_they_were(pending: PendingConfirmation, digest: str, reason: str) -> None:
    """A pending confirmation and a held digest are what the next process reads."""
    disk = MemoryDisk()
    store = RevisionStore(STATE, system=disk)
    store.set_pending(pending)
    store.hold(digest, reason)
    again = RevisionStore(STATE, system=disk.after_kill())
    assert (again.pending(), again.held()) == (pending, HeldFiles(digest, reason))
    again.clear_pending()
    again.release()
    assert (again.pending(), again.held()) == (None, None)
    assert again.take_faults() == ()


@given(PENDINGS, ANY_TEXT, SECONDS, SECONDS)
def test_only_the_time_since_boot_decides(pending: PendingConfirmation, boot: str, now: float, wall: float) -> None:
    """Another boot ends a confirmation; in the same boot the deadline does, and the wall clock has no say."""
    moved = replace(pending, wall_deadline=wall)
    assert evaluate_pending(moved, boot, now) == evaluate_pending(pending, boot, now)
    assert boot == pending.boot_id or isinstance(evaluate_pending(pending, boot, now), Expired)
    here = evaluate_pending(pending, pending.boot_id, now)
    if now < pending.deadline:
        assert here == Waiting(pending.deadline - now)
    else:
        assert isinstance(here, Expired)


# What follows plays the same scene on unreliable disks: a store with a history, and one change to it.


@functools.cache
def _revision(number: int, *, kind: RevisionKind = RevisionKind.RULES) -> Revision:
    """A revision like no other number's, long enough to be written in several calls."""
    path = "/etc/fwguard.d/10-\udcff.rules"
    rules = tuple(
        Rule(f"-p tcp -m tcp --dport {number * 100 + at} -j ACCEPT", Origin(path, at + 1)) for at in range(12)
    )
    rulesets = {
        family: Ruleset(family, {"filter": Table("filter", {"INPUT": Chain("INPUT", "DROP", rules, Origin(path, 0))})})
        for family in FAMILIES
    }
    files = (RuleFile(path, b"-A INPUT -j ACCEPT # \xff%d" % number),)
    return Revision(
        number, 17e8 + number, "change", "", Backend.NFT, "v1.8.9", "6.1", f"{number:x}", files, rulesets, kind
    )


def _pending(number: int) -> PendingConfirmation:
    return PendingConfirmation(number, number - 1, 60.0 + number, "boot", 17e8, f"{number:x}")


@dataclass(frozen=True)
class Contents:
    """All that a store says."""

    summaries: tuple[object, ...]
    latest: Reading
    boot: int | None
    pending: PendingConfirmation | UnreadableNote | None
    held: HeldFiles | UnreadableNote | None


def _contents(store: RevisionStore) -> Contents:
    return Contents(store.summaries(), store.newest(), store.read_boot_revision(), store.pending(), store.held())


CHANGES: Mapping[str, Callable[[RevisionStore], None]] = {
    "record": lambda store: store.record(_revision(5)),
    "boot files": lambda store: store.write_boot_files(_revision(4)),
    "boot files again": lambda store: store.write_boot_files(_revision(3)),
    "set pending": lambda store: store.set_pending(_pending(5)),
    "clear pending": lambda store: store.clear_pending(),
    "hold": lambda store: store.hold("new", "rolled back"),
    "release": lambda store: store.release(),
}
"""What is done to the store. It keeps 2 revisions, and what boot files and a pending confirmation need."""


POWER_CUTS = scaled(gate=1, long=90)
"""Times that the power is cut before each call; what the disk makes of it is random."""


def _history(state: Path, system: System) -> None:
    store = RevisionStore(state, keep=2, system=system)
    for number in range(1, 5):
        store.record(_revision(number))
    store.write_boot_files(_revision(3))
    store.set_pending(_pending(4))
    store.hold("old", "not confirmed")


def _scene() -> MemoryDisk:
    return _first_scene().after_kill()


@functools.cache
def _first_scene() -> MemoryDisk:
    disk = MemoryDisk()
    disk.mkdir(STATE, 0o700)
    _history(STATE, disk)
    # What a removal leaves on the disk until it is forced is no part of the scene.
    for directory in (STATE, STATE / "revisions"):
        fd = disk.open(directory, os.O_RDONLY, 0)
        disk.fsync(fd)
        disk.close(fd)
    return disk


def _open(system: System, state: Path = STATE) -> RevisionStore:
    return RevisionStore(state, keep=2, system=system)


@functools.cache
def _before_and_after(change: str) -> tuple[Contents, Contents]:
    store = _open(_scene())
    before = _contents(store)
    CHANGES[change](store)
    return before, _contents(store)


def _calls(act: Callable[[System], object], system: System) -> int:
    tapped = Tapped(system, stopping_at(None))
    act(tapped)
    return len(tapped.calls)


@functools.cache
def _calls_of(change: str) -> int:
    """How many calls it takes to open the store and make the change."""
    return _calls(lambda system: CHANGES[change](_open(system)), _scene())


def _refusal(change: str, store: RevisionStore) -> str | None:
    """Make the change. The message of the StoreError that it ends in."""
    try:
        CHANGES[change](store)
    except StoreError as error:
        return str(error)
    return None


def _assert_whole(store: RevisionStore, before: Contents, after: Contents) -> None:
    """The store says the old or the new of each thing, nothing is damaged, and it goes on from there."""
    assert store.take_faults() == ()
    contents = _contents(store)
    assert contents.latest in (before.latest, after.latest)
    assert repr(contents.latest) in (repr(before.latest), repr(after.latest))
    assert contents.boot in (before.boot, after.boot)
    assert contents.pending in (before.pending, after.pending)
    assert contents.held in (before.held, after.held)
    assert set(contents.summaries) <= {*before.summaries, *after.summaries}
    assert set(contents.summaries) >= {*before.summaries} & {*after.summaries}
    number = store.next_number()
    assert number in (5, 6)
    store.record(_revision(number))
    store.write_boot_files(_revision(number))
    assert store.newest() == Kept(_revision(number))
    assert store.read_boot_revision() == number


def _assert_boot_files_whole(disk: MemoryDisk) -> None:
    """The set that the symlink leads to is, byte for byte, that of one revision."""
    directory = STATE / disk.readlink(STATE / "boot")
    found = {path.name: disk.data(path) for path in disk.files(directory)}
    assert found in [_boot_texts(number) for number in (3, 4)]


@functools.cache
def _boot_texts(number: int) -> Mapping[str, bytes]:
    return boot_texts(_revision(number))


def _stop(change: str, system: System, number: int) -> bool:
    """Make the change and end the process before the call with this number. Whether it came to its end."""
    with contextlib.suppress(StoppedError):
        CHANGES[change](_open(Tapped(system, stopping_at(number))))
        return True
    return False


@pytest.mark.parametrize("change", CHANGES)
def test_a_power_cut_before_any_call_leaves_the_old_or_the_new(change: str, seed: int) -> None:
    """Cut the power before any call of opening the store and changing it: whatever the disk then makes of what was
    not forced, the next boot finds a store that opens, nothing damaged in it, each thing old or new, and the boot
    files one whole set. What came to its end is there.
    """
    before, after = _before_and_after(change)
    random = Random(f"{seed} {change}")
    for number in thinned([*range(_calls_of(change) + 1)] * POWER_CUTS):
        disk = _scene()
        ended = _stop(change, disk, number)
        found = disk.after_power_cut(random.randrange)
        _assert_boot_files_whole(found)
        store = _open(found)
        assert not ended or _contents(store) == after
        _assert_whole(store, before, after)


@pytest.mark.parametrize("change", CHANGES)
def test_a_power_cut_after_a_kill_leaves_the_old_or_the_new(change: str, seed: int) -> None:
    """The same, where first the process is killed, and the power is cut while the next one opens the store, or after
    it has said what is there: what it said is what the next boot finds.
    """
    before, after = _before_and_after(change)
    random = Random(f"{seed} {change}")
    for number in thinned([*range(_calls_of(change))] * POWER_CUTS):
        disk = _scene()
        _stop(change, disk, number)
        disk = disk.after_kill()
        contents: Contents | None = None
        with contextlib.suppress(StoppedError):
            last = random.choice([None, random.randrange(_calls(_open, disk.after_kill()))])
            store = _open(Tapped(disk, stopping_at(last)))
            contents = _contents(store)
        found = disk.after_power_cut(random.randrange)
        _assert_boot_files_whole(found)
        store = _open(found)
        assert contents is None or _contents(store) == contents
        _assert_whole(store, before, after)


@pytest.mark.parametrize("change", CHANGES)
def test_a_kill_on_the_real_system_leaves_the_old_or_the_new(change: str, tmp_path: Path, seed: int) -> None:
    """Kill a real process with SIGKILL before any call that it makes: each thing is old or new, nothing is damaged."""
    before, after = _before_and_after(change)
    for number in sampled(range(_calls_of(change)), seed, 4):
        state = tmp_path / str(number)
        _history(state, _Unforced())
        child = os.fork()
        if child == 0:
            system = Tapped(_Unforced(), _killing_at(number))
            CHANGES[change](_open(system, state))
            os._exit(0)
        _, status = os.waitpid(child, 0)
        assert os.WIFSIGNALED(status)
        _assert_whole(_open(_Unforced(), state), before, after)


class _Unforced(HostSystem):
    """The host without its slow disk. A kill takes nothing from the page cache, so that nothing hangs on it here."""

    def fsync(self, fd: int) -> None:
        assert fd >= 0


REFUSALS = (errno.ENOSPC, errno.EROFS, errno.EIO)
"""Codes of a call that fails."""

START_REFUSALS = (*REFUSALS, errno.EACCES)
"""The same at a start."""


def _killing_at(number: int) -> Callable[[int, str], None]:
    def reached(call: int, _name: str) -> None:
        if call == number:
            os.kill(os.getpid(), signal.SIGKILL)

    return reached


@pytest.mark.parametrize("code", REFUSALS)
@pytest.mark.parametrize("for_good", [True, False])
@pytest.mark.parametrize("change", CHANGES)
def test_a_refusal_of_any_call_is_a_store_error(change: str, code: int, for_good: bool, seed: int) -> None:  # noqa: FBT001
    """Let any call of a change fail, once or from then on: the change is made, or a StoreError names the place and the
    fault. Either way the store tells what the next process finds, a power cut leaves the old or the new, and the
    change can be made once the fault is gone. Each run meets each call, with one of the codes.
    """
    before, after = _before_and_after(change)
    tapped = Tapped(_scene(), stopping_at(None))
    store = _open(tapped)
    opening = len(tapped.calls)
    CHANGES[change](store)
    calls = range(opening, len(tapped.calls))
    for number in sampled(calls, seed + REFUSALS.index(code), len(REFUSALS)):
        disk = _scene()
        faulty = Tapped(disk, failing_at(number, code, for_good=for_good))
        store = _open(faulty)
        refusal = _refusal(change, store)
        assert refusal is None or (os.strerror(code) in refusal and str(STATE) in refusal)
        for cut in range(10):
            _assert_boot_files_whole(disk.after_power_cut(Random(cut).randrange))
        _assert_whole(_open(disk.after_power_cut(Random(number).randrange)), before, after)
        contents = _contents(_open(disk.after_kill()))
        faulty._reached = stopping_at(None)
        assert _contents(store) == contents
        assert contents in (before, after) or change == "record"
        CHANGES[change](store)
        assert _contents(store) == after
        _assert_whole(_open(disk.after_kill()), before, after)


@pytest.mark.parametrize("code", START_REFUSALS)
@pytest.mark.parametrize("for_good", [True, False])
def test_a_refusal_of_any_call_is_no_reason_not_to_start(code: int, for_good: bool, seed: int) -> None:  # noqa: FBT001
    """Let any call of opening fail, once or from then on: the store opens and tells a fault or everything; and once
    the fault is gone, a new revision gets a number that was never used. Each run meets each call, with one of the
    codes.
    """
    whole = _contents(_open(_scene()))
    for number in sampled(range(_calls(_open, _scene())), seed + START_REFUSALS.index(code), len(START_REFUSALS)):
        disk = _scene()
        faulty = Tapped(disk, failing_at(number, code, for_good=for_good))
        store = _open(faulty)
        faulty._reached = stopping_at(None)
        assert store.take_faults() or _contents(store) == whole
        with contextlib.suppress(StoreError):
            store.record(_revision(store.next_number()))
        store.record(_revision(store.next_number()))
        found = _open(disk.after_kill()).newest()
        assert isinstance(found, Kept)
        assert found.revision.number in (5, 6)
        assert repr(found.revision) == repr(_revision(found.revision.number))


@settings(max_examples=examples(150))
@given(st.data())
def test_rot_anywhere_is_noticed(data: st.DataObject) -> None:
    """Change, cut off or add a byte anywhere in any file: the file is named, set aside, and everything else is there;
    the store goes on, and the next start finds nothing amiss any more.
    """
    disk = _scene()
    before = _contents(_open(disk))
    path = data.draw(st.sampled_from(sorted(disk.files(STATE))))
    good = disk.data(path)
    at = data.draw(st.integers(0, len(good) - 1))
    flipped = bytes([good[at] ^ data.draw(st.integers(1, 255))])
    disk.set_data(path, data.draw(st.sampled_from([good[:at] + flipped + good[at + 1 :], good[:at], good + flipped])))
    store = _open(disk)
    (fault,) = store.take_faults()
    boot = path.parent.name.startswith("boot-")
    assert str(path.parent if boot else path) in fault.message
    assert str(STATE / "damaged") in fault.message
    contents = _contents(store)
    number = int(path.stem) if path.parent.name == "revisions" else None
    assert [s.number for s in store.summaries()] == [n for n in (3, 4) if n != number]
    if number == 4:
        assert isinstance(contents.latest, Unreadable)
        assert contents.latest.number == 4
    else:
        assert contents.latest == Kept(_revision(4))
    assert contents.boot == (None if boot else before.boot)
    _assert_note(contents.pending, None if path.name == "pending.json" else before.pending)
    _assert_note(contents.held, None if path.name == "held.json" else before.held)
    assert store.next_number() == 5
    again = _open(disk.after_kill())
    assert again.take_faults() == ()
    later = _contents(again)
    assert (later.summaries, later.boot) == (contents.summaries, contents.boot)
    assert type(later.latest) is type(contents.latest)
    _assert_note(later.pending, None if path.name == "pending.json" else before.pending)
    _assert_note(later.held, None if path.name == "held.json" else before.held)
    assert again.next_number() == 5


def _assert_note(note: object, wanted: object) -> None:
    """A note says what it said; one that was damaged, None here, is not taken for one that is not there."""
    if wanted is None:
        assert isinstance(note, UnreadableNote)
        assert note.lost
    else:
        assert note == wanted


@settings(max_examples=examples(100))
@given(st.data())
def test_rot_after_opening_is_noticed(data: st.DataObject) -> None:
    """A revision that rots while the store is open is set aside when it is read, and never handed out."""
    disk = _scene()
    store = _open(disk)
    path = STATE / "revisions" / "000004.json"
    good = disk.data(path)
    at = data.draw(st.integers(0, len(good) - 1))
    disk.set_data(path, good[:at] + bytes([good[at] ^ data.draw(st.integers(1, 255))]) + good[at + 1 :])
    assert isinstance(store.newest(), Unreadable)
    assert isinstance(store.get(4), Unreadable)
    assert store.get(3) == Kept(_revision(3))
    (fault,) = store.take_faults()
    assert str(path) in fault.message
    assert store.next_number() == 5


@settings(max_examples=examples(200))
@given(st.binary(max_size=300), st.sampled_from(["revisions/000007.json", "pending.json", "held.json", "boot"]))
def test_whatever_stands_in_a_file_the_store_opens(data: bytes, name: str) -> None:
    """Any bytes under any name of the store are noticed, and no reason not to start."""
    disk = _scene()
    path = STATE / name
    with contextlib.suppress(FileNotFoundError):
        disk.unlink(path)
    fd = disk.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    disk.write(fd, memoryview(data))
    disk.close(fd)
    store = _open(disk)
    (fault,) = store.take_faults()
    assert str(path) in fault.message
    if "7" in name:
        newest = store.newest()
        assert isinstance(newest, Unreadable)
        assert newest.number == 7
    else:
        assert store.newest() == Kept(_revision(4))
    assert store.next_number() == (8 if "7" in name else 5)


def test_the_scene_is_what_the_tests_take_it_for() -> None:
    """The history keeps two revisions, has an older one in its boot files, and both families in each."""
    store = _open(_scene())
    assert [summary.number for summary in store.summaries()] == [3, 4]
    assert set(_revision(3).rulesets) == set(Family)
    assert store.read_boot_revision() == 3
