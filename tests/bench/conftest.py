"""Benches: each measures something a number of times and asserts nothing about time. packaging/bench prints a table.

In packaging/test each runs once, which shows that it still runs.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Final

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    Recorder = Callable[[str, str, Iterable[float]], None]

MEASURING: Final = os.environ.get("FWGUARD_BENCH") == "1"
"""Whether the figures are wanted (packaging/bench), or only that the benches run."""

SIZES: Final = (1_000, 5_000, 10_000) if MEASURING else (1_000,)
"""Numbers of rules."""


@dataclass(frozen=True, slots=True)
class Figure:
    """What was measured, in which unit, and the values of all rounds."""

    name: str
    unit: str
    values: tuple[float, ...]

    def row(self) -> tuple[str, str, str, str, str, str]:
        """The row of the table: name, median, least, greatest, unit, rounds."""
        numbers = (median(self.values), min(self.values), max(self.values))
        middle, least, greatest = (f"{number:,.{_decimals(numbers[0])}f}" for number in numbers)
        return self.name, middle, least, greatest, self.unit, str(len(self.values))


def _decimals(number: float) -> int:
    """Three digits that count, or all those before the point."""
    return 0 if number >= 100 else 1 if number >= 10 else 2


FIGURES: Final = pytest.StashKey[list[Figure]]()


@pytest.fixture
def rounds() -> Callable[[int], int]:
    """How often to measure: as often as the bench asks for, or once in packaging/test."""
    return lambda wanted: wanted if MEASURING else 1


@pytest.fixture
def record(request: pytest.FixtureRequest) -> Recorder:
    """Takes a name, a unit and the values of all rounds, for the table."""
    figures = request.config.stash.setdefault(FIGURES, [])

    def take(name: str, unit: str, values: Iterable[float]) -> None:
        figures.append(Figure(name, unit, tuple(values)))

    return take


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print the table."""
    figures = config.stash.get(FIGURES, [])
    if not figures or not MEASURING:
        return
    rows = [("what", "median", "least", "most", "unit", "rounds"), *(figure.row() for figure in figures)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    terminalreporter.section("figures")
    for name, middle, least, most, unit, count in rows:
        numbers = "  ".join(text.rjust(width) for text, width in zip((middle, least, most), widths[1:4], strict=True))
        terminalreporter.write_line(f"{name.ljust(widths[0])}  {numbers}  {unit.ljust(widths[4])}  {count}")
    load = os.getloadavg()[0]
    terminalreporter.write_line(f"load average {load:.1f}; the figures of a busy machine say little")
