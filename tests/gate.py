"""Run all tests, side by side, and those few that fail once more, one after the other.

Usage: python -m tests.gate [PYTEST OPTION]...

A test may fail beside the others because it waits for a processor that they have. Such a failure is a defect of the
test, or a race in the product, and it is printed as that; but it does not say that the change under test is wrong.
What fails again, alone, fails the run, and so do more failures than `MOST_AGAIN`, an error of pytest itself, and an
interrupted run.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Final

MOST_AGAIN: Final = 40
"""Tests that are run again: fewer than 1 in 200; those of a booted machine fail together. If more fail, the reason is
not a busy machine."""

TESTS_FAILED: Final = 1
"""The exit code of pytest if all tests were run and some failed."""

SEED: Final = "FWGUARD_TEST_SEED"
"""The environment variable with the seed of both runs (tests/conftest.py)."""

CACHE: Final = Path(".pytest_cache/v/cache/lastfailed")


def main(options: list[str]) -> int:
    """The exit code of the whole run. What is run once more makes the same random choices as before."""
    os.environ.setdefault(SEED, str(random.SystemRandom().randrange(1 << 32)))
    CACHE.unlink(missing_ok=True)
    code = _pytest(*options)
    if code != TESTS_FAILED:
        return code
    failed = last_failed(CACHE)
    if not 0 < len(failed) <= MOST_AGAIN:
        return code
    print(f"\n==> pytest: {_tests(len(failed))} failed; once more, one after the other", flush=True)
    again = _pytest("--verbose", *failed)
    if again == 0:
        print(f"\n==> {_tests(len(failed))} failed beside the others and passed alone. Each is a defect to be found:")
        print("\n".join(failed), flush=True)
    return again


def last_failed(cache: Path) -> list[str]:
    """The ids of the tests that failed in the last run, which pytest keeps in its cache."""
    try:
        ids = json.loads(cache.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return []
    return sorted(ids)


def _pytest(*options: str) -> int:
    return subprocess.run([sys.executable, "-m", "pytest", *options], check=False).returncode


def _tests(count: int) -> str:
    if count == 1:
        return "1 test"
    return f"{count} tests"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
