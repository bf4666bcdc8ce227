"""The event loop's end of the worker thread, and what becomes of an error that no task waits for.

`WorkerThread` is the only way from the event loop to the `Worker`, which is made in the thread and never leaves it.
"""

from __future__ import annotations

import traceback
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

from fwguardd import events
from fwguardd.interpreter import few_searches_for_garbage
from fwguardd.threads import start_in_time
from fwguardd.worker import LONGEST_TRACEBACK, Worker

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from concurrent.futures import Future

    from fwguardd.events import Emit
    from fwguardd.progress import Progress
    from fwguardd.worker_report import Orders

Result = TypeVar("Result")
Arguments = ParamSpec("Arguments")


class WorkerThread:
    """The event loop's end of the worker thread. Belongs to the event loop.

    The `Worker` is held in a future that only `_run`, in the worker thread, takes it out of. ``orders`` may be replaced
    at any time; each step reads them when it begins.
    """

    def __init__(self, make: Callable[[], Worker], orders: Orders, progress: Progress) -> None:
        """Start the thread and make the `Worker` in it. Raises what ``make`` raises, and ThreadNotStartedError."""
        self.orders = orders
        self._progress = progress
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="worker")
        self._expected: Future[None] | None = None
        self._closed = False
        self._worker = start_in_time(partial(self._executor.submit, make))
        self._worker.result()

    def submit(
        self,
        step: Callable[Concatenate[Worker, Orders, Arguments], Result],
        /,
        *args: Arguments.args,
        **kwargs: Arguments.kwargs,
    ) -> Future[Result]:
        """Queue a step behind all that were queued before; it is never interrupted. A whole rehearsal that only checks
        is given up for it."""
        check = self._worker.result().check

        def call(worker: Worker) -> Result:
            check.step_begins()
            return step(worker, self.orders, *args, **kwargs)

        def not_wanted(future: Future[Result]) -> None:
            if future.cancelled():
                check.step_begins()

        check.step_asked()
        queued = self._executor.submit(self._run, step.__name__, call)
        queued.add_done_callback(not_wanted)
        return queued

    def act(
        self,
        step: Callable[Concatenate[Worker, Orders, Arguments], Result],
        /,
        *args: Arguments.args,
        **kwargs: Arguments.kwargs,
    ) -> Future[Result]:
        """Queue a step that may rehearse; the namespaces that it used are ended behind it, when nobody waits."""
        result = self.submit(step, *args, **kwargs)
        end = Worker.end_namespaces
        self._executor.submit(self._run, end.__name__, lambda worker: end(worker, self.orders))
        return result

    def expect_rehearsal(self) -> None:
        """Files change, and are rehearsed soon. Queued once, however many change, and not any more after `close`: files
        go on to change while the daemon ends."""
        if not self._closed and (self._expected is None or self._expected.done()):
            self._expected = self.submit(Worker.expect_rehearsal)

    def _run(self, name: str, step: Callable[[Worker], Result]) -> Result:
        """In the worker thread."""
        worker = self._worker.result()
        self._progress.begin(name.replace("_", " "), worker.rule_count)
        try:
            with few_searches_for_garbage():
                return step(worker)
        finally:
            self._progress.end()

    def overdue(self) -> str | None:
        """The step in which the worker thread is stuck; None while it makes progress or waits."""
        return self._progress.overdue()

    def wrote(self, pid: int) -> bool:
        """Whether a process that changed the kernel was one of ours.

        A notice of the kernel has to be judged at once, so this looks into an object of the worker thread: for a number
        in a deque of numbers, which the interpreter does in one step.
        """
        return self._worker.result().wrote(pid)

    def close(self) -> None:
        """Wait until the queued steps have ended, then end the thread."""
        self._closed = True
        self.submit(Worker.close)
        self._executor.shutdown()


def report_fault(emit: Emit, context: Mapping[str, Any]) -> None:
    """Report that something failed in the event loop that no task waits for; ``context`` is that of asyncio."""
    what, trace = str(context.get("message", "unknown")), ""
    error = context.get("exception")
    if error is not None:
        what = f"{what}: {type(error).__name__}: {error}"
        trace = "".join(traceback.format_exception(error))[-LONGEST_TRACEBACK:]
    emit(events.FAULT, f"an internal error in the event loop: {what}; fwguardd continues", traceback=trace)
