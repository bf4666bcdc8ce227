"""Runs tests/system on a pristine root of each supported distribution, one after the other, and prints a table.

    packaging/test --systems [--allow-unavailable] [pytest arguments]

The exit code is 0 if every distribution passed. A distribution of which no root can be made, for instance because its
archive cannot be reached, is a failure too, with the reason in its row; with --allow-unavailable it alone does not
change the exit code.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.system.roots import DISTRIBUTIONS, VARIABLE, Distribution, pristine_root

ALLOW: Final = "--allow-unavailable"


@dataclass(frozen=True, slots=True)
class Row:
    """What came of one distribution: a word, and what it rests on."""

    distribution: Distribution
    result: str
    detail: str


def run(distribution: Distribution, arguments: list[str]) -> Row:
    """Make its root, and run the tests on it."""
    os.environ[VARIABLE] = distribution.suite
    print(f"\n==> {distribution.name} ({distribution.suite})", flush=True)
    try:
        pristine_root()
    except AssertionError as error:
        print(error, flush=True)
        return Row(distribution, "unavailable", _reason(str(error)))
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        argv = [sys.executable, "-m", "pytest", f"--junitxml={report}", *(arguments or ["tests/system"])]
        code = subprocess.run(argv, check=False).returncode
        detail = _counts(report)
    if code == 0:
        return Row(distribution, "passed", detail)
    return Row(distribution, "FAILED", f"{detail} (exit code {code})")


def _counts(report: Path) -> str:
    if not report.exists():
        return "no report"
    suite = next(ET.parse(report).getroot().iter("testsuite"))
    broken = int(suite.get("failures", "0")) + int(suite.get("errors", "0"))
    return f"{suite.get('tests')} tests, {broken} failed, {float(suite.get('time', '0')):.0f} s"


def _reason(message: str) -> str:
    """The line of a failure that says why: apt marks it with W: or E:."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    marked = [line for line in lines if line.startswith(("W:", "E:"))]
    return (marked or lines)[0][:200]


def main(arguments: list[str]) -> int:
    """All distributions; the exit code."""
    allowed = {"passed", "unavailable"} if ALLOW in arguments else {"passed"}
    rest = [argument for argument in arguments if argument != ALLOW]
    rows = [run(distribution, rest) for distribution in DISTRIBUTIONS]
    print()
    for row in rows:
        print(f"{row.distribution.name:14}  {row.result:12}  {row.detail}")
    return int(not {row.result for row in rows} <= allowed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
