"""What the state directory holds and cannot be read is not taken for absent: nothing is opened, and no right rule is
replaced by an older one, on the real kernel."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fwguardd.enforce import reconcile as reconcile_module
from fwguardd.enforce.confirmation import CHANGED
from fwguardd.enforce.context import Done, Failed, Refused, boottime
from fwguardd.enforce.kernel_state import KernelState
from fwguardd.enforce.opening import open_firewall
from fwguardd.enforce.recall import recall, recall_again, settle_disk
from fwguardd.enforce.reconcile import STARTED, PassRequest, reconcile, reload_files
from fwguardd.enforce.record import Cause
from fwguardd.enforce.rollback import confirm, expire, rollback
from fwguardd.enforce.unknown import UnknownState
from fwguardd.kernel import processes
from fwguardd.kernel.iptables import Backend, LiveKernel
from fwguardd.kernel.namespaces import NamespaceError
from fwguardd.ruleset.canonical import Owned
from fwguardd.ruleset.model import Family
from fwguardd.ruleset.others import RuleOrChain, Standing, remember
from fwguardd.store.boot_files import BootFiles
from fwguardd.store.model import Kept, Unreadable
from fwguardd.store.revisions import RevisionStore
from tests.netns.crashing import A, B, Bench, Unforced, held_in, pending_in, tables
from tests.waiting import LONGEST, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    from fwguardd.enforce.context import Context, Outcome
    from fwguardd.enforce.rule_files import Snapshot
    from fwguardd.enforce.state import State
    from fwguardd.enforce.validate import Validation, Validator
    from fwguardd.ruleset import save_format
    from fwguardd.ruleset.operations import Plan
    from tests.netns.crashing import Saved

    Opened = Callable[[], tuple[Context, State]]

pytestmark = pytest.mark.either_backend

EMERGENCY = Path(__file__).resolve().parents[2] / "packaging" / "emergency"
RELOAD = Cause("reload", "somebody")


class FailingDisk(Unforced):
    """A disk on which some files cannot be opened, and some calls fail, for as long as they are named here."""

    def __init__(self) -> None:
        self.unreadable: set[Path] = set()
        self.failing: set[str] = set()

    def _fail(self, call: str) -> None:
        if call in self.failing:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    def open(self, path: Path, flags: int, mode: int) -> int:
        """As ever, or EIO."""
        if not self.unreadable.isdisjoint({path, path.parent.resolve() / path.name}):
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
        if flags & os.O_CREAT:
            self._fail("create")
        return super().open(path, flags, mode)

    def listdir(self, path: Path) -> list[str]:
        """As ever, or EROFS."""
        self._fail("listdir")
        return super().listdir(path)

    def unlink(self, path: Path) -> None:
        """As ever, or EROFS."""
        self._fail("unlink")
        super().unlink(path)


@pytest.fixture
def bench(tmp_path: Path, backend: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    """A bench with revision 1, which is A, in force."""
    monkeypatch.setenv("XTABLES_LOCKFILE", str(tmp_path / "lock"))
    made = Bench(tmp_path, backend)
    made.put(A)
    made.start()
    yield made
    made.pool.close()


class Failing(LiveKernel):
    """A kernel whose reads fail for want of memory, in the interpreter itself."""

    def __init__(self, backend: Backend) -> None:
        super().__init__(backend)
        self._failed = 0

    def has_failed(self, times: int) -> bool:
        """Whether so many reads have failed."""
        return self._failed >= times

    def look(self, families: Collection[Family]) -> Mapping[Family, save_format.Saved]:
        """Not possible."""
        assert families
        self._failed += 1
        raise MemoryError


@pytest.fixture
def disk() -> FailingDisk:
    """The disk of the state directory."""
    return FailingDisk()


@pytest.fixture
def opened(bench: Bench, disk: FailingDisk) -> Opened:
    """What a daemon that starts now works on, and the state with which it begins its first step."""

    def start() -> tuple[Context, State]:
        context = replace(bench.context(), store=RevisionStore(bench.state, system=disk), emergency_dir=EMERGENCY)
        return context, recall(context)

    return start


def run_pass(context: Context, state: State, cause: str = "timer") -> Outcome:
    """A pass as the worker thread does it."""
    state = recall_again(context, state)
    outcome = expire(context, state) or reconcile(context, state, PassRequest(Cause(cause)))
    return replace(outcome, state=settle_disk(context, outcome.state))


def flip(path: Path) -> None:
    """Change a bit in the middle of a file."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def flush(backend: str) -> None:
    """Empty all tables, as another program might."""
    for program in ("iptables", "ip6tables"):
        for table in ("filter", "nat", "mangle"):
            subprocess.run([f"{program}-{backend}", "-t", table, "-F"], check=True)
            subprocess.run([f"{program}-{backend}", "-t", table, "-X"], check=True)
        subprocess.run([f"{program}-{backend}", "-P", "INPUT", "ACCEPT"], check=True)


def boot_rules(bench: Bench) -> Path:
    """One of the boot files."""
    return (bench.state / "boot").resolve() / "ipv4.rules"


def unconfirmed(bench: Bench, context: Context, state: State) -> State:
    """B is in force, and its time to be confirmed is over."""
    bench.put(B)
    outcome = reload_files(context, state, RELOAD, 0.01)
    assert isinstance(outcome, Done)
    pending = outcome.state.pending
    assert pending is not None
    assert pending.back_to is not None
    time.sleep(max(0.0, pending.deadline - boottime()))
    return outcome.state


# The four ways out, where a confirmation has expired and the revision to go back to cannot be read.


def test_the_copy_in_memory_is_put_in_force(bench: Bench, saved: Saved, opened: Opened) -> None:
    """1. The running daemon has a copy in memory, and needs neither the revision's file nor the boot files."""
    a = tables(saved)
    context, state = opened()
    state = unconfirmed(bench, context, state)
    assert tables(saved) != a
    flip(bench.state / "revisions" / "000001.json")
    flip(boot_rules(bench))
    outcome = run_pass(context, state)
    assert isinstance(outcome, Done)
    assert tables(saved) == a
    assert not outcome.state.is_open
    assert held_in(bench.state) is not None


def test_the_text_of_the_boot_files_is_put_in_force(bench: Bench, saved: Saved, opened: Opened) -> None:
    """2. A daemon that was restarted finds the revision in the boot files."""
    a = tables(saved)
    unconfirmed(bench, *opened())
    flip(bench.state / "revisions" / "000001.json")
    outcome = run_pass(*opened())
    assert isinstance(outcome, Done)
    assert tables(saved) == a
    assert pending_in(bench.state) is None


def test_what_the_kernel_holds_is_kept_until_the_revision_can_be_read(
    bench: Bench, saved: Saved, disk: FailingDisk, opened: Opened
) -> None:
    """3. Where no copy can be read, nothing is changed, what is in force is guarded, and the undo is tried again."""
    a = tables(saved)
    unconfirmed(bench, *opened())
    b = tables(saved)
    disk.unreadable = {bench.state / "revisions" / "000001.json", boot_rules(bench)}
    context, state = opened()
    outcome = run_pass(context, state)
    assert isinstance(outcome, Failed)
    assert outcome.retry
    assert "Input/output error" in outcome.reason
    assert tables(saved) == b
    flush(bench.backend.value)
    subprocess.run([f"iptables-{bench.backend.value}", "-P", "INPUT", "DROP"], check=True)
    outcome = run_pass(context, outcome.state)
    assert isinstance(outcome, Failed)
    assert tables(saved) == b
    disk.unreadable = set()
    assert isinstance(run_pass(context, outcome.state), Done)
    assert tables(saved) == a


def test_the_emergency_set_is_loaded_where_the_kernel_holds_nothing(
    bench: Bench, saved: Saved, disk: FailingDisk, opened: Opened
) -> None:
    """4. Where no copy can be read and the kernel holds no rules, the emergency set is loaded."""
    unconfirmed(bench, *opened())
    disk.unreadable = {bench.state / "revisions" / "000001.json", boot_rules(bench)}
    context, state = opened()
    flush(bench.backend.value)
    outcome = run_pass(context, state)
    assert isinstance(outcome, Done)
    assert not outcome.state.is_open
    assert outcome.state.in_force is not None
    assert outcome.state.in_force.cause == "emergency"
    for lines in saved().values():
        assert ":INPUT DROP" in lines


# The newest revision.


def test_a_damaged_newest_revision_is_written_anew_from_the_boot_files(
    bench: Bench, saved: Saved, opened: Opened
) -> None:
    """A start leaves the right kernel as it is, also on refused files, and the next start finds nothing amiss."""
    bench.put(B)
    bench.start()
    b = tables(saved)
    bench.put(B | {"50-bad.rules": "-A INPUT -j NOWHERE\n"})
    flip(bench.state / "revisions" / "000002.json")
    assert isinstance(run_pass(*opened(), STARTED), Refused)
    assert tables(saved) == b
    store = RevisionStore(bench.state)
    assert store.take_faults() == ()
    newest = store.newest()
    assert isinstance(newest, Kept)
    assert newest.revision.number == 2


def test_what_the_kernel_holds_is_kept_where_no_copy_of_the_newest_revision_can_be_read(
    bench: Bench, saved: Saved, opened: Opened
) -> None:
    """Revision 1 could be read, and is not put in force: what is found is revision 3, and is guarded from then on."""
    bench.put(B)
    bench.start()
    b = tables(saved)
    bench.put(B | {"50-bad.rules": "-A INPUT -j NOWHERE\n"})
    flip(bench.state / "revisions" / "000002.json")
    flip(boot_rules(bench))
    context, state = opened()
    outcome = run_pass(context, state, STARTED)
    assert isinstance(outcome, Refused)
    assert outcome.state.revision == 3
    flush(bench.backend.value)
    run_pass(context, outcome.state)
    assert tables(saved) == b
    assert isinstance(run_pass(*opened(), STARTED), Refused)
    assert tables(saved) == b


def test_of_two_copies_that_disagree_the_one_in_the_kernel_is_believed(
    bench: Bench, saved: Saved, opened: Opened
) -> None:
    """Both copies of revision 2 are whole and differ: the kernel decides, and an event says so."""
    a = tables(saved)
    bench.put(B)
    bench.start()
    store = RevisionStore(bench.state)
    one = store.get(1)
    assert isinstance(one, Kept)
    bench.put(A)
    bench.start()
    assert tables(saved) == a
    bench.emitted.clear()
    (bench.state / "revisions" / "000003.json").unlink()
    BootFiles(Unforced(), bench.state).write(replace(one.revision, number=2))
    _, state = opened()
    assert "state.damaged" in bench.emitted
    assert state.in_force is not None
    assert state.in_force.canonical.rulesets == one.revision.rulesets


@pytest.mark.parametrize("situation", ["in force", "rolled back", "opened", "pending"])
def test_a_file_that_cannot_be_read_for_a_while_changes_nothing(
    bench: Bench, saved: Saved, disk: FailingDisk, opened: Opened, situation: str
) -> None:
    """EIO of any one file of the state directory, or of all names in it, at a start leaves the kernel alone, then and
    when it has passed; and an unconfirmed change is still pending."""
    context, state = opened()
    bench.put(B)
    if situation == "pending":
        reload_files(context, state, RELOAD, 3600.0)
    else:
        bench.start()
    if situation == "rolled back":
        rollback(context, opened()[1], 1, "somebody")
    elif situation == "opened":
        open_firewall(*opened(), "somebody")
    before = tables(saved)
    files = [path for path in sorted(bench.state.rglob("*")) if path.is_file() and path.parent != bench.state / "boot"]
    assert len(files) >= 4
    kept = bench.state.with_name("kept")
    shutil.copytree(bench.state, kept, symlinks=True)
    for path in (*files, bench.state):
        shutil.rmtree(bench.state)
        shutil.copytree(kept, bench.state, symlinks=True)
        disk.unreadable, disk.failing = {path}, set()
        if path == bench.state:
            disk.failing = {"listdir"}
        context, state = opened()
        state = run_pass(context, state, STARTED).state
        assert tables(saved) == before, path
        disk.unreadable, disk.failing = set(), set()
        state = run_pass(context, state).state
        assert tables(saved) == before, path
        assert not state.unknown, path
        assert (state.pending is not None) == (situation == "pending"), path
        run_pass(*opened(), STARTED)
        assert tables(saved) == before, path


def test_files_are_not_applied_while_a_pending_confirmation_cannot_be_read(
    bench: Bench, saved: Saved, disk: FailingDisk, opened: Opened
) -> None:
    """A note that is there and cannot be read is not "nothing pending": files are left, until a reload asks."""
    bench.put(B)
    reload_files(*opened(), RELOAD, 3600.0)
    b = tables(saved)
    bench.put(A)
    disk.unreadable = {bench.state / "pending.json"}
    context, state = opened()
    outcome = run_pass(context, state, CHANGED)
    assert UnknownState.PENDING in outcome.state.unknown
    assert "cannot be read" in outcome.state.sentence
    assert tables(saved) == b
    assert isinstance(reload_files(context, outcome.state, RELOAD, None), Done)
    assert tables(saved) != b


# A change that has to be confirmed.


@pytest.mark.parametrize("fault", ["disk", "promise", "rehearsal", "refused"])
def test_a_reload_to_confirm_that_fails_leaves_the_files_held(
    bench: Bench, saved: Saved, disk: FailingDisk, opened: Opened, fault: str
) -> None:
    """Whatever keeps it from coming in force: the pass that the directory's watch causes does not apply the files,
    neither does a start where the disk could be written, and another reload does."""
    a = tables(saved)
    context, state = opened()
    files = B | ({"50-bad.rules": "-A INPUT -j NOWHERE\n"} if fault == "refused" else {})
    bench.put(files)
    trying = context
    if fault == "disk":
        disk.failing = {"create"}
    elif fault == "promise":
        trying = replace(context, store=PromisesNothing(bench.state, system=disk))
    elif fault == "rehearsal":
        trying = replace(context, validator=RefusesToRehearse())  # type: ignore[arg-type]
    outcome = reload_files(trying, state, RELOAD, 3600.0)
    assert isinstance(outcome, Refused if fault == "refused" else Failed)
    outcome = run_pass(context, outcome.state, CHANGED)
    assert tables(saved) == a
    assert outcome.state.held is not None
    assert outcome.state.pending is None
    disk.failing = set()
    if fault != "disk":
        run_pass(*opened(), STARTED)
        assert tables(saved) == a
    if fault != "refused":
        done = reload_files(context, outcome.state, RELOAD, 3600.0)
        assert isinstance(done, Done)
        assert done.state.pending is not None
        assert done.state.held is None
        assert held_in(bench.state) is None


class PromisesNothing(RevisionStore):
    """A store in which no confirmation can be kept."""

    def set_pending(self, pending: object) -> None:
        """As on a disk that filled up in between."""
        from fwguardd.store.revisions import StoreError  # noqa: PLC0415 - only this class needs it.

        raise StoreError(f"no room for {pending}")


class RefusesToRehearse:
    """A validator without a place for rehearsals."""

    def validate(self, _snapshot: object) -> object:
        """As where no namespace can be made."""
        raise NamespaceError("no namespace")


def test_a_waiting_reload_to_confirm_keeps_the_watch_from_applying(bench: Bench, saved: Saved, opened: Opened) -> None:
    """From the moment at which it is asked for, a pass that a change in the directory caused leaves the files to it."""
    a = tables(saved)
    context, state = opened()
    bench.put(B)
    outcome = run_pass(replace(context, confirmation_asked=lambda: True), state, CHANGED)
    assert isinstance(outcome, Done)
    assert outcome.files_changed
    assert tables(saved) == a


def test_a_reload_to_confirm_after_the_watch_is_armed_first(bench: Bench, saved: Saved, opened: Opened) -> None:
    """The watch has put the files in force already. The reload refers to that change whatever the clock was set to, and
    waits to be confirmed also if the reload then fails."""
    a = tables(saved)
    context, state = opened()
    bench.put(B)
    state = run_pass(context, state, CHANGED).state
    assert tables(saved) != a
    assert state.in_force is not None
    state = replace(state, in_force=replace(state.in_force, since=0.0))
    trying = replace(context, validator=RefusesToRehearse())  # type: ignore[arg-type]
    outcome = reload_files(trying, state, RELOAD, 0.01)
    assert isinstance(outcome, Failed)
    pending = pending_in(bench.state)
    assert pending is not None
    assert (pending.number, pending.back_to) == (2, 1)
    time.sleep(max(0.0, pending.deadline - boottime()))
    run_pass(context, outcome.state)
    assert tables(saved) == a


def test_the_first_change_that_the_watch_applied_can_be_undone(
    bench: Bench, saved: Saved, opened: Opened, tmp_path: Path
) -> None:
    """Where no revision was ever in force, what the kernel held is recorded before the first change, and an undo puts
    that in force: the host's own rules come back."""
    shutil.rmtree(bench.state)
    found = tables(saved)
    assert tmp_path.exists()
    context, state = opened()
    bench.put(B)
    state = run_pass(context, state, CHANGED).state
    outcome = reload_files(context, state, RELOAD, 0.01)
    pending = outcome.state.pending
    assert pending is not None
    time.sleep(max(0.0, pending.deadline - boottime()))
    assert isinstance(run_pass(context, outcome.state), Done)
    assert tables(saved) == found


def test_the_time_to_confirm_counts_from_the_load(bench: Bench, opened: Opened) -> None:
    """The deadline lies the whole time after the end of the load, in memory and on the disk."""
    context, state = opened()
    loaded: list[float] = []

    class Watched(LiveKernel):
        """The kernel, with a note of the end of each load."""

        def commit(self, plans: Sequence[Plan]) -> None:
            """As ever."""
            super().commit(plans)
            loaded.append(boottime())

    bench.put(B)
    outcome = reload_files(replace(context, kernel=Watched(bench.backend)), state, RELOAD, 100.0)
    assert outcome.state.pending is not None
    assert outcome.state.pending.deadline >= max(loaded) + 100.0
    assert pending_in(bench.state) == outcome.state.pending


@pytest.mark.parametrize("end", ["confirm", "rollback", "expiry"])
def test_a_note_that_could_not_be_removed_undoes_no_later_revision(
    bench: Bench, saved: Saved, disk: FailingDisk, opened: Opened, end: str
) -> None:
    """A promise names its revision. Once a later one is in force it is void, for this daemon and for the next, and its
    file is removed when that is possible again."""
    context, state = opened()
    bench.put(B)
    state = reload_files(context, state, RELOAD, 3600.0).state
    disk.failing = {"unlink"}
    if end == "confirm":
        assert isinstance(confirm(context, state), Failed)
        disk.failing = set()
        state = confirm(context, state).state
        disk.failing = {"unlink"}
    elif end == "rollback":
        state = rollback(context, state, 1, "somebody").state
    else:
        assert state.pending is not None
        expired = replace(state, pending=replace(state.pending, deadline=boottime()))
        state = run_pass(context, expired).state
    bench.put(A | {"60-more.rules": "-A INPUT -s 192.0.2.9 -j DROP\n"})
    state = run_pass(context, state, CHANGED).state
    later = tables(saved)
    assert state.pending is None
    state = run_pass(*opened(), STARTED).state
    assert tables(saved) == later
    disk.failing = set()
    state = run_pass(*opened(), STARTED).state
    assert tables(saved) == later
    assert pending_in(bench.state) is None


def test_what_the_disk_could_not_take_is_written_later(
    bench: Bench, saved: Saved, disk: FailingDisk, opened: Opened
) -> None:
    """A rollback while the disk takes nothing is in force; once it can be written, the next pass records the revision,
    the boot files and the held files, and a later start leaves the rules as they are."""
    a = tables(saved)
    bench.put(B)
    bench.start()
    context, state = opened()
    disk.failing = {"create"}
    state = rollback(context, state, 1, "somebody").state
    assert tables(saved) == a
    assert held_in(bench.state) is None
    disk.failing = set()
    state = run_pass(context, state).state
    assert state.unrecorded is None
    assert held_in(bench.state) == state.held
    store = RevisionStore(bench.state)
    assert store.read_boot_revision() == store.summaries()[-1].number == state.revision
    run_pass(*opened(), STARTED)
    assert tables(saved) == a


def test_a_rollback_to_a_revision_that_cannot_be_read_is_refused(bench: Bench, saved: Saved, opened: Opened) -> None:
    """It fails with the reason, and changes nothing."""
    bench.put(B)
    bench.start()
    b = tables(saved)
    flip(bench.state / "revisions" / "000001.json")
    context, state = opened()
    assert isinstance(context.store.get(1), Unreadable)
    outcome = rollback(context, state, 1, "somebody")
    assert isinstance(outcome, Failed)
    assert "revision 1 cannot be put in force" in outcome.reason
    assert "damaged" in outcome.reason
    assert tables(saved) == b


def test_a_reload_to_confirm_after_the_watch_needs_no_disk(
    bench: Bench, saved: Saved, disk: FailingDisk, opened: Opened
) -> None:
    """The same while nothing can be written: what is in force already has its way back in memory, and on the disk as
    soon as that is possible."""
    a = tables(saved)
    context, state = opened()
    bench.put(B)
    state = run_pass(context, state, CHANGED).state
    disk.failing = {"create"}
    outcome = reload_files(context, state, RELOAD, 3600.0)
    assert isinstance(outcome, Done)
    assert outcome.state.pending is not None
    assert (outcome.state.pending.number, outcome.state.pending.back_to) == (2, 1)
    assert "state.failed" in bench.emitted
    assert pending_in(bench.state) is None
    disk.failing = set()
    state = settle_disk(context, outcome.state)
    assert pending_in(bench.state) == state.pending
    disk.failing = {"create", "unlink"}
    over = replace(state, pending=replace(outcome.state.pending, deadline=boottime()))
    run_pass(context, over)
    assert tables(saved) == a


# An opening where programs fail.


@pytest.mark.parametrize("broken", ["save", "ip6tables restore"])
def test_what_can_be_opened_is_opened(
    bench: Bench, saved: Saved, opened: Opened, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    """Without iptables-save both families are opened, and with a family into which nothing can be loaded the other one.
    The outcome says what is missing; once the programs work again, it is opened and verified."""
    programs = [f"{family}-{bench.backend.value}-save" for family in ("iptables", "ip6tables")]
    if broken == "ip6tables restore":
        programs = [f"ip6tables-{bench.backend.value}-restore"]
    for name in programs:
        (tmp_path / name).write_text("#!/bin/sh\ncat >/dev/null\necho it is broken >&2\nexit 1\n")
        (tmp_path / name).chmod(0o755)
    context, state = opened()
    with monkeypatch.context() as patched:
        patched.setattr(processes, "PATH", f"{tmp_path}:{processes.PATH}")
        outcome = open_firewall(context, state, "somebody")
    assert isinstance(outcome, Failed)
    assert outcome.state.is_open
    assert outcome.state.held is not None
    assert _accepts_all(saved()["ipv4"])
    assert _accepts_all(saved()["ipv6"]) == (broken == "save")
    assert ("but ipv6 could not be opened" in outcome.reason) == (broken != "save"), outcome.reason
    assert outcome.state.kernel_state is KernelState.UNVERIFIED
    outcome = run_pass(replace(context, repair=False), outcome.state)
    assert isinstance(outcome, Done)
    assert outcome.state.kernel_state is KernelState.OPEN
    assert _accepts_all(saved()["ipv6"])


def _accepts_all(lines: list[str]) -> bool:
    """Whether no built-in chain has a rule, or a policy other than ACCEPT."""
    builtin = [line for line in lines if line.startswith(("-A INPUT", "-A FORWARD", "-A PREROUTING"))]
    return not builtin and ":INPUT DROP" not in lines


# A validation that takes long.


class SlowValidator:
    """A validator whose result comes when a test lets it come."""

    def __init__(self, validator: Validator) -> None:
        self._validator = validator
        self.begun, self.go_on = threading.Event(), threading.Event()

    def validate(self, snapshot: Snapshot) -> Validation:
        """As ever, later."""
        self.begun.set()
        assert self.go_on.wait(LONGEST)
        return self._validator.validate(snapshot)


def test_the_guard_goes_on_during_a_validation(bench: Bench, saved: Saved, opened: Opened) -> None:
    """Other programs change the kernel while files are validated: what is in force is repaired before that has ended.
    Then the files are put in force, and the outcome of the pass says what was repaired."""
    a = tables(saved)
    context, state = opened()
    slow = SlowValidator(context.validator)
    context = replace(context, validator=slow)  # type: ignore[arg-type]
    bench.put(B)
    with ThreadPoolExecutor(1) as thread:
        ended = thread.submit(run_pass, context, state, CHANGED)
        assert slow.begun.wait(LONGEST)
        for _ in range(2):
            flush(bench.backend.value)
            context.kernel_changed.set()
            wait_until(lambda: tables(saved) == a, "the repair", pause=0.1)
        slow.go_on.set()
        outcome = ended.result(LONGEST)
    assert isinstance(outcome, Done)
    assert outcome.repaired
    assert outcome.state.revision == 2
    assert tables(saved) != a


@pytest.mark.parametrize("backend", ["nft"])
def test_the_guard_goes_on_while_the_impact_is_measured(
    bench: Bench, saved: Saved, opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a change to be confirmed would do to the host takes seconds to measure on a busy one; what is in force is
    repaired meanwhile, and the change is put in force after it."""
    a = tables(saved)
    begun, go_on = threading.Event(), threading.Event()

    def measured(*_arguments: object) -> None:
        begun.set()
        assert go_on.wait(LONGEST)

    monkeypatch.setattr(reconcile_module, "report_impact", measured)
    context, state = opened()
    bench.put(B)
    with ThreadPoolExecutor(1) as thread:
        ended = thread.submit(reload_files, context, state, RELOAD, 3600.0)
        assert begun.wait(LONGEST)
        flush(bench.backend.value)
        context.kernel_changed.set()
        wait_until(lambda: tables(saved) == a, "the repair", pause=0.1)
        go_on.set()
        outcome = ended.result(LONGEST)
    assert isinstance(outcome, Done)
    assert outcome.repaired
    assert outcome.state.pending is not None
    assert tables(saved) != a


@pytest.mark.parametrize("backend", ["nft"])
def test_a_defect_of_the_guard_waits_for_the_validation(bench: Bench, opened: Opened) -> None:
    """Where a comparison fails while files are validated, whatever it raises, the next ones are made all the same. The
    failure is raised once the validation has ended: two must not run at the same time."""
    context, state = opened()
    slow, looks = SlowValidator(context.validator), Failing(bench.backend)
    context = replace(context, validator=slow, kernel=looks)  # type: ignore[arg-type]
    bench.put(B)
    with ThreadPoolExecutor(1) as thread:
        ended = thread.submit(run_pass, context, state, CHANGED)
        assert slow.begun.wait(LONGEST)
        for number in (1, 2):
            context.kernel_changed.set()
            wait_until(partial(looks.has_failed, number), "a comparison that fails")
        assert not ended.done()
        slow.go_on.set()
        with pytest.raises(MemoryError):
            ended.result(LONGEST)


# A state directory that is removed.


@pytest.mark.parametrize("pending", [False, True], ids=["in force", "to be confirmed"])
def test_a_state_directory_that_was_removed_is_written_anew(
    bench: Bench, saved: Saved, opened: Opened, *, pending: bool
) -> None:
    """The end of the next step notices that it is gone: what is in force, and what waits to be confirmed, is there for
    the next start and the next boot."""
    context, state = opened()
    if pending:
        bench.put(B)
        outcome = reload_files(context, state, RELOAD, 3600.0)
        state = outcome.state
    before = tables(saved)
    shutil.rmtree(bench.state)
    run_pass(context, state)
    assert bench.emitted.count("state.damaged") == 1
    run_pass(context, state)
    assert bench.emitted.count("state.damaged") == 1
    context, again = opened()
    assert again.in_force is not None
    assert again.in_force.canonical == state.in_force.canonical  # type: ignore[union-attr]
    assert again.pending == state.pending
    assert context.store.read_boot_revision() == 1
    assert isinstance(run_pass(context, again, STARTED), Done)
    assert tables(saved) == before


def test_notes_that_cannot_be_read_for_a_while_are_not_forgotten(
    bench: Bench, saved: Saved, disk: FailingDisk, opened: Opened
) -> None:
    """Which tables an interrupted write had begun to fill, and what an administrator has decided about rules of other
    programs, is read again: such a table is emptied then, and such a rule stays."""
    argv = [f"iptables-{bench.backend.value}", "-t", "raw", "-A", "PREROUTING", "-s", "203.0.113.1", "-j", "DROP"]
    subprocess.run(argv, check=True)
    store = RevisionStore(bench.state)
    store.touch(Owned({(Family.IPV4, "raw")}))
    place = RuleOrChain(Family.IPV4, "filter", "INPUT", "-s 203.0.113.2/32 -j DROP")
    decided = remember((), [place], "somebody", 1.0, Standing.KEPT)
    store.remember_others(decided)
    disk.unreadable = {bench.state / "touched.json", bench.state / "others.json"}
    context, state = opened()
    state = run_pass(context, state, STARTED).state
    assert state.unknown == {UnknownState.TOUCHED, UnknownState.OTHERS}
    assert "raw" in tables(saved)["ipv4"]
    disk.unreadable = set()
    state = run_pass(context, state).state
    assert (state.unknown, state.others) == (frozenset(), decided)
    assert "raw" not in tables(saved)["ipv4"]
