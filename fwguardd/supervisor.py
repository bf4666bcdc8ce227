"""The event loop's side of the firewall: what the last report said, whether drift is repaired, what is done next."""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING, Concatenate, ParamSpec

from fwguardd import documents, events
from fwguardd.documents import RefusedSettings
from fwguardd.enforce.context import Outcome, RecordedHost, Signals, boottime, repaired_in
from fwguardd.enforce.kernel_state import KernelState
from fwguardd.enforce.reconcile import PassRequest
from fwguardd.enforce.record import Cause
from fwguardd.enforce.schedule import LOOK_GAP, NOTICE_GAP, Alarm, RepairBudget
from fwguardd.escaping import printable
from fwguardd.event_loop import asyncio
from fwguardd.kernel.attribution import NO_AUTHORS, Authors
from fwguardd.kernel.privilege import boot_id, kernel_release
from fwguardd.progress import Progress
from fwguardd.settings import OnDrift
from fwguardd.store.revisions import Waiting, evaluate_pending
from fwguardd.values import dataclass
from fwguardd.wording import local_time_of_day
from fwguardd.worker import Worker
from fwguardd.worker_report import Orders, Report
from fwguardd.worker_thread import WorkerThread

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from concurrent.futures import Future

    from fwguardd.control.documents import (
        DenialsDocument,
        DriftStateDocument,
        FightDocument,
        RepairsDocument,
        StatusDocument,
    )
    from fwguardd.enforce.counting import Counted
    from fwguardd.enforce.state import State
    from fwguardd.enforce.transaction import Comparison
    from fwguardd.events import Emit
    from fwguardd.kernel.changes import Noticing
    from fwguardd.kernel.iptables import Tool
    from fwguardd.ruleset.diff import Difference
    from fwguardd.settings import Settings
    from fwguardd.store.revisions import Fault, RevisionSummary

Arguments = ParamSpec("Arguments")

COMPARISON_SHARE = 0.05
"""The share of the worker thread's time that comparisons may take which users ask for that may only read."""

LONGEST_REUSE = 30.0
"""The longest time, in seconds, for which the result of a comparison is given again."""

REPAIRS_WITHIN = 3600.0
"""Seconds for which status counts repairs."""

MOST_REPAIRS = 10_000
"""Repairs that are remembered for that."""


@dataclass(frozen=True, slots=True)
class _Repair:
    """A repair: when, in seconds since 1970, and which processes had caused it, "" if that is not known."""

    when: float
    author: str


@dataclass(frozen=True, slots=True)
class _Recent:
    """What the last comparison found, and until when it is given again, on the monotonic clock."""

    differences: tuple[Difference, ...]
    until: float


class Supervisor:
    """Decides what the worker thread does, and knows what came of it. Belongs to the event loop.

    ``state``, ``revisions`` and ``faults`` are those of the last report. Whether drift is repaired is decided here: by
    the settings, a pause, or a fight, which is counted here too.
    """

    def __init__(self, settings: Settings, tool: Tool, emit: Emit, noticing: Noticing | None = None) -> None:
        """Start the worker thread. Raises StoreError where the state directory cannot be trusted.

        ``noticing`` knows the processes that have changed the kernel. It is asked in the worker thread.
        """
        self._settings, self._emit = settings, emit
        self._paused_until: float | None = None
        self._budget = RepairBudget()
        self._opponents = NO_AUTHORS
        self._repairs: deque[_Repair] = deque(maxlen=MOST_REPAIRS)
        self._comparison: Future[Comparison] | None = None
        self._recent: _Recent | None = None
        self._hangs = ""
        self._set_problems: tuple[str, ...] = ()
        self.rules_end, self.sets_change = Alarm(time.time), Alarm(time.monotonic)
        self.refused_settings: RefusedSettings | None = None
        host, progress = RecordedHost(tool, kernel_release(), boot_id()), Progress()
        self.host = host
        self._signals = signals = Signals()
        self._worker = WorkerThread(
            lambda: Worker(settings, host, emit, progress, signals, noticing), Orders(settings), progress
        )
        self.files_change = self._worker.expect_rehearsal
        opened = self._worker.submit(Worker.opened).result()
        self.state: State = opened.state
        self.revisions: tuple[RevisionSummary, ...] = opened.revisions
        self.faults: tuple[Fault, ...] = opened.faults

    def use(self, settings: Settings) -> None:
        """Use these settings from the next step on."""
        self._settings, self.refused_settings = settings, None

    def refuse_settings(self, message: str) -> RefusedSettings:
        """Go on with the settings from before: those of the file cannot be used."""
        self._signals.confirmation_asked.clear()
        self.refused_settings = RefusedSettings(time.time(), message)
        return self.refused_settings

    async def load_settings(self, load: Callable[[], Settings]) -> Settings:
        """Read the settings in the worker thread, as the event loop must not wait for a disk. Raises SettingsError."""
        return await asyncio.wrap_future(self._worker.submit(Worker.load_settings, load))

    def repairs(self) -> bool:
        """Whether drift is repaired now: the settings say so, it is not paused, and there is no fight."""
        return not self._why_not()

    @property
    def sentence(self) -> str:
        """The state in one sentence, for people and for STATUS= of sd_notify(3)."""
        return self.describe().sentence

    def describe(self, *, settling: bool = False) -> documents.Described:
        """The state in words. ``settling``: changed files wait until there are no further changes."""
        why_not, state = self._why_not(), self.state
        measured, files = state.measured(why_not), state.files(settling=settling)
        clauses = [state.describe(why_not, settling=settling)]
        if self._settings.on_drift is OnDrift.REPAIR and why_not and measured.state is not KernelState.DRIFTED:
            clauses.append(why_not)
        if self.refused_settings is not None:
            clauses.append(f"settings refused: {self.refused_settings.message}")
        if self._hangs:
            clauses.append(self._hangs)
        return documents.Described("; ".join(clauses), measured, files)

    def kernel_changed(self) -> None:
        """Another program has changed the kernel: a step that validates files compares it."""
        self._signals.kernel_changed.set()

    def look_gap(self) -> float:
        """Seconds to leave between two passes that changes by other programs cause."""
        if not self.repairs():
            return LOOK_GAP
        return max(NOTICE_GAP, self._budget.back_off(time.monotonic()))

    def held_for(self) -> float | None:
        """Seconds until repairs resume by themselves; None when they are not suspended, or are so for good."""
        if self._settings.on_drift is not OnDrift.REPAIR:
            return None
        return self._seconds_held() or None

    def paused(self) -> float | None:
        """Seconds for which drift is still left alone by a pause; None when there is none."""
        if self._paused_until is None:
            return None
        left = self._paused_until - time.monotonic()
        return left if left > 0 else None

    def pause(self, seconds: float | None) -> None:
        """Leave drift alone for so many seconds; None resumes repairs, also after a fight."""
        self._paused_until = None
        if seconds is None:
            self._budget.reset()
        else:
            self._paused_until = time.monotonic() + seconds
        self._give_orders()

    async def step_ended(self) -> None:
        """Wait until the step that runs now has ended: it has its orders from before."""
        await asyncio.wrap_future(self._worker.submit(Worker.opened))

    def deadline(self) -> float | None:
        """Seconds until the revision that waits to be confirmed is undone; None when none waits."""
        if self.state.pending is None:
            return None
        meaning = evaluate_pending(self.state.pending, self.host.boot_id, boottime())
        return meaning.seconds_left if isinstance(meaning, Waiting) else 0.0

    def wait(self) -> float:
        """Seconds until rules of the directory end or changed set files are to be loaded; infinite where none are."""
        return min(self.rules_end.wait(), self.sets_change.wait())

    def sets_changed(self, wake: asyncio.Event) -> None:
        """Set files have changed: they are loaded once they have settled."""
        self.sets_change.set(time.monotonic() + self._settings.settle)
        wake.set()

    async def load_sets(self) -> None:
        """Load the set files that have changed, without a pass of the rules."""
        self._give_orders()
        self._set_problems = await asyncio.wrap_future(self._worker.submit(Worker.load_sets))

    def wrote(self, pid: int) -> bool:
        """Whether a process that changed the kernel was one of ours."""
        return self._worker.wrote(pid)

    def overdue(self) -> str | None:
        """The step in which the worker thread is stuck; None while it makes progress or waits."""
        return self._worker.overdue()

    async def run_pass(self, cause: str, authors: Authors = NO_AUTHORS, *, look_only: bool = False) -> Report:
        """A pass. ``authors`` are known to have changed the kernel; ``look_only`` does not apply changed files."""
        request = PassRequest(Cause(cause), look_only=look_only, authors=authors)
        report = await self._act(Worker.run_pass, request)
        self._count_repairs(report.outcome, authors.and_others(report.late))
        return report

    def expect_confirmation(self) -> None:
        """A reload that has to be confirmed follows: until it, no pass applies changed files."""
        self._signals.confirmation_asked.set()

    async def adopt(self, numbers: Sequence[int] | None, by: str, *, remove: bool) -> Report:
        """Keep or remove rules of other programs; None stands for all that are to be decided about."""
        return await self._act(Worker.adopt, numbers, by, remove=remove)

    async def reload(self, request: PassRequest) -> Report:
        """A pass that validates all files again, held ones too, and ends a fight."""
        self._budget.reset()
        return await self._act(Worker.reload, request)

    async def confirm(self) -> Report:
        """Keep the revision that waits to be confirmed."""
        return await self._act(Worker.confirm)

    async def rollback(self, number: int | None, by: str) -> Report:
        """Put an earlier revision in force; None is the one before."""
        return await self._act(Worker.rollback, number, by)

    async def open_firewall(self, by: str, seconds: float | None = None) -> Report:
        """Accept everything, for so many seconds or until a reload."""
        return await self._act(Worker.open_firewall, by, seconds)

    async def hold_files(self, by: str) -> Report:
        """Apply no changed files until a reload."""
        return await self._act(Worker.hold_files, by)

    async def check_revision(self, number: int) -> Report:
        """Read a revision from the disk; if it is damaged, it is moved aside and reported."""
        return await self._act(Worker.check_revision, number)

    async def find_drift(self, *, anew: bool = True) -> tuple[Difference, ...]:
        """How the kernel differs from the revision in force, now. Raises KernelError.

        Requests that arrive while a comparison is queued share it, so that many of them do not delay a repair. Without
        ``anew`` the result of a comparison is given again for a while, unless something has been done since: so those
        who may only read use a small share of the worker thread's time, however often they ask.
        """
        recent = self._recent
        if not anew and recent is not None and time.monotonic() < recent.until:
            return recent.differences
        queued = self._comparison
        if queued is None or queued.running() or queued.done():
            self._give_orders()
            queued = self._comparison = self._worker.submit(Worker.find_drift)
        comparison = await asyncio.shield(asyncio.wrap_future(queued))
        seconds = min(max(comparison.seconds / COMPARISON_SHARE, 1.0), LONGEST_REUSE)
        self._recent = _Recent(comparison.differences, time.monotonic() + seconds)
        return comparison.differences

    def validate_ahead(self) -> None:
        """Validate the files while they settle; the next step waits for it."""
        self._give_orders()
        self._worker.submit(Worker.validate_ahead)

    def after_a_step(self) -> None:
        """Do what nobody waits for: look for tables of other programs that filter this host's packets; count packets
        and suppressed log lines, by the counters that the step has read; and check what was rehearsed in parts."""
        for step in (Worker.report_other_tables, Worker.read_counters, Worker.check_rehearsal):
            self._worker.submit(step)

    async def counters(self) -> Sequence[Counted]:
        """What each rule in force has counted until now. Raises KernelError, StoreError."""
        return await asyncio.wrap_future(self._worker.submit(Worker.counters))

    def status(self, denials: DenialsDocument, *, settling: bool = False) -> StatusDocument:
        """The result of the verb status."""
        unverified = self.state.unverified
        drift: DriftStateDocument = {
            **documents.drift(self.state.drift, self.state.undecided),
            "repair": self.repairs(),
            "unseen": unverified.value if unverified is not None else None,
            "paused_seconds": self.paused(),
            "fight": self._fight(),
            "repairs": self._recent_repairs(),
        }
        described = self.describe(settling=settling)
        status = documents.status(self.host, str(self._settings.rules_dir), self.state, described, drift, denials)
        status["damaged"] = documents.damaged(self.faults)
        status["set_problems"] = [printable(problem) for problem in self._set_problems]
        status["settings"] = documents.settings(self.refused_settings)
        return status

    def close(self) -> None:
        """Wait until the queued steps have ended."""
        self._worker.close()

    async def _act(
        self,
        step: Callable[Concatenate[Worker, Orders, Arguments], Report],
        /,
        *args: Arguments.args,
        **kwargs: Arguments.kwargs,
    ) -> Report:
        self._give_orders()
        self._recent = None
        report = await asyncio.wrap_future(self._worker.act(step, *args, **kwargs))
        self.state, self.revisions, self.faults = report.state, report.revisions, report.faults
        if self._hangs and not report.hangs:
            self._emit(events.ANSWERS, "the state directory answers again, and what waited for it is written")
        self._hangs, self._set_problems = report.hangs, report.set_problems
        self.rules_end.set(report.rules_end)
        return report

    def _give_orders(self) -> None:
        self._worker.orders = Orders(self._settings, self._why_not())

    def _why_not(self) -> str:
        """Why drift is left alone now; "" when it is repaired."""
        if self._settings.on_drift is not OnDrift.REPAIR:
            return "on_drift is report"
        fight = self._budget.fight(time.monotonic())
        if fight is not None:
            until = clock_time(self._seconds_held())
            return f"repairs of {fight.chain} are suspended until {until}, or until a reload"
        if self.paused() is not None:
            return f"repairs are paused until {clock_time(self._seconds_held())}"
        return ""

    def _seconds_held(self) -> float:
        now = time.monotonic()
        fight = self._budget.fight(now)
        left = self.paused() or 0.0
        if fight is not None:
            left = max(left, fight.until - now)
        return left

    def _recent_repairs(self) -> RepairsDocument | None:
        """The repairs of the last hour."""
        recent = [repair for repair in self._repairs if repair.when > time.time() - REPAIRS_WITHIN]
        if not recent:
            return None
        authors = [repair.author for repair in recent if repair.author]
        return {"count": len(recent), "last": recent[-1].when, "culprit": (authors or [""])[-1]}

    def _fight(self) -> FightDocument | None:
        now = time.monotonic()
        fight = self._budget.fight(now)
        if fight is None:
            return None
        return {"chain": fight.chain, "culprit": fight.author, "seconds_left": fight.until - now}

    def _count_repairs(self, outcome: Outcome, authors: Authors) -> None:
        """Count a repair; with one too many, suspend repairs and report that once."""
        repaired = repaired_in(outcome)
        if not repaired:
            return
        if authors and (not self._opponents or not all(author.gone for author in authors.processes)):
            self._opponents = authors
        now = time.monotonic()
        self._repairs.append(_Repair(time.time(), str(authors)))
        fight = self._budget.spend(now, {str(one): one.place for one in repaired}, str(self._opponents))
        if fight is None:
            return
        who = str(self._opponents) or "an unknown process"
        until = clock_time(fight.until - now)
        self._emit(
            events.FIGHT,
            f"{fight.chain} is changed again after each repair, by {who}; "
            f"repairs are suspended until {until}, or until a reload",
            chain=fight.chain,
            state=self.state.kernel_state.value,
            **self._opponents.fields(),
        )
        self._opponents = NO_AUTHORS


def clock_time(seconds: float) -> str:
    """The local time of day in so many seconds."""
    return local_time_of_day(time.time() + seconds)
