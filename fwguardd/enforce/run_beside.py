"""Runs a function in a thread of its own, beside what the caller does meanwhile: a rehearsal waits for programs most of
the time, and leaves the interpreter to others.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Generic, ParamSpec, Self, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent import futures
    from types import TracebackType

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


class RunBeside(Generic[Result]):
    """A function that runs while the body of a ``with`` statement does; `result` is what it has returned or raised.

    Where the host has no thread for it, it runs before the body.
    """

    def __init__(self, function: Callable[Arguments, Result], /, *args: Arguments.args, **kw: Arguments.kwargs) -> None:
        self._work = _begun(partial(function, *args, **kw))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        """Wait for the end of the function."""
        self._work.exception()

    def result(self) -> Result:
        """What the function has returned. Raises what it has raised."""
        return self._work.result()


def _begun(work: Callable[[], Result]) -> futures.Future[Result]:
    # Programs that validate nothing do without these modules, which take a tenth of their start.
    from concurrent.futures import Future  # noqa: PLC0415

    from fwguardd.threads import ThreadNotStartedError, finish, in_thread  # noqa: PLC0415

    try:
        return in_thread(work)
    except ThreadNotStartedError:
        future: Future[Result] = Future()
        finish(future, work)
        return future
