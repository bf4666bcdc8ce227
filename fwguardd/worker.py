"""The worker thread: it changes the kernel and the state directory, one step after the other.

The daemon has two threads that own something, and each object belongs to one of them:

=============  ========================================================================================================
event loop     `daemon.Daemon`, `supervisor.Supervisor`, the control socket, all timers, the denial reader
worker thread  `Worker`: the revision store, the kernel, the validator, the rehearsal namespaces, the current state
=============  ========================================================================================================

They exchange values only. The event loop hands over `Orders` and gets a `Report`; both are frozen. `WorkerThread` is
the only way from one to the other: the `Worker` is made in the thread, and only steps that run in the thread reach it.
Three things are used from both, and are made for it: `events.Emit`, `progress.Progress` and `WorkerThread.wrote`.

A few more threads own nothing of this: the one in which the watchdog library waits for inotify, those in which
`verbs.RevisionReader` waits for processes that read files for ``show``, the one that validates (`enforce.guard`), and
the one that rehearses beside it (`enforce.run_beside`).
"""

from __future__ import annotations

import contextlib
import time
import traceback
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from fwguardd import events
from fwguardd.enforce.adopt import adopt
from fwguardd.enforce.context import (
    Broken,
    Context,
    Done,
    Failed,
    LateAuthors,
    Outcome,
    RecordedHost,
    Signals,
    with_repairs,
)
from fwguardd.enforce.counting import Counting
from fwguardd.enforce.ends import end_rules, next_end
from fwguardd.enforce.former_backend import former_of, leave_backend
from fwguardd.enforce.guard import Guard, check_lines, validate_ahead
from fwguardd.enforce.known_lines import KnownLines
from fwguardd.enforce.opening import open_firewall
from fwguardd.enforce.other_tables import OtherTablesReport
from fwguardd.enforce.recall import recall, recall_again, settle_disk
from fwguardd.enforce.reconcile import PassRequest, guard_after, reconcile, reload_files
from fwguardd.enforce.record import report_faults
from fwguardd.enforce.reports import after_boot, end_emergency
from fwguardd.enforce.rollback import confirm, expire, hold_files, load_emergency_set, rollback
from fwguardd.enforce.schedule import Due
from fwguardd.enforce.set_copies import SetCopies
from fwguardd.enforce.sets import Lists, Sets
from fwguardd.enforce.state import State
from fwguardd.enforce.transaction import Comparison, find_drift
from fwguardd.enforce.validate import Validator
from fwguardd.interpreter import SettledObjects
from fwguardd.kernel.attribution import NO_AUTHORS
from fwguardd.kernel.changes import Noticing
from fwguardd.kernel.namespaces import NamespaceError, NamespacePool
from fwguardd.kernel.rehearsal import RehearsalRefused, Rehearsals
from fwguardd.progress import MarkingKernel, Progress
from fwguardd.proving import MarkingBeds, prover_of
from fwguardd.ruleset.preserve import Preserve
from fwguardd.settings import ApplyMode, Foreign
from fwguardd.store.background import BackgroundStore
from fwguardd.store.before_load import BeforeLoad
from fwguardd.whole_check import WholeCheck
from fwguardd.worker_report import Opened, Orders, Report

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fwguardd.enforce.counting import Counted
    from fwguardd.events import Emit
    from fwguardd.ruleset.canonical import Canonical
    from fwguardd.ruleset.diff import Difference
    from fwguardd.ruleset.model import Candidate
    from fwguardd.settings import Settings

    Step = Callable[[Context, State], Outcome]

Result = TypeVar("Result")
Arguments = ParamSpec("Arguments")

LAST_WRITES_WITHIN = 5.0
"""Seconds that the end waits for the state directory."""

LONGEST_TRACEBACK = 8000
"""Characters of a traceback that an event holds, from its end."""


class Worker:
    """Does the work, in plain blocking code; each step begins with the state that the last one left.

    Belongs to the worker thread: every method runs in it.
    """

    def __init__(
        self,
        settings: Settings,
        host: RecordedHost,
        emit: Emit,
        progress: Progress,
        signals: Signals | None = None,
        noticing: Noticing | None = None,
    ) -> None:
        """Open the state directory. Raises StoreError where it cannot be trusted. `Context` explains the parameters."""
        noticing = noticing or Noticing()
        self._noticed, self._noticed_before = noticing.authors_by_now, NO_AUTHORS
        self._late = LateAuthors(self._noticed)
        self._signals = signals or Signals()
        self._repaired_ahead: frozenset[Difference] = frozenset()
        self._files_settle = False
        self._host, self._emit, self._progress = host, emit, progress
        self._pool = NamespacePool()
        self._rehearsals = Rehearsals(host.tool.backend.value, self._pool)
        self._beds = MarkingBeds(host.tool.backend.value, progress, self._rehearsals.rehearsed)
        self._lines = KnownLines(self._rehearse, host.tool.backend.value)
        self.check = WholeCheck(host.tool.backend.value, progress)
        self._validator = Validator(self._lines.rehearse, settings.lint_context())
        self._store = BackgroundStore(settings.state_dir, settings.keep_revisions)
        self._kernel = MarkingKernel(host.tool.backend, progress, self._rehearsals.rehearsed, noticing)
        self._counting = Counting(self._store, emit, host.boot_id)
        self._other_tables = OtherTablesReport(host.tool.backend, emit)
        self._sets = Sets(settings.rules_dir, SetCopies(settings.state_dir, self._store.later), emit)
        self._state, self._settled = State(), SettledObjects()
        self._rules_end: deque[float | None] = deque([None], maxlen=1)
        self._boot_report = settings.runtime_dir / "boot"
        self._state = after_boot(self._boot_report, recall(self._context(Orders(settings))))
        self._former = former_of(self._context(Orders(settings)), self._state)

    @property
    def rule_count(self) -> int:
        """The number of rules in force."""
        return self._state.in_force.rule_count if self._state.in_force is not None else 0

    def opened(self, _orders: Orders) -> Opened:
        """What the state directory says."""
        return Opened(self._state, self._store.summaries(), self._store.faults())

    def run_pass(self, orders: Orders, request: PassRequest) -> Report:
        """A pass; but first a revision that was not confirmed in time is undone."""
        self._files_settle = self._files_settle and request.look_only
        if request.why.cause == Due.AGAIN.value:
            self._guarded("reading the tables", self._kernel.read_what_was_said)

        def step(context: Context, state: State) -> Outcome:
            outcome = expire(context, state, request.authors) or reconcile(context, state, request)
            return end_rules(context, outcome)

        return self._act("a pass", orders, step, request.why.cause)

    def reload(self, orders: Orders, request: PassRequest) -> Report:
        """A pass that validates all files again, held ones too."""
        self._files_settle = False
        if request.confirm_within is not None:
            self._signals.confirmation_asked.clear()

        def step(context: Context, state: State) -> Outcome:
            self._validator.forget(orders.settings.lint_context())
            self._lines.forget_names()
            return reload_files(
                context, state, request.why, request.confirm_within, take_over=request.take_over, proof=request.proof
            )

        return self._act("a reload", orders, step, request.why.cause)

    def adopt(self, orders: Orders, numbers: Sequence[int] | None, by: str, *, remove: bool) -> Report:
        """Keep or remove rules of other programs; None stands for all that are to be decided about."""
        return self._act("adopting", orders, lambda context, state: adopt(context, state, numbers, by, remove=remove))

    def load_sets(self, orders: Orders) -> tuple[str, ...]:
        """Load the set files that have changed. What is wrong with sets."""
        lists = Lists(orders.settings.lists_dir, orders.settings.lists)
        self._guarded("loading sets", lambda: self._sets.update(lists, repair=not orders.why_not))
        return self._sets.problems()

    def confirm(self, orders: Orders) -> Report:
        """Keep the revision that waits to be confirmed."""
        return self._act("a confirmation", orders, confirm)

    def rollback(self, orders: Orders, number: int | None, by: str) -> Report:
        """Put an earlier revision in force; None is the one before."""
        return self._act("a rollback", orders, lambda context, state: rollback(context, state, number, by))

    def open_firewall(self, orders: Orders, by: str, seconds: float | None = None) -> Report:
        """Accept everything, for so many seconds or until a reload."""
        return self._act("an opening", orders, lambda context, state: open_firewall(context, state, by, seconds))

    def hold_files(self, orders: Orders, by: str) -> Report:
        """Apply no changed files until a reload."""
        return self._act("holding the files", orders, lambda context, state: hold_files(context, state, by))

    def check_revision(self, orders: Orders, number: int) -> Report:
        """Read a revision from the disk; if it is damaged, it is moved aside and reported."""

        def step(context: Context, state: State) -> Outcome:
            context.store.get(number)
            return Done(state)

        return self._act("checking a revision", orders, step)

    def find_drift(self, orders: Orders) -> Comparison:
        """How the kernel differs from the revision in force, now. Raises KernelError."""
        context, in_force, begun = self._context(orders), self._state.in_force, time.monotonic()
        found: tuple[Difference, ...] = ()
        if in_force is not None:
            found = find_drift(context.kernel, in_force.canonical, context.preserve)
        return Comparison(found, time.monotonic() - begun)

    def validate_ahead(self, orders: Orders) -> None:
        """Validate the files while they settle, so that the pass finds the result ready."""
        self._late = LateAuthors(self._noticed)
        self._keep_guarded(
            self._guarded("validating ahead", lambda: validate_ahead(self._context(orders), self._state))
        )

    def check_rehearsal(self, orders: Orders) -> None:
        """Compare what was put together of rehearsals in parts with a whole one, if that was some time ago. It is given
        up if anything else is asked for."""
        if self._lines.is_to_be_checked:
            context, rehearse = self._context(orders), self.check.rehearse
            self._keep_guarded(
                self._guarded("a whole rehearsal", lambda: check_lines(context, self._state, self._lines, rehearse))
            )

    def _keep_guarded(self, guard: Guard | None) -> None:
        """Go on with the state that a guard has left."""
        if guard is not None:
            self._state = guard.state
            self._repaired_ahead |= guard.repaired

    def report_other_tables(self, _orders: Orders) -> None:
        """Report tables of other programs that also filter this host's packets, each time that they change."""
        hidden = self._kernel.hidden - self._state.owned
        self._guarded("looking for other tables", lambda: self._other_tables.update(hidden))

    def read_counters(self, orders: Orders) -> None:
        """Count packets by the counters of the last look, and report log lines that limits have suppressed. Then, as
        nothing waits for it, learn the handles of rules, and what became of each in the last rehearsal; all that is
        there now stays for long."""
        if self._state.in_force is not None:
            rulesets, shown = self._state.in_force.canonical.rulesets, self._kernel.shown
            prefixes = {each.prefix: (each.name, each.meaning.value) for each in orders.settings.prefixes}
            self._guarded("reading counters", lambda: self._counting.read(rulesets, shown, prefixes))
            self._guarded("learning the handles of rules", self._kernel.learn_handles)
            self._guarded("learning what became of rules", self._lines.learn)
            self._settled.settle()

    def counters(self, _orders: Orders) -> Sequence[Counted]:
        """What each rule in force has counted until now. Raises KernelError, StoreError."""
        if self._state.in_force is None:
            return ()
        rulesets = self._state.in_force.canonical.rulesets
        self._kernel.look(tuple(rulesets))
        return self._counting.count(rulesets, self._kernel.shown)

    def load_settings(self, _orders: Orders, load: Callable[[], Settings]) -> Settings:
        """Read the settings; the file system may be slow. Raises SettingsError."""
        return load()

    def wrote(self, pid: int) -> bool:
        """Whether a process that changed the kernel was one of ours. From any thread, see `WorkerThread.wrote`."""
        return self._kernel.wrote(pid)

    def close(self, _orders: Orders) -> None:
        """End the spare namespaces, and give a slow disk a moment for what waits to be written."""
        self._pool.close()
        self._beds.close()
        self._kernel.close()
        self._guarded("keeping counters", self._counting.keep)
        self._store.close(LAST_WRITES_WITHIN)

    def _context(self, orders: Orders) -> Context:
        return Context(
            rules_dir=orders.settings.rules_dir,
            validator=self._validator,
            kernel=self._kernel,
            preserve=Preserve.from_patterns(orders.settings.preserve).remembering(self._state.others),
            repair=not orders.why_not,
            store=self._store,
            host=self._host,
            emit=self._emit,
            why_not=orders.why_not,
            emergency_dir=orders.settings.emergency_dir,
            confirmation_asked=self._signals.confirmation_asked.is_set,
            manual=orders.settings.apply is ApplyMode.MANUAL,
            confirm_changes=orders.settings.confirm_changes,
            noticed=self._late,
            noticed_before=self._noticed_before,
            keep_services=orders.settings.foreign is Foreign.KEEP_SERVICES,
            prover=prover_of(self._beds, orders.settings, lambda: self._kernel.shown),
            rules_end=self._rules_end.append,
            kernel_changed=self._signals.kernel_changed,
            drift_interval=orders.settings.drift_interval,
            track_connections=_track_live_connections,
            before_load=BeforeLoad(orders.settings.runtime_dir),
        )

    def _act(self, what: str, orders: Orders, step: Step, cause: str = "") -> Report:
        """Run one step and report it. ``cause`` is that of a pass.

        In this order: run it, and after a defect enforce what is in force; keep the state; report what the kernel was
        known to hold and did not; end an emergency; load the emergency set after `Broken`.
        """
        begun = time.monotonic()
        self._noticed_before = self._late.found or NO_AUTHORS
        before, self._late = self._state, LateAuthors(self._noticed)
        outcome = self._guarded(what, lambda: self._step(orders, before, step))
        if outcome is None:
            outcome = self._guard_after_bug(what, orders, before)
        outcome = with_repairs(outcome, self._repaired_ahead)
        seconds = time.monotonic() - begun
        if isinstance(outcome, (Failed, Broken)):
            self._lines.forget()
        self._state, self._repaired_ahead = outcome.state, frozenset()
        for defect in self._kernel.defects():
            self._emit(events.FAULT, f"{defect}; fwguardd continues with what iptables-save shows", traceback="")
        end_emergency(self._boot_report, before, self._state)
        if isinstance(outcome, Broken) and orders.settings.emergency_dir is not None:
            self._load_emergency_set(orders, Path(orders.settings.emergency_dir))
        self._guarded("writing to the state directory again", lambda: self._settle_disk(orders))
        self._guarded("reporting damaged files", lambda: report_faults(self._context(orders)))
        rules_end = next_end(self._rules_end[-1], self._state.in_force, time.time())
        kept = self._store.summaries(), self._store.faults(), self._store.hangs
        return Report(
            before, outcome, self._state, *kept, self._late.all, rules_end, cause, seconds,
            self._sets.in_use(), self._sets.problems(),
        )  # fmt: skip

    def _settle_disk(self, orders: Orders) -> None:
        """Write what could not be written before, now that the kernel is guarded."""
        context = self._context(orders)
        self._former = leave_backend(context, self._state, self._former)
        self._state = settle_disk(context, self._state)

    def _step(self, orders: Orders, before: State, step: Step) -> Outcome:
        """A step, after what could not be read of the state directory was read again."""
        self.load_sets(orders)
        context = self._context(orders)
        return step(context, recall_again(context, before))

    def _guard_after_bug(self, what: str, orders: Orders, state: State) -> Outcome:
        """Enforce what is in force although a step failed in a way that nobody foresaw."""
        failed = Failed(state, f"{what} failed because of a bug in fwguardd: see daemon.fault", retry=True)
        guard = self._guarded("enforcement", lambda: guard_after(self._context(orders), failed, NO_AUTHORS))
        return guard or failed

    def _load_emergency_set(self, orders: Orders, directory: Path) -> None:
        context = self._context(orders)
        loaded = self._guarded("loading the emergency set", lambda: load_emergency_set(context, self._state, directory))
        if loaded is not None:
            self._state = loaded.state

    def expect_rehearsal(self, _orders: Orders) -> None:
        """Files change: start namespaces now, so that they are ready once the files have settled, and import what is
        needed then. Without a change no process waits, and a start in which nothing is rehearsed starts none."""
        self._files_settle = True
        self._guarded("preparing namespaces", self._prepare_namespaces)
        self._guarded("preparing a validation", self._validator.prepare)

    def _prepare_namespaces(self) -> None:
        with contextlib.suppress(NamespaceError):  # The rehearsal fails for the same reason, and reports it.
            self._pool.refill()

    def end_namespaces(self, _orders: Orders) -> None:
        """End the namespaces of a step, once it was answered: those that it used, and all that no change waits for."""
        end = self._pool.close
        if self._files_settle:
            end = self._pool.close_used
        self._guarded("ending namespaces", end)
        self._guarded("ending namespaces of packets", self._beds.refill)

    def _rehearse(self, candidate: Candidate, /) -> Canonical | RehearsalRefused:
        """A rehearsal, with marks. Raises NamespaceError where it is not possible."""
        self._progress.allow_for(sum(ruleset.rule_count for ruleset in candidate.rulesets.values()))
        self._progress.mark("a rehearsal")
        result = self._rehearsals.rehearse(candidate)
        self._progress.mark("evaluating a rehearsal")
        return result

    def _guarded(self, what: str, work: Callable[[], Result]) -> Result | None:
        """The task boundary: a bug is reported with its place in the code, and ends nothing but this piece of work."""
        try:
            return work()
        except Exception as error:  # noqa: BLE001 - whatever arrives here is a bug, and has to be reported.
            message = f"{what} failed because of a bug in fwguardd: {type(error).__name__}: {error}; fwguardd continues"
            self._emit(events.FAULT, message, traceback=traceback.format_exc()[-LONGEST_TRACEBACK:])
            return None


def _track_live_connections() -> int:
    from fwguardd.kernel.live_connections import track_live_connections  # noqa: PLC0415 - only a load needs it.

    return track_live_connections()
