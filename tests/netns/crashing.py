"""A bench for processes that are killed: what a daemon's thread works on, boundaries to die at, and what is left."""

from __future__ import annotations

import os
import select
import signal
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fwguardd.enforce.confirmation import CHANGED
from fwguardd.enforce.context import Context, Done, Outcome, RecordedHost
from fwguardd.enforce.recall import recall, recall_again
from fwguardd.enforce.reconcile import STARTED, PassRequest, reconcile, reload_files
from fwguardd.enforce.record import Cause
from fwguardd.enforce.reports import after_boot
from fwguardd.enforce.rollback import expire
from fwguardd.enforce.rule_files import take_snapshot
from fwguardd.enforce.validate import Validator
from fwguardd.kernel.iptables import Backend, LiveKernel, find_tool
from fwguardd.kernel.namespaces import NamespacePool
from fwguardd.kernel.privilege import boot_id, kernel_release
from fwguardd.kernel.rehearsal import Rehearsals
from fwguardd.ruleset.lint import LintContext
from fwguardd.ruleset.preserve import Preserve
from fwguardd.store.before_load import BeforeLoad
from fwguardd.store.durable import HostSystem
from fwguardd.store.model import UnreadableNote
from fwguardd.store.revisions import HeldFiles, PendingConfirmation, RevisionStore
from tests.property.unreliable_disk import Tapped
from tests.waiting import LONGEST

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from fwguardd.enforce.state import State
    from fwguardd.events import EventKind
    from fwguardd.kernel.rehearsal import RehearsalRefused
    from fwguardd.ruleset.canonical import Canonical
    from fwguardd.ruleset.model import Candidate, Family

    Saved = Callable[[], dict[str, list[str]]]
    Chains = dict[str, tuple[str, tuple[str, ...]]]
    Tables = dict[str, dict[str, Chains]]
    Step = Callable[[Context], object]

CONFIRM = 0.3
"""Seconds within which a reload has to be confirmed."""


def _files(web: int, chain: str, mark: int) -> dict[str, str]:
    """Rule files that fill three tables in both families; other arguments change something in each of the six."""
    more = "".join(f"-A {chain} -p tcp --dport {web + number} -j ACCEPT\n" for number in range(12))
    return {
        "10-filter.rules": f"-P INPUT DROP\n:{chain} -\n-A INPUT -i lo -j ACCEPT\n-A INPUT -p tcp -j {chain}\n{more}",
        "20-nat.rules": f"*nat\n:{chain} -\n-A PREROUTING -p tcp --dport {web} -j {chain}\n"
        f"-A {chain} -p tcp -j REDIRECT --to-ports {web + 8000}\n",
        "30-mangle.rules": f"*mangle\n-A PREROUTING -p tcp --dport {web} -j MARK --set-mark {mark}\n"
        f"-A FORWARD -p tcp --tcp-flags SYN,RST SYN -j TCPMSS --set-mss {1000 + mark}\n",
    }


A, B = _files(80, "OLD", 1), _files(443, "NEW", 2)
MORE_TABLES = B | {"40-raw.rules": "*raw\n-A PREROUTING -p udp --dport 53 -j DROP\n"}


NAMING = {"rename", "symlink", "unlink", "mkdir", "rmdir"}
"""Calls of the store to the system that change what the next process finds under a name that it looks at. The store's
own tests stop it before each and every call."""


class Unforced(HostSystem):
    """The host without its slow disk: a kill takes nothing from the page cache, so nothing hangs on it here."""

    def fsync(self, fd: int) -> None:
        """Nothing."""
        assert fd >= 0


class Tripwire:
    """Kills its own process at the n-th boundary that is crossed once it is armed."""

    def __init__(self, at: int) -> None:
        self._left = at
        self.armed = False

    def before_call(self, _number: int, call: str) -> None:
        """The store is about to make a call to the system: a boundary, if the call changes names."""
        if call in NAMING:
            self.cross()

    def cross(self) -> None:
        """A boundary."""
        if self.armed:
            if self._left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            self._left -= 1


class TrippedKernel(LiveKernel):
    """The live kernel with boundaries before each look, each load, and each table of a load but the first."""

    def __init__(self, backend: Backend, tripwire: Tripwire) -> None:
        super().__init__(backend)
        self._tripwire = tripwire

    def look(self, families: Any) -> Any:
        """As ever."""
        self._tripwire.cross()
        return super().look(families)

    def restore(self, family: Family, text: str) -> None:
        """One program for each table: what a program has done that dies after a COMMIT."""
        for table in text.split("COMMIT\n")[:-1]:
            self._tripwire.cross()
            super().restore(family, f"{table}COMMIT\n")


class Bench:
    """A rules directory and a state directory, which processes that are killed work on one after the other."""

    def __init__(self, folder: Path, backend: str) -> None:
        self.rules, self.state, self.run = folder / "rules", folder / "state", folder / "run"
        self.rules.mkdir()
        self.run.mkdir()
        self.backend = Backend(backend)
        self.emitted: list[str] = []
        self.pool = NamespacePool()
        self._rehearsed: list[tuple[Candidate, Canonical | RehearsalRefused]] = []
        self._validator = Validator(self.rehearse, LintContext((), Preserve.from_patterns([])))
        self.host = RecordedHost(find_tool(self.backend), kernel_release(), boot_id())

    def rehearse(self, candidate: Candidate, /) -> Canonical | RehearsalRefused:
        """A rehearsal on the real kernel, once for each candidate."""
        for known, outcome in self._rehearsed:
            if known == candidate:
                return outcome
        outcome = Rehearsals(self.backend.value, self.pool).rehearse(candidate)
        self._rehearsed.append((candidate, outcome))
        return outcome

    def put(self, files: dict[str, str]) -> str:
        """Make the rules directory hold these files, each renamed into place; the digest of the directory."""
        put(self.rules, files)
        snapshot = take_snapshot(self.rules)
        self._validator.validate(snapshot)
        return snapshot.digest

    def context(self, tripwire: Tripwire | None = None) -> Context:
        """What a daemon that starts now works on."""
        kernel, system = LiveKernel(self.backend), Unforced()
        store = RevisionStore(self.state, system=Tapped(system, tripwire.before_call) if tripwire else system)
        if tripwire is not None:
            kernel, tripwire.armed = TrippedKernel(self.backend, tripwire), True
        nobody = Preserve.from_patterns([])
        note = BeforeLoad(self.run)
        return Context(
            self.rules, self._validator, kernel, nobody, repair=True, store=store, host=self.host, emit=self._emit,
            before_load=note,
        )  # fmt: skip

    def _emit(self, kind: EventKind, _message: str, /, **_fields: Any) -> None:
        self.emitted.append(kind.name)

    def start(self) -> Outcome:
        """What a daemon does first; nothing on the disk may look damaged to it."""
        self.emitted.clear()
        outcome = start(self.context())
        assert isinstance(outcome, Done), outcome
        assert not {"state.damaged", "state.failed", "rules.failed"} & set(self.emitted), self.emitted
        return outcome

    def killed(self, step: Step, at: int) -> bool:
        """Run a step in a process that kills itself at a boundary; whether it came to that."""
        pid = self.fork(step, Tripwire(at))
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        assert code in (0, -signal.SIGKILL), f"the process failed with {code}"
        return code != 0

    def fork(self, step: Step, tripwire: Tripwire | None = None, ready: int | None = None) -> int:
        """Run a step in a process of its own; its id. It closes ``ready`` when it begins."""
        pid = os.fork()
        if pid:
            return pid
        code = 1
        try:
            context = self.context(tripwire)
            if ready is not None:
                os.close(ready)
            step(context)
            code = 0
        except BaseException:  # noqa: BLE001 - whatever happens, this process ends here.
            traceback.print_exc()
        finally:
            os._exit(code)


def put(folder: Path, files: dict[str, str]) -> None:
    """Make a directory hold these rule files and no others, by renames."""
    for name, text in files.items():
        (folder / f".{name}.new").write_text(text)
        (folder / f".{name}.new").rename(folder / name)
    for path in folder.iterdir():
        if path.name not in files:
            path.unlink()


def recalled(context: Context) -> State:
    """What a daemon that starts now goes on with."""
    state = recall(context)
    if context.before_load is not None:
        state = after_boot(context.before_load.path.with_name("boot"), state)
    return recall_again(context, state)


def start(context: Context) -> Outcome:
    """The first pass of a daemon."""
    state = recalled(context)
    return expire(context, state) or reconcile(context, state, PassRequest(Cause(STARTED)))


def change(context: Context) -> Outcome:
    """The pass after a change."""
    return reconcile(context, recalled(context), PassRequest(Cause(CHANGED)))


def reload_to_confirm(context: Context, seconds: float = CONFIRM) -> Outcome:
    """The pass of ``reload --confirm``."""
    return reload_files(context, recalled(context), Cause("reload", "somebody"), seconds)


def pending_in(state: Path) -> PendingConfirmation | None:
    """The pending confirmation that a state directory holds; it can be read."""
    found = RevisionStore(state).pending()
    assert not isinstance(found, UnreadableNote)
    return found


def held_in(state: Path) -> HeldFiles | None:
    """The held files that a state directory names; they can be read."""
    found = RevisionStore(state).held()
    assert not isinstance(found, UnreadableNote)
    return found


def tables(saved: Saved) -> Tables:
    """What is loaded, by family, table and chain. A table that holds nothing counts as none."""
    return {family: parse_tables(lines) for family, lines in saved().items()}


def parse_tables(lines: Iterable[str]) -> dict[str, Chains]:
    """The tables and chains in lines of iptables-save."""
    here: dict[str, Chains] = {}
    table: Chains = {}
    for line in lines:
        if line.startswith("*"):
            table = here.setdefault(line[1:], {})
        elif line.startswith(":"):
            name, policy, *_ = line[1:].split()
            table[name] = policy, ()
        elif line.startswith("-A "):
            name = line.split()[1]
            table[name] = table[name][0], (*table[name][1], line)
    return {name: chains for name, chains in here.items() if set(chains.values()) != {("ACCEPT", ())}}


def letters(found: Tables, a: Tables, b: Tables) -> dict[str, str]:
    """By family, for each table whether it is A's or B's. A chain that was emptied to be removed may still be there."""
    by_family: dict[str, str] = {}
    for family in ("ipv4", "ipv6"):
        by_family[family] = ""
        for table in sorted({*found[family], *a[family], *b[family]}):
            here = found[family].get(table, {})
            same = [letter for letter, wanted in (("A", a), ("B", b)) if _same(here, wanted[family].get(table, {}))]
            assert len(same) == 1, f"{family} {table} is neither of the two: {here}"
            by_family[family] += same[0]
    return by_family


def _same(found: Chains, wanted: Chains) -> bool:
    kept = {name: chain for name, chain in found.items() if name in wanted or chain != ("-", ())}
    return kept == wanted or (not wanted and set(kept.values()) == {("ACCEPT", ())})


def summary(by_family: dict[str, str]) -> str:
    """Where a pass was stopped: before all tables, after all, between the families, or inside one."""
    kinds = {"".join(sorted(set(letters))) for letters in by_family.values()}
    if "AB" in kinds:
        return "inside a family"
    return f"all {kinds.pop()}" if len(kinds) == 1 else "between the families"


def children(pid: int) -> list[int]:
    """The processes that a process has started."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(fields[1]) == pid and fields[0] != "Z":
            found.append(int(path.parent.name))
    return found


def kill(pid: int, *, with_children: bool) -> None:
    """Kill -9 a process at this instant, its programs with it or not; return when all of them have ended."""
    os.kill(pid, signal.SIGSTOP)
    left = []
    for child in children(pid):
        try:
            left.append(os.pidfd_open(child))
        except ProcessLookupError:
            continue
        if with_children:
            signal.pidfd_send_signal(left[-1], signal.SIGKILL)
    os.kill(pid, signal.SIGKILL)
    for descriptor in left:
        assert select.select([descriptor], [], [], LONGEST)[0], "a program outlives its daemon"
        os.close(descriptor)
