"""Runs a function in a thread of its own, beside what the caller does meanwhile: a rehearsal waits for programs most of
the time, and leaves the interpreter to others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, ParamSpec, Self, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


class RunBeside(Generic[Result]):
    """A function that runs while the body of a ``with`` statement does; `result` is what it has returned or raised."""

    def __init__(self, function: Callable[Arguments, Result], /, *args: Arguments.args, **kw: Arguments.kwargs) -> None:
        # Programs that validate nothing do without this module, which takes a tenth of their start.
        from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415

        self._executor = ThreadPoolExecutor(1, "beside")
        self._work = self._executor.submit(function, *args, **kw)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        """Wait for the end of the function."""
        self._executor.shutdown()

    def result(self) -> Result:
        """What the function has returned. Raises what it has raised."""
        return self._work.result()
