"""The control socket's verbs: one table, from the name of a verb to the function that performs it."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from fwguardd import documents
from fwguardd.control.protocol import Code, RequestError
from fwguardd.kernel.iptables import KernelError
from fwguardd.store.folder import read_revision
from fwguardd.store.model import DamagedError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from pathlib import Path

    from fwguardd.control.documents import (
        DenialsDocument,
        DriftDocument,
        HistoryDocument,
        OutcomeDocument,
        PauseDocument,
        ShowDocument,
        StatusDocument,
    )
    from fwguardd.control.protocol import Request
    from fwguardd.control.server import Caller
    from fwguardd.supervisor import Supervisor
    from fwguardd.worker import Report

MOST_READS = 4
"""Revisions that are read, or wait to be read, at the same time; further requests are refused as busy."""


class Passes(Protocol):
    """What a verb needs of the daemon's event loop. `fwguardd.daemon.Daemon` is the real one."""

    async def reload(self, by: str, confirm_within: float | None) -> Report:
        """Read the settings and the rule files now."""

    def after(self, report: Report) -> None:
        """A step has ended: schedule the next ones, and inform systemd."""

    def drift_found(self) -> None:
        """Somebody found drift: run a pass."""

    def wake(self) -> None:
        """Something that the schedule depends on has changed."""

    def denials(self) -> DenialsDocument:
        """What was read of the kernel log."""


class RevisionReader:
    """Reads revisions from the disk for ``show``, on a thread of its own. Belongs to the event loop.

    Reading a large revision takes a second. The event loop must not wait for it, and the worker thread has repairs to
    make. The thread shares no object with the other two: it opens the file, reads it and closes it. The answer is
    encoded in the event loop all the same: the json module keeps the interpreter's lock until it is done, in any
    thread.
    """

    def __init__(self, state_dir: Path) -> None:
        self._state_dir = state_dir
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="revisions")
        self._reads = 0

    async def show(self, number: int) -> ShowDocument:
        """The document of a revision.

        Raises DamagedError, and RequestError where it cannot be read, or where too many requests are waiting.
        """
        if self._reads >= MOST_READS:
            raise RequestError(Code.BUSY, f"{self._reads} revisions are being read; try again in a moment")
        self._reads += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._executor, self._read, number)
        except FileNotFoundError as error:
            raise not_kept(number) from error
        except OSError as error:
            raise RequestError(Code.FAILED, f"revision {number} cannot be read: {error}") from error
        finally:
            self._reads -= 1

    def _read(self, number: int) -> ShowDocument:
        """In the thread of the reader."""
        return documents.show(read_revision(self._state_dir, number))

    def close(self) -> None:
        """End the thread, after the read that has begun."""
        self._executor.shutdown(cancel_futures=True)


class ControlVerbs:
    """Performs the requests of the control socket. Belongs to the event loop."""

    def __init__(self, supervisor: Supervisor, reader: RevisionReader, passes: Passes) -> None:
        self._supervisor, self._reader, self._passes = supervisor, reader, passes

    async def __call__(self, request: Request, caller: Caller) -> Mapping[str, Any]:
        """The result of a verb. Raises RequestError; a verb without an entry in the table is an error, too."""
        perform = self.TABLE.get(request.verb.name)
        if perform is None:
            raise RequestError(Code.UNKNOWN_VERB, f"{request.verb.name} is not implemented by this fwguardd")
        return await perform(self, request, caller)

    async def _status(self, _request: Request, _caller: Caller) -> StatusDocument:
        return self._supervisor.status(self._passes.denials())

    async def _history(self, request: Request, _caller: Caller) -> HistoryDocument:
        supervisor = self._supervisor
        return documents.history(supervisor.revisions, supervisor.faults, supervisor.state, request.whole("limit"))

    async def _show(self, request: Request, _caller: Caller) -> ShowDocument:
        number = request.whole("revision")
        if number is None or not any(summary.number == number for summary in self._supervisor.revisions):
            raise not_kept(number)
        try:
            return await self._reader.show(number)
        except DamagedError as error:
            await self._supervisor.check_revision(number)
            raise RequestError(Code.FAILED, f"revision {number} {error}") from error

    async def _drift(self, _request: Request, _caller: Caller) -> DriftDocument:
        try:
            found = await self._supervisor.find_drift()
        except KernelError as error:
            raise RequestError(Code.FAILED, str(error)) from error
        if found:
            self._passes.drift_found()
        return documents.drift(found)

    async def _pause(self, request: Request, _caller: Caller) -> PauseDocument:
        return self._set_pause(request.seconds("seconds"))

    async def _resume(self, _request: Request, _caller: Caller) -> PauseDocument:
        return self._set_pause(None)

    def _set_pause(self, seconds: float | None) -> PauseDocument:
        self._supervisor.pause(seconds)
        self._passes.wake()
        return {"paused_seconds": self._supervisor.paused()}

    async def _reload(self, request: Request, caller: Caller) -> OutcomeDocument:
        report = await self._passes.reload(str(caller), request.seconds("confirm_seconds"))
        return self._outcome(report)

    async def _confirm(self, _request: Request, _caller: Caller) -> OutcomeDocument:
        return self._changed(await self._supervisor.confirm())

    async def _rollback(self, request: Request, caller: Caller) -> OutcomeDocument:
        return self._changed(await self._supervisor.rollback(request.whole("revision"), str(caller)))

    async def _open(self, _request: Request, caller: Caller) -> OutcomeDocument:
        return self._changed(await self._supervisor.open_firewall(str(caller)))

    def _changed(self, report: Report) -> OutcomeDocument:
        self._passes.after(report)
        return self._outcome(report)

    def _outcome(self, report: Report) -> OutcomeDocument:
        self._passes.wake()
        return documents.outcome(self._supervisor.host, report.before, report.outcome, report.state)

    TABLE: ClassVar[Mapping[str, Callable[[ControlVerbs, Request, Caller], Awaitable[Mapping[str, Any]]]]] = (
        MappingProxyType(
            {
                "status": _status,
                "reload": _reload,
                "confirm": _confirm,
                "rollback": _rollback,
                "history": _history,
                "show": _show,
                "open": _open,
                "drift": _drift,
                "pause": _pause,
                "resume": _resume,
            }
        )
    )


def not_kept(number: int | None) -> RequestError:
    """The answer to a request for a revision that is not there."""
    return RequestError(
        Code.NOT_FOUND, f"revision {number} is not kept; fwguardctl history lists the revisions that are kept"
    )
