"""The process that asks z3: it reads questions in SMT-LIB 2 and writes answers.

It runs without the site packages, and loads the library of z3 itself: the Python module of z3 takes longer to import
than most questions take. A question and an answer are JSON strings, each on a line. z3 may recur deeply, so it runs in
a thread with a large stack.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import threading
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

_PR_SET_PDEATHSIG: Final = 1
"""linux/prctl.h: a signal for this process when the thread that started it ends."""
_STACK: Final = 256 << 20
"""Bytes. Only those that are used take memory."""


def _library(paths: Sequence[str]) -> ctypes.CDLL:
    """The first of these libraries that can be loaded. Raises OSError."""
    for path in paths[:-1]:
        try:
            return ctypes.CDLL(path)
        except OSError:
            continue
    return ctypes.CDLL(paths[-1])


class _Context:
    """A context of z3, in which what one question defines is known to the next."""

    def __init__(self, library: ctypes.CDLL, megabytes: str) -> None:
        """z3 may take this much memory."""
        self._library = library
        library.Z3_global_param_set.argtypes = [ctypes.c_char_p, ctypes.c_char_p]
        library.Z3_global_param_set(b"memory_max_size", megabytes.encode())
        library.Z3_mk_config.restype = ctypes.c_void_p
        library.Z3_mk_context.argtypes = [ctypes.c_void_p]
        library.Z3_mk_context.restype = ctypes.c_void_p
        library.Z3_eval_smtlib2_string.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
        library.Z3_eval_smtlib2_string.restype = ctypes.c_char_p
        self._context = library.Z3_mk_context(library.Z3_mk_config())
        # Its own handler of errors ends the process. The answer has the error too. A function of Python as the handler
        # may need memory that can be written and executed, which the unit of the daemon forbids.
        library.Z3_set_error_handler.argtypes = [ctypes.c_void_p, ctypes.c_void_p]
        library.Z3_set_error_handler(self._context, None)

    def answer(self, question: str) -> str:
        """What z3 prints."""
        answer: bytes = self._library.Z3_eval_smtlib2_string(self._context, question.encode())
        return answer.decode()


def _serve(paths: Sequence[str], megabytes: str) -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # What z3 prints is no answer.
    context = _Context(_library(paths), megabytes)
    for line in sys.stdin:
        answers.write(json.dumps(context.answer(json.loads(line))) + "\n")
        answers.flush()


def main() -> int:
    """Answer questions until there are no more; the exit code. The arguments are the most megabytes that z3 may take,
    and paths of its library."""
    # Without this it would go on with its last question where the process that asked was killed.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    megabytes, *paths = sys.argv[1:]
    threading.stack_size(_STACK)
    thread = threading.Thread(target=_serve, args=(paths, megabytes))
    thread.start()
    thread.join()
    return 0
