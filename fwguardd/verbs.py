"""The control socket's verbs: one table, from the name of a verb to the function that performs it."""

from __future__ import annotations

import contextlib
import sys
from collections import Counter
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from fwguardd import documents
from fwguardd.control.protocol import Answer, Code, EncodedAnswer, RequestError, encode_answer
from fwguardd.documents import RefusedSettings
from fwguardd.enforce.confirmation import RELOAD
from fwguardd.enforce.prover import ProofRequest
from fwguardd.enforce.reconcile import PassRequest
from fwguardd.enforce.record import Cause
from fwguardd.event_loop import asyncio
from fwguardd.kernel.iptables import KernelError
from fwguardd.kernel.processes import Command, ProgramMissingError, ProgramTimeoutError, run
from fwguardd.ruleset.ssh_sessions import session_of
from fwguardd.shown_revision import ExitCode
from fwguardd.store.model import DamagedError
from fwguardd.threads import InOrder, ThreadNotStartedError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from fwguardd.control.documents import (
        DenialsDocument,
        DriftDocument,
        HistoryDocument,
        MetricsDocument,
        OthersDocument,
        OutcomeDocument,
        PauseDocument,
        StatusDocument,
    )
    from fwguardd.control.protocol import Request
    from fwguardd.control.server import Caller
    from fwguardd.enforce.counting import Counted
    from fwguardd.kernel.processes import Finished
    from fwguardd.supervisor import Supervisor
    from fwguardd.worker_report import Report

MOST_READS = 4
"""Revisions that are read, or wait to be read, for root; further requests are refused as busy."""

MOST_READS_OF_A_USER = 2
"""The same for each other user."""

PAUSE_WITHIN = 10.0
"""Seconds that pause waits at most for a pass that has begun before it."""

CLOSE_WITHIN = 5.0
"""Seconds that the end of the daemon waits for reads of revisions."""

READ_SECONDS = 60.0
"""The longest that a process may take to read a revision."""

_PACKAGE_PARENT = str(Path(__file__).resolve().parents[1])
_SHOW = (
    f"import sys; sys.path.insert(0, {_PACKAGE_PARENT!r}); from fwguardd.shown_revision import main; sys.exit(main())"
)


class Passes(Protocol):
    """What a verb needs of the daemon's event loop. `fwguardd.daemon.Daemon` is the real one."""

    async def reload(self, request: PassRequest) -> Report | RefusedSettings:
        """Read the settings and the rule files now; nothing is done if the settings cannot be used."""

    def after(self, report: Report) -> None:
        """A step has ended: schedule the next ones, and inform systemd."""

    def drift_found(self) -> None:
        """Somebody found drift: run a pass."""

    def wake(self) -> None:
        """Something that the schedule depends on has changed."""

    def settling(self) -> bool:
        """Whether changed files wait until there are no further changes."""

    def denials(self) -> DenialsDocument:
        """What was read of the kernel log."""

    def metrics(self) -> MetricsDocument:
        """What is measured and counted."""


class RevisionReader:
    """Has revisions read from the disk for ``show``, each by a process of its own. Belongs to the event loop.

    `fwguardd.shown_revision` says why. One process runs for root at a time, and one for all other users. Each user has
    a few places in the queue, so that nobody waits for more than the others' share.
    """

    def __init__(self, state_dir: Path) -> None:
        self._state_dir = state_dir
        self._root, self._others = InOrder(), InOrder()
        self._reads: Counter[int] = Counter()

    async def show(self, number: int, uid: int = 0) -> EncodedAnswer:
        """The answer to a request for a revision.

        Raises DamagedError, and RequestError where it cannot be read, or where too many requests are waiting.
        """
        queue, most = self._root, MOST_READS
        if uid != 0:
            queue, most = self._others, MOST_READS_OF_A_USER
        if self._reads[uid] >= most:
            raise RequestError(Code.BUSY, f"{self._reads[uid]} revisions are being read; try again in a moment")
        self._reads[uid] += 1
        try:
            finished = await asyncio.wrap_future(queue.submit(partial(self._read, number)))
        except (ProgramMissingError, ProgramTimeoutError, ThreadNotStartedError, OSError) as error:
            raise RequestError(Code.FAILED, f"revision {number} cannot be read: {error}") from error
        finally:
            self._reads[uid] -= 1
        return _shown(number, finished)

    def _read(self, number: int) -> Finished:
        """In a thread of a queue, which only waits for the process."""
        argv = [sys.executable, "-I", "-S", "-B", "-c", _SHOW, str(self._state_dir), str(number)]
        return run(Command(argv), READ_SECONDS)

    def close(self) -> None:
        """Drop the reads that have not begun, and wait a moment for those that have."""
        for queue in (self._root, self._others):
            queue.close(CLOSE_WITHIN)


def _shown(number: int, finished: Finished) -> EncodedAnswer:
    """What a process printed. Raises DamagedError, RequestError."""
    words = finished.stderr.strip()
    if finished.code == ExitCode.SHOWN:
        return EncodedAnswer(finished.stdout.encode("ascii"))
    if finished.code == ExitCode.DAMAGED:
        raise DamagedError(words)
    if finished.code == ExitCode.NOT_KEPT:
        raise not_kept(number)
    raise RequestError(Code.FAILED, f"revision {number} cannot be read: {words or f'exit code {finished.code}'}")


class ControlVerbs:
    """Performs the requests of the control socket. Belongs to the event loop."""

    def __init__(self, supervisor: Supervisor, reader: RevisionReader, passes: Passes) -> None:
        self._supervisor, self._reader, self._passes = supervisor, reader, passes
        self._counts = 0

    async def __call__(self, request: Request, caller: Caller) -> Mapping[str, Any] | EncodedAnswer:
        """The result of a verb. Raises RequestError; a verb without an entry in the table is an error, too."""
        perform = self.TABLE.get(request.verb.name)
        if perform is None:
            raise RequestError(Code.UNKNOWN_VERB, f"{request.verb.name} is not implemented by this fwguardd")
        return await perform(self, request, caller)

    async def _status(self, _request: Request, _caller: Caller) -> StatusDocument:
        return self._supervisor.status(self._passes.denials(), settling=self._passes.settling())

    async def _history(self, request: Request, _caller: Caller) -> HistoryDocument:
        supervisor, limit = self._supervisor, request.whole("limit")
        described = supervisor.describe(settling=self._passes.settling())
        return documents.history(supervisor.revisions, supervisor.faults, supervisor.state, described, limit)

    def _is_kept(self, number: int) -> bool:
        return any(summary.number == number for summary in self._supervisor.revisions)

    async def _show(self, request: Request, caller: Caller) -> EncodedAnswer:
        number = request.whole("revision")
        if number is None or not self._is_kept(number):
            raise not_kept(number)
        try:
            return await self._reader.show(number, caller.uid)
        except DamagedError as error:
            await self._supervisor.check_revision(number)
            raise RequestError(Code.FAILED, f"revision {number} {error}") from error

    async def _drift(self, _request: Request, caller: Caller) -> DriftDocument:
        try:
            found = await self._supervisor.find_drift(anew=caller.uid == 0)
        except KernelError as error:
            raise RequestError(Code.FAILED, str(error)) from error
        if found:
            self._passes.drift_found()
        return documents.drift(found, self._supervisor.state.undecided)

    async def _pause(self, request: Request, _caller: Caller) -> PauseDocument:
        answer = self._set_pause(request.seconds("seconds"))
        # A pass that has begun has its orders from before, and would repair what the administrator changes next.
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._supervisor.step_ended(), PAUSE_WITHIN)
        return answer

    async def _resume(self, _request: Request, _caller: Caller) -> PauseDocument:
        return self._set_pause(None)

    def _set_pause(self, seconds: float | None) -> PauseDocument:
        self._supervisor.pause(seconds)
        self._passes.wake()
        return {"paused_seconds": self._supervisor.paused()}

    async def _reload(self, request: Request, caller: Caller) -> OutcomeDocument:
        report = await self._passes.reload(
            PassRequest(
                Cause(RELOAD, str(caller)),
                request.seconds("confirm_seconds"),
                take_over=request.flag("take_over"),
                proof=ProofRequest(request.flag("force"), session_of(request.text("ssh_connection"))),
            )
        )
        if isinstance(report, RefusedSettings):
            return documents.settings_refused(self._supervisor.host, self._supervisor.state, report)
        return self._outcome(report)

    async def _confirm(self, _request: Request, _caller: Caller) -> OutcomeDocument:
        return self._changed(await self._supervisor.confirm())

    async def _others(self, _request: Request, _caller: Caller) -> OthersDocument:
        return documents.others(self._supervisor.state)

    async def _counters(self, _request: Request, caller: Caller) -> EncodedAnswer:
        if self._counts and caller.uid != 0:
            raise RequestError(Code.BUSY, "counters are being read; try again in a moment")
        self._counts += 1
        try:
            counted = await self._supervisor.counters()
            # In a thread: the event loop must not wait for ten thousand rules to be printed.
            return await asyncio.to_thread(_encoded_counters, counted)
        except KernelError as error:
            raise RequestError(Code.FAILED, str(error)) from error
        finally:
            self._counts -= 1

    async def _metrics(self, _request: Request, _caller: Caller) -> MetricsDocument:
        return self._passes.metrics()

    async def _adopt(self, request: Request, caller: Caller) -> OutcomeDocument:
        numbers, remove = request.numbers("numbers"), request.flag("remove")
        return self._changed(await self._supervisor.adopt(numbers, str(caller), remove=remove))

    async def _rollback(self, request: Request, caller: Caller) -> OutcomeDocument:
        return self._changed(await self._supervisor.rollback(request.whole("revision"), str(caller)))

    async def _open(self, request: Request, caller: Caller) -> OutcomeDocument:
        return self._changed(await self._supervisor.open_firewall(str(caller), request.seconds("seconds")))

    async def _hold(self, _request: Request, caller: Caller) -> OutcomeDocument:
        return self._changed(await self._supervisor.hold_files(str(caller)))

    def _changed(self, report: Report) -> OutcomeDocument:
        self._passes.after(report)
        return self._outcome(report)

    def _outcome(self, report: Report) -> OutcomeDocument:
        self._passes.wake()
        return documents.outcome(self._supervisor.host, report.before, report.outcome, report.state)

    TABLE: ClassVar[
        Mapping[str, Callable[[ControlVerbs, Request, Caller], Awaitable[Mapping[str, Any] | EncodedAnswer]]]
    ] = MappingProxyType(
        {
            "status": _status,
            "reload": _reload,
            "confirm": _confirm,
            "rollback": _rollback,
            "history": _history,
            "show": _show,
            "open": _open,
            "hold": _hold,
            "drift": _drift,
            "pause": _pause,
            "resume": _resume,
            "others": _others,
            "counters": _counters,
            "metrics": _metrics,
            "adopt": _adopt,
        }
    )


def _encoded_counters(counted: Sequence[Counted]) -> EncodedAnswer:
    return EncodedAnswer(encode_answer(Answer({**documents.counters(counted)})))


def not_kept(number: int | None) -> RequestError:
    """The answer to a request for a revision that is not there."""
    return RequestError(
        Code.NOT_FOUND, f"revision {number} is not kept; fwguardctl history lists the revisions that are kept"
    )
