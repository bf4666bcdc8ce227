"""A program that ends without the end of its interpreter says and returns the same."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def _run(body: str, *, closed: bool = False) -> subprocess.CompletedProcess[str]:
    code = f"import atexit, sys\nfrom fwguardd.process_end import end_with\ndef run():\n    {body}\nend_with(run)\n"
    command = [sys.executable, "-c", code]
    if closed:
        command = ["sh", "-c", 'exec "$@" >&-', "sh", *command]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("print('a'); return 3", (3, "a\n", "")),
        ("print('a'); sys.exit(4)", (4, "a\n", "")),
        ("sys.exit()", (0, "", "")),
        ("sys.exit('why')", (1, "", "why\n")),
        ("atexit.register(print, 'late'); return 0", (0, "", "")),
    ],
)
def test_output_and_exit_code(body: str, expected: tuple[int, str, str]) -> None:
    """What was printed is written, the code is that of the program or of its SystemExit, and nothing runs after it."""
    ended = _run(body)
    assert (ended.returncode, ended.stdout, ended.stderr) == expected


def test_without_standard_output() -> None:
    """A process that was started with a closed standard output ends with its code too."""
    assert _run("return 3", closed=True).returncode == 3


def test_output_that_cannot_be_written_is_reported() -> None:
    """The interpreter is left to report it, and ends with 120."""
    with Path("/dev/full").open("w") as full:
        code = "from fwguardd.process_end import end_with\nend_with(lambda: print('a') or 0)\n"
        command = [sys.executable, "-E", "-c", code]  # With PYTHONUNBUFFERED= the print would fail.
        ended = subprocess.run(command, cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert ended.returncode == 120 and "No space left on device" in ended.stderr


def test_a_defect_is_shown() -> None:
    """An exception leaves as usual."""
    ended = _run("return 1 // 0")
    assert ended.returncode == 1 and "ZeroDivisionError" in ended.stderr
