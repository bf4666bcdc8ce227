"""The process that reads a revision from the disk for the verb ``show``, and prints the whole answer.

A revision of 10,000 rules takes a second of the processor to be read and encoded. In a thread of the daemon that
second would be taken from the guard, because one thread of an interpreter runs at a time (the GIL), and every member of
the group of the control socket may ask for it. So it is a process of its own, with the lowest priority where the
sandbox permits that; the shipped unit does not.

Arguments: the state directory and the number. The exit code is one of `ExitCode`; with another one than `SHOWN` the
message is on standard error.
"""

from __future__ import annotations

import contextlib
import os
import sys
from enum import IntEnum
from pathlib import Path

from fwguardd import documents
from fwguardd.control.protocol import Answer, encode_answer
from fwguardd.store.folder import read_revision
from fwguardd.store.model import DamagedError

LOWEST_PRIORITY = 19


class ExitCode(IntEnum):
    """How the process ends."""

    SHOWN = 0
    DAMAGED = 3
    NOT_KEPT = 4
    UNREADABLE = 5


def main() -> int:
    """Print the answer."""
    with contextlib.suppress(OSError):  # A sandbox may forbid it, as fwguardd.service does.
        os.nice(LOWEST_PRIORITY)
    try:
        revision = read_revision(Path(sys.argv[1]), int(sys.argv[2]))
    except DamagedError as error:
        return _failed(ExitCode.DAMAGED, str(error))
    except FileNotFoundError as error:
        return _failed(ExitCode.NOT_KEPT, str(error))
    except OSError as error:
        return _failed(ExitCode.UNREADABLE, str(error))
    sys.stdout.buffer.write(encode_answer(Answer({**documents.show(revision)})))
    return ExitCode.SHOWN


def _failed(code: ExitCode, message: str) -> int:
    sys.stderr.write(f"{message}\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
