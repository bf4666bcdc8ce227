"""The daemon: builds the parts, then waits for what may happen, and lets the steward act on it.

One event loop waits: for directory notices, signals, timers, the kernel log and the control socket. One thread acts
(`fwguardd.supervisor`). The road of rule files and the road of denials share nothing but the log.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
import traceback
from dataclasses import replace
from typing import TYPE_CHECKING

import sdnotify

from fwguardd import __version__, documents, events
from fwguardd.control.protocol import Code, RequestError
from fwguardd.control.server import ControlServer, ControlSocketError, root_or_reading
from fwguardd.denial_reader import DenialReader
from fwguardd.enforce.context import Broken, Done, Failed
from fwguardd.enforce.reconcile import STARTED
from fwguardd.enforce.reports import report_boot
from fwguardd.enforce.schedule import Due, Schedule
from fwguardd.enforce.state import UnverifiedState
from fwguardd.enforce.watch import DirectoryWatch
from fwguardd.kernel.attribution import NO_AUTHORS, read_author
from fwguardd.kernel.generations import Generation, GenerationNotices, GenerationNoticesError
from fwguardd.kernel.iptables import Backend, KernelError, Tool, ToolMissingError, find_tool
from fwguardd.kernel.privilege import (
    MissingPrivilegeError,
    RunningAlreadyError,
    boot_id,
    local_group,
    lock_runtime_dir,
    require_privilege,
)
from fwguardd.options import Options, parse_options
from fwguardd.ruleset.references import logging_rules
from fwguardd.settings import Settings, SettingsError
from fwguardd.sinks.stream import open_sink
from fwguardd.store.revisions import StoreError
from fwguardd.supervisor import LONGEST_TRACEBACK, Supervisor

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import Any

    from fwguardd.control.protocol import Request
    from fwguardd.control.server import Caller
    from fwguardd.enforce.context import Outcome
    from fwguardd.ruleset.canonical import Canonical
    from fwguardd.sinks.sink import Sink

EX_FAILURE, EX_NOPERM, EX_CONFIG = 1, 77, 78
"""Exit codes, those of sysexits(3h) where it has one."""


READING_GROUP = "fwguard"
"""The group whose members may use the verbs that only read, where the host has it."""


class Daemon:
    """All parts, and the loop that waits for them."""

    def __init__(self, options: Options, settings: Settings, tool: Tool, log: Sink) -> None:
        """Build the parts. Raises StoreError where the state directory cannot be trusted."""
        self._options, self._settings, self._tool, self._emit = options, settings, tool, log.emit
        self._supervisor = Supervisor(settings, tool, log.emit)
        self._reader = DenialReader(settings, log, boot_id(), ran_before=self._supervisor.state.in_force is not None)
        self._named: Canonical | None = None
        self._systemd = sdnotify.SystemdNotifier()
        self._wake = asyncio.Event()
        self._timetable = Schedule(settings.settle, settings.settle_max, settings.drift_interval)
        self._reload_wanted = False
        self._end: int | None = None
        self._culprits = NO_AUTHORS
        self._held = False

    async def run(self) -> int:
        """Guard the firewall until SIGTERM or SIGINT. The rules stay when it ends."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop, 0)
        loop.add_signal_handler(signal.SIGHUP, self._want_reload)
        loop.set_exception_handler(self._defect)
        async with contextlib.AsyncExitStack() as parts:
            parts.callback(self._supervisor.close)
            watch = DirectoryWatch(
                self._settings.rules_dir, lambda: loop.call_soon_threadsafe(self._notice, time.monotonic())
            )
            parts.callback(watch.close)
            self._tell_start()
            self._name_rules()
            parts.enter_context(self._reader.listening(loop))
            parts.enter_context(self._hearing_of_changes(loop))
            await self._open_control_socket(parts)
            watchdog = asyncio.ensure_future(self._feed_watchdog())
            parts.callback(watchdog.cancel)
            watch.renew()
            await self._first_pass()
            while self._end is None:
                await self._next_pass(watch)
        self._systemd.notify("STOPPING=1\nSTATUS=Stopped; the rules stay in force")
        self._emit(events.STOPPING, f"fwguardd stops; the rules stay in force ({self._supervisor.state.sentence})")
        return self._end

    def _tell_start(self) -> None:
        backend, version = self._tool.backend.value, self._tool.version
        message = f"fwguardd {__version__} guards this host with {self._tool}, rules from {self._settings.rules_dir}"
        self._emit(events.STARTED, message, version=__version__, backend=backend, iptables=version)

    async def _first_pass(self) -> None:
        report_boot(self._settings.runtime_dir / "boot", self._emit)
        await self._pass(STARTED)
        self._tell_systemd("READY=1")

    async def _next_pass(self, watch: DirectoryWatch) -> None:
        """Wait until there is a reason for a pass, and run it."""
        deadline = None if self._timetable.retrying else self._supervisor.deadline()
        held = self._supervisor.held_for()
        self._held = self._held or held is not None
        waits = (self._timetable.wait(time.monotonic()), deadline, held)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._wake.wait(), min(wait for wait in waits if wait is not None))
        self._wake.clear()
        if self._end is not None:
            return
        if self._reload_wanted:
            self._reload_wanted = False
            await self._reload("SIGHUP")
        elif self._supervisor.deadline() == 0.0 and not self._timetable.retrying:
            await self._pass("not confirmed", look_only=True)
        elif self._held and self._supervisor.repairs():
            self._held = False
            await self._pass("repairs begin again", look_only=True)
        elif (due := self._timetable.due(time.monotonic())) is Due.LOOK_AHEAD:
            self._timetable.looked_ahead()
            self._supervisor.validate_ahead()
        elif due is not None:
            watch.renew()
            await self._pass(due.value, look_only=due in {Due.NOTICE, Due.TIMER})

    async def _pass(self, cause: str, *, look_only: bool = False) -> None:
        self._timetable.pass_begins(time.monotonic(), look_only=look_only)
        authors, self._culprits = self._culprits, NO_AUTHORS
        outcome = await self._supervisor.run_pass(cause, authors, look_only=look_only)
        if isinstance(outcome, Done) and outcome.files_changed and not self._timetable.settling:
            self._timetable.notice(time.monotonic())
        self._after(outcome)

    async def _reload(self, by: str, confirm_within: float | None = None) -> Outcome:
        self._systemd.notify(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")
        try:
            loaded = self._options.load()
        except SettingsError as error:
            self._emit(events.SETTINGS_REJECTED, f"{error}; the settings from before stay in force")
        else:
            # What the parts were built with stays until a restart.
            fixed = {name: getattr(self._settings, name) for name in ("rules_dir", "state_dir", "runtime_dir")}
            self._use(replace(loaded, **fixed))
        self._timetable.pass_begins(time.monotonic())
        outcome = await self._supervisor.reload(by, confirm_within)
        self._after(outcome)
        self._tell_systemd("READY=1")
        return outcome

    def _use(self, settings: Settings) -> None:
        self._settings = settings
        self._supervisor.use(settings)
        self._timetable.set_durations(settings.settle, settings.settle_max, settings.drift_interval)
        self._reader.use(settings)

    def _after(self, outcome: Outcome) -> None:
        """Set the times of the next looks, and tell systemd. A broken firewall ends the daemon, for systemd to act."""
        wrote = isinstance(outcome, Done) and outcome.changes > 0
        starved = outcome.state.unverified not in (None, UnverifiedState.HIDDEN)
        again = starved or (isinstance(outcome, Failed) and outcome.passing)
        self._timetable.pass_ended(time.monotonic(), wrote=wrote, again=again, starved=starved)
        self._tell_systemd()
        self._name_rules()
        self._supervisor.look_elsewhere()
        if isinstance(outcome, Broken):
            self._stop(EX_FAILURE)

    def _name_rules(self) -> None:
        """Let denials name the rules that log them, when others have come in force."""
        in_force = self._supervisor.state.in_force
        canonical = in_force.canonical if in_force is not None else None
        if canonical is not self._named:
            self._named = canonical
            self._reader.use_rules(logging_rules(canonical.rulesets if canonical is not None else {}))

    async def _perform(self, request: Request, caller: Caller) -> Mapping[str, Any]:
        """A verb of the control socket. Raises Refusal."""
        supervisor, name = self._supervisor, request.verb.name
        if name in ("status", "history", "show", "pause", "resume", "drift"):
            return await self._answer(request)
        before = supervisor.state
        if name == "reload":
            outcome = await self._reload(str(caller), request.seconds("confirm_seconds"))
        elif name == "confirm":
            outcome = await supervisor.confirm()
        elif name == "rollback":
            outcome = await supervisor.rollback(request.whole("revision"), str(caller))
        else:
            outcome = await supervisor.open_firewall(str(caller))
        if name != "reload":
            self._after(outcome)
        self._wake.set()
        return documents.outcome(supervisor.context(), outcome, before)

    async def _answer(self, request: Request) -> Mapping[str, Any]:
        supervisor, name = self._supervisor, request.verb.name
        if name == "status":
            return supervisor.status(self._reader.counts())
        if name == "history":
            return documents.history(supervisor.context(), supervisor.state, request.whole("limit"))
        if name == "show":
            revision = supervisor.context().store.get(request.whole("revision") or 0)
            if revision is None:
                raise RequestError(Code.NOT_FOUND, f"revision {request.whole('revision')} is not kept")
            return documents.show(revision)
        if name == "drift":
            try:
                found = await supervisor.look()
            except KernelError as error:
                raise RequestError(Code.FAILED, str(error)) from error
            if found:
                # Whoever asks has seen it before the timer: it is dealt with as if it had been noticed.
                self._timetable.foreign_change(time.monotonic(), gap=supervisor.look_gap())
                self._wake.set()
            return documents.drift(found)
        supervisor.pause(request.seconds("seconds") if name == "pause" else None)
        self._wake.set()
        return {"paused_seconds": supervisor.paused()}

    async def _open_control_socket(self, parts: contextlib.AsyncExitStack) -> None:
        path, group = self._settings.runtime_dir / "control.sock", local_group(READING_GROUP)
        server = ControlServer(path, self._perform, root_or_reading, group=group)
        try:
            await parts.enter_async_context(server)
        except ControlSocketError as error:
            self._emit(events.CONTROL_CLOSED, f"{error}; fwguardctl cannot reach this daemon")

    def _tell_systemd(self, *states: str) -> None:
        supervisor = self._supervisor
        line = documents.status_line(supervisor.sentence, supervisor.state, self._reader.counts())
        self._systemd.notify("\n".join((*states, f"STATUS={line}")))

    async def _feed_watchdog(self) -> None:
        """Tell systemd that the loop turns, twice as often as it asks (sd_watchdog_enabled(3))."""
        interval = watchdog_interval()
        while interval is not None:
            self._systemd.notify("WATCHDOG=1")
            await asyncio.sleep(interval / 2)

    @contextlib.contextmanager
    def _hearing_of_changes(self, loop: asyncio.AbstractEventLoop) -> Iterator[None]:
        """Be told of each commit to nf_tables at once; legacy tables are looked at by the timer."""
        if self._tool.backend is not Backend.NFT:
            yield
            return
        try:
            notices = GenerationNotices()
        except (GenerationNoticesError, OSError) as error:
            self._emit(events.NOTICES_LOST, f"changes of others are found by the timer only: {error}")
            yield
            return
        with notices:
            loop.add_reader(notices.fileno(), self._hear, notices)
            try:
                yield
            finally:
                loop.remove_reader(notices.fileno())

    def _hear(self, notices: GenerationNotices) -> None:
        for notice in notices.read_available():
            if isinstance(notice, Generation):
                if self._supervisor.wrote(notice.pid):
                    continue
                # At once: a moment later the process is gone, and nobody knows any more who it was.
                seen = None if self._culprits.full else read_author(notice.pid, notice.process)
                self._culprits = self._culprits.with_another(seen)
            else:
                self._culprits = self._culprits.with_another(None)
            self._timetable.foreign_change(time.monotonic(), gap=self._supervisor.look_gap())
            self._wake.set()

    def _defect(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Something in the loop failed that nobody waited for: it must not go unheard."""
        error = context.get("exception")
        what = f"{type(error).__name__}: {error}" if error is not None else context.get("message", "unknown")
        told = "".join(traceback.format_exception(error))[-LONGEST_TRACEBACK:] if error is not None else ""
        self._emit(events.FAULT, f"a defect of fwguardd: {what}; it goes on without that", traceback=told)

    def _notice(self, when: float) -> None:
        self._timetable.notice(when)
        self._wake.set()

    def _want_reload(self) -> None:
        self._reload_wanted = True
        self._wake.set()

    def _stop(self, code: int) -> None:
        self._end = code
        self._wake.set()


def watchdog_interval() -> float | None:
    """Seconds within which systemd wants a sign of life from this process; None when it wants none."""
    usec, pid = os.environ.get("WATCHDOG_USEC", ""), os.environ.get("WATCHDOG_PID", "")
    if not usec.isdigit() or pid not in ("", str(os.getpid())):
        return None
    return int(usec) / 1_000_000


def main(argv: Sequence[str] | None = None) -> int:
    """Run the daemon in the foreground; its exit code is one of sysexits(3h)."""
    options = parse_options(sys.argv[1:] if argv is None else argv)
    try:
        settings = options.load()
    except SettingsError as error:
        return _cannot_start(str(error), EX_CONFIG)
    try:
        require_privilege()
        with lock_runtime_dir(settings.runtime_dir):
            return asyncio.run(_run(options, settings, find_tool(settings.backend)))
    except MissingPrivilegeError as error:
        return _cannot_start(str(error), EX_NOPERM)
    except (ToolMissingError, RunningAlreadyError, StoreError) as error:
        return _cannot_start(str(error), EX_FAILURE)


async def _run(options: Options, settings: Settings, tool: Tool) -> int:
    return await Daemon(options, settings, tool, open_sink(settings.log)).run()


def _cannot_start(reason: str, code: int) -> int:
    print(f"fwguardd: {reason}. fwguardd does not start; the firewall is as it was.", file=sys.stderr)  # noqa: T201
    return code


if __name__ == "__main__":
    sys.exit(main())
