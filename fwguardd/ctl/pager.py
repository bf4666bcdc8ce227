"""Long output on a terminal goes through a pager, as that of journalctl(1) does.

``$FWGUARD_PAGER`` or else ``$PAGER`` names it; an empty value, or ``cat``, means none. The default is less(1), which
ends at once where the output fits on the screen. What only a terminal needs is imported only then: for a program, or to
print the help, it would take a sixth of the time.
"""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO, cast

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator

_OPTIONS = "FRX"
"""less(1): end where all fits on the screen, show colours, leave the output on the screen at the end."""

USUAL_COLUMNS = 80
"""The width where it is not known."""

_running: list[subprocess.Popen[bytes]] = []


def is_terminal() -> bool:
    """Whether a person reads standard output: on a terminal, or in a pager on one."""
    return bool(_running) or stdout_is_terminal()


def stdout_is_terminal() -> bool:
    """Whether standard output is a terminal. A process that was started with a closed one has None in its place."""
    stdout = cast("TextIO | None", sys.stdout)
    return stdout is not None and stdout.isatty()


def terminal_columns() -> int:
    """The width of the terminal as `shutil.get_terminal_size` has it, without that module: it imports the libraries
    that compress files."""
    try:
        said = int(os.environ.get("COLUMNS", "0"))
    except ValueError:
        said = 0
    if said > 0:
        return said
    try:
        return os.get_terminal_size(cast("TextIO", sys.__stdout__).fileno()).columns or USUAL_COLUMNS
    except (AttributeError, OSError, ValueError):
        return USUAL_COLUMNS


def fitted(line: str) -> str:
    """A line, cut to the width of the terminal; for programs it stays as it is."""
    if not is_terminal():
        return line
    width = terminal_columns()
    if len(line) <= width:
        return line
    return f"{line[: width - 1]}…"


@contextmanager
def paged(*, wanted: bool) -> Iterator[None]:
    """Send standard output through the pager, if it is a terminal; wait at the end until the pager is left."""
    pager = _start(wanted=wanted)
    if pager is None or pager.stdin is None:
        yield
        return
    terminal = os.dup(sys.stdout.fileno())
    os.dup2(pager.stdin.fileno(), sys.stdout.fileno())
    pager.stdin.close()
    _running.append(pager)
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        _discard_buffered()  # The reader has left the pager, which is not an error.
    finally:
        os.dup2(terminal, sys.stdout.fileno())
        os.close(terminal)
        pager.wait()
        _running.remove(pager)


def _discard_buffered() -> None:
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    os.close(null)
    sys.stdout.flush()


def _start(*, wanted: bool) -> subprocess.Popen[bytes] | None:
    """The pager; None where output is not for a person, or where there is no pager."""
    if not wanted or not stdout_is_terminal():
        return None
    import shlex  # noqa: PLC0415 - see above.
    import subprocess  # noqa: PLC0415

    command = shlex.split(os.environ.get("FWGUARD_PAGER", os.environ.get("PAGER", "less")))
    if command in ([], ["cat"]):
        return None
    environment = {"LESS": _OPTIONS, **os.environ}
    if "SUDO_UID" in os.environ:
        environment["LESSSECURE"] = "1"  # No shell for a user that may run only fwguardctl as root.
    try:
        return subprocess.Popen(command, stdin=subprocess.PIPE, env=environment)
    except OSError:
        return None
