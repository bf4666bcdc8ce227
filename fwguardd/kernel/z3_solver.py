"""z3, a solver for formulas (https://github.com/Z3Prover/z3), in a process of its own: so that a time limit holds, and
no lack of memory and no defect of it can touch this process."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from fwguardd.errors import ReportedError

if TYPE_CHECKING:
    from types import TracebackType

MODULE: Final = "z3"
_LIBRARIES: Final = ("libz3.so.4", "libz3.so")
_MOST_MEGABYTES: Final = 400

_PACKAGE_PARENT: Final = str(Path(__file__).resolve().parents[2])
_WORKER: Final = (
    f"import sys; sys.path.insert(0, {_PACKAGE_PARENT!r}); from fwguardd.kernel.z3_worker import main; sys.exit(main())"
)


class SolverMissingError(ReportedError):
    """z3 is not installed."""

    def __init__(self) -> None:
        super().__init__("z3 is not installed; install it with: apt install python3-z3")


class SolverTimeoutError(ReportedError):
    """z3 has not answered in time."""


class SolverFailedError(ReportedError):
    """z3 has ended without an answer, or reported an error."""


def is_installed() -> bool:
    """Whether there is z3."""
    return find_spec(MODULE) is not None


class Solver:
    """z3, asked until a point in time (time.monotonic()). Raises SolverMissingError, SolverFailedError."""

    def __init__(self, end: float) -> None:
        spec = find_spec(MODULE)
        if spec is None:
            raise SolverMissingError
        self._end = end
        places = map(Path, spec.submodule_search_locations or ())
        paths = [*(str(place / "lib" / "libz3.so") for place in places), *_LIBRARIES]
        argv = [sys.executable, "-I", "-S", "-B", "-c", _WORKER, str(_MOST_MEGABYTES), *paths]
        try:
            self._process = subprocess.Popen(
                argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, process_group=0
            )
        except OSError as error:
            raise SolverFailedError(f"z3 cannot be started: {error.strerror or error}") from error
        assert self._process.stdin is not None
        os.set_blocking(self._process.stdin.fileno(), False)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()

    def ask(self, text: str) -> str:
        """What z3 prints for this text. Raises SolverTimeoutError, SolverFailedError."""
        question = json.dumps(text).encode() + b"\n"
        answer = bytearray()
        while not answer.endswith(b"\n"):
            question = self._write(question)
            if not question:
                answer += self._read()
        printed: str = json.loads(answer)
        if "(error" in printed:
            raise SolverFailedError(f"z3 reports: {printed.strip()[:300]}")
        return printed

    def _write(self, data: bytes) -> bytes:
        """Write what fits; the rest."""
        assert self._process.stdin is not None
        if not data:
            return data
        stdin = self._process.stdin.fileno()
        self._wait([], [stdin])
        try:
            return data[os.write(stdin, data) :]
        except BrokenPipeError as error:
            raise SolverFailedError("z3 has ended") from error

    def _read(self) -> bytes:
        assert self._process.stdout is not None
        stdout = self._process.stdout.fileno()
        self._wait([stdout], [])
        data = os.read(stdout, 1 << 16)
        if not data:
            raise SolverFailedError("z3 has ended without an answer: it may have had too little memory")
        return data

    def _wait(self, readable: list[int], writable: list[int]) -> None:
        """Raises SolverTimeoutError."""
        left = self._end - time.monotonic()
        if left <= 0 or not any(select.select(readable, writable, [], left)):
            raise SolverTimeoutError("z3 has not answered in time")
