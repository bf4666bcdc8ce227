"""Programs that tests start, and that end with them, whatever fails."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator


def end(process: subprocess.Popen[Any]) -> None:
    """Kill a program if it still runs, wait for its end, and close what is connected to it.

    One that is forgotten makes a ResourceWarning later, which fails the test that runs then.
    """
    process.kill()
    process.wait()
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream is not None:
            stream.close()


@contextmanager
def ended_on_error(process: subprocess.Popen[Any]) -> Iterator[None]:
    """End a program if the block raises: for what has to come about after a start, before somebody can close it."""
    try:
        yield
    except BaseException:
        end(process)
        raise
