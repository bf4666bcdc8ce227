"""The daemon: builds the parts, then waits for what may happen, and lets a pass run for each.

One event loop waits (directory notices, signals, timers, the kernel log) and one worker thread acts: passes run there,
never two at once, never cancelled half-way. The road of rule files and the road of denials share nothing but the log.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sdnotify

from fwguardd import __version__, events
from fwguardd.denials.tail import Tail
from fwguardd.enforce.guard import Due, Timetable
from fwguardd.enforce.read_directory import Judge
from fwguardd.enforce.reconcile import Failure, Memory, Outcome, World, look_ahead, reconcile
from fwguardd.enforce.watch import DirectoryWatch
from fwguardd.kernel.iptables import LiveKernel, Tool, ToolMissingError, find_tool
from fwguardd.kernel.kmsg import KernelLog, KernelLogError, Start
from fwguardd.kernel.privilege import MissingPrivilegeError, RunningAlreadyError, lock_runtime_dir, require_privilege
from fwguardd.kernel.rehearsal import Rehearsals
from fwguardd.kernel.scratch import ScratchError, ScratchPool, way_here
from fwguardd.outlets.log import open_log
from fwguardd.ruleset.preserve import Preserve
from fwguardd.settings import (
    BACKEND_CHOICES,
    DEFAULT_PATH,
    LOG_CHOICES,
    OnDrift,
    Settings,
    SettingsError,
    load_settings,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fwguardd.events import Emit

EX_FAILURE, EX_NOPERM, EX_CONFIG = 1, 77, 78
"""Exit codes, those of sysexits(3h) where it has one."""


class Daemon:
    """All parts, and the loop that waits for them."""

    def __init__(self, load: Callable[[], Settings], settings: Settings, tool: Tool, emit: Emit) -> None:
        self._load, self._settings, self._tool, self._emit = load, settings, tool, emit
        self._pool = ScratchPool(way_here())
        self._judge = Judge(Rehearsals(tool.backend.value, self._pool).rehearse, settings.lint_context())
        self._memory = Memory()
        self._systemd = sdnotify.SystemdNotifier()
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="pass")
        self._wake = asyncio.Event()
        self._timetable = Timetable(settings.settle, settings.settle_max, settings.drift_interval)
        self._reload_wanted = self._stop_wanted = False
        self._tail: Tail | None = None

    async def run(self) -> int:
        """Guard the firewall until SIGTERM or SIGINT. The rules stay when it ends."""
        loop = asyncio.get_running_loop()
        for number, wish in (
            (signal.SIGTERM, self._want_stop),
            (signal.SIGINT, self._want_stop),
            (signal.SIGHUP, self._want_reload),
        ):
            loop.add_signal_handler(number, wish)
        with contextlib.ExitStack() as parts:
            parts.callback(self._pool.close)
            parts.callback(self._worker.shutdown)
            watch = DirectoryWatch(
                self._settings.rules_dir, lambda: loop.call_soon_threadsafe(self._notice, time.monotonic())
            )
            parts.callback(watch.close)
            parts.enter_context(self._reading_the_kernel_log(loop))
            watchdog = asyncio.ensure_future(self._feed_watchdog())
            parts.callback(watchdog.cancel)
            watch.renew()
            await self._first_pass()
            while not self._stop_wanted:
                await self._next_pass(watch)
        self._systemd.notify("STOPPING=1\nSTATUS=Stopped; the rules stay in force")
        self._emit(events.STOPPING, f"fwguardd stops; the rules stay in force ({self._memory.sentence})")
        return 0

    async def _first_pass(self) -> None:
        settings = self._settings
        message = f"fwguardd {__version__} guards this host with {self._tool}, rules from {settings.rules_dir}"
        self._emit(
            events.STARTED, message, version=__version__, backend=self._tool.backend.value, iptables=self._tool.version
        )
        await self._pass("start")
        self._tell_systemd("READY=1")

    async def _next_pass(self, watch: DirectoryWatch) -> None:
        """Wait until there is a reason for a pass, and run it."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._wake.wait(), self._timetable.wait(time.monotonic()))
        self._wake.clear()
        if self._stop_wanted:
            return
        now = time.monotonic()
        if self._reload_wanted:
            self._reload_wanted = False
            await self._reload()
        elif (due := self._timetable.due(now)) is Due.LOOK_AHEAD:
            self._timetable.looked_ahead()
            self._worker.submit(self._blocking_look_ahead)
        elif due is not None:
            watch.renew()
            await self._pass(due.value)

    async def _reload(self) -> None:
        self._systemd.notify(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")
        try:
            self._settings = replace(self._load(), rules_dir=self._settings.rules_dir)
        except SettingsError as error:
            self._emit(events.SETTINGS_REJECTED, f"{error}; the settings from before stay in force")
        else:
            self._timetable.set_durations(
                self._settings.settle, self._settings.settle_max, self._settings.drift_interval
            )
            if self._tail is not None:
                self._tail.watch(self._settings.prefixes)
        self._judge.forget(self._settings.lint_context())
        self._memory = self._memory.judged_anew()
        await self._pass("reload")
        self._tell_systemd("READY=1")

    async def _pass(self, cause: str) -> None:
        self._timetable.pass_begins()
        loop = asyncio.get_running_loop()
        try:
            outcome: Outcome = await loop.run_in_executor(self._worker, self._blocking_pass, cause)
        except Exception as error:  # noqa: BLE001 - the task boundary: a defect in a pass must not end the guard.
            self._emit(
                events.FAULT, f"a pass failed by a defect of fwguardd: {type(error).__name__}: {error}", cause=cause
            )
            outcome = Failure(self._memory, str(error), passing=True)
        wrote = outcome.memory.in_force is not self._memory.in_force
        self._memory = outcome.memory
        self._timetable.pass_ended(
            time.monotonic(), wrote=wrote, again=isinstance(outcome, Failure) and outcome.passing
        )
        self._tell_systemd()

    def _blocking_pass(self, cause: str) -> Outcome:
        """A pass, in the worker thread; then a fresh scratch namespace is made ready for the next."""
        outcome = reconcile(self._world(), self._memory, cause)
        with contextlib.suppress(ScratchError):
            self._pool.tend()
        return outcome

    def _blocking_look_ahead(self) -> None:
        """Judge the files in the worker thread while they settle; the pass that follows waits behind it."""
        try:
            look_ahead(self._world(), self._memory)
        except Exception as error:  # noqa: BLE001 - the task boundary: a defect here must not go unheard.
            self._emit(events.FAULT, f"looking ahead failed by a defect of fwguardd: {type(error).__name__}: {error}")

    def _world(self) -> World:
        return World(
            rules_dir=self._settings.rules_dir,
            judge=self._judge,
            kernel=LiveKernel(self._tool.backend),
            preserve=Preserve.from_patterns(self._settings.preserve),
            repair=self._settings.on_drift is OnDrift.REPAIR,
            emit=self._emit,
        )

    def _tell_systemd(self, *states: str) -> None:
        self._systemd.notify("\n".join((*states, f"STATUS={self._memory.sentence}")))

    async def _feed_watchdog(self) -> None:
        """Tell systemd that the loop turns, twice as often as it asks (sd_watchdog_enabled(3))."""
        interval = watchdog_interval()
        while interval is not None:
            self._systemd.notify("WATCHDOG=1")
            await asyncio.sleep(interval / 2)

    @contextlib.contextmanager
    def _reading_the_kernel_log(self, loop: asyncio.AbstractEventLoop) -> Any:
        try:
            log = KernelLog(start=Start.END)
        except KernelLogError as error:
            self._emit(events.DENIALS_CLOSED, f"denials are not told: {error}")
            yield
            return
        with log:
            self._tail = Tail(log, self._settings.prefixes, self._emit)
            loop.add_reader(log.fileno(), self._tail.read)
            try:
                yield
            finally:
                loop.remove_reader(log.fileno())

    def _notice(self, when: float) -> None:
        self._timetable.notice(when)
        self._wake.set()

    def _want_reload(self) -> None:
        self._reload_wanted = True
        self._wake.set()

    def _want_stop(self) -> None:
        self._stop_wanted = True
        self._wake.set()


def watchdog_interval() -> float | None:
    """Seconds within which systemd wants a sign of life from this process; None when it wants none."""
    import os  # noqa: PLC0415

    usec, pid = os.environ.get("WATCHDOG_USEC", ""), os.environ.get("WATCHDOG_PID", "")
    if not usec.isdigit() or pid not in ("", str(os.getpid())):
        return None
    return int(usec) / 1_000_000


@dataclass(frozen=True, slots=True)
class _Options:
    config: Path
    given: dict[str, Any]

    def load(self) -> Settings:
        """The settings file with the command line on top. Raises SettingsError."""
        settings = load_settings(self.config, must_exist=self.config != DEFAULT_PATH)
        return replace(settings, **self.given)


def _parse(argv: Sequence[str]) -> _Options:
    parser = argparse.ArgumentParser(
        prog="fwguardd", description="Keep the iptables firewall equal to the files in /etc/fwguard.d."
    )
    parser.add_argument(
        "--config", type=Path, default=DEFAULT_PATH, metavar="F", help="settings file (default: %(default)s)"
    )
    parser.add_argument("--rules-dir", type=Path, metavar="D", help="rules directory")
    parser.add_argument("--state-dir", type=Path, metavar="D", help="where revisions are kept")
    parser.add_argument("--runtime-dir", type=Path, metavar="D", help="where the lock and the control socket are")
    parser.add_argument("--backend", choices=list(BACKEND_CHOICES), help="half of the kernel to write to")
    parser.add_argument("--log", choices=list(LOG_CHOICES), help="where and how events are told")
    parser.add_argument("--version", action="version", version=f"fwguardd {__version__}")
    options = parser.parse_args(argv)
    given: dict[str, Any] = {
        name: getattr(options, name).absolute()
        for name in ("rules_dir", "state_dir", "runtime_dir")
        if getattr(options, name)
    }
    if options.backend:
        given["backend"] = BACKEND_CHOICES[options.backend]
    if options.log:
        given["log"] = LOG_CHOICES[options.log]
    return _Options(options.config, given)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the daemon in the foreground; its exit code is one of sysexits(3h)."""
    options = _parse(sys.argv[1:] if argv is None else argv)
    try:
        settings = options.load()
    except SettingsError as error:
        return _cannot_start(str(error), EX_CONFIG)
    try:
        require_privilege()
        with lock_runtime_dir(settings.runtime_dir):
            tool = find_tool(settings.backend)
            return asyncio.run(_run(options.load, settings, tool))
    except MissingPrivilegeError as error:
        return _cannot_start(str(error), EX_NOPERM)
    except (ToolMissingError, RunningAlreadyError) as error:
        return _cannot_start(str(error), EX_FAILURE)


async def _run(load: Callable[[], Settings], settings: Settings, tool: Tool) -> int:
    return await Daemon(load, settings, tool, open_log(settings.log)).run()


def _cannot_start(reason: str, code: int) -> int:
    print(f"fwguardd: {reason}. fwguardd does not start; the firewall is as it was.", file=sys.stderr)  # noqa: T201
    return code


if __name__ == "__main__":
    sys.exit(main())
