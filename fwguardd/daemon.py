"""The daemon (event loop and worker thread): it builds the parts, waits for events and schedules the passes.

The event loop waits for directory notices, signals, timers, the kernel log and the control socket. The worker thread
carries out the passes (`fwguardd.worker`). Two more threads find out who changed the rules and hand values to the event
loop (`kernel.changes`, `kernel.process_watch`). Reading denials shares nothing with applying rules but the log.
"""

from __future__ import annotations

import contextlib
import signal
import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING, cast

from fwguardd import __version__, documents, events
from fwguardd.control.server import ControlServer, ControlSocketError, root_or_reading
from fwguardd.denial_reader import DenialReader
from fwguardd.enforce.confirmation import RELOAD
from fwguardd.enforce.context import Broken, Done, to_look_at, unfinished
from fwguardd.enforce.reconcile import STARTED, PassRequest
from fwguardd.enforce.record import Cause
from fwguardd.enforce.reports import report_boot
from fwguardd.enforce.schedule import MAY_BE_KNOWN, Due, Schedule, Unfinished
from fwguardd.enforce.unknown import UnverifiedState
from fwguardd.enforce.watch import DirectoryWatch
from fwguardd.event_loop import asyncio
from fwguardd.held_files import hold_for_next_start
from fwguardd.interpreter import set_up_process
from fwguardd.kernel.changes import Change, ChangeReader, Noticing
from fwguardd.kernel.generations import Generation, GenerationNotices, GenerationNoticesError
from fwguardd.kernel.iptables import Backend, Tool, ToolMissingError, find_tool
from fwguardd.kernel.privilege import (
    MissingPrivilegeError,
    RunningAlreadyError,
    boot_id,
    local_group,
    only_process,
    require_privilege,
)
from fwguardd.kernel.process_events import try_process_events
from fwguardd.kernel.process_watch import ProcessWatch
from fwguardd.metrics.daemon_metrics import DaemonMetrics
from fwguardd.options import Options, parse_options
from fwguardd.ruleset.references import logging_rules
from fwguardd.settings import Settings, SettingsError
from fwguardd.sinks.choice import open_sink
from fwguardd.store.revisions import StoreError
from fwguardd.supervisor import Supervisor
from fwguardd.systemd import SystemdNotifier, Watchdog, extend_start, extend_start_until_cancelled, watchdog_interval
from fwguardd.threads import ThreadNotStartedError
from fwguardd.verbs import ControlVerbs, RevisionReader
from fwguardd.worker_thread import report_fault

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from fwguardd.control.documents import DenialsDocument, MetricsDocument, StatusDocument
    from fwguardd.documents import RefusedSettings
    from fwguardd.ruleset.canonical import Canonical
    from fwguardd.sinks.sink import Sink
    from fwguardd.worker_report import Report

EX_FAILURE, EX_NOPERM, EX_CONFIG = 1, 77, 78
"""Exit codes, those of sysexits(3h) where it has one."""

LAST_EVENTS_WITHIN = 2.0
"""Seconds that the end of the daemon waits for a log that is slow to take the last events."""

READING_GROUP = "fwguard"
"""The group whose members may use the verbs that only read, where the host has it."""


class Daemon:
    """All parts, and the event loop that they run in. Belongs to the event loop."""

    def __init__(self, options: Options, settings: Settings, tool: Tool, log: Sink) -> None:
        """Build the parts. Raises StoreError where the state directory cannot be trusted."""
        self._metrics = DaemonMetrics(settings, log, self._status)
        self._options, self._settings, self._tool, self._emit = options, settings, tool, self._metrics.log.emit
        self._systemd = SystemdNotifier()
        extend_start(self._systemd)  # Opening the state directory reads all that is in it.
        self._noticing = Noticing()
        self._supervisor = Supervisor(settings, tool, self._emit, self._noticing)
        ran_before = self._supervisor.state.in_force is not None
        self._reader = DenialReader(settings, self._metrics.log, boot_id(), ran_before=ran_before)
        self._named: Canonical | None = None
        self._wake = asyncio.Event()
        self._timetable = Schedule(settings.settle, settings.settle_max, settings.drift_interval)
        self._reload_wanted = False
        self._end: int | None = None
        self._suspended = False

    async def run(self) -> int:
        """Guard the firewall until SIGTERM or SIGINT; the exit code. The rules stay in force afterwards."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop, 0)
        loop.add_signal_handler(signal.SIGHUP, self._want_reload)
        loop.set_exception_handler(lambda _loop, context: report_fault(self._emit, context))
        async with contextlib.AsyncExitStack() as parts:
            parts.callback(self._supervisor.close)
            self._systemd.resend_in(loop)
            parts.callback(self._systemd.close)
            watch = self._watch_directory(loop)
            parts.callback(watch.close)
            self._report_start()
            self._name_rules()
            parts.enter_context(self._reader.reading(loop))
            parts.enter_context(self._noticing_changes(loop))
            parts.enter_context(self._metrics.writing(loop))
            await self._open_control_socket(parts)
            self._start_watchdog(parts)
            await self._first_pass()
            while self._end is None:
                await self._next_pass(watch)
            self._systemd.notify(STOPPING=1, STATUS="stopping; what the kernel holds stays as it is")
        self._emit(
            events.STOPPING, f"fwguardd stops; what the kernel holds stays as it is ({self._supervisor.state.sentence})"
        )
        return self._end

    def _watch_directory(self, loop: asyncio.AbstractEventLoop) -> DirectoryWatch:
        changed, sets_changed = self._notice, self._supervisor.sets_changed
        return DirectoryWatch(
            self._settings.rules_dir,
            lambda: loop.call_soon_threadsafe(changed, time.monotonic()),
            lambda: loop.call_soon_threadsafe(sets_changed, self._wake),
            self._report_refused_watch,
        )

    def _report_start(self) -> None:
        backend, version = self._tool.backend.value, self._tool.version
        message = f"fwguardd {__version__} guards this host with {self._tool}, rules from {self._settings.rules_dir}"
        self._emit(events.STARTED, message, version=__version__, backend=backend, iptables=version)

    async def _open_control_socket(self, parts: contextlib.AsyncExitStack) -> None:
        reader = RevisionReader(self._settings.state_dir)
        parts.callback(reader.close)
        path, group = self._settings.runtime_dir / "control.sock", local_group(READING_GROUP)
        self._control = ControlServer(path, ControlVerbs(self._supervisor, reader, self), root_or_reading, group=group)
        try:
            await parts.enter_async_context(self._control)
        except ControlSocketError as error:
            self._emit(events.CONTROL_CLOSED, f"{error}; fwguardctl cannot reach this daemon")

    def _start_watchdog(self, parts: contextlib.AsyncExitStack) -> None:
        watchdog = Watchdog(self._systemd, self._supervisor.overdue, self._report_stuck)
        feeding = asyncio.ensure_future(watchdog.feed_until_cancelled(watchdog_interval()))
        parts.callback(feeding.cancel)

    async def _first_pass(self) -> None:
        report_boot(self._settings.runtime_dir / "boot", self._emit)
        extending = asyncio.ensure_future(extend_start_until_cancelled(self._systemd, self._supervisor.overdue))
        try:
            await self._pass(STARTED)
        finally:
            extending.cancel()
        self._inform_systemd(READY=1)

    async def _next_pass(self, watch: DirectoryWatch) -> None:
        """Wait until there is a reason for a pass, and run it."""
        await self._wait()
        if self._end is not None:
            return
        if self._reload_wanted:
            self._reload_wanted = False
            await self.reload(PassRequest(Cause(RELOAD, "SIGHUP")))
        elif self._supervisor.deadline() == 0.0 and not self._timetable.retries(Unfinished.UNDO):
            await self._pass("not confirmed", look_only=True)
        elif self._supervisor.sets_change.is_due():
            await self._supervisor.load_sets()
        elif self._supervisor.rules_end.is_due():
            self._timetable.files_changed(time.monotonic())
        elif self._suspended and self._supervisor.repairs():
            self._suspended = False
            await self._pass("repairs begin again", look_only=True)
        else:
            await self._scheduled_pass(watch)

    async def _wait(self) -> None:
        """Wait until something happens or is due."""
        waits = [self._timetable.wait(time.monotonic()), self._supervisor.wait()]
        deadline, suspended = self._supervisor.deadline(), self._supervisor.held_for()
        if deadline is not None and not self._timetable.retries(Unfinished.UNDO):
            waits.append(deadline)
        if suspended is not None:
            self._suspended = True
            waits.append(suspended)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._wake.wait(), min(waits))
        self._wake.clear()

    async def _scheduled_pass(self, watch: DirectoryWatch) -> None:
        due = self._timetable.due(time.monotonic())
        if due is Due.VALIDATE_AHEAD:
            self._timetable.validation_begins()
            self._supervisor.validate_ahead()
        elif due is not None:
            watch.renew()
            self._control.renew()
            await self._pass(due.value, look_only=due in {Due.NOTICE, Due.AGAIN, Due.TIMER})

    async def _pass(self, cause: str, *, look_only: bool = False) -> None:
        noticed, may_be_known = cause == Due.NOTICE.value, cause in MAY_BE_KNOWN
        self._timetable.pass_begins(time.monotonic(), look_only=look_only, may_be_known=may_be_known, noticed=noticed)
        report = await self._supervisor.run_pass(cause, self._noticing.authors(), look_only=look_only)
        outcome = report.outcome
        if isinstance(outcome, Done) and outcome.files_changed and not self._timetable.settling:
            self._timetable.files_changed(time.monotonic())
        self.after(report)

    async def reload(self, request: PassRequest) -> Report | RefusedSettings:
        """Read the settings and the rule files now.

        With settings that cannot be used nothing is done: rules that were written for them may need them.
        """
        if request.confirm_within is not None:
            self._supervisor.expect_confirmation()
        self._systemd.notify(RELOADING=1, MONOTONIC_USEC=time.monotonic_ns() // 1000)
        try:
            loaded = await self._supervisor.load_settings(self._options.load)
        except SettingsError as error:
            message = f"{error}; nothing was reloaded, and the earlier settings stay in use"
            self._emit(events.SETTINGS_REJECTED, message)
            refused = self._supervisor.refuse_settings(message)
            self._inform_systemd(READY=1)
            return refused
        self._use(loaded)
        self._timetable.pass_begins(time.monotonic())
        report = await self._supervisor.reload(request)
        self.after(report, READY=1)
        return report

    def _use(self, loaded: Settings) -> None:
        """Use these settings; the directories that the parts were built with stay until a restart."""
        before = self._settings
        settings = replace(
            loaded, rules_dir=before.rules_dir, state_dir=before.state_dir, runtime_dir=before.runtime_dir
        )
        self._settings = settings
        self._supervisor.use(settings)
        self._timetable.set_durations(settings.settle, settings.settle_max, settings.drift_interval)
        self._reader.use(settings)
        self._metrics.use(settings)

    def after(self, report: Report, **variables: int) -> None:
        """Schedule the next looks and inform systemd. A broken firewall ends the daemon, so that systemd acts."""
        outcome = report.outcome
        self._metrics.step_ended(report)
        again = unfinished(outcome, report.state)
        wrote, undo = to_look_at(outcome, again=bool(again)), outcome.state.unverified is UnverifiedState.UNDO
        self._timetable.pass_ended(time.monotonic(), wrote=wrote, again=again, undo=undo)
        self._inform_systemd(**variables)
        self._name_rules()
        self._supervisor.after_a_step()
        if isinstance(outcome, Broken):
            self._stop(EX_FAILURE)

    def _name_rules(self) -> None:
        """Let denials name the rules that log them, after other rules have come in force."""
        in_force = self._supervisor.state.in_force
        canonical = in_force.canonical if in_force is not None else None
        if canonical is self._named:
            return
        self._named = canonical
        rules = logging_rules(canonical.rulesets) if canonical is not None else ()
        self._reader.use_rules(rules)
        self._metrics.use_rules(rules)

    def denials(self) -> DenialsDocument:
        """What was read of the kernel log."""
        return cast("DenialsDocument", self._reader.counts())

    def metrics(self) -> MetricsDocument:
        """What is measured and counted."""
        return self._metrics.document()

    def _status(self) -> StatusDocument:
        return self._supervisor.status(self.denials(), settling=self.settling())

    def settling(self) -> bool:
        """Whether changed files wait until there are no further changes."""
        return self._timetable.settling

    def drift_found(self) -> None:
        """Drift was found outside of a pass: it is dealt with like a change that the kernel gave notice of."""
        self._supervisor.kernel_changed()
        self._timetable.kernel_changed(time.monotonic(), gap=self._supervisor.look_gap())
        self._wake.set()

    def wake(self) -> None:
        """Look again for what is due."""
        self._wake.set()

    def _inform_systemd(self, **variables: int) -> None:
        line = documents.status_line(self._supervisor.sentence, self.denials())
        self._systemd.notify(**variables, STATUS=line)

    def _report_stuck(self, step: str) -> None:
        message = f"the worker thread is stuck in this step: {step}; systemd restarts fwguardd; the rules stay in force"
        self._emit(events.FAULT, message, traceback="")
        self._systemd.notify(STATUS=f"the worker thread is stuck in this step: {step}")

    @contextlib.contextmanager
    def _noticing_changes(self, loop: asyncio.AbstractEventLoop) -> Iterator[None]:
        """Get a notice of each commit to nf_tables at once; changes of legacy tables are found by the timer."""
        if self._tool.backend is not Backend.NFT:
            yield
            return
        try:
            notices = GenerationNotices()
        except (GenerationNoticesError, OSError) as error:
            self._report_lost_notices(error)
            yield
            return
        watch = ProcessWatch(try_process_events)
        reader = ChangeReader(
            notices,
            watch,
            lambda changes: loop.call_soon_threadsafe(self._kernel_changed, changes),
            lambda error: loop.call_soon_threadsafe(self._report_lost_notices, error),
            self._supervisor.wrote,
        )
        with notices, watch, reader:
            self._noticing.reader = reader
            yield

    def _report_lost_notices(self, error: Exception) -> None:
        self._emit(events.NOTICES_LOST, f"changes by other programs are found by the timer only: {error}")

    def _kernel_changed(self, changes: Sequence[Change]) -> None:
        for change in changes:
            if not isinstance(change.notice, Generation) or not self._supervisor.wrote(change.notice.pid):
                self.drift_found()

    def _report_refused_watch(self, reason: str) -> None:
        """In the thread of the watch."""
        message = f"{self._settings.rules_dir} cannot be watched: {reason}; changed files are found by the timer"
        self._emit(events.WATCH_REFUSED, message, reason=reason)

    def _notice(self, when: float) -> None:
        self._timetable.files_changed(when)
        self._supervisor.files_change()
        self._wake.set()

    def _want_reload(self) -> None:
        self._reload_wanted = True
        self._wake.set()

    def _stop(self, code: int) -> None:
        self._end = code
        self._wake.set()


def main(argv: Sequence[str] | None = None) -> int:
    """Run the daemon in the foreground; its exit code is one of sysexits(3h)."""
    options = parse_options(sys.argv[1:] if argv is None else argv)
    try:
        settings = options.load()
    except SettingsError as error:
        return _cannot_start(str(error), EX_CONFIG)
    try:
        require_privilege()
        with only_process(settings.state_dir, settings.runtime_dir, guarding=not options.hold_files):
            if options.hold_files:
                return hold_for_next_start(settings)
            return asyncio.run(_run(options, settings, find_tool(settings.backend)))
    except MissingPrivilegeError as error:
        return _cannot_start(str(error), EX_NOPERM)
    except (ToolMissingError, RunningAlreadyError, StoreError, ThreadNotStartedError) as error:
        return _cannot_start(str(error), EX_FAILURE)


async def _run(options: Options, settings: Settings, tool: Tool) -> int:
    set_up_process()
    log = open_sink(settings.log)
    try:
        return await Daemon(options, settings, tool, log).run()
    finally:
        log.close(LAST_EVENTS_WITHIN)


def _cannot_start(reason: str, code: int) -> int:
    print(f"fwguardd: cannot start: {reason}. The firewall is unchanged.", file=sys.stderr)  # noqa: T201
    return code


if __name__ == "__main__":
    sys.exit(main())
