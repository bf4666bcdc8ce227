"""The end of a program without the end of its interpreter."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from collections.abc import Callable


def end_with(run: Callable[[], int]) -> NoReturn:
    """Run a program, and end the process with its exit code, or with that of the SystemExit that it raises.

    What the interpreter does at its end is to free every object, one by one, which takes a tenth of the processor time
    of a short program. The kernel does that at once. Nothing here is left to the end of the interpreter but the output,
    and if that cannot be written, the interpreter is left to report it.
    """
    code: object
    try:
        code = run()
    except SystemExit as ended:
        code = ended.code
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except (AttributeError, OSError, ValueError):  # Closed, or None for a process that was started without them.
        sys.exit(code)
    if not isinstance(code, int):
        sys.exit(code)
    os._exit(code)
