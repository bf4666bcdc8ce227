"""The one thread that acts: passes, verbs and expiries run here one after the other, each on what the last one left.

Everything is plain blocking code. Whatever is asked for while something runs waits its turn, and nothing is ever
cancelled half-way.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from fwguardd import documents, events
from fwguardd.enforce.context import Broken, Context, Done, Failed, Host, Outcome, boottime
from fwguardd.enforce.reconcile import PassRequest, reconcile, validate_ahead
from fwguardd.enforce.record import Cause, recall
from fwguardd.enforce.rollback import confirm, expire, load_emergency_set, open_firewall, rollback
from fwguardd.enforce.schedule import LOOK_GAP, NOTICE_GAP, RepairBudget
from fwguardd.enforce.transaction import find_drift
from fwguardd.enforce.validate import Validator
from fwguardd.kernel.attribution import NO_AUTHORS, Authors
from fwguardd.kernel.iptables import LiveKernel
from fwguardd.kernel.namespaces import NamespaceError, NamespacePool
from fwguardd.kernel.other_tables import other_tables
from fwguardd.kernel.privilege import boot_id, kernel_release
from fwguardd.kernel.rehearsal import Rehearsals
from fwguardd.ruleset.other_tables import describe
from fwguardd.ruleset.preserve import Preserve
from fwguardd.settings import OnDrift
from fwguardd.store.revisions import RevisionStore, Waiting, evaluate_pending

if TYPE_CHECKING:
    from collections.abc import Callable

    from fwguardd.enforce.state import State
    from fwguardd.events import Emit
    from fwguardd.kernel.iptables import Tool
    from fwguardd.ruleset.diff import Difference
    from fwguardd.ruleset.other_tables import OtherTable
    from fwguardd.settings import Settings

    Step = Callable[[Context, State], Outcome]

Result = TypeVar("Result")

LONGEST_TRACEBACK = 8000
"""Characters of it that are told, from its end."""


class Supervisor:
    """Keeps the memory between passes, and lets one thing happen at a time."""

    def __init__(self, settings: Settings, tool: Tool, emit: Emit) -> None:
        """Open the store. Raises StoreError where the state directory cannot be trusted."""
        self._settings, self._emit = settings, emit
        self._pool = NamespacePool()
        self._validator = Validator(Rehearsals(tool.backend.value, self._pool).rehearse, settings.lint_context())
        self._store = RevisionStore(settings.state_dir, settings.keep_revisions)
        self._host = Host(tool, kernel_release(), boot_id())
        self._kernel = LiveKernel(tool.backend)
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="pass")
        self._paused_until: float | None = None
        self._budget = RepairBudget()
        self._opponents = NO_AUTHORS
        self._elsewhere: tuple[OtherTable, ...] = ()
        self._elsewhere_unseen = ""
        self.state = recall(self.context())

    def context(self) -> Context:
        """What a pass works on now."""
        return Context(
            rules_dir=self._settings.rules_dir,
            validator=self._validator,
            kernel=self._kernel,
            preserve=Preserve.from_patterns(self._settings.preserve),
            repair=self.repairs(),
            store=self._store,
            host=self._host,
            emit=self._emit,
            why_not=self._why_not(),
        )

    def use(self, settings: Settings) -> None:
        """From the next pass on, these settings."""
        self._settings = settings

    def repairs(self) -> bool:
        """Whether drift is repaired now: it is wanted, not paused, and no fight."""
        return not self._why_not()

    def _why_not(self) -> str:
        """Why drift is left alone now; "" when it is repaired."""
        if self._settings.on_drift is not OnDrift.REPAIR:
            return "on_drift is report"
        fight = self._budget.fight(time.monotonic())
        if fight is not None:
            return f"repairs of {fight.chain} were given up until {_clock(self._seconds_held())}, or until a reload"
        if self.paused() is not None:
            return f"repairs are paused until {_clock(self._seconds_held())}"
        return ""

    @property
    def sentence(self) -> str:
        """The state in one sentence, for people and for STATUS= of sd_notify(3)."""
        held = self._why_not() if self._settings.on_drift is OnDrift.REPAIR else ""
        return "; ".join(filter(None, (self.state.sentence, held)))

    def look_gap(self) -> float:
        """Seconds to leave between two passes that foreign changes wake."""
        return max(NOTICE_GAP, self._budget.back_off(time.monotonic())) if self.repairs() else LOOK_GAP

    def held_for(self) -> float | None:
        """Seconds until repairs begin again by themselves; None when they are not held, or for good."""
        return self._seconds_held() or None if self._settings.on_drift is OnDrift.REPAIR else None

    def _seconds_held(self) -> float:
        now = time.monotonic()
        fight = self._budget.fight(now)
        return max(self.paused() or 0.0, fight.until - now if fight is not None else 0.0)

    def wrote(self, pid: int) -> bool:
        """Whether a process that changed the kernel was one of ours."""
        return self._kernel.wrote(pid)

    async def run_pass(self, cause: str, authors: Authors = NO_AUTHORS, *, look_only: bool = False) -> Outcome:
        """A pass, or first of all the undoing of what nobody confirmed in time. ``authors`` are known to have changed
        the kernel; ``look_only`` leaves files that changed alone."""
        ask = PassRequest(Cause(cause), look_only=look_only, authors=authors)

        def step(context: Context, state: State) -> Outcome:
            return expire(context, state) or self._weighed(reconcile(context, state, ask), authors)

        return await self._act(step)

    def _weighed(self, outcome: Outcome, authors: Authors) -> Outcome:
        """Count a repair; with one too many, stop fighting and say so, once."""
        if not isinstance(outcome, Done) or not outcome.repaired:
            return outcome
        if authors and (not self._opponents or not all(author.gone for author in authors.processes)):
            self._opponents = authors
        now = time.monotonic()
        fight = self._budget.spend(now, outcome.repaired, str(self._opponents))
        if fight is not None:
            who = f"{self._opponents}" if self._opponents else "somebody"
            until = f"until {_clock(fight.until - now)}, or until a reload"
            message = f"{fight.chain} is changed again after each repair, by {who}; fwguardd stops repairing {until}"
            self._emit(events.FIGHT, message, chain=fight.chain, **self._opponents.fields())
            self._opponents = NO_AUTHORS
        return outcome

    async def reload(self, by: str, confirm_within: float | None = None) -> Outcome:
        """A pass that judges everything anew, held files too."""

        def step(context: Context, state: State) -> Outcome:
            self._validator.forget(self._settings.lint_context())
            self._budget.reset()
            anew = replace(state.judged_anew(), held=None)
            outcome = reconcile(context, anew, PassRequest(Cause("reload", by), confirm_within))
            if isinstance(outcome, Failed):
                left = outcome.state
                return replace(outcome, state=replace(state, touched=left.touched, unverified=left.unverified))
            return outcome

        return await self._act(step)

    async def confirm(self) -> Outcome:
        """Keep what waits to be confirmed."""
        return await self._act(confirm)

    async def rollback(self, number: int | None, by: str) -> Outcome:
        """Back to an earlier revision."""
        return await self._act(lambda context, state: rollback(context, state, number, by))

    async def look(self) -> tuple[Difference, ...]:
        """How the kernel differs from what is in force, now. Raises KernelError."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._blocking_look)

    def _blocking_look(self) -> tuple[Difference, ...]:
        in_force, context = self.state.in_force, self.context()
        return find_drift(context.kernel, in_force.canonical, context.preserve) if in_force is not None else ()

    async def open_firewall(self, by: str) -> Outcome:
        """Accept everything."""
        return await self._act(lambda context, state: open_firewall(context, state, by))

    def validate_ahead(self) -> None:
        """Judge the files while they settle; whatever comes next waits behind it."""
        self._thread.submit(self._guarded, "looking ahead", lambda: validate_ahead(self.context(), self.state))

    def look_elsewhere(self) -> None:
        """Look for rules outside of our tables, behind the pass that has just given its answer."""
        self._thread.submit(self._guarded, "looking elsewhere", self._tell_elsewhere)

    def _tell_elsewhere(self) -> None:
        """Tell of tables that see our packets too, and of not being able to look, each unless it was told last."""
        try:
            seen = other_tables(self._host.tool.backend, self._kernel.hidden - self.state.owned)
        except OSError as error:
            if str(error) != self._elsewhere_unseen:
                message = f"whether rules outside of fwguardd's tables see this host's packets cannot be told: {error}"
                self._emit(events.OTHER_RULES, message, table=())
            self._elsewhere_unseen = str(error)
            return
        self._elsewhere_unseen = ""
        if seen and seen != self._elsewhere:
            self._emit(events.OTHER_RULES, describe(seen), table=tuple(str(table) for table in seen))
        self._elsewhere = seen

    def pause(self, seconds: float | None) -> None:
        """Leave drift alone for so many seconds; None repairs it again, also after a fight."""
        if seconds is None:
            self._budget.reset()
        self._paused_until = None if seconds is None else time.monotonic() + seconds

    def paused(self) -> float | None:
        """Seconds for which drift is still left alone; None when it is not."""
        if self._paused_until is None or self._paused_until <= time.monotonic():
            return None
        return self._paused_until - time.monotonic()

    def deadline(self) -> float | None:
        """Seconds until what waits to be confirmed is undone; None when nothing waits."""
        if self.state.pending is None:
            return None
        meaning = evaluate_pending(self.state.pending, self._host.boot_id, boottime())
        return meaning.seconds_left if isinstance(meaning, Waiting) else 0.0

    def close(self) -> None:
        """Wait for what runs, and end the spare namespaces."""
        self._thread.shutdown()
        self._pool.close()

    async def _act(self, step: Step) -> Outcome:
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._blocking, step)

    def _blocking(self, step: Step) -> Outcome:
        """One step, in the thread; then fresh namespaces are made ready for the next."""
        outcome = self._guarded("a pass", lambda: step(self.context(), self.state))
        if outcome is None:
            outcome = Failed(self.state, "a pass failed by a defect of fwguardd: see daemon.fault", passing=True)
        self.state = outcome.state
        directory = self._settings.emergency_dir
        if isinstance(outcome, Broken) and directory is not None:
            rescued = self._guarded(
                "the last resort", lambda: load_emergency_set(self.context(), self.state, Path(directory))
            )
            self.state = rescued.state if rescued is not None else self.state
        self._guarded("making ready for the next", self._make_ready)
        return outcome

    def _make_ready(self) -> None:
        with contextlib.suppress(NamespaceError):  # The next rehearsal will not get one either, and says why.
            self._pool.refill()

    def _guarded(self, what: str, work: Callable[[], Result]) -> Result | None:
        """The task boundary: a defect is told, with the place it was at, and ends nothing but this piece of work."""
        try:
            return work()
        except Exception as error:  # noqa: BLE001 - anything that comes here is a defect, and must not go unheard.
            message = f"{what} failed by a defect of fwguardd: {type(error).__name__}: {error}; it goes on without that"
            self._emit(events.FAULT, message, traceback=traceback.format_exc()[-LONGEST_TRACEBACK:])
            return None

    def status(self, denials: dict[str, Any]) -> dict[str, Any]:
        """Everything at a glance, for the control socket."""
        now = time.monotonic()
        fight = self._budget.fight(now)
        told = {"chain": fight.chain, "culprit": fight.author, "seconds_left": fight.until - now} if fight else None
        guarding = {"paused_seconds": self.paused(), "fight": told}
        return documents.status(self.context(), self.state, denials, guarding, self.sentence)


def _clock(seconds: float) -> str:
    """The time of day in so many seconds, as a clock on the wall shows it."""
    return time.strftime("%H:%M:%S", time.localtime(time.time() + seconds))
